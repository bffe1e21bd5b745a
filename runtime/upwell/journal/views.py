"""What pages ask of a store beyond single runs: what is going on now, and what pictures of large runs are made of."""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final
from uuid import UUID

from msgspec import Struct, msgpack

from upwell.core.model import FlowRunRecord, LogLine
from upwell.core.results import ResultRecord
from upwell.core.states import COMPLETED, PENDING, State, StateType
from upwell.engine.durable_records import WAITING
from upwell.journal.database import Row, Session
from upwell.journal.reader_pages import LAST, id_text, json_text, micros_of, pattern_of
from upwell.journal.reader_records import (
    FLOW_RUN_COLUMNS,
    flow_run,
    log_line,
    moment,
    moment_or_none,
    random_part,
    state_of,
    task_run_id,
    uuid_of,
)
from upwell.journal.results import outcome_of

NEIGHBOURS: Final = 12
"""How many of those that a task run waited for, or that waited for it, are named."""


class Starts(Struct, frozen=True, kw_only=True):
    """How many runs of one task in one flow run began in one part of a time, by the state that they are in now."""

    flow_run_id: UUID
    task: str
    part: int
    state: StateType
    runs: int


class LastRun(Struct, frozen=True, kw_only=True):
    """One of the last runs of something: what a small picture of them shows. id: as text, as addresses have it."""

    id: str
    name: str
    state: State
    created: dt.datetime
    start_time: dt.datetime | None
    end_time: dt.datetime | None


class Neighbour(Struct, frozen=True, kw_only=True):
    """A task run that another waited for, or that waited for it. argument: what the result became."""

    id: UUID
    name: str
    state_type: StateType
    argument: str | None


class Neighbours(Struct, frozen=True, kw_only=True):
    """The first of those on either side of a task run."""

    upstream: tuple[Neighbour, ...] = ()
    downstream: tuple[Neighbour, ...] = ()
    more_upstream: bool = False
    more_downstream: bool = False


class LogTail(Struct, frozen=True, kw_only=True):
    """The last lines of a log, the oldest first. before: where those before them end; None: there are none."""

    lines: tuple[LogLine, ...]
    keys: tuple[int, ...]
    before: int | None


class Stored(Struct, frozen=True, kw_only=True):
    """A stored result, as it is described to people. location: where it is, if that is outside of the database."""

    size: int
    serializer: str
    location: str | None = None
    expires: dt.datetime | None = None


