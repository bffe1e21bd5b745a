"""What cannot be packed or read is refused, by its place and with what to do."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
from tests.runtime.core.packed import (
    AttrsSlotted,
    Demanding,
    Frozen,
    MyDict,
    Pair,
    Point,
    Record,
    Slotted,
    caught,
    cyclic_list,
)

from upwell.core.errors import SerializationError
from upwell.core.packing import pack, unpack
from upwell.core.packing_kinds import DeserializationError

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


def test_a_coroutine_is_told_that_nobody_has_run_it() -> None:
    async def later() -> None: ...

    coroutine = later()
    with pytest.raises(SerializationError, match=r"^value\[0\]: .*nobody has run it: .*`async def`.* await it"):
        pack([coroutine])
    coroutine.close()


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


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x92\x01", pack((1,))[:-1], b"\xc7\x00\x7f", b"\x01\x02"])
def test_damaged_data_is_an_error_that_says_so(data: bytes) -> None:
    with pytest.raises(DeserializationError, match="stored data cannot be read"):
        unpack(data)
