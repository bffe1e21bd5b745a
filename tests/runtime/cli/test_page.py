"""The page about the command line shows what its commands print."""

from __future__ import annotations

import io
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.runtime.cli.conftest import Upwell

PAGE = (Path(__file__).parents[3] / "docs/cli.md").read_text()


def shown() -> Iterator[tuple[str, list[str]]]:
    """Each command of the page, and the lines below it."""
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, re.M | re.S):
        command, lines = "", list[str]()
        for line in block.splitlines():
            if line.startswith("$ "):
                if command:
                    yield command, lines
                command, lines = line.removeprefix("$ upwell "), []
            else:
                lines.append(line)
        yield command, lines


def test_the_commands_of_the_page_print_what_it_shows(
    upwell: Upwell, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    [code] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    (folder / "flows.py").write_text(code)
    monkeypatch.delenv("UPWELL_LOGGING_LEVEL")
    monkeypatch.setattr(sys, "stdin", io.StringIO("secret\n"))
    for command, lines in shown():
        caplog.clear()
        done = upwell(*shlex.split(command))
        printed = caplog.text + done.err + done.out
        at = 0
        for line in lines:
            pattern = ".*".join(re.escape(part.strip()) for part in line.split("..."))
            match = re.compile(pattern).search(printed, at)
            assert match, f"upwell {command} is shown to print {line!r}, and printed:\n{printed}"
            at = match.end()


def test_the_page_shows_commands() -> None:
    assert len(list(shown())) > 15
