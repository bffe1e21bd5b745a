"""Deployments and their schedules: made, changed, started, removed.

A key of the scope `run` may serve flows of its own and start any. What a worker runs, and how, is said by `admin`:
deployments of work pools, and variables of jobs.
"""

from __future__ import annotations

import datetime as dt
from http import HTTPStatus
from typing import Annotated, Final

from litestar import delete, get, patch, post, put
from litestar.openapi import ResponseSpec
from litestar.params import HeaderParameter, JSONBody
from litestar.response import Response
from litestar.types import ControllerRouterHandler
from msgspec import Meta, Struct
from msgspec.structs import replace

from upwell.core.deployments import Deployment, DeploymentSpec, RunSpec, ScheduleSpec
from upwell.core.errors import InvalidRequestError, NotFoundError
from upwell.core.model import FlowRunRecord, Page
from upwell.journal.control_part import now_micros
from upwell.journal.reader_records import moment
from upwell.server import auth
from upwell.server.api.asked import PAGE_ITEMS, After, Limit, PathId, PathName, Request, Text, Texts, note
from upwell.server.parts import parts_of

IdempotencyKey = Annotated[str | None, HeaderParameter(name="Idempotency-Key", max_length=1000)]


@get("/api/deployments", opt=auth.READ)
async def deployments(
    request: Request,
    flow: Text = None,
    text: Text = None,
    tags: Texts = None,
    work_pool: Text = None,
    limit: Limit = PAGE_ITEMS,
    after: After = None,
) -> Page[Deployment]:
    """Deployments, a page at a time, by flow and name."""
    return await parts_of(request).control.deployments(
        flow=flow, text=text, tags=tags, work_pool=work_pool, limit=limit, after=after
    )


@put("/api/deployments", opt=auth.RUN)
async def apply_deployment(request: Request, data: JSONBody[DeploymentSpec]) -> Deployment:
    """Make a deployment, or make the one of this flow and name like this."""
    if data.work_pool is not None or data.job_variables or await _pool_of(request, data) is not None:
        auth.require(request, "admin")
    applied = await parts_of(request).control.apply_deployment(data)
    await note(request, "apply deployment", applied.full_name)
    return applied


async def _pool_of(request: Request, wanted: DeploymentSpec) -> str | None:
    try:
        found = await parts_of(request).control.deployment(f"{wanted.flow_name}/{wanted.name}")
    except (NotFoundError, InvalidRequestError):
        return None
    return found.work_pool


@get("/api/deployments/by-name/{flow:str}/{name:str}", opt=auth.READ)
async def deployment_by_name(request: Request, flow: PathName, name: PathName) -> Deployment:
    """The deployment of this flow and name."""
    return await parts_of(request).control.deployment(f"{flow}/{name}")


@get("/api/deployments/{deployment_id:uuid}", opt=auth.READ)
async def deployment(request: Request, deployment_id: PathId) -> Deployment:
    """One deployment."""
    return await parts_of(request).control.deployment(deployment_id)


@delete("/api/deployments/{deployment_id:uuid}", opt=auth.RUN)
async def delete_deployment(request: Request, deployment_id: PathId) -> None:
    """Remove a deployment with its schedules, and the runs that have not begun."""
    found = await parts_of(request).control.deployment(deployment_id)
    if found.work_pool is not None:
        auth.require(request, "admin")
    await parts_of(request).control.delete_deployment(deployment_id)
    await note(request, "delete deployment", found.full_name)


@post("/api/deployments/{deployment_id:uuid}/pause", opt=auth.RUN, status_code=200)
async def pause_deployment(request: Request, deployment_id: PathId) -> Deployment:
    """Nothing of it begins any more until it is resumed."""
    return await _set_paused(request, deployment_id, True)


@post("/api/deployments/{deployment_id:uuid}/resume", opt=auth.RUN, status_code=200)
async def resume_deployment(request: Request, deployment_id: PathId) -> Deployment:
    """What is due of it begins again."""
    return await _set_paused(request, deployment_id, False)


