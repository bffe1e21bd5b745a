"""Flow runs: what ran and what became of it; cancel, retry, resume, delete."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal
from uuid import UUID

from litestar import delete, get, post
from litestar.params import FromQuery, JSONBody, QueryParameter
from litestar.types import ControllerRouterHandler
from msgspec import Meta, Struct

from upwell.core.bulk import BulkDone, BulkSpec
from upwell.core.model import Edge, FlowRunRecord, LogLine, Page, RunTree, Span, StateCounts
from upwell.core.states import State
from upwell.engine.clock import clock, moment
from upwell.journal.reader import FlowRunFilter
from upwell.server import auth
from upwell.server.api.asked import (
    PAGE_ITEMS,
    After,
    Id,
    InState,
    Level,
    Limit,
    Moment,
    Order,
    PathId,
    PathName,
    Request,
    Switch,
    Text,
    Texts,
    note,
    note_bulk,
)
from upwell.server.parts import parts_of

DAY: dt.timedelta = dt.timedelta(days=1)


@get("/api/flow-runs", opt=auth.READ)
async def flow_runs(
    request: Request,
    flow: Text = None,
    in_state: InState = None,
    tags: Texts = None,
    since: Moment = None,
    until: Moment = None,
    text: Text = None,
    parent: Id = None,
    deployment: Annotated[str | None, QueryParameter(max_length=1000, description="Its id, or `flow/name`.")] = None,
    ahead: Switch = True,
    ended: Annotated[bool | None, QueryParameter(description="Only those that have ended, or have not.")] = None,
    order: Order = "newest",
    limit: Limit = PAGE_ITEMS,
    after: After = None,
) -> Page[FlowRunRecord]:
    """Flow runs, a page at a time, by when they were created."""
    wanted = FlowRunFilter(
        flow=flow,
        state=in_state,
        tags=tags,
        since=since,
        until=until,
        text=text,
        parent=parent,
        deployment=deployment,
        ahead=ahead,
        ended=ended,
    )
    return await parts_of(request).reader.flow_runs(wanted, order, limit, after)


@get("/api/flow-runs/{run_id:uuid}", opt=auth.READ)
async def flow_run(request: Request, run_id: PathId) -> FlowRunRecord:
    """One flow run."""
    return await parts_of(request).reader.flow_run(run_id)


@get("/api/flow-runs/by-id/{beginning:str}", opt=auth.READ)
async def flow_runs_by_id(request: Request, beginning: PathName, limit: Limit = PAGE_ITEMS) -> list[FlowRunRecord]:
    """Flow runs whose ids begin with this, at least 6 digits; the newest first."""
    return await parts_of(request).reader.flow_runs_by_id(beginning, limit)


@get("/api/flow-runs/{run_id:uuid}/states", opt=auth.READ)
async def flow_run_states(request: Request, run_id: PathId) -> list[State]:
    """All states that a flow run has been in, in their order."""
    await parts_of(request).reader.flow_run(run_id)
    return await parts_of(request).reader.states(run_id)


@get("/api/flow-runs/{run_id:uuid}/logs", opt=auth.READ)
async def flow_run_logs(
    request: Request,
    run_id: PathId,
    level: Level = 0,
    limit: Limit = PAGE_ITEMS,
    after: After = None,
) -> Page[LogLine]:
    """The log of a flow run and its task runs, in the order of writing."""
    return await parts_of(request).reader.logs(run_id, level, limit, after)


@get("/api/flow-runs/{run_id:uuid}/edges", opt=auth.READ)
async def flow_run_edges(request: Request, run_id: PathId, limit: Limit = 1000, after: After = None) -> Page[Edge]:
    """What waited for what among the task runs of a flow run."""
    return await parts_of(request).reader.edges(run_id, limit, after)


@get("/api/flow-runs/{run_id:uuid}/tree", opt=auth.READ)
async def flow_run_tree(
    request: Request, run_id: PathId, runs_per_task: Annotated[int, QueryParameter(ge=0, le=1000)] = 20
) -> RunTree:
    """A flow run, its task runs by task, and the flow runs that it has started, each a tree again."""
    return await parts_of(request).reader.tree(run_id, runs_per_task)


@get("/api/flow-runs/{run_id:uuid}/timeline", opt=auth.READ)
async def flow_run_timeline(request: Request, run_id: PathId, limit: Limit = 1000, after: After = None) -> Page[Span]:
    """What ran when in a flow run, in the order of starts."""
    return await parts_of(request).reader.timeline(run_id, limit, after)


@get("/api/counts", opt=auth.READ)
async def counts(
    request: Request,
    of: FromQuery[Literal["task_runs", "flow_runs"]] = "flow_runs",
    by: Annotated[str, QueryParameter(max_length=20, description="minute, hour, day, or seconds.")] = "hour",
    since: Moment = None,
    until: Moment = None,
) -> list[StateCounts]:
    """How many runs are in which state now, by when they were created; the last day unless said."""
    until = until or moment(clock().time()) + dt.timedelta(microseconds=1)
    span = _seconds_of(by)
    return await parts_of(request).reader.counts(of, span, since or until - DAY, until)


def _seconds_of(by: str) -> str | float:
    try:
        return float(by)
    except ValueError:
        return by


# --- changes ------------------------------------------------------------------------------------------------


class CancelBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a run is to be cancelled. grace_seconds: so long it has to end by itself."""

    reason: Annotated[str, Meta(max_length=1000)] | None = None
    grace_seconds: Annotated[float, Meta(ge=0, le=86_400)] | None = None


