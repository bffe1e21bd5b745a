"""Equal values have equal digests, in every process and every Python; others differ; what has none is named."""

import asyncio
import contextlib
import copy
import datetime as dt
import enum
import functools
import io
import math
import os
import pathlib
import random
import re
import socket
import threading
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upwell.core import keys
from upwell.core.keys import HashError, digest, encoded, encoded_arguments, encoded_call
from upwell.core.keys_kinds import class_of, encode
from upwell.core.packing import pack, unpack

Strategy = st.SearchStrategy[Any]


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Mode(enum.Flag):
    A = 1
    B = 2


@dataclass
class Point:
    x: Any
    y: Any = None
    seen: int = field(default=0, compare=False)

    @cached_property
    def total(self) -> str:
        return f"{self.x}+{self.y}"


@dataclass(frozen=True, slots=True)
class Slotted:
    x: Any


@attrs.define
class Attrs:
    x: Any
    y: Any = attrs.field(default=None, eq=False)


class Struct(msgspec.Struct):
    x: Any
    y: Any = None


class Named(NamedTuple):
    x: Any
    y: Any = None


class Model(pydantic.BaseModel):
    x: Any
    y: int = 1

    @cached_property
    def total(self) -> str:
        return f"{self.x}+{self.y}"


class Plain:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    @cached_property
    def count(self) -> int:
        return len(self.__dict__)


class WithState(Plain):
    def __getstate__(self) -> dict[str, Any]:
        return {"x": self.__dict__["x"]}


class Hooked:
    def __init__(self, path: str, handle: object) -> None:
        self.path, self.handle = path, handle

    def __upwell_key__(self) -> object:
        return self.path


class Texts(set[str]): ...


class Text(str):
    __slots__ = ()


class Word(enum.StrEnum):
    A = "a"


class Level(enum.IntEnum):
    ONE = 1


class Items(list[Any]): ...


def no_keys() -> Any:
    return dict[str, int]().keys()


def double(x: int) -> int:
    return 2 * x


def adder(n: Any) -> Callable[[int], Any]:
    def add(x: int) -> Any:
        return x + n

    return add


# --- equal and unequal -----------------------------------------------------------------------------------

atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters())
    | st.binary(max_size=20)
)
hashable: Strategy = st.recursive(
    atoms
    | st.complex_numbers(allow_nan=False)
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.dates()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.sampled_from([*Color, Mode.A, Mode.A | Mode.B, pathlib.PurePosixPath("a/b"), Fraction(1, 3)]),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=4) | st.builds(Named, inner, inner),
    max_leaves=5,
)
values: Strategy = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4), inner, max_size=4)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.tuples(inner)
        | st.sets(hashable, max_size=4)
        | st.builds(Point, inner, inner)
        | st.builds(Struct, inner, inner)
        | st.builds(Attrs, inner)
    ),
    max_leaves=12,
)
plain: Strategy = st.recursive(
    atoms, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=5)
)


def shuffled(value: Any, rng: random.Random) -> Any:
    """An equal value whose dicts and sets were filled in another order."""
    if class_of(value) is dict:
        pairs = [(shuffled(key, rng), shuffled(item, rng)) for key, item in value.items()]
        rng.shuffle(pairs)
        return dict(pairs)
    if type(value) in (set, frozenset):
        items = [shuffled(item, rng) for item in value]
        rng.shuffle(items)
        return type(value)(items)
    if type(value) in (list, tuple):
        return type(value)(shuffled(item, rng) for item in value)
    return value


def told_apart(value: Any) -> Any:
    """A text that differs for values that differ in type or content."""
    cls = class_of(value)
    if cls in (set, frozenset):
        return f"{cls.__name__}{sorted(map(told_apart, value))}"
    if cls is dict:
        pairs = sorted(zip(map(told_apart, value.keys()), map(told_apart, value.values()), strict=True))
        return f"dict{pairs}"
    if issubclass(cls, list | tuple):
        return f"{cls.__name__}{[told_apart(item) for item in value]}"
    if cls in (Point, Struct, Attrs):
        return f"{cls.__name__}{told_apart(value.x)}{told_apart(value.y)}"
    if cls is dt.datetime and value.tzinfo is not None:
        return f"{value.replace(tzinfo=None)!r}{value.tzinfo!r}"
    return f"{cls.__name__}:{value!r}"


