"""What pages ask of a store beyond single runs: what is going on now, and what pictures of large runs are drawn from."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from uuid import UUID

from msgspec import Struct

from upwell.core.model import FlowRunRecord, LogLine
from upwell.core.states import PENDING, StateType
from upwell.journal.database import Session
from upwell.journal.reader_pages import LAST, id_text, json_text, micros_of, pattern_of
from upwell.journal.reader_records import FLOW_RUN_COLUMNS, flow_run, log_line


class Starts(Struct, frozen=True, kw_only=True):
    """How many runs of one task in one flow run began in one part of a time, by the state that they are in now."""

    flow_run_id: UUID
    task: str
    part: int
    state: StateType
    runs: int


class LogTail(Struct, frozen=True, kw_only=True):
    """The last lines of a log, the oldest first. before: where those before them end; None: there are none."""

    lines: tuple[LogLine, ...]
    keys: tuple[int, ...]
    before: int | None


class Views:
    """Answers from one store."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def flow_names(self) -> list[str]:
        """Each flow that has runs."""
        return [name for (name,) in await self._session.fetch("view_flow_names")]

    async def open_runs(self) -> Counter[tuple[StateType, str]]:
        """How many flow runs have not ended, by the type and name of their state."""
        rows = await self._session.fetch("view_open_runs")
        return Counter({(StateType(state), name or state.capitalize()): runs for state, name, runs in rows})

    async def due_runs(self, limit: int, *, overdue: bool = False) -> list[FlowRunRecord]:
        """Scheduled flow runs, those that are due first; overdue: those that are late."""
        late = "AND f.state_name = 'Late'" if overdue else "AND (f.state_name IS NULL OR f.state_name <> 'Late')"
        text = (
            f"SELECT {FLOW_RUN_COLUMNS} FROM flow_runs f WHERE f.state = 'SCHEDULED' {late} AND f.due IS NOT NULL "
            "ORDER BY f.due, f.id LIMIT :n"
        )
        return [flow_run(row) for row in await self._session.fetch_text(text, n=limit)]

    async def progress(self, runs: Iterable[UUID]) -> dict[UUID, Counter[StateType]]:
        """How many task runs of these flow runs are in which state."""
        ids = json_text(map(str, runs))
        counts: dict[UUID, Counter[StateType]] = defaultdict(Counter)
        for run_id, state, number in await self._session.fetch("view_progress_states", ids=ids):
            counts[UUID(run_id)][StateType(state)] = number
        for run_id, submitted in await self._session.fetch("view_progress", ids=ids):
            found = counts[UUID(run_id)]
            found[PENDING] += max(submitted - found.total(), 0)
        return counts

    async def starts(self, runs: Sequence[UUID], since: dt.datetime, part: dt.timedelta) -> list[Starts]:
        """How many task runs of these flow runs began when: in the first part after `since`, the second, ..."""
        rows = await self._session.fetch(
            "view_starts",
            ids=json_text(map(str, runs)),
            origin=micros_of(since, "since"),
            width=max(int(part.total_seconds() * 1e6), 1),
        )
        return [
            Starts(flow_run_id=UUID(run_id), task=task, part=place, state=StateType(state), runs=number)
            for run_id, task, place, state, number in rows
        ]

    async def dependencies(self, flow_run_id: UUID) -> list[tuple[str, str, int]]:
        """Which task of a flow run fed which other, and by how many edges."""
        rows = await self._session.fetch("view_dependencies", id=id_text(flow_run_id))
        return [(upstream, task, number) for upstream, task, number in rows]

    async def log_tail(
        self, run_id: UUID, *, task_run: bool = False, level: int, text: str, before: int | None, limit: int
    ) -> LogTail:
        """The last lines of a run's log before the line `before`, of this level or more severe, with this text."""
        rows = await self._session.fetch(
            "view_task_logs" if task_run else "view_logs",
            id=id_text(run_id),
            before=LAST if before is None else before,
            level=level,
            text=pattern_of(text) if text else "%",
            n=limit + 1,
        )
        more = len(rows) > limit
        shown = rows[:limit][::-1]
        return LogTail(
            lines=tuple(log_line(row[1:]) for row in shown),
            keys=tuple(row[0] for row in shown),
            before=shown[0][0] if more else None,
        )


__all__ = ["LogTail", "Starts", "Views"]
