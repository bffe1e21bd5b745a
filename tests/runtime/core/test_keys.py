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
import subprocess
import sys
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
from upwell.core.keys import HashError, digest
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
    if type(value) is dict:
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
    cls = type(value)
    if cls in (set, frozenset):
        return f"{cls.__name__}{sorted(map(told_apart, value))}"
    if cls is dict:
        return f"dict{sorted((told_apart(key), told_apart(item)) for key, item in value.items())}"
    if isinstance(value, list | tuple):
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
    for careful in (False, True):  # the two ways write the same
        with contextlib.suppress(OverflowError, UnicodeError):
            assert keys.encode(keys._Walk(careful=careful).down(one)) == keys.encoded(again)


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
    *(int, list[int], int | str, double.__code__, Point(1).__eq__, Plain, lambda x: x, ValueError("a"), KeyError),
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


def test_a_pydantic_model_counts_extras_and_privates() -> None:
    class Open(pydantic.BaseModel, extra="allow"):
        _own: int = pydantic.PrivateAttr(default=1)

    one, other = Open.model_validate({"a": 1}), Open.model_validate({"a": 1})
    assert digest(one) == digest(other) != digest(Open.model_validate({"a": 2}))
    other._own = 2
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


# --- functions --------------------------------------------------------------------------------------------


def made(source: str, **around: Any) -> Any:
    """A function without source to be found."""
    exec(source, around)
    return around["f"]


def test_a_function_counts_with_its_defaults_and_closure() -> None:
    assert digest(adder(1)) == digest(adder(1)) != digest(adder(2))
    assert digest(adder([1])) != digest(adder([2]))
    assert digest(made("def f(x=1): return x")) == digest(made("def f(x=1): return x"))
    assert digest(made("def f(x=1): return x")) != digest(made("def f(x=2): return x"))
    assert digest(made("def f(*, x=1): return x")) != digest(made("def f(*, x=2): return x"))
    assert digest(made("def f(x): return x + 1")) != digest(made("def f(x): return x + 2"))
    assert digest(made("def f(x): return lambda: 1")) != digest(made("def f(x): return lambda: 2"))


def test_two_lambdas_of_one_line_differ() -> None:
    one, other = lambda x: x + 1, lambda x: x + 2
    assert digest(one) != digest(other)


def test_a_function_that_refers_to_itself_has_a_digest() -> None:
    def countdown(n: int) -> int:
        return n and countdown(n - 1)

    assert digest(countdown) == digest(countdown)


def test_a_cached_function_counts_as_what_it_wraps() -> None:
    assert digest(functools.lru_cache(adder(1))) == digest(functools.lru_cache(adder(1)))
    assert digest(functools.lru_cache(adder(1))) != digest(functools.lru_cache(adder(2)))


def test_tasks_and_flows_count_by_name_and_source() -> None:
    from upwell import flow, task

    assert digest(task(double)) == digest(task(double, retries=3)) != digest(task(double, name="other"))
    assert digest(task(double)) != digest(flow(double))
    assert digest(task(adder(1))) != digest(task(adder(2)))


# --- arrays -----------------------------------------------------------------------------------------------


def test_arrays_count_by_dtype_shape_and_content_however_they_lie_in_memory() -> None:
    np = pytest.importorskip("numpy")
    big = np.arange(40_000.0).reshape(100, 400)
    for array in (np.arange(12).reshape(3, 4), big):
        expected = digest(array)
        assert digest(np.asfortranarray(array)) == expected
        assert digest(np.repeat(array, 2, axis=0)[::2]) == expected
        assert digest(array.astype(array.dtype.newbyteorder(">"))) != expected
        assert digest(array.T) != expected
        assert digest(array.ravel()) != expected
        assert digest(array.tolist()) != expected
        changed = array.copy()
        changed[-1, -1] += 1
        assert digest(changed) != expected
    assert digest(np.zeros(3, "i4")) != digest(np.zeros(3, "f4"))
    assert digest(np.array([1, "a", None], object)) == digest(np.array([1, "a", None], object))
    assert digest(np.array([1, "a", None], object)) != digest(np.array([1, "a", 0], object))
    assert digest(np.float64(1)) == digest(np.float64(1)) != digest(1.0) != digest(np.float32(1))
    assert digest(np.array(5)) != digest(np.int64(5))
    assert digest(np.empty((0, 3))) != digest(np.empty((3, 0)))
    assert digest(np.longdouble(1) / 3) == digest(np.longdouble(1) / 3)
    assert digest(np.array(["2026-01-01"], "M8[D]")) != digest(np.array(["2026-01-01"], "M8[s]"))


