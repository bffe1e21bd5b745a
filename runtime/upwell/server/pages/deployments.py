"""Deployments: the list, one with its schedules and runs, run now, run with other parameters, pause, delete."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from functools import cache
from itertools import islice
from typing import Any, Final
from uuid import UUID

from litestar import get, post
from litestar.params import FromQuery
from litestar.response import Redirect, Response
from msgspec import Struct

from upwell.core.deployments import Deployment, RunSpec, Schedule
from upwell.core.errors import InvalidRequestError, UpwellError
from upwell.core.ticks import ticks_after, zone_of
from upwell.journal.views import LastRun, Views
from upwell.server import auth
from upwell.server.api.asked import PathId, PathName, note
from upwell.server.pages import charts
from upwell.server.pages.asked import PAGE_ITEMS, flow_run_filter, moment_of
from upwell.server.pages.rendering import PageRequest, now, page, parts, redirect
from upwell.server.pages.run_form import Field, fields_of, parameters_of
from upwell.server.pages.shown import took

TICKS_SHOWN: Final = 3
RUNS_SHOWN: Final = 20
COMING: Final = 5

STARTS: Final = (
    ("Now", ""),
    ("In 5 minutes", "5m"),
    ("In 1 hour", "1h"),
    ("In 24 hours", "24h"),
    ("At a time …", "at"),
)
KINDS: Final = (("cron", "Cron"), ("interval", "Interval"), ("rrule", "RRULE"))
CATCHUPS: Final = (("latest", "run the latest of them"), ("none", "skip them"), ("all", "run all of them"))


class Listed(Struct, frozen=True, kw_only=True):
    """A deployment in the list."""

    deployment: Deployment
    next_tick: dt.datetime | None
    words: list[str]
    strip: list[charts.Bar]


class ShownSchedule(Struct, frozen=True, kw_only=True):
    """A schedule, what it means, and its next ticks."""

    schedule: Schedule
    words: str
    ticks: list[dt.datetime]


def words_of(schedule: Schedule) -> str:
    """What a schedule means, where that can be said."""
    if schedule.kind == "interval":
        return f"every {took(float(schedule.expression))}"
    if schedule.kind == "cron":
        from cronsim import CronSim  # here: few pages need it

        try:
            said = CronSim(schedule.expression, dt.datetime.now(dt.UTC)).explain().removesuffix(".")
            return said[:1].lower() + said[1:]
        except Exception:
            return schedule.expression
    return schedule.expression


def shown_schedule(schedule: Schedule) -> ShownSchedule:
    """For people."""
    try:
        ticks = list(islice(ticks_after(schedule, now()), TICKS_SHOWN)) if schedule.active else []
    except UpwellError:
        ticks = []
    return ShownSchedule(schedule=schedule, words=words_of(schedule), ticks=ticks)


@get("/deployments", include_in_schema=False, opt=auth.READ)
async def deployments(
    request: PageRequest,
    q: FromQuery[str] = "",
    flow: FromQuery[str] = "",
    tag: FromQuery[str] = "",
    pool: FromQuery[str] = "",
    after: FromQuery[str] = "",
) -> Response[str]:
    """All deployments, by flow and name."""
    here = parts(request)
    found = await here.control.deployments(
        text=q or None,
        flow=flow or None,
        tags=[tag] if tag else None,
        work_pool=pool or None,
        limit=PAGE_ITEMS,
        after=after or None,
    )
    moment = now()
    ids = [item.id for item in found.items]
    last_runs = await Views(here.session).last_runs_of_deployments(ids, moment, charts.STRIP_RUNS)
    return page(
        request,
        "deployments.html",
        section="deployments",
        listed=[_listed(item, last_runs.get(str(item.id), []), moment) for item in found.items],
        next=found.next,
        query={name: value for name, value in (("q", q), ("flow", flow), ("tag", tag), ("pool", pool)) if value},
        first=not after,
    )


def _listed(deployment: Deployment, last_runs: Sequence[LastRun], moment: dt.datetime) -> Listed:
    active = [shown_schedule(schedule) for schedule in deployment.schedules if schedule.active]
    ticks = [item.ticks[0] for item in active if item.ticks]
    return Listed(
        deployment=deployment,
        next_tick=None if deployment.paused else min(ticks, default=None),
        words=[item.words for item in active],
        strip=charts.strip(last_runs, moment),
    )


@get(
    "/deployments/{deployment_id:uuid}",
    include_in_schema=False,
    opt=auth.READ,
)
async def deployment(request: PageRequest, deployment_id: PathId, after: FromQuery[str] = "") -> Response[str]:
    """One deployment."""
    return await deployment_page(request, deployment_id, after=after)


async def deployment_page(
    request: PageRequest,
    deployment_id: UUID,
    *,
    after: str = "",
    filled: dict[str, str] | None = None,
    error: str = "",
    at_fault: str = "",
) -> Response[str]:
    """The page of a deployment.

    filled, error: a form as somebody wanted it, and what is wrong with it: that of a new schedule, or the backfill of
    the schedule whose slug is at_fault.
    """
    here = parts(request)
    found = await here.control.deployment(deployment_id)
    runs = await here.reader.flow_runs(
        flow_run_filter(deployment=found.id, ahead=False), "newest", RUNS_SHOWN, after or None
    )
    return page(
        request,
        "deployment.html",
        section="deployments",
        status=422 if error else 200,
        address=f"/deployments/{found.id}" if error else "",
        deployment=found,
        description=markdown(found.description or ""),
        schedules=[shown_schedule(schedule) for schedule in found.schedules],
        coming=await Views(here.session).due_runs(COMING, deployment=found.id),
        runs=runs.items,
        next=runs.next,
        first=not after,
        progress=await Views(here.session).progress(run.id for run in runs.items),
        kinds=KINDS,
        catchups=CATCHUPS,
        zones=zones(),
        filled=filled or {},
        error=error,
        at_fault=at_fault,
    )


@cache
def zones() -> list[str]:
    """The names of time zones."""
    from zoneinfo import available_timezones  # here: reads a folder

    return sorted(name for name in available_timezones() if "/" in name and not name.startswith(("Etc/", "SystemV/")))


def markdown(text: str) -> str:
    """What people wrote, as HTML that does nothing but show: pictures, which pages may not fetch, are left as links."""
    if not text:
        return ""
    import nh3  # here, as below: few pages have any
    from markdown_it import MarkdownIt

    return nh3.clean(
        MarkdownIt("js-default", {"html": False}).disable("image").render(text), link_rel="noopener noreferrer"
    )


# --- changes --------------------------------------------------------------------------------------------------


@post("/deployments/{deployment_id:uuid}/{action:str}", include_in_schema=False, opt=auth.RUN, status_code=303)
async def change_deployment(request: PageRequest, deployment_id: PathId, action: PathName) -> Redirect:
    """Run it now as it is, pause it, resume it, delete it."""
    here = parts(request)
    found = await here.control.deployment(deployment_id)
    place = f"/deployments/{deployment_id}"
    if action == "run":
        made = await here.control.run_deployment(deployment_id, RunSpec())
        await note(request, "run deployment", deployment_id, f"{made.name} ({made.id})")
        return Redirect(f"/runs/{made.id}", status_code=303)
    if action in ("pause", "resume"):
        await here.control.pause_deployment(deployment_id, action == "pause")
        await note(request, f"{action} deployment", found.full_name)
        said = "It is paused: nothing of it begins." if action == "pause" else "It goes on."
        return redirect(place, said)
    if action == "delete":
        if found.work_pool is not None:
            auth.require(request, "admin")
        await here.control.delete_deployment(deployment_id)
        await note(request, "delete deployment", found.full_name)
        return redirect("/deployments", f"{found.full_name} was deleted.")
    return Redirect(place, status_code=303)


# --- a run with other parameters ----------------------------------------------------------------------------


@get("/deployments/{deployment_id:uuid}/custom-run", include_in_schema=False, opt=auth.RUN)
async def custom_run_form(request: PageRequest, deployment_id: PathId) -> Response[str]:
    """A form for a run."""
    found = await parts(request).control.deployment(deployment_id)
    return _form_page(request, found, fields_of(found.parameter_schema, found.parameters), {}, "")


def _form_page(
    request: PageRequest, found: Deployment, fields: list[Field], filled: dict[str, str], error: str
) -> Response[str]:
    return page(
        request,
        "custom_run.html",
        section="deployments",
        status=422 if error else 200,
        deployment=found,
        fields=fields,
        filled=filled,
        error=error,
        starts=STARTS,
        zones=zones(),
    )


@post("/deployments/{deployment_id:uuid}/custom-run", include_in_schema=False, opt=auth.RUN)
async def custom_run(request: PageRequest, deployment_id: PathId) -> Response[str] | Redirect:
    """Make the run; or say at each field what is wrong."""
    here = parts(request)
    found = await here.control.deployment(deployment_id)
    form = {name: str(value) for name, value in (await request.form()).items()}
    fields = fields_of(found.parameter_schema, found.parameters)
    try:
        if (parameters := parameters_of(fields, form, found.parameter_schema)) is None:
            return _form_page(request, found, fields, form, "Some of it does not fit: see below.")
        wanted = _run_spec(form, parameters)
        made = await here.control.run_deployment(deployment_id, wanted)
    except InvalidRequestError as error:
        return _form_page(request, found, fields, form, str(error))
    await note(request, "run deployment", deployment_id, f"{made.name} ({made.id})")
    return Redirect(f"/runs/{made.id}", status_code=303)


def _run_spec(form: dict[str, str], parameters: dict[str, Any]) -> RunSpec:
    tags = tuple(tag.strip() for tag in form.get("tags", "").split(",") if tag.strip())
    priority = form.get("priority", "").strip() or "0"
    if not priority.removeprefix("-").isdecimal():
        raise InvalidRequestError(f"The priority is {priority[:20]!r}, and must be a whole number.")
    return RunSpec(
        parameters=parameters,
        due=_due(form),
        name=form.get("name", "").strip() or None,
        tags=tags,
        priority=int(priority),
    )


def _due(form: dict[str, str]) -> dt.datetime | None:
    """When it is to begin; None is now."""
    start = form.get("start", "")
    if not start:
        return None
    if start != "at":
        moment = moment_of(start)
        return None if moment is None else now() + (now() - moment)
    try:
        local = dt.datetime.fromisoformat(form.get("at", ""))
        if local.tzinfo is None:
            local = local.replace(tzinfo=zone_of(form.get("zone", "") or "UTC"))
        return local.astimezone(dt.UTC)
    except (ValueError, OverflowError):  # the latter at the edges of what years there are
        raise InvalidRequestError("Say at which time it is to begin.") from None


__all__ = [
    "change_deployment",
    "custom_run",
    "custom_run_form",
    "deployment",
    "deployment_page",
    "deployments",
    "words_of",
    "zones",
]