@post("/api/flow-runs/{run_id:uuid}/cancel", opt=auth.RUN, status_code=202)
async def cancel_flow_run(request: Request, run_id: PathId, data: JSONBody[CancelBody | None] = None) -> FlowRunRecord:
    """Have a run end: at once if it has not begun; else whoever runs it sees to it. Ended ones are a conflict."""
    wanted = data or CancelBody()
    cancelled = await parts_of(request).control.request_cancel(
        run_id, by=auth.actor_of(request).name, reason=wanted.reason, grace_seconds=wanted.grace_seconds
    )
    await note(request, "cancel flow run", run_id, wanted.reason)
    return cancelled


@post("/api/flow-runs/{run_id:uuid}/retry", opt=auth.RUN)
async def retry_flow_run(request: Request, run_id: PathId) -> FlowRunRecord:
    """Another run of the same deployment with the same parameters."""
    again = await parts_of(request).control.retry_flow_run(run_id)
    await note(request, "retry flow run", run_id, f"as {again.id}")
    return again


@post("/api/flow-runs/{run_id:uuid}/resume", opt=auth.RUN, status_code=202)
async def resume_flow_run(request: Request, run_id: PathId) -> FlowRunRecord:
    """Have a durable run of a deployment gone on with."""
    resumed = await parts_of(request).control.resume_flow_run(run_id)
    await note(request, "resume flow run", run_id)
    return resumed


class ForkBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From where on a fork runs anew: only what had ended when this task run began is taken over."""

    before: UUID | None = None


@post("/api/flow-runs/{run_id:uuid}/fork", opt=auth.RUN)
async def fork_flow_run(request: Request, run_id: PathId, data: JSONBody[ForkBody | None] = None) -> FlowRunRecord:
    """Another run of the same deployment that takes over what this durable run has finished."""
    made = await parts_of(request).control.fork_flow_run(run_id, data.before if data is not None else None)
    await note(request, "fork flow run", run_id, f"as {made.id}")
    return made


@delete("/api/flow-runs/{run_id:uuid}", opt=auth.RUN)
async def delete_flow_run(request: Request, run_id: PathId) -> None:
    """Remove a run that has ended, or has not begun, with all that belongs to it."""
    await parts_of(request).control.delete_flow_run(run_id)
    await note(request, "delete flow run", run_id)


@post("/api/flow-runs/bulk", opt=auth.RUN, status_code=200)
async def change_flow_runs(request: Request, data: JSONBody[BulkSpec]) -> BulkDone:
    """Cancel, retry, resume or delete many: those of these ids, or those that a filter lets through. The answer says
    what became of each; what is refused does not keep the others from being done."""
    done = await parts_of(request).control.change_flow_runs(data, by=auth.actor_of(request).name)
    await note_bulk(request, data, done)
    return done


def flow_run_routes() -> list[ControllerRouterHandler]:
    """The routes of this file."""
    reading: list[ControllerRouterHandler] = [
        flow_runs,
        flow_runs_by_id,
        flow_run,
        flow_run_states,
        flow_run_logs,
        flow_run_edges,
        flow_run_tree,
        flow_run_timeline,
        counts,
    ]
    changing = [cancel_flow_run, retry_flow_run, resume_flow_run, fork_flow_run, delete_flow_run, change_flow_runs]
    return [*reading, *changing]
