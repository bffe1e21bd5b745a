"""What `pack` writes, `unpack` gives back exactly: same value, same type, at every depth."""

import datetime as dt
import enum
import os
import pathlib
import struct
import subprocess
import sys
import uuid
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import attrs
import hypothesis.extra.numpy as hypothesis_numpy
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from upwell.core import packing
from upwell.core.errors import SerializationError
from upwell.core.packing import MAX_DEPTH, pack, unpack
from upwell.core.packing_kinds import DeserializationError, class_of

T = TypeVar("T")
Strategy = st.SearchStrategy[Any]


class Color(enum.Enum):
    RED = "red"
    ROUGE = "red"  # noqa: PIE796  # an alias, as people use them
    PAIR = (1, 2)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    HELLO = "hello"


class Access(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4


class Mode(enum.IntFlag):
    A = 1
    B = 2


@dataclass
class Point:
    x: Any
    y: Any = None
    computed: Any = field(init=False, default_factory=lambda: [7], compare=False)

    @cached_property
    def total(self) -> str:
        return f"{self.x}+{self.y}"


@dataclass(frozen=True, slots=True)
class Frozen:
    x: Any
    never_set: int = field(init=False, compare=False)


@dataclass(slots=True)
class Slotted(Generic[T]):
    x: T
    __private: int = 3  # pyright: ignore[reportGeneralTypeIssues]  # a mangled slot is what is tested


@dataclass
class Strict:
    x: Any

    def __post_init__(self) -> None:
        raise AssertionError("rebuilding a dataclass runs its __post_init__")


@dataclass
class Guarded:
    x: int
    lock: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"x": self.x}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.x = state["x"]
        self.lock = "made again"


@attrs.define
class AttrsSlotted:
    x: Any
    y: int = 0


@attrs.frozen(slots=False)
class AttrsFrozen:
    x: Any
    _hidden: int = attrs.field(default=3, alias="hidden")


class Record(msgspec.Struct):
    x: Any
    y: int = 0


class FrozenRecord(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="other", gc=False):
    x: int
    y: str = "y"


class DictRecord(msgspec.Struct, dict=True):
    x: int


class Doubling(msgspec.Struct):
    x: int

    def __post_init__(self) -> None:
        self.x *= 2


class Pair(NamedTuple):
    left: Any
    right: Any = None


Plain = namedtuple("Plain", ["a", "b"])  # noqa: PYI024  # pyright: ignore[reportUntypedNamedTuple]  # the untyped form is what is tested


class Rich(Pair):
    """A namedtuple that has room for attributes."""


class MyDict(dict[Any, Any]):
    pass


class MyList(list[Any]):
    pass


class MyInt(int):
    pass


class MyStr(str):
    __slots__ = ()


class Demanding(Exception):
    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class KeywordOnly(ValueError):
    def __init__(self, *, why: Any) -> None:
        super().__init__(why)
        self.why = why


default_state: Any = object.__getstate__


def canonical(value: Any) -> Any:
    """`value` with all that must come back the same spelled out, so that `==` compares it."""
    cls: Any = class_of(value)
    content: Any = value
    if cls is float:
        content = struct.pack(">d", value)
    elif cls is complex:
        content = struct.pack(">dd", value.real, value.imag)
    elif issubclass(cls, np.ndarray | np.generic):
        # A view with gaps or turned round comes back without the gaps, so only its contents count.
        content = (value.dtype, value.dtype.char, value.shape, value.tobytes())
    elif issubclass(cls, dict):
        content = [(canonical(key), canonical(item)) for key, item in value.items()]
    elif issubclass(cls, set | frozenset):
        content = sorted(repr(canonical(item)) for item in value)
    elif issubclass(cls, list | tuple | deque):
        content = [canonical(item) for item in value]
    elif issubclass(cls, BaseException):
        related = (value.__cause__, value.__context__, value.__suppress_context__)
        return [cls, canonical(value.args), canonical(value.__dict__), *map(canonical, related)]
    elif issubclass(cls, dt.datetime | dt.time):
        content = (repr(value.replace(tzinfo=None)), value.fold, canonical(value.tzinfo))
    elif issubclass(cls, Decimal | range | dt.tzinfo | enum.Enum | pathlib.PurePath):
        return (cls, repr(value))
    elif issubclass(cls, msgspec.Struct):
        content = [canonical(getattr(value, name)) for name in value.__struct_fields__]
    elif hasattr(cls, "__dataclass_fields__") or hasattr(cls, "__attrs_attrs__"):
        return (cls, canonical(default_state(value)))
    attributes = None if isinstance(value, type) else getattr(value, "__dict__", None)
    return (cls, content, canonical(attributes) if attributes else None)


