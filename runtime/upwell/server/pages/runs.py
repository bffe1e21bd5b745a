"""The list of flow runs: filtered, searched, and many of them cancelled, run again or deleted at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from uuid import UUID

from litestar import get, post
from litestar.response import Redirect, Response

from upwell.core.errors import InvalidRequestError, UpwellError
from upwell.core.model import FlowRunRecord
from upwell.journal.views import Views
from upwell.server import auth
from upwell.server.api.asked import note
from upwell.server.pages.asked import LIST_QUERY, PAGE_ITEMS, Asked, id_of
from upwell.server.pages.rendering import PageRequest, page, parts, redirect
from upwell.server.parts import Parts

STATES: Final = (
    ("All", ""),
    ("Running", "RUNNING"),
    ("Late", "Late"),
    ("Scheduled", "SCHEDULED"),
    ("Failed", "FAILED"),
    ("Crashed", "CRASHED"),
    ("Cancelled", "CANCELLED"),
    ("Paused", "PAUSED"),
    ("Completed", "COMPLETED"),
)
TIMES: Final = (
    ("Any time", ""),
    ("Last hour", "1h"),
    ("Last 24 hours", "24h"),
    ("Last 7 days", "7d"),
    ("Last 30 days", "30d"),
)
MOST_AT_ONCE: Final = 200


@get("/runs", include_in_schema=False, opt={**auth.READ, "query": LIST_QUERY})
async def runs(request: PageRequest) -> Response[str]:
    """Flow runs, the newest first."""
    asked, here = Asked.of(dict(request.query_params)), parts(request)
    views = Views(here.session)
    found = await here.reader.flow_runs(asked.flow_runs(), "newest", PAGE_ITEMS, asked.after or None)
    return page(
        request,
        "runs.html",
        section="runs",
        asked=asked,
        states=STATES,
        times=TIMES,
        flows=await views.flow_names(),
        runs=found.items,
        next=found.next,
        progress=await views.progress(run.id for run in found.items),
        deployments=await deployment_names(here, found.items),
    )


async def deployment_names(here: Parts, runs: Iterable[FlowRunRecord]) -> dict[UUID, str]:
    """The names of the deployments of these runs; without those that are gone."""
    names: dict[UUID, str] = {}
    for wanted in {run.deployment_id for run in runs} - {None}:
        assert wanted is not None
        try:
            names[wanted] = (await here.control.deployment(wanted)).name
        except UpwellError:
            continue
    return names


@post("/runs/bulk", include_in_schema=False, opt=auth.RUN, status_code=303)
async def bulk(request: PageRequest) -> Redirect:
    """Do the same to many flow runs; says how many it was done to, and why not to the others."""
    form = await request.form()
    chosen = [id_of(str(value)) for value in form.getall("run", [])][:MOST_AT_ONCE]
    action, back = str(form.get("action", "")), str(form.get("back", "/runs"))
    done, refused = 0, ""
    for run_id in chosen:
        try:
            await act(request, action, run_id)
            done += 1
        except UpwellError as error:
            refused = refused or str(error)
    word = {"cancel": "to be cancelled", "retry": "started again", "delete": "deleted"}.get(action, "")
    notice = f"{done} of {len(chosen)} {word}." + (f" {refused}" if refused else "")
    return redirect(back if back.startswith("/runs?") else "/runs", notice)


async def act(request: PageRequest, action: str, run_id: UUID, reason: str | None = None) -> FlowRunRecord | None:
    """Do one thing to one flow run, and note who has done it; the run that is then to be looked at."""
    here, actor = parts(request), auth.actor_of(request)
    result: FlowRunRecord | None = None
    if action == "cancel":
        result = await here.control.request_cancel(run_id, by=actor.name, reason=reason)
    elif action == "retry":
        result = await here.control.retry_flow_run(run_id)
    elif action == "resume":
        result = await here.control.resume_flow_run(run_id)
    elif action == "delete":
        await here.control.delete_flow_run(run_id)
    else:
        raise InvalidRequestError(f"Runs cannot be made to {action[:20]!r}.")
    await note(request, f"{action} flow run", run_id, reason)
    return result


__all__ = ["act", "bulk", "deployment_names", "runs"]
