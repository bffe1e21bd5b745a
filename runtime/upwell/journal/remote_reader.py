"""Reads what a server's store has recorded: the questions of `reader.py`, asked of its API."""

from __future__ import annotations

import datetime as dt
from typing import Any, TypeVar
from uuid import UUID

from msgspec.structs import asdict

from upwell.core.errors import UnknownRunError
from upwell.core.model import Edge, FlowRunRecord, LogLine, Page, RunTree, Span, StateCounts, TaskRun
from upwell.core.states import State
from upwell.journal.measures import FlowSummary
from upwell.journal.reader import FlowRunFilter
from upwell.journal.reader_pages import checked_limit, checked_tags, id_text, ids_between, order_of, times_of
from upwell.journal.reader_task_runs import TaskRunFilter
from upwell.journal.remote_client import ApiClient, read

T = TypeVar("T")


class RemoteReader:
    """Reads one server's store. Its methods are those of `Reader`."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def _get(self, kind: type[T], path: str, **query: Any) -> T:
        return read(await self._client.ask("GET", path, query=query), kind)

    async def flow_runs(self, wanted: FlowRunFilter, order: str, limit: int, after: str | None) -> Page[FlowRunRecord]:
        """A page of flow runs."""
        given = _filters(wanted)
        for name in TaskRunFilter.__struct_fields__:
            if name not in _OF_FLOW_RUNS:
                del given[name]
        return await self._get(Page[FlowRunRecord], "/flow-runs", **given, **_page(order, limit, after))

    async def flow_run(self, run_id: UUID | str) -> FlowRunRecord:
        """One flow run."""
        return await self._get(FlowRunRecord, f"/flow-runs/{id_text(run_id)}")

    async def flow_runs_by_id(self, beginning: str, limit: int) -> list[FlowRunRecord]:
        """Flow runs whose ids begin so."""
        ids_between(beginning)  # no other text becomes a path
        return await self._get(list[FlowRunRecord], f"/flow-runs/by-id/{beginning}", limit=checked_limit(limit))

    async def task_runs(self, wanted: TaskRunFilter, order: str, limit: int, after: str | None) -> Page[TaskRun]:
        """A page of task runs."""
        return await self._get(Page[TaskRun], "/task-runs", **_filters(wanted), **_page(order, limit, after))

    async def task_run(self, run_id: UUID | str) -> TaskRun:
        """One task run."""
        return await self._get(TaskRun, f"/task-runs/{id_text(run_id)}")

    async def states(self, run_id: UUID | str) -> list[State]:
        """All states of a flow run or task run."""
        try:
            return await self._get(list[State], f"/flow-runs/{id_text(run_id)}/states")
        except UnknownRunError:
            return await self._get(list[State], f"/task-runs/{id_text(run_id)}/states")

    async def logs(self, run_id: UUID | str, level: int, limit: int, after: str | None) -> Page[LogLine]:
        """A page of a run's log."""
        query = {"level": level, "limit": checked_limit(limit), "after": after}
        return await self._get(Page[LogLine], f"/flow-runs/{id_text(run_id)}/logs", **query)

    async def edges(self, flow_run_id: UUID | str, limit: int, after: str | None) -> Page[Edge]:
        """A page of what waited for what."""
        path = f"/flow-runs/{id_text(flow_run_id)}/edges"
        return await self._get(Page[Edge], path, limit=checked_limit(limit), after=after)

    async def tree(self, flow_run_id: UUID | str, runs_per_task: int) -> RunTree:
        """A flow run and all below it."""
        return await self._get(RunTree, f"/flow-runs/{id_text(flow_run_id)}/tree", runs_per_task=runs_per_task)

    async def timeline(self, flow_run_id: UUID | str, limit: int, after: str | None) -> Page[Span]:
        """A page of what ran when."""
        path = f"/flow-runs/{id_text(flow_run_id)}/timeline"
        return await self._get(Page[Span], path, limit=checked_limit(limit), after=after)

    async def flows(self, text: str | None, limit: int, after: str | None) -> Page[FlowSummary]:
        """A page of flows by name."""
        return await self._get(Page[FlowSummary], "/flows", text=text, limit=checked_limit(limit), after=after)

    async def counts(self, of: str, by: str | float, since: dt.datetime, until: dt.datetime) -> list[StateCounts]:
        """How many runs are in which state, over time."""
        times_of(since, until)
        return await self._get(list[StateCounts], "/counts", of=of, by=by, since=since, until=until)


_OF_FLOW_RUNS = frozenset({"flow", "state", "tags", "since", "until", "text", "parent"})


def _filters(wanted: TaskRunFilter) -> dict[str, Any]:
    """What is asked for, checked as it is where the store is asked."""
    times_of(wanted.since, wanted.until)
    given = asdict(wanted)
    given["tags"] = checked_tags(wanted.tags)
    for name in ("flow_run_id", "parent"):
        if given.get(name) is not None:
            given[name] = id_text(given[name])
    deployment = given.get("deployment")
    if deployment is not None and "/" not in str(deployment):
        given["deployment"] = id_text(deployment)
    return given


def _page(order: str, limit: int, after: str | None) -> dict[str, Any]:
    order_of(order)
    return {"order": order, "limit": checked_limit(limit), "after": after}


__all__ = ["RemoteReader"]
