"""For those who carry jobs out: claim, begin, give back; who has asked for an end; and what is done now and then."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from litestar import post
from litestar.params import JSONBody
from litestar.types import ControllerRouterHandler
from msgspec import Meta, Struct

from upwell.core.deployments import CancelRequest, ClaimSpec, ExpectSpec, Job
from upwell.server import auth
from upwell.server.api.asked import Request
from upwell.server.parts import parts_of

Name = Annotated[str, Meta(min_length=1, max_length=1000)]


class WorkerBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A worker."""

    worker_id: Name


class BeginBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job, and the process that begins it. durable: the run is gone on with, should that process die."""

    job: Job
    process_id: Name
    durable: bool = False


class JobBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job, and what is to be said about it."""

    job: Job
    message: Annotated[str, Meta(max_length=10_000)]


class RunsBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose cancel requests are wanted: those of these runs, or of this process's."""

    flow_run_ids: Annotated[list[UUID], Meta(max_length=10_000)] = []
    process_id: Name | None = None


class LateBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long after its time a run is late."""

    after_seconds: Annotated[float, Meta(ge=0, le=315_360_000)]


class Done(Struct, frozen=True):
    """Whether it was done."""

    done: bool


class Number(Struct, frozen=True):
    """How many."""

    number: int


@post("/api/jobs/claim", opt=auth.RUN, status_code=200)
async def claim_jobs(request: Request, data: JSONBody[ClaimSpec]) -> list[Job]:
    """Jobs that are due now, for this worker alone."""
    return await parts_of(request).control.claim_jobs(data)


@post("/api/jobs/expected", opt=auth.RUN, status_code=200)
async def expected_jobs(request: Request, data: JSONBody[ExpectSpec]) -> list[Job]:
    """Jobs that will be due soon, so that a worker can get ready for them; none is promised to it."""
    return await parts_of(request).control.expected_jobs(data)


@post("/api/jobs/claimed", opt=auth.RUN, status_code=200)
async def claimed_jobs(request: Request, data: JSONBody[WorkerBody]) -> list[Job]:
    """Jobs that this worker has claimed, and that have not begun: for one whose answer was lost."""
    return await parts_of(request).control.claimed_jobs(data.worker_id)


@post("/api/jobs/begin", opt=auth.RUN, status_code=200)
async def begin_job(request: Request, data: JSONBody[BeginBody]) -> Done:
    """The run begins now, in this process; unless the claim is void."""
    return Done(await parts_of(request).control.begin_job(data.job, data.process_id, durable=data.durable))


@post("/api/jobs/release", opt=auth.RUN, status_code=204)
async def release_job(request: Request, data: JSONBody[JobBody]) -> None:
    """It was not begun: somebody else may have it."""
    await parts_of(request).control.release_job(data.job, data.message)


@post("/api/jobs/fail", opt=auth.RUN, status_code=204)
async def fail_job(request: Request, data: JSONBody[JobBody]) -> None:
    """It could not be begun, or its process is gone."""
    await parts_of(request).control.fail_job(data.job, data.message)


@post("/api/cancel-requests/query", opt=auth.READ, status_code=200)
async def cancel_requests(request: Request, data: JSONBody[RunsBody]) -> list[CancelRequest]:
    """Who is to be cancelled, of those that have not ended."""
    return await parts_of(request).control.cancel_requests(data.flow_run_ids, data.process_id)


@post("/api/upkeep/ticks", opt=auth.RUN, status_code=200)
async def make_ticks(request: Request) -> Number:
    """Make the runs of schedules that are due soon by the server's clock, as it does now and then."""
    return Number(await parts_of(request).control.make_ticks())


@post("/api/upkeep/late", opt=auth.RUN, status_code=200)
async def mark_late(request: Request, data: JSONBody[LateBody]) -> Number:
    """Mark what should have begun, as the server does now and then."""
    return Number(await parts_of(request).control.mark_late(data.after_seconds))


@post("/api/upkeep/jobs", opt=auth.RUN, status_code=200)
async def reap_jobs(request: Request) -> Number:
    """Let the jobs of dead workers wait again, as the server does now and then."""
    return Number(await parts_of(request).control.reap_jobs())


def job_routes() -> list[ControllerRouterHandler]:
    """The routes of this file."""
    return [
        claim_jobs,
        expected_jobs,
        claimed_jobs,
        begin_job,
        release_job,
        fail_job,
        cancel_requests,
        make_ticks,
        mark_late,
        reap_jobs,
    ]
