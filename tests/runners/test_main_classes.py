"""Classes of `__main__` in the process pool: one class in the child, and the parent's own when it is back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import enum
from dataclasses import dataclass, field
from typing import NamedTuple

import attrs, msgspec
from upwell import flow, task

class Color(enum.Enum):
    RED = 1

class Base(msgspec.Struct):
    x: int

class Note(Base, kw_only=True, frozen=True, tag="note"):
    tags: list[str] = msgspec.field(default_factory=list)
    def __post_init__(self):
        assert type(self) is Note
    def next(self):
        return Note(x=self.x + 1, tags=[*self.tags, "n"])

@dataclass
class Doc:
    color: Color
    made = 0
    def __post_init__(self):
        Doc.made += 1

class Outer:
    @dataclass(frozen=True, slots=True)
    class D:
        doc: Doc

@attrs.define
class Attrs:
    x: int

class Pair(NamedTuple):
    a: int
    b: Note

class Err(Exception):
    def __init__(self, note):
        super().__init__(note)
        self.note = note

def values():
    return [Color.RED, Note(x=1), Doc(Color.RED), Outer.D(Doc(Color.RED)), Attrs(1), Pair(1, Note(x=2)),
            {Color.RED: Note(x=3)}]

CLASSES = [Color, Note, Doc, Outer.D, Attrs, Pair, dict]

@task(task_runner="processes")
def there_and_back(given):
    for value, cls in zip(given, CLASSES, strict=True):
        assert type(value) is cls, (value, cls)
    assert given == values() and given[0] is Color.RED and given[-1][Color.RED] == Note(x=3)
    assert [cls.__qualname__ for cls in CLASSES[2:4]] == ["Doc", "Outer.D"]
    return given, values(), Note, Outer.D

@task(task_runner="processes")
def following(note):
    assert isinstance(note, Note) and type(note) is Note
    return note.next()

@task(task_runner="processes")
def fail(note):
    raise Err(note)

@task(task_runner="processes")
def count(doc):
    Doc.made += 1
    return Doc.made

@flow
def main():
    method = Doc.__post_init__
    given, made, note_class, nested_class = there_and_back.submit(values()).result()
    for read in (given, made):
        assert read == values() and [type(value) for value in read] == CLASSES, read
        assert read[0] is Color.RED and read[-1][Color.RED].next() == Note(x=4, tags=["n"])
    assert note_class is Note and nested_class is Outer.D
    assert Doc.__post_init__ is method
    notes = [future.result() for future in following.map([Note(x=x) for x in range(300)])]
    assert notes == [Note(x=x + 1, tags=["n"]) for x in range(300)] and {type(note) for note in notes} == {Note}
    try:
        fail.submit(Note(x=1)).result()
    except Err as error:
        assert error.note == Note(x=1) and type(error.note) is Note
    else:
        raise AssertionError("nothing was raised")
    doc, before = Doc(Color.RED), Doc.made
    assert count.submit(doc).result() > 0
    assert Doc.made == before

if __name__ == "__main__":
    main()
"""

SEVERAL_TIMES = """
import msgspec
from upwell import Runtime, flow, task
from upwell_runners.processes import ProcessPoolTaskRunner

class Note(msgspec.Struct):
    x: int
    seen = 0

@task
def see(note):
    Note.seen += 1
    return Note.seen

@flow
def main():
    return [see.submit(Note(x)).result() for x in range(3)]

if __name__ == "__main__":
    with Runtime(task_runner=ProcessPoolTaskRunner(max_workers=1)):
        assert main() == [1, 2, 3]
"""


def run(folder: Path, source: str) -> None:
    script = folder / "script.py"
    script.write_text(source)
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr.decode()


def test_values_are_of_one_class_in_the_child_and_of_the_parents_own_when_back(tmp_path: Path) -> None:
    run(tmp_path, SCRIPT)


def test_a_class_keeps_its_state_in_a_child_while_its_instances_arrive(tmp_path: Path) -> None:
    run(tmp_path, SEVERAL_TIMES)
