"""Every test of durable flows has a journal of its own, and is to die once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.runtime.durability.given import ran, switches
from tests.runtime.durability.killed import journal


@pytest.fixture(autouse=True)
def home(tmp_path: Path) -> Iterator[Path]:
    """The folder of the journal."""
    ran.clear()
    switches.clear()
    switches.add("die")
    with journal(tmp_path):
        yield tmp_path
