"""Overviews: a flow run as a tree, what ran when, how many runs are in which state over time."""

from __future__ import annotations

import datetime as dt
import math
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from upwell.core.errors import InvalidRequestError
from upwell.core.model import FlowRunRecord, Page, RunTree, Span, StateCounts, TaskGroup, TaskRun
from upwell.core.states import COMPLETED, PENDING, StateType
from upwell.journal.database import Row, Session
from upwell.journal.reader_pages import LAST, checked_limit, cursor, json_text, key_of, micros_of
from upwell.journal.reader_records import flow_run, moment, moment_or_none, spans_of_runs, task_run

SPANS: Final = {"minute": 60, "hour": 3_600, "day": 86_400}
"""The names of some lengths of time, in seconds."""

MOST_SPANS: Final = 10_000
FEW_SPANS: Final = 50

_OTHER_STATES: Final = json_text(state.value for state in StateType if state is not COMPLETED)


async def tree(session: Session, flow_run_id: str, runs_per_task: int) -> RunTree | None:
    """The flow run of this id and all below it; None if there is none."""
    flow_runs = [flow_run(row) for row in await session.fetch("read_flow_run_tree", id=flow_run_id)]
    if not flow_runs:
        return None
    ids = json_text(str(run.id) for run in flow_runs)
    groups = await session.fetch("read_groups", ids=ids)
    states: dict[int, Counter[StateType]] = defaultdict(Counter)
    for series, state, number in await session.fetch("read_groups_not_completed", ids=ids, states=_OTHER_STATES):
        states[series][StateType(state)] = number
    runs: dict[int, list[TaskRun]] = defaultdict(list)
    if runs_per_task and groups:
        keys = json_text(row[1] for row in groups)
        for row in await session.fetch("read_first_runs", keys=keys, first=runs_per_task):
            runs[row[0]].append(task_run(row))
    tasks: dict[str, list[TaskGroup]] = defaultdict(list)
    for row in groups:
        tasks[row[0]].append(_group(row, states[row[1]], runs[row[1]]))
    return _grown(flow_runs, tasks)


def _group(row: Row, states: Counter[StateType], runs: list[TaskRun]) -> TaskGroup:
    """One task of a flow run. states: of those that have not completed."""
    _, _, task, _, submitted, begun, started, ended = row
    states[COMPLETED] = max((begun or 0) - states.total(), 0)
    states[PENDING] += max(submitted - (begun or 0), 0)
    return TaskGroup(
        task_name=task,
        states={state: number for state, number in states.items() if number},
        start_time=moment_or_none(started),
        end_time=moment_or_none(ended),
        runs=tuple(runs),
    )


def _grown(flow_runs: list[FlowRunRecord], tasks: dict[str, list[TaskGroup]]) -> RunTree:
    """The tree of these, of which each stands after the one that started it; the first started all."""
    below: dict[UUID | None, list[RunTree]] = defaultdict(list)
    grown = None
    for run in reversed(flow_runs):
        children = tuple(reversed(below.pop(run.id, [])))
        grown = RunTree(run=run, tasks=tuple(tasks.get(str(run.id), ())), flow_runs=children)
        below[run.parent_flow_run_id].append(grown)
    assert grown is not None
    return grown


async def timeline(session: Session, flow_run_id: str, limit: int, after: str | None) -> Page[Span] | None:
    """A page of what ran when, by start; None if there is no such flow run. Flow runs stand on the first page."""
    limit = checked_limit(limit)
    found = key_of(after, span=(int, int, int))
    started, key, number = found[1] if found else (-1, -1, -1)
    flow_runs = [flow_run(row) for row in await session.fetch("read_flow_run_tree", id=flow_run_id)]
    if not flow_runs:
        return None
    series = await session.fetch("read_series_of_flow_runs", ids=json_text(str(run.id) for run in flow_runs))
    rows = await session.fetch(
        "read_timeline",
        keys=json_text(row[0] for row in series),
        never=LAST,
        started=started,
        series=key,
        number=number,
        n=limit + 1,
    )
    following = None
    if len(rows) > limit:
        last = rows[limit - 1]
        following = cursor("span", LAST if last[3] is None else last[3], last[0], last[1])
    items = spans_of_runs(rows[:limit], series)
    if after is None:
        for run in flow_runs:
            insort(items, _flow_span(run), key=_when_it_started)
    return Page(items=tuple(items), next=following)


