"""Task runs: which ran, and what became of each."""

from __future__ import annotations

from litestar import get
from litestar.types import ControllerRouterHandler

from upwell.core.model import LogLine, Page, TaskRun
from upwell.core.states import State
from upwell.journal.reader_task_runs import TaskRunFilter
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
    Request,
    Text,
    Texts,
)
from upwell.server.parts import parts_of


@get("/api/task-runs", opt=auth.READ)
async def task_runs(
    request: Request,
    flow_run_id: Id = None,
    task: Text = None,
    flow: Text = None,
    in_state: InState = None,
    tags: Texts = None,
    since: Moment = None,
    until: Moment = None,
    text: Text = None,
    parent: Id = None,
    order: Order = "newest",
    limit: Limit = PAGE_ITEMS,
    after: After = None,
) -> Page[TaskRun]:
    """Task runs, a page at a time, by when they were submitted. Those of a flow run that have not begun come last."""
    wanted = TaskRunFilter(
        flow_run_id=flow_run_id,
        task=task,
        flow=flow,
        state=in_state,
        tags=tags,
        since=since,
        until=until,
        text=text,
        parent=parent,
    )
    return await parts_of(request).reader.task_runs(wanted, order, limit, after)


@get("/api/task-runs/{run_id:uuid}", opt=auth.READ)
async def task_run(request: Request, run_id: PathId) -> TaskRun:
    """One task run."""
    return await parts_of(request).reader.task_run(run_id)


@get("/api/task-runs/{run_id:uuid}/states", opt=auth.READ)
async def task_run_states(request: Request, run_id: PathId) -> list[State]:
    """All states that a task run has been in, in their order."""
    await parts_of(request).reader.task_run(run_id)
    return await parts_of(request).reader.states(run_id)


@get("/api/task-runs/{run_id:uuid}/logs", opt=auth.READ)
async def task_run_logs(
    request: Request,
    run_id: PathId,
    level: Level = 0,
    limit: Limit = PAGE_ITEMS,
    after: After = None,
) -> Page[LogLine]:
    """The log of a task run, in the order of writing."""
    return await parts_of(request).reader.logs(run_id, level, limit, after)


def task_run_routes() -> list[ControllerRouterHandler]:
    """The routes of this file."""
    return [task_runs, task_run, task_run_states, task_run_logs]
