"""What `pack` writes, `unpack` gives back exactly: same value, same type, at every depth."""

import datetime as dt
import pathlib
import uuid
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import hypothesis.extra.numpy as hypothesis_numpy
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.runtime.core.packed import (
    BERLIN,
    Access,
    AttrsFrozen,
    AttrsSlotted,
    Color,
    Demanding,
    DictRecord,
    Doubling,
    Frozen,
    FrozenRecord,
    Guarded,
    KeywordOnly,
    Level,
    Mode,
    MyDict,
    MyInt,
    MyList,
    MyStr,
    Pair,
    Plain,
    Point,
    Record,
    Rich,
    Slotted,
    Word,
    assert_same,
    caught,
    cyclic_dataclass,
    cyclic_list,
    label,
    never_set,
    strict,
    with_attribute,
    with_total,
)

from upwell.core.packing import MAX_DEPTH, pack, unpack

Strategy = st.SearchStrategy[Any]


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
