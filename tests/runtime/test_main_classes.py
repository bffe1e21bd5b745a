"""A value of a class of `__main__`, stored by one run of a script, is of the next run's own class."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from upwell.core.packing import pack, unpack
from upwell.core.packing_main import MAX_COPY_BYTES
from upwell.serializers import DeserializationError, PickleSerializer, get_serializer

SCRIPT = """
import enum, sys, threading
from collections import namedtuple
from dataclasses import dataclass, field
from typing import NamedTuple

import attrs, msgspec
from upwell.serializers import get_serializer

class Color(enum.Enum):
    RED = 1

class Access(enum.Flag):
    READ = 1
    WRITE = 2

class Base:
    def double(self): return self.x * FACTOR

FACTOR = 2

@dataclass
class Doc(Base):
    x: int
    def again(self): return Doc(self.x)

@dataclass(frozen=True, slots=True)
class Slotted:
    x: int

class Outer:
    @dataclass
    class D:
        doc: Doc

@attrs.define
class Attrs:
    x: int

class Note(msgspec.Struct, kw_only=True, frozen=True, tag="note"):
    x: int
    text: str = "t"

class Checked(msgspec.Struct):
    x: int
    def __post_init__(self):
        if self.x < 0: raise ValueError(Checked)

class Pair(NamedTuple):
    a: int
    b: Doc

Old = namedtuple("Old", "a b")

