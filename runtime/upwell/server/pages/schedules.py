"""Schedules of a deployment: added, paused, resumed, removed, and ticks of a past time run after all."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final, get_args
from uuid import UUID

from litestar import post
from litestar.response import Redirect, Response

from upwell.core.deployments import Catchup, ScheduleKind, ScheduleSpec
from upwell.core.errors import ConflictError, InvalidRequestError
from upwell.core.ticks import zone_of
from upwell.journal.schedules import slug_of
from upwell.server import auth
from upwell.server.api.asked import PathId, PathName, note
from upwell.server.pages.deployments import deployment_page
from upwell.server.pages.rendering import PageRequest, parts, redirect
from upwell.server.pages.shown import exact, several

UNITS: Final = {"seconds": 1, "minutes": 60, "hours": 3_600, "days": 86_400}


@post("/deployments/{deployment_id:uuid}/schedules/add", include_in_schema=False, opt=auth.RUN)
async def add_schedule(request: PageRequest, deployment_id: PathId) -> Response[str] | Redirect:
    """Add a schedule; or say what is wrong with it."""
    form = {name: str(value) for name, value in (await request.form()).items()}
    try:
        wanted, control = _spec(form), parts(request).control
        slug = slug_of(wanted)
        if slug in {it.slug for it in (await control.deployment(deployment_id)).schedules}:
            raise ConflictError(f"There is a schedule {slug} already: give this one another name, or remove that one.")
        changed = await control.put_schedule(deployment_id, wanted)
    except (InvalidRequestError, ConflictError) as error:
        return await deployment_page(request, deployment_id, filled=form, error=str(error))
    await note(request, "put schedule", changed.full_name, wanted.slug or wanted.expression)
    return _back(deployment_id, "The schedule was added.")


def _spec(form: dict[str, str]) -> ScheduleSpec:
    """The schedule as it was filled in.

    Raises:
        InvalidRequestError: it cannot be one.
    """
    kind, catchup = form.get("kind", ""), form.get("catchup", "latest")
    if kind not in get_args(ScheduleKind) or catchup not in get_args(Catchup):
        raise InvalidRequestError("Say which kind of schedule it is: cron, interval or rrule.")
    given: dict[str, Any] = {
        "kind": kind,
        "catchup": catchup,
        "expression": _expression(kind, form),
        "slug": form.get("slug", "").strip() or None,
        "timezone": form.get("timezone", "").strip() or "UTC",
    }
    zone_of(given["timezone"])
    if form.get("late", "").strip():
        try:
            given["max_late_seconds"] = float(form["late"]) * 60
        except ValueError:
            raise InvalidRequestError(f"{form['late'][:20]!r} is no number of minutes.") from None
    return ScheduleSpec(**given)


def _expression(kind: str, form: dict[str, str]) -> str:
    if kind != "interval":
        return form.get(kind, "").strip()
    every, unit = form.get("every", "").strip(), form.get("unit", "minutes")
    try:
        seconds = float(every) * UNITS[unit]
        return str(int(seconds)) if seconds == int(seconds) else str(seconds)
    except (ValueError, KeyError, OverflowError):  # infinity and what is no number among them
        raise InvalidRequestError(f"The interval is {every[:20]!r}, and must be a number.") from None


@post("/deployments/{deployment_id:uuid}/schedules/{slug:str}/{action:str}", include_in_schema=False, opt=auth.RUN)
async def change_schedule(
    request: PageRequest, deployment_id: PathId, slug: PathName, action: PathName
) -> Response[str] | Redirect:
    """Pause a schedule, resume it, remove it, or have the ticks of a past time run."""
    control = parts(request).control
    if action in ("pause", "resume"):
        changed = await control.set_schedule_active(deployment_id, slug, action == "resume")
        said = "The schedule is paused." if action == "pause" else "The schedule goes on."
    elif action == "delete":
        changed = await control.delete_schedule(deployment_id, slug)
        said = "The schedule was removed."
    elif action == "backfill":
        return await _backfill(request, deployment_id, slug)
    else:
        return _back(deployment_id, "")
    await note(request, f"{action} schedule", changed.full_name, slug)
    return _back(deployment_id, said)


async def _backfill(request: PageRequest, deployment_id: UUID, slug: str) -> Response[str] | Redirect:
    form = {name: str(value) for name, value in (await request.form()).items()}
    dry = form.get("dry_run") == "true"
    try:
        since, until = _day(form.get("since", "")), _day(form.get("until", ""))
        ticks = await parts(request).control.backfill(deployment_id, slug, since, until, dry_run=dry)
    except (InvalidRequestError, ConflictError) as error:
        return await deployment_page(request, deployment_id, filled=form, error=str(error), at_fault=slug)
    if not dry:
        await note(request, "backfill", deployment_id, f"{slug}: {several(len(ticks), 'run')}")
    first = f", the first for {exact(ticks[0])}" if ticks else ""
    made = "would be" if dry else "was" if len(ticks) == 1 else "were"
    return _back(deployment_id, f"{several(len(ticks), 'run')} {made} made{first}.")


def _day(text: str) -> dt.datetime:
    try:
        given = dt.datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequestError("Say from when to when.") from None
    return given if given.tzinfo is not None else given.replace(tzinfo=dt.UTC)


def _back(deployment_id: UUID, said: str) -> Redirect:
    return redirect(f"/deployments/{deployment_id}", said)


__all__ = ["add_schedule", "change_schedule"]