def assert_same(value: Any) -> Any:
    again = unpack(pack(value))
    assert canonical(again) == canonical(value)
    return again


@pytest.fixture
def no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be pickled: what is written is data."""

    def refuse() -> Any:
        raise AssertionError("this value is pickled, and should not be")

    monkeypatch.setattr(packing, "pickle_dumps", refuse)


def never_set() -> Point:
    point = Point(1)
    del point.y
    return point


def with_total() -> Point:
    point = Point(1, 2)
    assert point.total == "1+2"
    return point


def with_attribute(value: Any, **attributes: Any) -> Any:
    value.__dict__.update(attributes)
    return value


def caught(error: BaseException, cause: BaseException | None = None) -> BaseException:
    error.add_note("a note")
    error.__cause__ = cause
    error.__context__ = KeyError("context")
    return error


def strict() -> Strict:
    value = object.__new__(Strict)
    value.x = (1,)
    return value


BERLIN = ZoneInfo("Europe/Berlin")
DATA: list[Any] = [
    *(None, True, False, 0, -1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**400, -(10**400)),
    *(0.0, -0.0, float("nan"), float("inf"), -float("inf"), 5e-324, complex(-0.0, float("nan"))),
    *("", "x", "ä\0", "\ud800", {"\udfff": "\ud800"}, {2**70: "big"}, b"", b"\x00", bytearray(b"ab")),
    *(
        [],
        (),
        set[int](),
        frozenset[int](),
        {},
        [[]],
        ((),),
        {(): ()},
        {frozenset({1}): {(1, "a"): set[int]()}},
    ),
    *({1: "int", None: "none", b"b": 0, 2.5: 0, "s": 0}, {"z": 1, "a": 2}, {"x": {"y": [1, (2, [3, {4}])]}}),
    *(range(0), range(3, 10**30, 7), Color.RED, Color.ROUGE, Color.PAIR, Level.HIGH, Word.HELLO),
    *(Access(0), Access.READ, Access.READ | Access.RUN, Mode.A | Mode.B, Mode(8)),
    *(Point(1, (2,)), never_set(), with_total(), Frozen({1}), Slotted[object]((1,)), strict()),
    *(AttrsSlotted((1,)), AttrsFrozen([1.5])),
    *(Record((1,)), FrozenRecord(x=1), with_attribute(DictRecord(1), extra=(1,)), Doubling(4)),
    *(Pair(1, (2,)), Plain([1], "\ud800"), with_attribute(Rich(1), extra=(2,))),
    *(
        dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
        dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN),
    ),
    *(dt.datetime.min, dt.datetime.max.replace(tzinfo=dt.UTC), dt.date.max, dt.time(1, 2, 3, 4, fold=1)),
    *(dt.timezone(dt.timedelta(hours=1), "mine"), dt.timezone(-dt.timedelta(seconds=1)), dt.timedelta.min),
    *(dt.time(1, tzinfo=dt.UTC), BERLIN, Decimal("-0.00"), Decimal("sNaN12"), Decimal("1E-999999")),
    *(uuid.UUID(int=7), pathlib.Path("a/../b"), pathlib.PurePosixPath("/"), pathlib.PureWindowsPath("c:/x")),
    *(pathlib.Path("\udcff"), ValueError(), KeyError((1,)), OSError(2, "gone", "file"), StopIteration(3)),
    *(Demanding(1, "x"), KeywordOnly(why=(1,)), caught(Demanding(2, "y"), cause=OSError(1, "z"))),
    *(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), SyntaxError("m", ("f", 1, 2, "t", 1, 3))),
    *(
        ExceptionGroup("g", [ValueError(1), Demanding(3, "z")]),
        KeyboardInterrupt(),
        ImportError("i", name="n"),
    ),
    *(
        np.float32(1.5),
        np.float64("nan"),
        np.longlong(3),
        np.int64(3),
        np.bool_(True),
        np.str_("é"),
        np.bytes_(b""),
    ),
    *(np.datetime64("2024-01-01", "ns"), np.timedelta64("NaT"), np.complex64(1j), np.longdouble(1) / 3),
    *(np.array(5), np.array([]), np.zeros((0, 3)), np.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3).T),
    *(np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2), np.arange(6)[::-2], np.arange(3, dtype=">i2")),
    *(np.array(["a", "bcd"]), np.array([b"x"]), np.array(["2024"], "M8[D]"), np.array([1], np.longlong)),
]
PICKLED: list[Any] = [
    *(MyDict({(1,): 2}), MyList([1]), MyInt(3), MyStr("s"), OrderedDict(b=1, a=(2,)), Fraction(1, 3)),
    *(defaultdict(list, {"a": [1]}), deque([1, 2], 5), ..., int, len, Guarded),
    *(np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")]), np.array((1,), [("a", "i2")])[()]),
    np.dtype("f4"),
]


def label(value: Any) -> str:
    return type(value).__name__


@pytest.mark.usefixtures("no_pickle")
@pytest.mark.parametrize("value", DATA, ids=label)
def test_data_comes_back_exactly_and_is_never_pickled(value: Any) -> None:
    assert_same(value)
    assert_same([value, {"inside": (value,)}])


@pytest.mark.parametrize("value", PICKLED, ids=label)
def test_what_no_kind_carries_comes_back_exactly_through_pickle(value: Any) -> None:
    assert_same(value)
    assert_same({"inside": [1, value]})


hashable_leaves: Strategy = st.one_of(
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.binary(max_size=9),
    st.text(st.characters(exclude_categories=()), max_size=9),
    st.sampled_from([2**64 - 1, 2**64, -(2**63) - 1, Color.RED, Level.LOW, Word.HELLO, Access.READ | Access.RUN]),
    st.datetimes(timezones=st.sampled_from([None, dt.UTC, BERLIN, ZoneInfo("Asia/Kolkata")]), allow_imaginary=True),
    st.dates() | st.times() | st.timedeltas() | st.decimals(allow_nan=False) | st.uuids(),
    st.builds(pathlib.PurePosixPath, st.text("ab/.", max_size=6)) | st.builds(range, st.integers(), st.integers()),
    hypothesis_numpy.from_dtype(np.dtype("f4")) | hypothesis_numpy.from_dtype(np.dtype("i8")),
)
hashables: Strategy = st.recursive(
    hashable_leaves,
    lambda inner: st.one_of(
        st.tuples(inner, inner),
        st.frozensets(inner, max_size=3),
        st.builds(Frozen, inner),
        st.builds(AttrsFrozen, inner),
        st.builds(Pair, inner, inner),
    ),
    max_leaves=4,
)
arrays: Strategy = hypothesis_numpy.arrays(
    hypothesis_numpy.scalar_dtypes(),
    hypothesis_numpy.array_shapes(min_dims=0, max_dims=3, max_side=3, min_side=0),
)
leaves = hashable_leaves | arrays | st.builds(bytearray, st.binary(max_size=9)) | st.builds(Demanding)


def containers(inner: Strategy) -> Strategy:
    def both(make: Callable[..., Any]) -> Strategy:
        return st.builds(make, inner, inner)

    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(hashables, inner, max_size=3),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.sets(hashables, max_size=3),
        both(Point) | both(Pair) | both(Plain),
        st.builds(Slotted, inner) | st.builds(AttrsSlotted, inner) | st.builds(Record, inner),
        st.builds(KeywordOnly, why=inner),
    )


QUICK = settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@QUICK
@given(st.recursive(leaves, containers, max_leaves=8))
def test_any_nesting_of_data_comes_back_exactly(value: Any) -> None:
    assert_same(value)


lists_of_mine = st.lists(hashable_leaves, max_size=3).map(MyList)  # pickle itself cannot carry all that we do


@settings(QUICK, max_examples=400)
@given(st.recursive(leaves | st.sampled_from(PICKLED) | lists_of_mine, containers, max_leaves=6))
def test_any_nesting_of_data_and_pickled_parts_comes_back_exactly(value: Any) -> None:
    assert_same(value)


@given(
    st.recursive(
        st.none() | st.integers() | st.floats(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
@settings(QUICK, max_examples=60)
def test_plain_values_are_what_msgspec_writes(value: Any) -> None:
    try:
        expected = msgspec.msgpack.encode(value)
    except OverflowError:
        return
    assert pack(value) == expected


def test_the_state_a_class_chooses_is_honoured() -> None:
    again = unpack(pack([Guarded(5, lock=object())]))[0]
    assert type(again) is Guarded
    assert (again.x, again.lock) == (5, "made again")


@pytest.mark.usefixtures("no_pickle")
def test_a_rebuilt_array_is_writable_and_its_own() -> None:
    array = np.arange(1000.0)
    data = bytearray(pack({"a": array}))
    again = unpack(data)["a"]
    data[:] = bytes(len(data))
    assert (again == array).all()
    again[0] = 5
    assert again.flags.owndata


def test_an_object_array_is_pickled_and_kept() -> None:
    array = np.array([1, "a", (2,)], dtype=object)
    again = unpack(pack([array]))[0]
    assert again.dtype == array.dtype
    assert again.tolist() == [1, "a", (2,)]


def local_classes() -> list[Any]:
    @dataclass
    class Local:
        x: int

    class LocalColor(enum.Enum):
        BLUE = 1

    class LocalRecord(msgspec.Struct):
        x: int

    class LocalError(Exception):
        pass

    return [Local((1, 2)[0]), LocalColor.BLUE, LocalRecord(1), LocalError("x")]


@pytest.mark.parametrize("value", local_classes(), ids=label)
def test_a_class_that_cannot_be_imported_travels_by_value(value: Any) -> None:
    again = unpack(pack({"k": (value,)}))["k"][0]
    assert type(again) is type(value)
    assert repr(again) == repr(value)


def test_a_function_travels_by_value() -> None:
    offset = 40
    assert unpack(pack([lambda: offset + 2]))[0]() == 42


def cyclic_list() -> Any:
    value: list[Any] = [(1,)]
    value.append(value)
    return value


def cyclic_dataclass() -> Any:
    value = Point(1)
    value.y = {"back": [value]}
    return value


def test_a_value_that_contains_itself_comes_back_containing_itself() -> None:
    again = unpack(pack(cyclic_list()))
    assert again[0] == (1,)
    assert again[1] is again
    point = unpack(pack(cyclic_dataclass()))
    assert point.y["back"][0] is point


WRAPS: dict[str, Callable[[Any], Any]] = {
    "list": lambda inner: [inner],
    "tuple": lambda inner: (inner,),
    "dict": lambda inner: {"k": inner},
    "dataclass": Point,
    "namedtuple": Pair,
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_nesting_deeper_than_is_carried_one_by_one_still_comes_back(wrap: Callable[[Any], Any]) -> None:
    for depth in (MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, MAX_DEPTH + 2, 150):
        value: Any = 1
        for _ in range(depth):
            value = wrap(value)
        assert_same(value)


AROUND_A_BAD_PART: dict[str, Callable[[Any], Any]] = {
    "value": lambda bad: bad,
    "value['a'][3]": lambda bad: {"a": [0, 1, 2, bad]},
    "value['a'][0].y[3]": lambda bad: {"a": (Point(1, {3: bad}),)},
    "value[0].x.x": lambda bad: [Frozen(Slotted[object](bad))],
    "value.x.x": lambda bad: Record(AttrsSlotted(bad)),
    "value.right": lambda bad: Pair(1, bad),
    "value.args[1]": lambda bad: KeyError(1, bad),
    "value['in']": lambda bad: MyDict({"in": bad}),
}


@pytest.mark.parametrize("where", AROUND_A_BAD_PART)
def test_what_nothing_carries_is_named_by_its_path(where: str) -> None:
    value = AROUND_A_BAD_PART[where]
    with pytest.raises(SerializationError) as raised:
        pack(value(x for x in "generator"))
    assert str(raised.value).startswith(f"{where}: builtins.generator cannot be serialized")
    assert "turn it into data" in str(raised.value)


def test_a_cycle_around_what_nothing_carries_is_an_error_too() -> None:
    value = cyclic_list()
    value.append(x for x in "generator")
    with pytest.raises(SerializationError, match=r"^value\[2\]: builtins.generator"):
        pack(value)


class Unreadable(Exception):
    def __reduce__(self) -> Any:
        return Demanding, (1,)


def test_what_pickle_writes_but_cannot_read_is_refused_when_written() -> None:
    with pytest.raises(SerializationError, match=r"value\[0\]: sys.version_info cannot be serialized"):
        pack([sys.version_info])
    with pytest.raises(SerializationError, match=r"value\[0\]: .*Unreadable cannot be serialized.*detail"):
        pack([Unreadable()])


def test_a_cause_that_nothing_carries_leaves_its_words_behind() -> None:
    again = unpack(pack(caught(Demanding(1, "x"), cause=ValueError("the cause", (x for x in "g")))))
    assert again.code == 1
    assert isinstance(again.__cause__, RuntimeError)
    assert "ValueError: ('the cause'" in str(again.__cause__)


def test_a_getter_that_raises_is_an_error_of_the_value() -> None:
    class Broken:
        def __getstate__(self) -> Any:
            raise ZeroDivisionError("in getstate")

    with pytest.raises(SerializationError, match=r"value\['b'\]: .*Broken .*ZeroDivisionError: in getstate"):
        pack({"b": Broken()})


def test_a_class_that_is_gone_is_named_when_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pack(Point(1))
    monkeypatch.delattr(sys.modules[__name__], "Point")
    with pytest.raises(DeserializationError, match=r"names a class that cannot be imported here .*'Point'"):
        unpack(data)


def test_a_class_that_was_replaced_is_not_confused_with_the_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Guarded(1)
    pack(old)
    monkeypatch.setattr(sys.modules[__name__], "Guarded", type("Guarded", (), {}))
    assert type(unpack(pack([old]))[0]) is type(old)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x92\x01", pack((1,))[:-1], b"\xc7\x00\x7f", b"\x01\x02"])
def test_damaged_data_is_an_error_that_says_so(data: bytes) -> None:
    with pytest.raises(DeserializationError, match="stored data cannot be read"):
        unpack(data)


MODULE = """
import enum
from dataclasses import dataclass
from typing import Any
import msgspec

