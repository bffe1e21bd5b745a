"""ARCHITECTURE.md is a true map: it names every module and nothing else, and its picture is the table."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from tests.lengths import LENGTHS

ROOT = Path(__file__).parents[2]
MAP = (ROOT / "docs/ARCHITECTURE.md").read_text()


def modules() -> set[str]:
    roots = [ROOT / "runtime", ROOT / "runners"]
    files = {str(path.relative_to(root)) for root in roots for path in root.rglob("*.py")}
    return {file for file in files if not file.endswith("__init__.py")}


def modules_on_the_map() -> set[str]:
    found: set[str] = set()
    folder = ""
    for line in MAP.splitlines():
        if heading := re.match(r"#+ `([\w/]+)/`", line):
            folder = heading[1]
        elif line.startswith("#"):
            folder = ""
        elif folder:
            found.update(f"{folder}/{name}" for name in re.findall(r"`([\w/]+\.py)`", line.partition(": ")[0]))
    return found


def test_every_module_is_on_the_map() -> None:
    assert sorted(modules() - modules_on_the_map()) == []


def test_everything_on_the_map_exists() -> None:
    assert sorted(modules_on_the_map() - modules()) == []


def test_the_picture_of_the_states_is_drawn_from_the_table_of_moves() -> None:
    draw = runpy.run_path(str(ROOT / "docs/state_diagram.py"))["draw"]
    assert f"```mermaid\n{draw()}\n```" in MAP, "put what `python docs/state_diagram.py` prints into the map"


def test_the_table_says_how_long_the_random_tests_go_on() -> None:
    for length in LENGTHS:
        assert f"| `{length.option}` | {length.counts} | {length.gate:,} | {length.long:,} |" in MAP


def test_the_map_states_its_invariants() -> None:
    assert MAP.count("**Architecture invariant:**") >= 8
