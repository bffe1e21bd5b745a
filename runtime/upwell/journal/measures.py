"""How much there is to do, and to show: flows by name, open runs, waiting jobs."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final, NamedTuple
from uuid import UUID

from msgspec import Struct

from upwell.core.model import Page
from upwell.core.states import StateType
from upwell.engine.clock import clock, moment
from upwell.journal.database import Row, Session
from upwell.journal.reader_pages import checked_limit, cursor, distinct, json_text, key_of, pattern_of


class FlowSummary(Struct, frozen=True, kw_only=True):
    """A flow that has run, or that has deployments. last_run_*: of the run that was created last, if there is one."""

    name: str
    deployments: int
    last_run_id: UUID | None = None
    last_run_name: str | None = None
    last_run_created: dt.datetime | None = None
    last_state_type: StateType | None = None
    last_state_name: str | None = None


async def flows(session: Session, *, text: str | None, limit: int, after: str | None) -> Page[FlowSummary]:
    """A page of flows by name. text: part of it, in capitals or not."""
    limit = checked_limit(limit)
    found = key_of(after, flow_name=(str,))
    ran = await distinct(session, "flow_runs", "flow")
    rows = await session.fetch(
        "flow_names",
        ran=json_text(ran),
        after=found[1][0] if found else "",
        pattern=pattern_of(text or ""),
        n=limit + 1,
    )
    names = [row[0] for row in rows]
    following = cursor("flow_name", names[limit - 1]) if len(names) > limit else None
    wanted = json_text(names[:limit])
    deployments: dict[str, int] = dict(await session.fetch("flow_deployments", flows=wanted))
    last = {row[0]: row[1:] for row in await session.fetch("flow_last_runs", flows=wanted)}
    items = tuple(_summary(name, deployments.get(name, 0), last.get(name)) for name in names[:limit])
    return Page(items=items, next=following)


def _summary(name: str, deployments: int, last: Row | None) -> FlowSummary:
    if last is None:
        return FlowSummary(name=name, deployments=deployments)
    run_id, run_name, state, state_name, created = last
    return FlowSummary(
        name=name,
        deployments=deployments,
        last_run_id=UUID(run_id),
        last_run_name=run_name,
        last_run_created=moment(created / 1e6),
        last_state_type=StateType(state),
        last_state_name=state_name or state.capitalize(),
    )


class Measures(NamedTuple):
    """What a store has to do now.

    open_flow_runs: those that have not ended, by state. recent_flow_runs: those of the last day, by state.
    waiting_jobs, due_jobs, jobs_under_way: how many. longest_wait_seconds: of the job that has been due longest.
    processes: those that give signs of life.
    """

    open_flow_runs: dict[str, int]
    recent_flow_runs: dict[str, int]
    waiting_jobs: int
    due_jobs: int
    jobs_under_way: int
    longest_wait_seconds: float
    processes: int


DAY_MICROS: Final = 86_400_000_000


async def measures(session: Session) -> Measures:
    """What there is to do now."""
    now = int(clock().time() * 1e6)
    still_open = await _by_state(session, "count_open_flow_runs")
    recent = await _by_state(session, "count_flow_runs_since", since=now - DAY_MICROS)
    jobs = {row[0]: row[1:] for row in await session.fetch("count_jobs", now=now)}
    waiting, due, oldest = jobs.get("waiting", (0, 0, now))
    alive = (await session.fetch("count_processes_alive"))[0][0]
    return Measures(
        open_flow_runs=still_open,
        recent_flow_runs=recent,
        waiting_jobs=waiting,
        due_jobs=int(due),
        jobs_under_way=sum(jobs[state][0] for state in ("claimed", "begun") if state in jobs),
        longest_wait_seconds=max(0.0, (now - oldest) / 1e6) if due else 0.0,
        processes=alive,
    )


async def _by_state(session: Session, query: str, **parameters: Any) -> dict[str, int]:
    return dict(await session.fetch(query, **parameters))