class Err(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code
        self.add_note("a note")

class Plain:
    def __init__(self): self.x = 1
    def __eq__(self, other): return type(other) is Plain and other.x == self.x

class Keys(dict):
    pass

LOCK = threading.Lock()

@dataclass
class Locked:
    x: int
    def go(self): return LOCK

def values():
    return [Color.RED, Access.READ | Access.WRITE, Doc(1), Slotted(1), Outer.D(Doc(2)), Attrs(1), Note(x=1),
            Checked(3), Pair(1, Doc(2)), Old(1, 2), Plain(), Keys(a=Doc(1)), {Color.RED: [Doc(1), (Doc(2),)]}]

def check(read):
    for ours, theirs in zip(values(), read, strict=True):
        assert theirs == ours and type(theirs) is type(ours), (ours, theirs)
    assert read[0] is Color.RED and next(iter(read[-1])) is Color.RED
    assert read[2].double() == 2

def main(mode, path, serializer):
    serializer = get_serializer(serializer)
    if mode == "write":
        err = Err(5)
        err.__cause__ = Err(6)
        with open(path, "wb") as file:
            file.write(serializer.dumps([values(), err, Doc]))
        double = Doc.__dict__["again"]
        check(serializer.loads(serializer.dumps(values())))
        assert Doc.__dict__["again"] is double
    else:
        with open(path, "rb") as file:
            read, err, cls = serializer.loads(file.read())
        check(read)
        assert type(err) is Err and (err.code, err.args, err.__notes__) == (5, (5,), ["a note"])
        assert cls is Doc

if __name__ == "__main__":
    main(*sys.argv[1:])
"""

OTHER = """
import sys
from upwell.serializers import get_serializer
serializer = get_serializer(sys.argv[1])
with open(sys.argv[2], "rb") as file:
    data = file.read()
read, err, cls = serializer.loads(data)
assert read[2].double() == 2 and read[2].again() == read[2] and type(read[2]) is cls
assert read[4].doc.x == 2 and type(read[4].doc) is cls and type(read[4]).__qualname__ == "Outer.D"
assert (read[6].x, read[6].text, type(read[6])(x=1)) == (1, "t", read[6]), read[6]
assert type(read[7])(4).x == 4
try:
    type(read[7])(-1)
except ValueError as error:
    assert error.args == (type(read[7]),)
else:
    raise AssertionError("__post_init__ did not run")
assert read[-1][read[0]][0] == read[2]
assert err.code == 5
with open(sys.argv[3], "wb") as file:
    file.write(serializer.dumps([read, err, cls]))
"""

SERIALIZERS = ["msgpack", "pickle", "compressed/msgpack"]


def run(script: Path, *arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        capture_output=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_later_run_of_the_script_reads_instances_of_its_own_classes(tmp_path: Path, serializer: str) -> None:
    script, data = tmp_path / "script.py", tmp_path / "data"
    script.write_text(SCRIPT)
    run(script, "write", data, serializer)
    run(script, "read", data, serializer)


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_another_program_reads_copies_and_what_it_writes_is_the_scripts_own_again(
    tmp_path: Path, serializer: str
) -> None:
    script, other, data, again = (tmp_path / name for name in ("script.py", "other.py", "data", "again"))
    script.write_text(SCRIPT)
    other.write_text(OTHER)
    run(script, "write", data, serializer)
    run(other, serializer, data, again)
    run(script, "read", again, serializer)


def test_reading_instances_of_own_classes_needs_no_pickle(tmp_path: Path) -> None:
    script, data = tmp_path / "script.py", tmp_path / "data"
    script.write_text(
        "import sys\nfrom dataclasses import dataclass\nfrom upwell.core.packing import pack, unpack\n"
        "@dataclass\nclass Doc:\n    x: int\n"
        "if sys.argv[1] == 'write':\n    open(sys.argv[2], 'wb').write(pack([Doc(1)]))\n"
        "else:\n    assert unpack(open(sys.argv[2], 'rb').read()) == [Doc(1)]\n"
        "    assert not {'pickle', 'cloudpickle'} & sys.modules.keys()\n"
    )
    run(script, "write", data)
    run(script, "read", data)


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A `__main__` to define classes in; `main.run(source)` is another run with that source."""
    module: Any = ModuleType("__main__")
    names: dict[str, Any] = module.__dict__
    monkeypatch.setitem(sys.modules, "__main__", module)

    def run_source(source: str) -> None:
        for name in [name for name in names if not name.startswith("__") and name != "run"]:
            del names[name]
        exec(
            "import attrs, enum, msgspec\nfrom dataclasses import dataclass, field\nfrom typing import NamedTuple\n"
            + source,
            names,
        )

    module.run = run_source
    return module


HEADS = {
    "dataclass": "@dataclass\nclass Doc:\n",
    "slots": "@dataclass(slots=True)\nclass Doc:\n",
    "attrs": "@attrs.frozen\nclass Doc:\n",
    "struct": "class Doc(msgspec.Struct):\n",
    "struct by name": "class Doc(msgspec.Struct, kw_only=True):\n",
    "namedtuple": "class Doc(NamedTuple):\n",
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_a_field_that_was_added_has_its_default(main: Any, head: str) -> None:
    main.run(head + " x: int\n y: str")
    data = pack([main.Doc(x=1, y="a")])
    main.run(head + " y: str\n x: int\n z: int = 3")
    read = unpack(data)[0]
    assert type(read) is main.Doc
    assert read == main.Doc(x=1, y="a", z=3)


@pytest.mark.parametrize(
    ("head", "factory"),
    [("dataclass", "field"), ("slots", "field"), ("attrs", "attrs.field"), ("struct", "msgspec.field")],
)
def test_a_default_that_is_made_is_made_for_each_value(main: Any, head: str, factory: str) -> None:
    made = "factory" if head == "attrs" else "default_factory"
    main.run(HEADS[head] + " x: int")
    data = pack([main.Doc(1), main.Doc(2)])
    main.run(HEADS[head] + f" x: int\n y: list = {factory}({made}=list)")
    one, two = unpack(data)
    assert (one, two) == (main.Doc(1), main.Doc(2))
    assert one.y is not two.y


@pytest.mark.parametrize("serializer", ["msgpack", "pickle"])
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_a_field_without_default_or_one_that_is_gone_is_named_with_its_class(
    main: Any, head: str, serializer: str
) -> None:
    main.run(head + " x: int\n y: int")
    data = get_serializer(serializer).dumps({"k": main.Doc(x=1, y=2)})
    main.run(head + " x: int\n y: int\n z: int")
    with pytest.raises(DeserializationError, match=r"__main__\.Doc has the field 'z'.* give the field a default"):
        get_serializer(serializer).loads(data)
    main.run(head + " x: int")
    with pytest.raises(DeserializationError, match=r"__main__\.Doc has no field 'y'.* keep the field"):
        get_serializer(serializer).loads(data)


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_a_pickle_gives_the_default_or_says_which_field_it_cannot_fill(main: Any, head: str) -> None:
    serializer = PickleSerializer()
    main.run(head + " x: int")
    data = serializer.dumps([main.Doc(x=1)])
    main.run(head + " x: int\n y: int = 3")
    if head in (HEADS["slots"], HEADS["attrs"]):
        with pytest.raises(DeserializationError, match=r"__main__\.Doc: the field 'y' cannot be filled"):
            serializer.loads(data)
    else:
        assert serializer.loads(data) == [main.Doc(x=1, y=3)]


def test_a_pickled_struct_whose_fields_have_changed_places_is_not_mixed_up(main: Any) -> None:
    main.run(HEADS["struct"] + " x: int\n y: int")
    data = PickleSerializer().dumps(main.Doc(1, 2))
    main.run(HEADS["struct"] + " y: int\n x: int")
    with pytest.raises(DeserializationError, match="put new fields last"):
        PickleSerializer().loads(data)


def test_attributes_that_are_no_fields_are_no_change(main: Any) -> None:
    main.run(HEADS["dataclass"] + " x: int")
    value = main.Doc(1)
    value.note = "n"
    assert vars(unpack(pack(value))) == {"x": 1, "note": "n"}


def test_an_exception_that_has_got_a_field_has_its_default(main: Any) -> None:
    main.run("@dataclass\nclass Err(Exception):\n x: int")
    data = pack(main.Err(1))
    main.run("@dataclass\nclass Err(Exception):\n x: int\n y: list = field(default_factory=list)")
    read = unpack(data)
    assert (type(read), read.x, read.y) == (main.Err, 1, [])


def test_a_member_that_is_gone_is_named_with_its_enum(main: Any) -> None:
    main.run("class Color(enum.Enum):\n RED = 1")
    data = pack({main.Color.RED: 1})
    main.run("class Color(enum.Enum):\n BLUE = 1")
    with pytest.raises(DeserializationError, match=r"__main__\.Color has no member 'RED'"):
        unpack(data)


def test_a_class_that_is_of_another_kind_now_is_named(main: Any) -> None:
    main.run(HEADS["dataclass"] + " x: int")
    data = pack(main.Doc(1))
    main.run(HEADS["struct"] + " x: int")
    with pytest.raises(DeserializationError, match=r"__main__\.Doc is a class of another kind"):
        unpack(data)


@pytest.mark.parametrize("serializer", ["msgpack", "pickle"])
def test_a_value_of_a_class_that_was_replaced_stays_one_of_the_old_class(main: Any, serializer: str) -> None:
    main.run(HEADS["struct"] + " x: int")
    old = main.Doc(1)
    main.run(HEADS["struct"] + " y: int")
    read, new = get_serializer(serializer).loads(get_serializer(serializer).dumps([old, main.Doc(2)]))
    assert type(read) is type(old)
    assert type(new) is main.Doc


def test_a_class_that_cannot_go_by_value_is_data_for_those_that_have_it(main: Any) -> None:
    main.run("import threading\nLOCK = threading.Lock()\n@dataclass\nclass Doc:\n x: int\n def go(self): LOCK")
    value = main.Doc(1)
    data = pack([value])
    assert unpack(data) == [value]
    main.run("")
    with pytest.raises(DeserializationError, match=r"__main__\.Doc, which this program does not have"):
        unpack(data)


def test_a_class_that_holds_much_data_is_not_put_beside_each_value(main: Any) -> None:
    main.run("import os\nBIG = os.urandom(200_000)\n@dataclass\nclass Doc:\n x: int\n def go(self): BIG")
    assert len(pack(main.Doc(1))) < MAX_COPY_BYTES


def test_a_class_goes_along_once_however_many_its_values(main: Any) -> None:
    main.run(HEADS["struct"] + " x: int")
    one, many = (len(pack([main.Doc(1) for _ in range(count)])) for count in (1, 101))
    assert many - one < 100 * 50


def test_reading_values_of_changed_classes_leaves_nothing_behind(main: Any) -> None:
    main.run(HEADS["struct"] + " x: list")
    data = pack(main.Doc([1]))
    main.run(HEADS["struct"] + " x: list\n y: int = 0")
    unpack(data)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(50):
        unpack(data)
    gc.collect()
    assert len(gc.get_objects()) - before < 50


def test_a_local_struct_keeps_fields_and_options_where_it_is_read(tmp_path: Path) -> None:
    def post_init(self: Any) -> None:
        self.x += 1

    base = msgspec.defstruct("Base", [("some_x", int)], rename="camel", module="gone", kw_only=True)
    fields: list[Any] = [("y", list[int], msgspec.field(default_factory=list)), ("x", int, 1)]
    local = msgspec.defstruct(
        "Local", fields, bases=(base,), module="gone", tag="T", forbid_unknown_fields=True,
        namespace={"__post_init__": post_init},
    )  # fmt: skip
    data, reader = tmp_path / "data", tmp_path / "reader.py"
    data.write_bytes(pack(local(some_x=1)))
    reader.write_text(
        "import sys, msgspec\nfrom upwell.core.packing import unpack\n"
        "value = unpack(open(sys.argv[1], 'rb').read())\n"
        "assert repr(value) == 'Local(y=[], x=3, some_x=1)', value\n"
        'assert msgspec.json.encode(value) == b\'{"type":"T","y":[],"x":3,"someX":1}\', msgspec.json.encode(value)\n'
        "assert type(value).__struct_config__.forbid_unknown_fields and type(value)(some_x=1).x == 2\n"
    )
    run(reader, data)