def test_what_nobody_can_read_in_an_array_does_not_count() -> None:
    np = pytest.importorskip("numpy")
    padded = np.dtype([("a", "i1"), ("b", "i8")], align=True)
    ones, zeros = np.frombuffer(b"\x01" * 16, padded).copy(), np.zeros(1, padded)
    zeros["a"], zeros["b"] = ones["a"], ones["b"]
    assert digest(ones) == digest(zeros)
    assert digest(np.ma.array([1, 2], mask=[0, 1])) == digest(np.ma.array([1, 3], mask=[0, 1]))
    assert digest(np.ma.array([1, 2], mask=[0, 1])) != digest(np.ma.array([1, 2], mask=[0, 0]))


def test_tables_count_by_labels_dtypes_and_content() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", None], "c": pd.to_datetime(["2026-01-01"] * 3, utc=True)})
    assert digest(frame) == digest(frame.copy()) == digest(pd.concat([frame[["a"]], frame[["b", "c"]]], axis=1))
    twin = frame[["a", "b"]].copy()
    twin["c"] = frame["c"]
    assert digest(twin) == digest(frame)
    variants = [
        frame.assign(a=[1, 2, 4]),
        frame.rename(columns={"a": "z"}),
        frame.set_index("a"),
        frame[["b", "a", "c"]],
        frame.astype({"a": "float64"}),
        frame.astype({"a": "Int64"}),
        frame.astype({"b": "category"}),
        frame["a"],
        frame.index,
        frame.set_index(["a", "b"]).index,
        frame.iloc[::-1],
        pd.Timestamp("2026-01-01"),
        pd.NA,
        pd.NaT,
    ]
    digests = {digest(variant) for variant in [frame, *variants]}
    assert len(digests) == len(variants) + 1
    assert digests == {digest(copy.deepcopy(variant)) for variant in [frame, *variants]}


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
        (lambda: {}.keys(), "a dict_keys has no content"),
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


@pytest.mark.parametrize(
    ("wrap", "path"),
    [
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
        (lambda x: OrderedDict(a=x), "value["),
    ],
)
def test_the_part_that_cannot_be_hashed_is_named(wrap: Callable[[Any], Any], path: str) -> None:
    with pytest.raises(HashError) as caught:
        digest(wrap(threading.Lock()))
    assert caught.value.path.startswith(path)
    assert "cannot be part of a cache key: a _thread.lock has no content" in str(caught.value)


# --- other processes --------------------------------------------------------------------------------------

ELSEWHERE = """
import datetime as dt, decimal, enum, fractions, functools, pathlib, re, sys, uuid, zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
sys.path.insert(0, sys.argv[1])
from upwell.core.keys import digest

class Color(enum.Enum):
    RED = 1

@dataclass
class Point:
    x: object

class Plain:
    def __init__(self): self.words, self.number = {"ab", "cd", "ef"}, 1

def f(x: int, *rest, y=(1, 2)):
    'A docstring.'
    total = f"{x!r:>{10}} {y:}" "tail"  # a comment
    if x in {"a", "b", "c"}:
        return [n for n in x if n] if None else lambda z: (z, -1, 2**70, 1j, ...)
    match x:
        case {"a": [1, *others]}: return others
    try: raise ValueError
    except* KeyError: total += 1

values = [
    None, True, 1, -1, 2**70, 1.5, "\\u00e4\\ud800", b"x", [1, (2, {3, "four", None})], {"b": 1, "a": [2]},
    frozenset({"p", "q", "r"}), Color.RED, Point([1]), Plain(), dt.timedelta(1), {1: 2, "x": 3}, range(3), 1j,
    dt.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")), dt.timezone(dt.timedelta(hours=1)),
    decimal.Decimal("1.0"), fractions.Fraction(1, 3), uuid.UUID(int=5), pathlib.PurePosixPath("a/b"),
    re.compile("a+"), deque([1], 3), OrderedDict(a=1), defaultdict(list, a=[1]), Counter("aab"),
    functools.partial(int, base=2), int, len, re, ..., slice(1), list[int], ValueError("x"), bytearray(b"1"), Point, f,
]
print(*[digest(value).hex() for value in values])
"""

GOLDEN = "feb1e811834c33d3a1a4fb8944d3c32e"
"""A digest of all those digests: the same for 3.11 to 3.13. If it changes, every key that was ever stored is lost."""


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_digests_are_the_same_in_every_process_and_python(tmp_path: pathlib.Path, hash_seed: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(ELSEWHERE)
    sources = str(pathlib.Path(sys.modules["upwell"].__path__[0]).parent)
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, str(script), sources]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert len(set(printed)) == len(printed)
    assert digest(printed).hex() == GOLDEN


def test_a_script_has_the_same_keys_where_a_process_has_imported_it_under_another_name() -> None:
    there = type("Local", (), {"__module__": "__mp_main__"})
    here = type("Local", (), {"__module__": "__main__"})
    assert digest(there()) == digest(here())