@given(values, st.randoms())
@settings(max_examples=150, deadline=None)
def test_equal_values_have_equal_digests(value: Any, rng: random.Random) -> None:
    expected = digest(value)
    assert digest(copy.deepcopy(value)) == expected
    assert digest(shuffled(value, rng)) == expected
    assert digest(unpack(pack(value))) == expected


@given(values, values)
@settings(max_examples=150, deadline=None)
def test_unequal_values_have_unequal_digests(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == (told_apart(one) == told_apart(other))


@given(plain, values)
@settings(max_examples=100, deadline=None)
def test_a_value_counts_the_same_whatever_is_beside_it(one: Any, other: Any) -> None:
    """A plain value goes the fast way alone, and the slow way beside a tuple, a huge int, a lone surrogate."""
    again = copy.deepcopy(one)
    for beside in ((), 2**70, "\ud800", other):
        assert digest([one, beside]) == digest([again, beside])
    Walk: Any = getattr(keys, "_Walk")  # noqa: B009  # a private part, looked into
    for careful in (False, True):  # the two ways write the same
        with contextlib.suppress(OverflowError, UnicodeError):
            assert encode(Walk(careful=careful).down(one)) == keys.encoded(again)


LOOKALIKES: list[Any] = [  # msgspec writes each as it does something plain
    *((), (1,), set(), {1}, frozenset({"a"}), bytearray(b"1"), memoryview(b"1"), Items([1]), OrderedDict(a=1)),
    *(Named(1), Color.RED, Word.A, Level.ONE, {Text("a"): 1}, {Word.A: [1]}, Point(1), Struct(1), Attrs(1), Decimal(1)),
    *(dt.date(2026, 1, 1), dt.time(1), dt.timedelta(1), uuid.UUID(int=1)),
]
alike: Strategy = st.recursive(
    st.sampled_from([*LOOKALIKES, None, True, 1, 1.5, "a", b"1"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", Text("c")]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(alike)
@settings(max_examples=100, deadline=None)
def test_what_msgspec_writes_as_it_does_a_plain_value_is_told_from_that(value: Any) -> None:
    twin = msgspec.msgpack.decode(encode(value))
    assert (digest(value) == digest(twin)) == (told_apart(value) == told_apart(twin))


@pytest.mark.parametrize("value", LOOKALIKES)
def test_no_lookalike_is_taken_for_what_it_looks_like(value: Any) -> None:
    twin = msgspec.msgpack.decode(encode(value))
    for one, other in [(value, twin), ([value], [twin]), ({"a": value}, {"a": twin}), ([{"a": value}], [{"a": twin}])]:
        assert digest(one) != digest(other)
        assert encoded_arguments({"x": one}) != encoded_arguments({"x": other})


DIFFERENT: list[Any] = [
    *(None, True, 1, 1.0, "1", b"1", bytearray(b"1"), Decimal(1), Fraction(1), complex(1), 0.0, -0.0, 2**64, 2**70),
    *([], (), set(), frozenset(), {}, "", b"", [[]], [()], {"a": []}, {"a": ()}, {1: 2}, {"1": 2}, {True: 2}, [1, 2]),
    *((1, 2), {1, 2}, frozenset({1, 2}), range(1, 3), deque([1, 2]), Named(1, 2), Point(1, 2), Struct(1, 2), Attrs(1)),
    *(Model(x=1), Plain(x=1), Slotted(1), {"x": 1}, SimpleNamespace(x=1), MappingProxyType({"x": 1}), Texts(), Plain()),
    *(OrderedDict(), OrderedDict(a=1, b=2), OrderedDict(b=2, a=1), defaultdict(list), defaultdict(set), Color.RED),
    *(Color.BLUE, Mode.A, Mode.A | Mode.B, "RED", dt.date(2026, 1, 1), dt.datetime(2026, 1, 1), dt.time(1), Counter()),
    *(dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Rome")), dt.timedelta(1)),
    *(pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a"), uuid.UUID(int=1), re.compile("a"), re.compile("a", 2)),
    *(double, adder(1), adder(2), functools.partial(double), functools.partial(double, 1), len, math, os, Point),
    *(int, list[int], int | str, double.__code__, Point(1).__eq__, Plain, adder, ValueError("a"), KeyError),
    *(ValueError("b"), io.BytesIO(b"a"), slice(1, 2), memoryview(b"1"), Decimal("1.0"), NotImplemented, Hooked("a", 0)),
    *(..., Struct),
]


def test_values_of_every_kind_differ_from_each_other_and_not_from_their_twins() -> None:
    digests = [digest(value) for value in DIFFERENT]
    for number, one in enumerate(digests):
        assert one not in digests[:number], f"{DIFFERENT[number]!r} and {DIFFERENT[digests.index(one)]!r}"
    assert digests == [digest(value) for value in DIFFERENT]


def test_equal_dicts_and_sets_are_equal_in_any_order() -> None:
    assert digest({"a": 1, "b": (2,)}) == digest({"b": (2,), "a": 1})
    assert digest({1: 1, "b": 2, None: 3}) == digest({None: 3, "b": 2, 1: 1})
    assert digest({"x", "y", 3}) == digest({3, "y", "x"})
    assert digest(Texts("abc")) == digest(Texts("cba"))
    assert digest(defaultdict(int, a=1, b=2)) == digest(defaultdict(int, b=2, a=1))


def test_what_equality_does_not_look_at_does_not_count() -> None:
    assert digest(Point(1, seen=3)) == digest(Point(1, seen=4))
    assert digest(Attrs(1, y=3)) == digest(Attrs(1, y=4))
    assert digest(range(0)) == digest(range(5, 5))
    assert digest(range(0, 3, 2)) == digest(range(0, 4, 2))


@pytest.mark.parametrize("make", [lambda: Point(1, 2), lambda: Model(x=1), lambda: Plain(x=1)])
def test_reading_a_cached_property_changes_nothing(make: Callable[[], Any]) -> None:
    value = make()
    before = digest(value)
    assert getattr(value, "total", None) or value.count
    assert digest(value) == before


def test_an_object_tells_by_its_state_or_its_hook_what_counts() -> None:
    assert digest(WithState(x=1, connection=socket.socket)) == digest(WithState(x=1))
    assert digest(WithState(x=1)) != digest(WithState(x=2))
    assert digest(Hooked("a", threading.Lock())) == digest(Hooked("a", None)) != digest(Hooked("b", None))


@pytest.mark.parametrize("state", [(1, 2), {3}, [(4,)]])
def test_the_variables_of_an_object_are_a_dict_like_any_other(state: Any) -> None:
    holder = Plain(x=state)
    for one, other in [(vars(holder), {"x": state}), ([vars(holder)], [{"x": state}])]:
        assert encoded(one) == encoded(other)


def test_a_pydantic_model_counts_extras_and_privates() -> None:
    class Open(pydantic.BaseModel, extra="allow"):
        _own: int = pydantic.PrivateAttr(default=1)

    one, other = Open.model_validate({"a": 1}), Open.model_validate({"a": 1})
    assert digest(one) == digest(other) != digest(Open.model_validate({"a": 2}))
    setattr(other, "_own", 2)  # noqa: B010  # as its methods would
    assert digest(one) != digest(other)


def test_classes_of_one_name_made_in_functions_are_told_apart_by_their_source() -> None:
    def first() -> Any:
        class Local:
            def value(self) -> int:
                return 1

        return Local

    def second() -> Any:
        class Local:
            def value(self) -> int:
                return 2

        return Local

    first.__qualname__ = second.__qualname__ = "make"
    one, other = first(), second()
    one.__qualname__ = other.__qualname__ = "make.<locals>.Local"
    assert digest(one()) == digest(one()) != digest(other())


# --- without an end ---------------------------------------------------------------------------------------


def test_what_contains_itself_has_a_digest_that_does_not_depend_on_where_it_stands() -> None:
    def loop(number: int) -> list[Any]:
        found: list[Any] = [number]
        found.append({"me": found})
        return found

    assert digest(loop(1)) == digest(loop(1)) != digest(loop(2))
    assert digest([0, loop(1)]) == digest([0, loop(1)])
    node = Plain(x=1)
    node.__dict__["parent"] = node
    assert digest(node) == digest(copy.deepcopy(node))


def test_what_is_nested_too_deeply_is_refused() -> None:
    deep: Any = ()
    for _ in range(20_000):
        deep = (deep,)
    with pytest.raises(HashError, match="nested too deeply"):
        digest(deep)


# --- what has no content ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (threading.Lock, "a _thread.lock has no content that is the same in another process"),
        (lambda: (x for x in [1]), "an iterator (generator) is used up by reading it; make a list of it"),
        (lambda: iter([1]), "an iterator (list_iterator) is used up"),
        (object, "an object() is told from others by its address only"),
        (asyncio.Lock, "an asyncio.locks.Lock has no content"),
        (no_keys, "a dict_keys has no content"),
        (lambda: copyless(), "(ValueError: not today)"),
    ],
)
def test_what_has_no_content_is_refused(make: Callable[[], Any], reason: str) -> None:
    with pytest.raises(HashError, match=re.escape(reason)):
        digest(make())


def copyless() -> Any:
    class NotToday:
        def __reduce__(self) -> Any:
            raise ValueError("not today")

    return NotToday()


def test_open_sockets_and_files_are_refused(tmp_path: pathlib.Path) -> None:
    with socket.socket() as connection, pytest.raises(HashError, match=r"a socket\.socket has no content"):
        digest(connection)
    with (tmp_path / "file").open("w") as file, pytest.raises(HashError, match="an open file has no content"):
        digest(file)


WRAPPED: list[tuple[Callable[[Any], Any], str]] = [
    (lambda x: [1, x], "value[1]"),
    (lambda x: (1, [x]), "value[1][0]"),
    (lambda x: {"a": {"b": x}}, "value['a']['b']"),
    (lambda x: {1: x}, "value[1]"),
    (lambda x: {x: 1}, "value key <"),
    (lambda x: {x}, "value item <"),
    (lambda x: Point(1, [x]), "value.y[0]"),
    (lambda x: Struct(x), "value.x"),
    (lambda x: Model(x=x), "value.x"),
    (lambda x: Plain(x=x), "value.x"),
    (lambda x: Hooked(x, 1), "value.__upwell_key__()"),
    (lambda x: functools.partial(double, x=x), "value.x"),
    (lambda x: adder(x), "value closure variable 'n'"),
    (lambda x: deque([0, x]), "value[1]"),
    (lambda x: defaultdict(int, a=x), "value['a']"),
    (lambda x: OrderedDict[str, Any](a=x), "value["),
]


@pytest.mark.parametrize(("wrap", "path"), WRAPPED)
def test_the_part_that_cannot_be_hashed_is_named(wrap: Callable[[Any], Any], path: str) -> None:
    with pytest.raises(HashError) as caught:
        digest(wrap(threading.Lock()))
    assert caught.value.path.startswith(path)
    assert "cannot be part of a cache key: a _thread.lock has no content" in str(caught.value)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((1, "two", 3.0, None, True, b"six"), {"b": 2, "a": "one"}),
        ((2**70,), {}),
        (("\ud800",), {"x": "\ud800"}),
        (([1], (2,)), {"x": {3}}),
        ((), {"x": (1,)}),
    ],
)
def test_a_call_is_written_as_the_pair_of_its_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    assert encoded_call(args, kwargs) == encoded((args, kwargs))


@pytest.mark.parametrize("arguments", [{}, {"b": 2, "a": "one"}, {"a": 2**70}, {"a": "\ud800"}, {"a": (1,)}])
def test_arguments_are_written_as_the_dict_of_them(arguments: dict[str, Any]) -> None:
    assert encoded_arguments(arguments) == encoded(arguments)