class Kind(enum.Enum):
    A = 1

@dataclass(frozen=True)
class Item:
    kind: Kind
    parts: Any

class Note(msgspec.Struct):
    item: Item
"""

CHILD = """
import sys
from upwell.core.packing import pack, unpack
value = unpack(sys.stdin.buffer.read())
import importable_items as items
assert value == [items.Note(items.Item(items.Kind.A, ({1}, b"x")))], value
assert type(value[0]) is items.Note and value[0].item.kind is items.Kind.A
assert "numpy" not in sys.modules and "cloudpickle" not in sys.modules
sys.stdout.buffer.write(pack(value))
"""


def test_classes_of_an_importable_module_cross_to_a_new_process_and_back(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "importable_items.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    items: Any = __import__("importable_items")
    monkeypatch.delitem(sys.modules, "importable_items")  # undone: forgotten when the test ends
    monkeypatch.setitem(sys.modules, "importable_items", items)
    value = [items.Note(items.Item(items.Kind.A, ({1}, b"x")))]
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=pack(value),
        capture_output=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr.decode()
    assert canonical(unpack(done.stdout)) == canonical(value)


MAIN = """
from dataclasses import dataclass
from upwell.core.packing import pack, unpack

@dataclass
class Mine:
    x: int

again = unpack(pack([Mine((1,)), lambda: 5]))
assert type(again[0]) is Mine and again[0] == Mine((1,)) and again[1]() == 5
"""


def test_classes_and_functions_of_main_come_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN],
        capture_output=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.usefixtures("no_pickle")
def test_an_array_keeps_its_order_in_memory() -> None:
    for array in (np.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3).T):
        again = unpack(pack([array]))[0]
        assert (again.flags.c_contiguous, again.flags.f_contiguous) == (
            array.flags.c_contiguous,
            array.flags.f_contiguous,
        )


def test_keys_stay_hashable() -> None:
    key: Hashable = (1, (frozenset({2}), Frozen(3)))
    assert_same({Level.LOW: 1, Pair(1, 2): 2, (1,): 3, dt.date(2024, 1, 1): 4, Color.RED: key})
