"""A folder for each test: its flows, its store, and settings that its processes inherit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from upwell.composition import close_journal
from upwell.settings import temporary_settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where flows are; this process, and those that it starts, keep their journal there."""
    settings = {"journal": "on", "home": str(tmp_path / "home"), "logging_level": "CRITICAL"}
    for name, value in settings.items():
        monkeypatch.setenv(f"UPWELL_{name.upper()}", value)
    monkeypatch.chdir(tmp_path)
    with temporary_settings(**settings):
        yield tmp_path
        close_journal()


@pytest.fixture
def flows(folder: Path) -> Callable[[str], Path]:
    """Writes the folder's `flows.py`."""

    def write(source: str) -> Path:
        (folder / "flows.py").write_text(
            "import os, time\nfrom pathlib import Path\n\nfrom upwell import flow, task\n\n" + dedent(source)
        )
        return folder

    return write