class Views:
    """Answers from one store."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def flow_names(self) -> list[str]:
        """Each flow that has runs."""
        return [name for (name,) in await self._session.fetch("view_flow_names")]

    async def recent_flows(self, now: dt.datetime, runs: int) -> list[str]:
        """The flows of so many runs, those that were created last; without those that are due only later."""
        rows = await self._session.fetch("view_recent_flows", now=micros_of(now, "now"), n=runs)
        return list(dict.fromkeys(name for (name,) in rows))

    async def last_runs_of_flows(self, names: Iterable[str], now: dt.datetime, limit: int) -> dict[str, list[LastRun]]:
        """Of each of these flows the runs that were created last, the newest first; without those due only later."""
        return await self._last_runs("view_last_runs_of_flows", names, now, limit)

    async def last_runs_of_deployments(
        self, ids: Iterable[UUID], now: dt.datetime, limit: int
    ) -> dict[str, list[LastRun]]:
        """The same of deployments, by their ids as text."""
        return await self._last_runs("view_last_runs_of_deployments", map(str, ids), now, limit)

    async def _last_runs(
        self, query: str, wanted: Iterable[str], now: dt.datetime, limit: int
    ) -> dict[str, list[LastRun]]:
        found: dict[str, list[LastRun]] = defaultdict(list)
        rows = await self._session.fetch(query, wanted=json_text(wanted), now=micros_of(now, "now"), n=limit)
        for row in sorted(rows, key=_newest_last, reverse=True):
            found[row[0]].append(_last_run(row))
        return found

    async def open_runs(self) -> Counter[tuple[StateType, str]]:
        """How many flow runs have not ended, by the type and name of their state."""
        rows = await self._session.fetch("view_open_runs")
        return Counter({(StateType(state), name or state.capitalize()): runs for state, name, runs in rows})

    async def due_runs(
        self, limit: int, *, overdue: bool = False, deployment: UUID | None = None
    ) -> list[FlowRunRecord]:
        """Scheduled flow runs, those that are due first. overdue: those that are late. deployment: of this one."""
        late = "AND f.state_name = 'Late'" if overdue else "AND (f.state_name IS NULL OR f.state_name <> 'Late')"
        parameters: dict[str, Any] = {"n": limit}
        if deployment is not None:
            late, parameters["deployment"] = "AND f.deployment_id = :deployment", id_text(deployment)
        text = (
            f"SELECT {FLOW_RUN_COLUMNS} FROM flow_runs f WHERE f.state = 'SCHEDULED' {late} AND f.due IS NOT NULL "
            "ORDER BY f.due, f.id LIMIT :n"
        )
        return [flow_run(row) for row in await self._session.fetch_text(text, **parameters)]

    async def progress(self, runs: Iterable[UUID]) -> dict[UUID, Counter[StateType]]:
        """How many task runs of these flow runs are in which state."""
        ids = json_text(map(str, runs))
        counts: dict[UUID, Counter[StateType]] = defaultdict(Counter)
        for run_id, state, number in await self._session.fetch("view_progress_states", ids=ids):
            counts[uuid_of(run_id)][StateType(state)] = number
        for run_id, submitted, begun in await self._session.fetch("view_progress", ids=ids):
            found = counts[uuid_of(run_id)]
            found[COMPLETED] = max(begun - found.total(), 0)
            found[PENDING] += max(submitted - begun, 0)
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
            Starts(flow_run_id=uuid_of(run_id), task=task, part=place, state=StateType(state), runs=number)
            for run_id, task, place, state, number in rows
        ]

    async def dependencies(self, flow_run_id: UUID) -> list[tuple[str, str, int]]:
        """Which task of a flow run fed which other, and by how many edges."""
        rows = await self._session.fetch("view_dependencies", id=id_text(flow_run_id))
        return [(upstream, task, number) for upstream, task, number in rows]

    async def neighbours(self, run_id: UUID) -> Neighbours:
        """What a task run waited for, and what waited for it."""
        place = await self._place_of(run_id)
        if place is None:
            return Neighbours()
        series, number = place
        up = await self._session.fetch("view_upstream", series=series, number=number, n=NEIGHBOURS + 1)
        down = await self._session.fetch("view_downstream", series=series, number=number, n=NEIGHBOURS + 1)
        return Neighbours(
            upstream=tuple(map(_neighbour, up[:NEIGHBOURS])),
            downstream=tuple(map(_neighbour, down[:NEIGHBOURS])),
            more_upstream=len(up) > NEIGHBOURS,
            more_downstream=len(down) > NEIGHBOURS,
        )

    async def stored_result(self, run_id: UUID) -> Stored | None:
        """What is known about the stored result of a run; it is not opened."""
        outcome = await outcome_of(self._session, run_id)
        found = outcome.record if outcome is not None else None
        if found is None or found[:1] == WAITING:
            return None
        if found[:1] != ResultRecord.FIRST_BYTE:  # a small one of a durable run: the value itself, in a list of one
            return Stored(size=len(found) - 1, serializer="msgpack")
        record = msgpack.decode(found, type=ResultRecord)
        return Stored(size=record.size, serializer=record.serializer, location=record.location, expires=record.expires)

    async def _place_of(self, run_id: UUID) -> tuple[int, int] | None:
        """The series of a task run, and its number there."""
        random = random_part(run_id)
        rows = await self._session.fetch("read_series_before", base=f"{random:019x}")
        return (rows[0][0], random - int(rows[0][1], 16)) if rows else None

    async def series(self, flow_run_id: UUID) -> list[tuple[str, str]]:
        """The series of a flow run: where the random parts of its task runs' ids begin, and their task."""
        rows = await self._session.fetch("view_series", id=id_text(flow_run_id))
        return [(base, task) for base, task in rows]

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


def _newest_last(row: Row) -> tuple[int, str]:
    return row[6], row[1]


def _last_run(row: Row) -> LastRun:
    _, run_id, name, state, state_name, message, created, started, ended = row
    return LastRun(
        id=run_id,
        name=name,
        state=state_of(state, state_name, created, message),
        created=moment(created),
        start_time=moment_or_none(started),
        end_time=moment_or_none(ended),
    )


def _neighbour(row: Row) -> Neighbour:
    base, created, number, name, task, state, argument = row
    return Neighbour(
        id=task_run_id(base, created, number),
        name=name or f"{task}-{number}",
        state_type=StateType(state or "PENDING"),
        argument=argument,
    )


def names_of(series: Sequence[tuple[str, str]], run_ids: Iterable[UUID]) -> dict[UUID, str]:
    """The names of these task runs, as they are made of their series, unless a run was given one of its own."""
    ordered = sorted((int(base, 16), task) for base, task in series)
    starts = [start for start, _ in ordered]
    names: dict[UUID, str] = {}
    for run_id in run_ids:
        random = random_part(run_id)
        place = bisect_right(starts, random) - 1
        if place >= 0:
            names[run_id] = f"{ordered[place][1]}-{random - starts[place]}"
    return names


__all__ = ["LastRun", "LogTail", "Neighbour", "Neighbours", "Starts", "Views", "names_of"]