async def _set_paused(request: Request, deployment_id: PathId, paused: bool) -> Deployment:
    changed = await parts_of(request).control.pause_deployment(deployment_id, paused)
    await note(request, "pause deployment" if paused else "resume deployment", changed.full_name)
    return changed


# --- schedules ----------------------------------------------------------------------------------------------


class ScheduleChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether a schedule makes runs."""

    active: bool


class BackfillBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The past time whose ticks are to be run. dry_run: only say which."""

    since: Annotated[dt.datetime, Meta(tz=True)]
    until: Annotated[dt.datetime, Meta(tz=True)]
    dry_run: bool = False


@put("/api/deployments/{deployment_id:uuid}/schedules", opt=auth.RUN)
async def put_schedule(request: Request, deployment_id: PathId, data: JSONBody[ScheduleSpec]) -> Deployment:
    """Add a schedule, or change the one of this slug."""
    changed = await parts_of(request).control.put_schedule(deployment_id, data)
    await note(request, "put schedule", changed.full_name, data.slug or data.expression)
    return changed


@patch("/api/deployments/{deployment_id:uuid}/schedules/{slug:str}", opt=auth.RUN)
async def change_schedule(
    request: Request, deployment_id: PathId, slug: PathName, data: JSONBody[ScheduleChange]
) -> Deployment:
    """Pause a schedule, or resume it."""
    changed = await parts_of(request).control.set_schedule_active(deployment_id, slug, data.active)
    await note(request, "resume schedule" if data.active else "pause schedule", changed.full_name, slug)
    return changed


@delete("/api/deployments/{deployment_id:uuid}/schedules/{slug:str}", opt=auth.RUN, status_code=200)
async def delete_schedule(request: Request, deployment_id: PathId, slug: PathName) -> Deployment:
    """Remove a schedule."""
    changed = await parts_of(request).control.delete_schedule(deployment_id, slug)
    await note(request, "delete schedule", changed.full_name, slug)
    return changed


@post("/api/deployments/{deployment_id:uuid}/schedules/{slug:str}/backfill", opt=auth.RUN, status_code=200)
async def backfill(
    request: Request, deployment_id: PathId, slug: PathName, data: JSONBody[BackfillBody]
) -> list[dt.datetime]:
    """Make runs for the ticks of a past time that have none; the ticks."""
    ticks = await parts_of(request).control.backfill(deployment_id, slug, data.since, data.until, dry_run=data.dry_run)
    if not data.dry_run:
        await note(request, "backfill", deployment_id, f"{slug}: {len(ticks)} runs")
    return ticks


# --- runs ---------------------------------------------------------------------------------------------------


_KNOWN: Final = ResponseSpec(
    FlowRunRecord, generate_examples=False, description="The run of this idempotency key, made before"
)


@post("/api/deployments/{deployment_id:uuid}/runs", opt=auth.RUN, responses={200: _KNOWN})
async def run_deployment(
    request: Request,
    deployment_id: PathId,
    data: JSONBody[RunSpec | None] = None,
    idempotency_key: IdempotencyKey = None,
) -> Response[FlowRunRecord]:
    """Make a run, to begin when it is due. One of an idempotency key that is known already is that very run."""
    wanted = data or RunSpec()
    if wanted.job_variables:
        auth.require(request, "admin")
    if idempotency_key is not None:
        wanted = replace(wanted, idempotency_key=idempotency_key)
    asked = moment(now_micros())
    made = await parts_of(request).control.run_deployment(deployment_id, wanted)
    if made.created < asked:
        return Response(made, status_code=HTTPStatus.OK)
    await note(request, "run deployment", deployment_id, f"{made.name} ({made.id})")
    return Response(made, status_code=HTTPStatus.CREATED)


def deployment_routes() -> list[ControllerRouterHandler]:
    """The routes of this file."""
    whole: list[ControllerRouterHandler] = [
        deployments,
        apply_deployment,
        deployment_by_name,
        deployment,
        delete_deployment,
        pause_deployment,
        resume_deployment,
    ]
    return [*whole, put_schedule, change_schedule, delete_schedule, backfill, run_deployment]
