"""Reads what the journal has recorded: runs, their states, logs and dependencies, and how many there are.

Each question is answered by a few queries that go along indexes; how pages of task runs do so stands in
`reader_task_runs.py`. What is read was committed; two queries of one question may see the store a moment apart.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Final
from uuid import UUID

from upwell.core.errors import InvalidRequestError, UnknownRunError
from upwell.core.model import Edge, FlowRunRecord, LogLine, Page, RunTree, Span, StateCounts, TaskRun
from upwell.core.states import State, StateType
from upwell.engine.clock import clock
from upwell.journal import measures
from upwell.journal import reader_overview as overview
from upwell.journal.database import Row, Session
from upwell.journal.measures import FlowSummary
from upwell.journal.reader_pages import (
    MOST_ITEMS,
    Bounds,
    Condition,
    Key,
    Order,
    checked_limit,
    checked_tags,
    cursor,
    id_text,
    ids_between,
    json_text,
    key_of,
    order_of,
    pattern_of,
    state_condition,
    tag_sets,
    times_of,
)
from upwell.journal.reader_records import (
    FLOW_RUN_COLUMNS,
    flow_run,
    log_line,
    random_part,
    run_not_begun,
    state_of,
    task_run,
    task_run_id,
)
from upwell.journal.reader_sessions import Nothing
from upwell.journal.reader_task_runs import TaskRunFilter, key_of_row, may_show_not_begun, newest_rows

_RUN_KEY: Final = (int, int, int)
_ROUNDED: Final = dt.timedelta(microseconds=1)
"""How far apart two records of one moment may be."""

_WINDOW: Final = 2 * MOST_ITEMS
"""How many numbers of a series are looked at together for runs that have not begun."""


_ENDED: Final = "f.ended IS NOT NULL"
_OPEN: Final = (  # as an index has them
    "f.ended IS NULL AND f.state <> 'COMPLETED' AND "
    "f.state IN ('SCHEDULED', 'PENDING', 'RUNNING', 'CANCELLING', 'PAUSED')"
)


class FlowRunFilter(TaskRunFilter, frozen=True, kw_only=True):
    """What flow runs are asked for; see `History.flow_runs`. `parent` is a flow run."""

    deployment: UUID | str | None = None
    ahead: bool = True
    """Whether runs that are due only later count, too."""
    ended: bool | None = None
    """Whether they have ended, or have not; None: all the same."""


class Reader:
    """Reads one store through a session of it; None where nothing was ever recorded."""

    def __init__(self, session: Session | None, place: str) -> None:
        self._session = session or Nothing()
        self._place = place

    # --- flow runs ------------------------------------------------------------------------------------------

    async def flow_runs(self, wanted: FlowRunFilter, order: str, limit: int, after: str | None) -> Page[FlowRunRecord]:
        """A page of flow runs."""
        ordered, limit = order_of(order), checked_limit(limit)
        found = key_of(after, flow=(int, str))
        parameters: dict[str, Any] = {"n": limit + 1}
        conditions = await self._flow_conditions(wanted, parameters)
        bounds = Bounds.of("f", times_of(wanted.since, wanted.until), ordered, found and found[1], parameters)
        conditions += bounds.conditions
        if found is not None and bounds.beyond:
            parameters["after_created"], parameters["after_id"] = found[1]
            conditions.append(f"(f.created, f.id) {ordered.beyond} (:after_created, :after_id)")
        rows = await self._session.fetch_text(
            _flow_run_page(conditions, ordered, wanted.parent is not None), **parameters
        )
        following = cursor("flow", rows[limit - 1][7], rows[limit - 1][0]) if len(rows) > limit else None
        return Page(items=tuple(map(flow_run, rows[:limit])), next=following)

    async def _flow_conditions(self, wanted: FlowRunFilter, parameters: dict[str, Any]) -> list[str]:
        conditions: list[str] = []
        others: list[Condition] = []
        if wanted.state is not None:
            others.append(state_condition("f", wanted.state, parameters))
        if wanted.flow is not None:
            parameters["flow"] = wanted.flow
            others.append(Condition("f.flow", "= :flow"))
        if not wanted.ahead:
            parameters["now"] = int(clock().time() * 1e6)
            conditions.append("NOT (f.state = 'SCHEDULED' AND f.state_name IS NULL AND coalesce(f.due, 0) > :now)")
        if wanted.ended is not None:
            conditions.append(_ENDED if wanted.ended else _OPEN)
        if wanted.deployment is not None:
            others.append(_of_deployment(wanted.deployment, parameters))
        tags = checked_tags(wanted.tags)
        if tags:
            parameters["tag_sets"] = json_text(await tag_sets(self._session, "flow_runs", tags))
            others.append(Condition("f.tags", "IN (SELECT value FROM json_each(:tag_sets))"))
        if wanted.parent is not None:
            parameters["parent"] = id_text(wanted.parent)
            conditions.append("f.parent_flow_run_id = :parent")
        if wanted.text:
            parameters["text"] = pattern_of(wanted.text)
            conditions.append("(lower(f.name) LIKE :text ESCAPE '!' OR lower(f.flow) LIKE :text ESCAPE '!')")
        conditions += [other.text() if wanted.parent is None else other.unindexed() for other in others]
        return conditions

    async def flow_run(self, run_id: UUID | str) -> FlowRunRecord:
        """One flow run."""
        rows = await self._session.fetch("read_flow_run", id=id_text(run_id))
        if not rows:
            raise self._unknown("flow run", run_id)
        return flow_run(rows[0])

    async def flow_runs_by_id(self, beginning: str, limit: int) -> list[FlowRunRecord]:
        """Flow runs whose ids begin so."""
        n = checked_limit(limit)
        return list(map(flow_run, await self._session.fetch("read_flow_runs_by_id", **ids_between(beginning), n=n)))

    # --- task runs ------------------------------------------------------------------------------------------

    async def task_runs(self, wanted: TaskRunFilter, order: str, limit: int, after: str | None) -> Page[TaskRun]:
        """A page of task runs. Those of a flow run that have not begun come last."""
        ordered, limit = order_of(order), checked_limit(limit)
        found = key_of(after, run=_RUN_KEY, last=(), waiting=(int, int))
        kind, key = found or ("run", None)
        items: list[TaskRun] = []
        if kind == "run":
            rows = await newest_rows(self._session, wanted, ordered, key, limit + 1)
            items = list(map(task_run, rows[:limit]))
            if len(rows) > limit:
                return Page(items=tuple(items), next=cursor("run", *key_of_row(rows[limit - 1])))
            key = None
        if not may_show_not_begun(wanted):
            return Page(items=tuple(items), next=None)
        waiting = await self._not_begun(wanted, key or None, limit + 1 - len(items))
        shown = waiting[: limit - len(items)]
        following = None
        if len(waiting) > len(shown):
            following = cursor("waiting", *shown[-1][0]) if shown else cursor("last")
        return Page(items=(*items, *(run for _, run in shown)), next=following)

    async def _not_begun(self, wanted: TaskRunFilter, after: Key | None, n: int) -> list[tuple[Key, TaskRun]]:
        """The first `n` runs of a flow run after this series and number that have no row, in order of submission."""
        found: list[tuple[Key, TaskRun]] = []
        passed = after is None
        for row in await self._series_of(wanted):
            key, submitted, begun, *series = row
            first = 0
            if not passed:
                assert after is not None
                if key != after[0]:
                    continue
                passed, first = True, after[1] + 1
            if begun >= submitted:
                continue
            while first < submitted and len(found) < n:
                before = min(first + _WINDOW, submitted)
                rows = await self._session.fetch("read_numbers", series=key, first=first, before=before)
                missing = sorted(set(range(first, before)) - {number for (number,) in rows})
                runs = [((key, number), run_not_begun(number, tuple(series))) for number in missing]
                found += [item for item in runs if _has_text(item[1], wanted.text)]
                first = before
            if len(found) >= n:
                break
        return found[:n]

    async def _series_of(self, wanted: TaskRunFilter) -> list[Row]:
        """The series of a flow run that may have runs that are asked for."""
        assert wanted.flow_run_id is not None
        run_id = id_text(wanted.flow_run_id)
        if wanted.flow is not None and (await self.flow_run(run_id)).flow_name != wanted.flow:
            return []
        tags = set(checked_tags(wanted.tags))
        rows = await self._session.fetch("read_series_of_flow_run", id=run_id)
        return [
            row
            for row in rows
            if wanted.task in (None, row[5]) and (not tags or tags <= run_not_begun(0, tuple(row[3:])).tags)
        ]

    async def task_run(self, run_id: UUID | str) -> TaskRun:
        """One task run."""
        series, number = await self._place_of(run_id)
        rows = await self._session.fetch("read_task_run", series=series[0], number=number)
        if rows:
            return task_run(rows[0])
        _, base, task, created, tags, flow_run_id, _ = series
        name = None
        if flow_run_id is not None:
            of = await self._session.fetch("read_flow_run", id=flow_run_id)
            name = of[0][2] if of else None
        return run_not_begun(number, (created, base, task, tags, flow_run_id, name))

    async def _place_of(self, run_id: UUID | str) -> tuple[Row, int]:
        """The series of a task run, and its number there."""
        random = random_part(UUID(id_text(run_id)))
        rows = await self._session.fetch("read_series_before", base=f"{random:019x}")
        if rows:
            number = random - int(rows[0][1], 16)
            if number < rows[0][6]:
                return rows[0], number
        raise self._unknown("task run", run_id)

    def _unknown(self, kind: str, run_id: UUID | str) -> UnknownRunError:
        return UnknownRunError(
            f"There is no {kind} {run_id} in {self._place}. It may have been recorded elsewhere (UPWELL_HOME, "
            "UPWELL_DATABASE_URL), not at all (UPWELL_JOURNAL), or been removed because of its age."
        )

    # --- what happened to a run -------------------------------------------------------------------------------

    async def states(self, run_id: UUID | str) -> list[State]:
        """All states of a flow run or task run, in their order."""
        rows = await self._session.fetch("read_flow_run_states", id=id_text(run_id))
        if rows:
            return [state_of(*row) for row in rows]
        series, number = await self._place_of(run_id)
        run = await self.task_run(run_id)
        between = [
            state_of(*row) for row in await self._session.fetch("read_task_run_states", series=series[0], number=number)
        ]
        return _history(run, between)

    async def logs(self, run_id: UUID | str, level: int, limit: int, after: str | None) -> Page[LogLine]:
        """A page of the log of a flow run, its task runs included, or of a task run; in the order of writing."""
        limit = checked_limit(limit)
        found = key_of(after, log=(int,))
        key = found[1][0] if found else 0
        run_text = id_text(run_id)
        rows: list[Row] = []
        for query in ("read_flow_run_logs", "read_task_run_logs"):
            rows = await self._session.fetch(query, id=run_text, level=level, after=key, n=limit + 1)
            if rows:
                break
        if not rows and not await self._session.fetch("read_flow_run", id=run_text):
            await self._place_of(run_text)
        following = cursor("log", rows[limit - 1][0]) if len(rows) > limit else None
        return Page(items=tuple(log_line(row[1:]) for row in rows[:limit]), next=following)

    async def edges(self, flow_run_id: UUID | str, limit: int, after: str | None) -> Page[Edge]:
        """A page of what waited for what among the task runs of a flow run."""
        limit = checked_limit(limit)
        found = key_of(after, edge=(int, int, int, int))
        series, number, upstream_series, upstream_number = found[1] if found else (-1, -1, -1, -1)
        rows = await self._session.fetch(
            "read_edges",
            id=id_text(flow_run_id),
            series=series,
            number=number,
            upstream_series=upstream_series,
            upstream_number=upstream_number,
            n=limit + 1,
        )
        if not rows:
            await self.flow_run(flow_run_id)
        following = None
        if len(rows) > limit:
            last = rows[limit - 1]
            following = cursor("edge", last[11], last[7], last[12], last[2])
        return Page(items=tuple(map(_edge, rows[:limit])), next=following)

    # --- overviews ------------------------------------------------------------------------------------------

    async def flows(self, text: str | None, limit: int, after: str | None) -> Page[FlowSummary]:
        """A page of flows by name."""
        return await measures.flows(self._session, text=text, limit=limit, after=after)

    async def tree(self, flow_run_id: UUID | str, runs_per_task: int) -> RunTree:
        """A flow run and all below it."""
        if runs_per_task < 0:
            raise InvalidRequestError(f"runs_per_task is {runs_per_task}, and must be 0 or more.")
        grown = await overview.tree(self._session, id_text(flow_run_id), runs_per_task)
        if grown is None:
            raise self._unknown("flow run", flow_run_id)
        return grown

    async def timeline(self, flow_run_id: UUID | str, limit: int, after: str | None) -> Page[Span]:
        """A page of what ran when."""
        page = await overview.timeline(self._session, id_text(flow_run_id), limit, after)
        if page is None:
            raise self._unknown("flow run", flow_run_id)
        return page

    async def counts(self, of: str, by: str | float, since: dt.datetime, until: dt.datetime) -> list[StateCounts]:
        """How many runs are in which state, over time."""
        spans = overview.spans_of(by, since, until)
        if of == "task_runs":
            return await overview.count_task_runs(self._session, spans)
        if of == "flow_runs":
            return await overview.count_flow_runs(self._session, spans)
        raise InvalidRequestError(f"of is {of!r}, and must be 'task_runs' or 'flow_runs'.")


def _of_deployment(deployment: UUID | str, parameters: dict[str, Any]) -> Condition:
    """Runs of a deployment, by its id or `flow/deployment`."""
    flow, slash, name = str(deployment).rpartition("/")
    if not slash:
        parameters["deployment"] = id_text(deployment)
        return Condition("f.deployment_id", "= :deployment")
    parameters.update(deployment_flow=flow, deployment_name=name)
    found = "SELECT id FROM deployments WHERE flow = :deployment_flow AND name = :deployment_name"
    return Condition("f.deployment_id", f"= ({found})")


def _flow_run_page(conditions: list[str], order: Order, sorts: bool) -> str:
    """sorts: the rows are found along an index of another order; else that of the page leads to them."""
    where = " AND ".join(conditions) or "1 = 1"
    created = "f.created + 0" if sorts else "f.created"
    return (
        f"SELECT {FLOW_RUN_COLUMNS} FROM flow_runs f WHERE {where} "
        f"ORDER BY {created} {order.direction}, f.id {order.direction} LIMIT :n"
    )


def _has_text(run: TaskRun, text: str | None) -> bool:
    return not text or text.lower() in run.task_name.lower() or run.name.lower().endswith(text.lower())


def _history(run: TaskRun, between: list[State]) -> list[State]:
    """All states of a task run: what its own times tell, and what else was recorded."""
    states = [State(type=StateType.PENDING, name="Pending", timestamp=run.created), *between]
    begun = max((state.timestamp for state in between if state.type is StateType.RUNNING), default=None)
    if run.start_time is not None and (begun is None or run.start_time - begun > _ROUNDED):  # else it is among them
        name = "Retrying" if run.run_count > 1 else "Running"
        states.append(State(type=StateType.RUNNING, name=name, timestamp=run.start_time))
    if run.end_time is not None:
        states.append(run.state)
    return states


def _edge(row: Row) -> Edge:
    base, created, number, name, task, own_base, own_created, own_number, own_name, own_task, argument, *_ = row
    return Edge(
        upstream_id=task_run_id(base, created, number),
        upstream_name=name or f"{task}-{number}",
        task_run_id=task_run_id(own_base, own_created, own_number),
        task_run_name=own_name or f"{own_task}-{own_number}",
        argument=argument,
    )


__all__ = ["FlowRunFilter", "Reader"]
