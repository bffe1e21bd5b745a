"""The log of a run as it is looked at: the last lines of a level and with a text, and those before them."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from msgspec import Struct

from upwell.core.model import LogLine
from upwell.journal.views import Views, names_of
from upwell.server.parts import Parts

LINES: Final = 500
LEVELS: Final = (("All levels", 0), ("Info", 20), ("Warnings", 30), ("Errors", 40))


class LogView(Struct, frozen=True, kw_only=True):
    """The lines, and what was asked for.

    names: of the task runs that wrote them. series: from which those of lines to come are known.
    following: these are the last lines, and new ones come after them. before: where those before them end.
    """

    lines: tuple[LogLine, ...]
    keys: tuple[int, ...]
    names: dict[UUID, str]
    series: list[tuple[str, str]]
    level: int
    text: str
    following: bool
    before: int | None
    levels: tuple[tuple[str, int], ...] = LEVELS


async def log_view(here: Parts, run_id: UUID, query: dict[str, str], *, task_run: bool = False) -> LogView:
    """What a query asks for."""
    level = int(query["level"]) if query.get("level", "").isdigit() else 0
    text = query.get("q", "")[:200]
    before = int(query["before"]) if query.get("before", "").isdigit() else None
    views = Views(here.session)
    tail = await views.log_tail(run_id, task_run=task_run, level=level, text=text, before=before, limit=LINES)
    series = [] if task_run else await views.series(run_id)
    ids = {line.task_run_id for line in tail.lines if line.task_run_id is not None}
    return LogView(
        lines=tail.lines,
        keys=tail.keys,
        names=names_of(series, ids),
        series=series,
        level=level,
        text=text,
        following=before is None,
        before=tail.before,
    )


__all__ = ["LogView", "log_view"]
