"""The docs do what they say: Python blocks run, the output shown is printed, links lead somewhere.

The `python` blocks of a page, in order, are one script. A `text` block right after one shows what it prints:
each of its lines appears in the script's output, in this order; `...` in a line stands for anything.
A block after `<!-- examples/name.py -->` is that file, as it is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_TESTS_OF_THEIR_OWN = (
    "census.py",
    "census_report.py",
    "served.py",
    "tutorial.md",
    "weather.py",
    "weather_service.py",
)
EXAMPLES = [path for path in sorted((ROOT / "docs/examples").glob("*.py")) if path.name not in WITH_TESTS_OF_THEIR_OWN]
FENCE = re.compile(
    r"^(?:<!-- (?P<file>[\w/.]+) -->\n)?```(?P<language>\w+)\n(?P<body>.*?)^```$(?P<after>\n*)", re.M | re.S
)
SECONDS = 100


class Block(NamedTuple):
    language: str
    body: str
    file: str | None
    follows: int
    """Where the block before it ended, if nothing but empty lines stands between; else -1."""


def blocks_of(page: Path) -> list[Block]:
    found: list[Block] = []
    end = -1
    for match in FENCE.finditer(page.read_text()):
        found.append(Block(match["language"], match["body"], match["file"], end if match.start() == end else -1))
        end = match.end()
    return found


def printed_by(script: Path, cwd: Path, **variables: str) -> str:
    environment = {
        **os.environ,
        **variables,
        "UPWELL_LOGGING_COLORS": "false",
        "PYTHONWARNINGS": "error",
        "COLUMNS": "100",
        "UPWELL_JOURNAL": "on",
        "UPWELL_HOME": str(cwd / "upwell-home"),
    }
    command = [
        sys.executable,
        "-u",
        str(script),
    ]  # unbuffered: what is printed and what is logged keep their order
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, f"{script.name} failed:\n{done.stdout}"
    return done.stdout


PAGES_WITH_CODE = [
    page for page in PAGES if "```python" in page.read_text() and page.name not in WITH_TESTS_OF_THEIR_OWN
]


@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs_and_prints_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    check_page(page, tmp_path)


def check_page(page: Path, folder: Path, **variables: str) -> None:
    """Run the code of a page, and compare what it prints with what the page shows."""
    blocks = blocks_of(page)
    script = folder / f"page_{page.stem}.py"
    script.write_text("\n".join(block.body for block in blocks if block.language == "python" and not block.file))
    printed = printed_by(script, folder, **variables)
    shown = [block.body for before, block in pairwise(blocks) if is_output(before, block)]
    at = 0
    for line in "\n".join(shown).splitlines():
        pattern = ".*".join(re.escape(part) for part in line.strip().split("..."))
        match = re.compile(pattern).search(printed, at)
        assert match, f"{page.name} shows {line!r}, and its code does not print it (here). It printed:\n{printed}"
        at = match.end()


def is_output(before: Block, block: Block) -> bool:
    return block.language == "text" and before.language == "python" and not before.file and block.follows >= 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_block_that_is_an_example_is_that_file(page: Path) -> None:
    for block in blocks_of(page):
        if block.file:
            assert block.body == (ROOT / "docs" / block.file).read_text(), f"{page.name}: {block.file} has changed"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target, place in re.findall(r"\]\((?!https?:)([^)#]*)#?([\w-]*)\)", page.read_text()):
        other = page.parent / target if target else page
        assert other.exists(), f"{page.name} links to {target}"
        assert not place or place in headings_of(other), f"{page.name} links to {target}#{place}"


def headings_of(page: Path) -> set[str]:
    """What the headings of a page are linked to by."""
    lines = FENCE.sub("", page.read_text()).splitlines()
    said = [line.lstrip("#").strip().lower() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in said}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_an_example_runs(example: Path, tmp_path: Path) -> None:
    printed_by(example, tmp_path)