def _when_it_started(span: Span) -> tuple[bool, dt.datetime, bool]:
    return span.start_time is None, span.start_time or span.created, not span.is_flow_run


def _flow_span(run: FlowRunRecord) -> Span:
    return Span(
        id=run.id,
        name=run.name,
        is_flow_run=True,
        flow_run_id=run.id,
        state_type=run.state.type,
        state_name=run.state.name,
        created=run.created,
        start_time=run.start_time,
        end_time=run.end_time,
    )


# --- counts -------------------------------------------------------------------------------------------------


def spans_of(by: str | float, since: dt.datetime, until: dt.datetime) -> list[tuple[int, int]]:
    """The spans of time that are counted, in microseconds; all of one length, but for the last.

    Raises:
        ValueError: an unknown name, or far too many spans.
    """
    seconds = SPANS.get(by) if isinstance(by, str) else by
    if seconds is None or not 0 < seconds < math.inf:
        raise InvalidRequestError(f"by is {by!r}, and must be 'minute', 'hour', 'day' or a number of seconds above 0.")
    first, last, width = micros_of(since, "since"), micros_of(until, "until"), int(seconds * 1e6)
    if first >= last:
        raise InvalidRequestError(f"since ({since}) must be before until ({until}).")
    if width < 1 or (last - first) / width > MOST_SPANS:
        raise InvalidRequestError(
            f"by={by!r} makes more than {MOST_SPANS:,} spans from {since} to {until}: ask for longer ones."
        )
    return [(start, min(start + width, last)) for start in range(first, last, width)]


async def count_flow_runs(session: Session, spans: list[tuple[int, int]]) -> list[StateCounts]:
    """How many flow runs that were created in each span are in which state."""
    found = _by_span(await session.fetch("count_flow_runs_by_state", **_bounds(spans)))
    return [_counts(span, found[place]) for place, span in enumerate(spans)]


async def count_task_runs(session: Session, spans: list[tuple[int, int]]) -> list[StateCounts]:
    """How many task runs that were created in each span are in which state.

    Most have completed. So those are all that there are without the others, which have an index of their own.
    """
    bounds = _bounds(spans)
    found = _by_span(await session.fetch("count_task_runs_by_state", states=_OTHER_STATES, **bounds))
    for place, total in await _totals(session, spans, bounds):
        found[place][COMPLETED] = max(total - found[place].total(), 0)
    for place, waiting in await session.fetch("count_not_begun", **bounds):
        found[place][PENDING] += max(waiting, 0)
    return [_counts(span, found[place]) for place, span in enumerate(spans)]


async def _totals(session: Session, spans: list[tuple[int, int]], bounds: dict[str, Any]) -> list[tuple[int, int]]:
    """How many task runs there are in each span: counted one by one, which is faster, unless there are many spans."""
    if len(spans) > FEW_SPANS:
        return [(place, total) for place, total in await session.fetch("count_task_runs_by_span", **bounds)]
    counted = [await session.fetch("count_task_runs", since=since, until=until) for since, until in spans]
    return [(place, rows[0][0]) for place, rows in enumerate(counted) if rows]


def _bounds(spans: list[tuple[int, int]]) -> dict[str, Any]:
    first = spans[0][0]
    return {"origin": first, "width": spans[0][1] - first, "since": first, "until": spans[-1][1]}


def _by_span(rows: Iterable[Row]) -> defaultdict[int, Counter[StateType]]:
    found: defaultdict[int, Counter[StateType]] = defaultdict(Counter)
    for place, state, number in rows:
        found[place][StateType(state)] += number
    return found


def _counts(span: tuple[int, int], states: Counter[StateType]) -> StateCounts:
    return StateCounts(
        start=moment(span[0]), end=moment(span[1]), states={state: number for state, number in states.items() if number}
    )
