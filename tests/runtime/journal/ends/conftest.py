"""Every test of ends that are written at once has a journal that does not write by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from upwell.composition import close_journal
from upwell.engine.console import ensure_configured
from upwell.settings import temporary_settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path) -> Iterator[Path]:
    """The folder of a journal that does not write by itself before a minute is over."""
    with temporary_settings(journal="on", home=str(tmp_path), journal_flush_seconds=60.0, logging_level="CRITICAL"):
        yield tmp_path
        close_journal()
    ensure_configured()  # the loggers say again what they did before
