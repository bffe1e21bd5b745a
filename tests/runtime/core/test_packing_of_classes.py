"""How users' classes and functions are packed: by name, by value, by what they say, for another process."""

import enum
import os
import pathlib
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from tests.runtime.core import packed
from tests.runtime.core.packed import Guarded, Point, canonical, label

from upwell.core.packing import pack, unpack
from upwell.core.packing_kinds import DeserializationError


def test_the_state_a_class_chooses_is_honoured() -> None:
    again = unpack(pack([Guarded(5, lock=object())]))[0]
    assert type(again) is Guarded
    assert (again.x, again.lock) == (5, "made again")


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


def test_a_class_that_is_gone_is_named_when_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pack(Point(1))
    monkeypatch.delattr(packed, "Point")
    with pytest.raises(DeserializationError, match=r"names a class that cannot be imported here .*'Point'"):
        unpack(data)


def test_a_class_that_was_replaced_is_not_confused_with_the_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Guarded(1)
    pack(old)
    monkeypatch.setattr(packed, "Guarded", type("Guarded", (), {}))
    assert type(unpack(pack([old]))[0]) is type(old)


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
