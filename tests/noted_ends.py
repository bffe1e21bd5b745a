"""What strict flows have noted at once, in logs beside their database, as a test sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec.msgpack import decode

from upwell.journal.end_log import entries_in, logs_beside


def noted_ends(database: Path) -> list[tuple[Any, ...]]:
    """The rows of the task runs that have ended; many are in the database, too."""
    rows: list[tuple[Any, ...]] = []
    for path in logs_beside(database).values():
        try:
            content = path.read_bytes()
        except FileNotFoundError:  # everything is in the database since
            continue
        rows += [tuple(decode(payload)[3]) for _, payload in entries_in(content)]
    return rows
