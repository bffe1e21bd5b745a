"""One flow run: its state and how it got there, timeline, graph, log, task runs, subflows, and what it was given."""

from __future__ import annotations

from typing import Any, Final

from litestar import get, post
from litestar.response import Redirect, Response

from upwell.core.model import FlowRunRecord, RunTree
from upwell.core.states import FAILED, StateType
from upwell.journal.views import Views
from upwell.server import auth
from upwell.server.api.asked import PathId, PathName
from upwell.server.pages.asked import PAGE_ITEMS, Asked, flow_run_filter, id_of
from upwell.server.pages.graph import graph
from upwell.server.pages.logs import log_view
from upwell.server.pages.rendering import PageRequest, now, page, parts, redirect
from upwell.server.pages.runs import act, deployment_names
from upwell.server.pages.timeline import timeline
from upwell.server.parts import Parts

VIEWS: Final = (
    ("timeline", "Timeline"),
    ("graph", "Graph"),
    ("logs", "Logs"),
    ("tasks", "Task runs"),
    ("subflows", "Subflows"),
    ("details", "Details"),
)
FAILURES_LISTED: Final = 5

_QUERY: Final = frozenset({"view", "task", "after", "by", "level", "q", "state", "before"})
ACTIONS: Final = ("cancel", "retry", "resume", "fork", "delete")


@get("/runs/{run_id:uuid}", include_in_schema=False, opt={**auth.READ, "query": _QUERY})
async def run(request: PageRequest, run_id: PathId) -> Response[str]:
    """One flow run; `view` says which side of it."""
    here, query = parts(request), dict(request.query_params)
    view = query.get("view", "timeline")
    view = view if view in dict(VIEWS) else "timeline"
    tree = await here.reader.tree(run_id, 0)
    record = tree.run
    parent = await here.reader.flow_run(record.parent_flow_run_id) if record.parent_flow_run_id else None
    counts = _counts(tree)
    return page(
        request,
        "run.html",
        section="runs",
        run=record,
        tree=tree,
        view=view,
        views=[(key, name, _number(key, tree, counts)) for key, name in VIEWS if key != "subflows" or tree.flow_runs],
        counts=counts,
        total=sum(counts.values()),
        states=await here.reader.states(run_id),
        parent=parent,
        deployment=(await deployment_names(here, [record])).get(record.deployment_id) if record.deployment_id else None,
        stored=await Views(here.session).stored_result(run_id) if view == "details" else None,
        failures=await _failures(here, record, counts),
        **await _side(here, view, tree, query),
    )


def _counts(tree: RunTree) -> dict[StateType, int]:
    """How many of its own task runs are in which state."""
    total: dict[StateType, int] = {}
    for group in tree.tasks:
        for kind, number in group.states.items():
            total[kind] = total.get(kind, 0) + number
    return total


def _number(view: str, tree: RunTree, counts: dict[StateType, int]) -> int | None:
    """What stands beside the name of a tab."""
    return {"tasks": sum(counts.values()), "subflows": len(tree.flow_runs)}.get(view)


async def _failures(here: Parts, record: FlowRunRecord, counts: dict[StateType, int]) -> Any:
    """Task runs that failed: why the run is as it is."""
    if not counts.get(FAILED):
        return ()
    wanted = Asked(run=str(record.id), state="FAILED").task_runs()
    return (await here.reader.task_runs(wanted, "oldest", FAILURES_LISTED, None)).items


async def _side(here: Parts, view: str, tree: RunTree, query: dict[str, str]) -> dict[str, Any]:
    """What one view shows."""
    after = query.get("after") or None
    if view == "timeline":
        return {"timeline": await timeline(here, tree, now(), query.get("task", ""), after)}
    if view == "graph":
        return {"graph": await graph(here, tree, query.get("by", ""))}
    if view == "logs":
        return {"logs": await log_view(here, tree.run.id, query)}
    if view == "tasks":
        asked = Asked.of({**query, "run": str(tree.run.id)})
        found = await here.reader.task_runs(asked.task_runs(), "newest", PAGE_ITEMS, after)
        return {"asked": asked, "task_runs": found.items, "next": found.next}
    if view == "subflows":
        found_runs = await here.reader.flow_runs(flow_run_filter(parent=tree.run.id), "newest", PAGE_ITEMS, after)
        progress = await Views(here.session).progress(child.id for child in found_runs)
        return {"children": found_runs.items, "next": found_runs.next, "progress": progress}
    return {}


@post("/runs/{run_id:uuid}/{action:str}", include_in_schema=False, opt=auth.RUN, status_code=303)
async def change_run(request: PageRequest, run_id: PathId, action: PathName) -> Redirect:
    """Cancel it, start it again, go on with it, fork it, or delete it."""
    if action not in ACTIONS:
        return Redirect(f"/runs/{run_id}", status_code=303)
    form = {name: str(value).strip() for name, value in (await request.form()).items()}
    before = id_of(form["before"]) if form.get("before") else None
    result = await act(request, action, run_id, form.get("reason") or None, before)
    if action == "delete":
        return redirect("/runs", "The run was deleted.")
    target = result.id if result is not None else run_id
    said = {
        "cancel": "The run is to end: it says so when it has.",
        "retry": "This is the new run. The one before stays as it is.",
        "resume": "The run goes on when a worker takes it up.",
        "fork": "This is the fork. What the run before had finished is taken over; that one stays as it is.",
    }
    return redirect(f"/runs/{target}", said[action])


__all__ = ["change_run", "run"]
