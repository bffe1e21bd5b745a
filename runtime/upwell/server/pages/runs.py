"""The list of flow runs: filtered, searched, and many of them cancelled, run again or deleted at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.response import Redirect, Response
from msgspec import to_builtins

from upwell.core.bulk import MOST_RUNS, BulkDone, BulkSpec
from upwell.core.errors import InvalidRequestError, UpwellError
from upwell.core.model import FlowRunRecord
from upwell.journal.views import Views
from upwell.server import auth
from upwell.server.api.asked import note, note_bulk
from upwell.server.pages.asked import LIST_QUERY, PAGE_ITEMS, Asked
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
    """Do the same to many flow runs: those chosen, or all that the list's filter lets through."""
    form = await request.form()
    action, back = str(form.get("action", "")), str(form.get("back", "/runs"))
    back = back if back.startswith("/runs?") else "/runs"
    said: dict[str, object] = {"action": action, "limit": MOST_RUNS}
    if form.get("all"):
        said |= _filter_of(back)
    else:
        said["ids"] = [str(value) for value in form.getall("run", [])]
    try:
        wanted = msgspec.convert(said, BulkSpec)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"This cannot be done to runs: {error}") from None
    done = await parts(request).control.change_flow_runs(wanted, by=auth.actor_of(request).name)
    await note_bulk(request, wanted, done)
    return redirect(back, _said_of(wanted, done))


def _filter_of(address: str) -> dict[str, object]:
    """The filter that the address of a list says, with no more than it says."""
    asked = Asked.of(dict(parse_qsl(urlsplit(address).query)))
    filters = to_builtins(asked.flow_runs())
    return {name: filters[name] for name in _FILTERS if filters.get(name) not in (None, "", [])}


_FILTERS: Final = ("flow", "state", "tags", "since", "until", "text", "deployment", "ahead")
_DONE: Final = {
    "cancel": "to be cancelled",
    "retry": "started again",
    "resume": "to be gone on with",
    "delete": "deleted",
}


def _said_of(wanted: BulkSpec, done: BulkDone) -> str:
    said = [f"{done.done} of {len(done.items)} {_DONE[wanted.action]}."]
    why = Counter(item.refused for item in done.items if item.refused is not None)
    said += [f"{reason}" if number == 1 else f"{number} times: {reason}" for reason, number in why.most_common(3)]
    if done.next is not None:
        said.append("There are more: do it again.")
    return " ".join(said)


async def act(
    request: PageRequest, action: str, run_id: UUID, reason: str | None = None, before: UUID | None = None
) -> FlowRunRecord | None:
    """Do one thing to one flow run, and note who has done it; the run that is then to be looked at.

    before: the task run from which on a fork runs anew.
    """
    here, actor = parts(request), auth.actor_of(request)
    result: FlowRunRecord | None = None
    if action == "cancel":
        result = await here.control.request_cancel(run_id, by=actor.name, reason=reason)
    elif action == "retry":
        result = await here.control.retry_flow_run(run_id)
    elif action == "resume":
        result = await here.control.resume_flow_run(run_id)
    elif action == "fork":
        result = await here.control.fork_flow_run(run_id, before)
    elif action == "delete":
        await here.control.delete_flow_run(run_id)
    else:
        raise InvalidRequestError(f"Runs cannot be made to {action[:20]!r}.")
    await note(request, f"{action} flow run", run_id, reason)
    return result


__all__ = ["act", "bulk", "deployment_names", "runs"]
