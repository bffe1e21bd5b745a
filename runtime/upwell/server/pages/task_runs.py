"""Task runs: the list of all, and one with its states, inputs, log, what it waited for and what waited for it."""

from __future__ import annotations

from litestar import get
from litestar.response import Response

from upwell.journal.views import Views
from upwell.server import auth
from upwell.server.api.asked import PathId
from upwell.server.pages.asked import PAGE_ITEMS, TASK_QUERY, Asked
from upwell.server.pages.logs import log_view
from upwell.server.pages.rendering import PageRequest, page, parts
from upwell.server.pages.runs import STATES, TIMES


@get("/task-runs", include_in_schema=False, opt={**auth.READ, "query": TASK_QUERY})
async def task_runs(request: PageRequest) -> Response[str]:
    """Task runs, the newest first."""
    asked, here = Asked.of(dict(request.query_params)), parts(request)
    found = await here.reader.task_runs(asked.task_runs(), "newest", PAGE_ITEMS, asked.after or None)
    return page(
        request,
        "task_runs.html",
        section="runs",
        asked=asked,
        states=[(name, value) for name, value in STATES if value not in ("Late", "SCHEDULED", "PAUSED")],
        times=TIMES,
        flows=await Views(here.session).flow_names(),
        task_runs=found.items,
        next=found.next,
    )


@get(
    "/task-runs/{run_id:uuid}",
    include_in_schema=False,
    opt={**auth.READ, "query": frozenset({"level", "q", "before"})},
)
async def task_run(request: PageRequest, run_id: PathId) -> Response[str]:
    """One task run."""
    here, query = parts(request), dict(request.query_params)
    record = await here.reader.task_run(run_id)
    views = Views(here.session)
    return page(
        request,
        "task_run.html",
        section="runs",
        task_run=record,
        flow_run=await here.reader.flow_run(record.flow_run_id) if record.flow_run_id else None,
        states=await here.reader.states(run_id),
        neighbours=await views.neighbours(run_id),
        stored=await views.stored_result(run_id),
        logs=await log_view(here, run_id, query, task_run=True),
    )


__all__ = ["task_run", "task_runs"]
