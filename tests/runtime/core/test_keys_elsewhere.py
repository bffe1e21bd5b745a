"""Digests are the same in other processes, with other hash seeds, in other versions of Python."""

import os
import pathlib
import subprocess
import sys

import pytest

from upwell.core.keys import digest

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
