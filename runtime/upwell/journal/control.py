"""The seam to what people and workers ask of a store: deployments, schedules, jobs, cancels, pools, keys.

`SqlControl` answers from a database, `RemoteControl` from a server's API; both pass the same tests. Everything that is
asked for by name or id raises `NotFoundError` where there is none; `InvalidRequestError` says what is wrong with what
is wanted, `ConflictError` what stands in its way.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Protocol
from uuid import UUID

from upwell.core.bulk import BulkDone, BulkSpec
from upwell.core.deployments import (
    ApiKey,
    AuditRecord,
    CancelRequest,
    ClaimSpec,
    Deployment,
    DeploymentSpec,
    ExpectSpec,
    Job,
    RunSpec,
    ScheduleSpec,
    Scope,
    Worker,
    WorkPool,
    WorkPoolSpec,
    WorkQueue,
)
from upwell.core.model import FlowRunRecord, Page

Ref = UUID | str
"""A deployment's id, or `flow/deployment`."""


class Deployments(Protocol):
    """Flows that can be started by name, and their schedules."""

    async def apply_deployment(self, wanted: DeploymentSpec) -> Deployment:
        """Make it, or make what is there like this. Schedules are matched by slug; runs made ahead by those that
        changed or went are taken back."""
        ...

    async def deployment(self, ref: Ref) -> Deployment: ...

    async def deployments(
        self,
        *,
        flow: str | None = None,
        text: str | None = None,
        tags: Iterable[str] | None = None,
        work_pool: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Page[Deployment]:
        """A page, by flow and name."""
        ...

    async def delete_deployment(self, ref: Ref) -> None:
        """With its schedules, and the runs that have not begun."""
        ...

    async def pause_deployment(self, ref: Ref, paused: bool) -> Deployment:
        """Nothing of a paused one begins, and no ticks are made."""
        ...

    async def put_schedule(self, ref: Ref, wanted: ScheduleSpec) -> Deployment:
        """Add a schedule, or change the one of this slug."""
        ...

    async def set_schedule_active(self, ref: Ref, slug: str, active: bool) -> Deployment: ...

    async def delete_schedule(self, ref: Ref, slug: str) -> Deployment: ...

    async def run_deployment(self, ref: Ref, wanted: RunSpec) -> FlowRunRecord:
        """A run, made now, to begin when it is due. Parameters are checked against the deployment's schema."""
        ...

    async def backfill(
        self, ref: Ref, slug: str, since: dt.datetime, until: dt.datetime, *, dry_run: bool = False
    ) -> list[dt.datetime]:
        """Runs for the ticks of a past time that have none; the ticks. `dry_run` makes none."""
        ...


class Jobs(Protocol):
    """Flow runs that somebody is to carry out."""

    async def claim_jobs(self, wanted: ClaimSpec) -> list[Job]:
        """Jobs that are due now, for this worker alone.

        In the order of queue, priority and due time; within the limits of deployments, pools and queues. Who is busy
        asks for 0 now and then: that somebody is there is seen by it, so that ticks that wait are not taken for missed.
        """
        ...

    async def expected_jobs(self, wanted: ExpectSpec) -> list[Job]:
        """Jobs that will be due soon, the next one first, so that somebody can get ready for them.

        None of them is anybody's yet, nor promised to who asks: limits are seen to when they are claimed.
        """
        ...

    async def claimed_jobs(self, worker_id: str) -> list[Job]:
        """Those that this worker has claimed and nobody has begun: what it was given, heard of or not."""
        ...

    async def begin_job(self, job: Job, process_id: str, *, durable: bool = False) -> bool:
        """The run begins now, in this process. False: the claim is void, and it must not.

        durable: of a flow whose runs are gone on with, from the beginning if need be, should the process die.
        """
        ...

    async def release_job(self, job: Job, reason: str) -> None:
        """It was not begun: somebody else may have it."""
        ...

    async def fail_job(self, job: Job, message: str) -> None:
        """It could not be begun, or its process is gone: it ends Crashed, if it has not ended yet; Cancelled if that
        was asked for. A durable run that had begun is to be resumed."""
        ...

    async def request_cancel(
        self, flow_run_id: UUID, *, by: str, reason: str | None = None, grace_seconds: float | None = None
    ) -> FlowRunRecord:
        """Have a run end. One that has not begun is Cancelled at once; of others, whoever runs them sees to it."""
        ...

    async def cancel_requests(
        self, flow_run_ids: Sequence[UUID] = (), process_id: str | None = None
    ) -> list[CancelRequest]:
        """Those of runs that have not ended: of these runs, or of this process's."""
        ...

    async def retry_flow_run(self, flow_run_id: UUID) -> FlowRunRecord:
        """Another run of its deployment with its parameters. A final state stays, so it is a new run."""
        ...

    async def resume_flow_run(self, flow_run_id: UUID) -> FlowRunRecord:
        """Have a durable run of a deployment that crashed or waits to be resumed gone on with."""
        ...

    async def fork_flow_run(self, flow_run_id: UUID, before: UUID | None = None) -> FlowRunRecord:
        """Another run of its deployment that takes over what this durable one has finished; of that only what had ended
        when the task run `before` began."""
        ...

    async def delete_flow_run(self, flow_run_id: UUID) -> None:
        """A run that has ended, or has not begun, with all that belongs to it."""
        ...

    async def change_flow_runs(self, wanted: BulkSpec, *, by: str) -> BulkDone:
        """One of these done to many; what is refused does not keep the others from being done."""
        ...


class Upkeep(Protocol):
    """What services do now and then. Each may be done by several at once, and is done once."""

    async def make_ticks(self) -> int:
        """The runs of schedules that are due within the coming hour, 3 at least and 50 at most of each; how many."""
        ...

    async def mark_late(self, after_seconds: float) -> int:
        """Runs that should have begun are Late, or Skipped where that is too late; how many."""
        ...

    async def reap_jobs(self) -> int:
        """Jobs whose worker died before it began them wait again; those whose run has ended have, too; how many."""
        ...


class Pools(Protocol):
    """Work pools, their queues, and who works there."""

    async def put_work_pool(self, name: str, wanted: WorkPoolSpec) -> WorkPool:
        """Make it, or change what is said of it."""
        ...

    async def work_pool(self, name: str) -> WorkPool: ...

    async def work_pools(self) -> list[WorkPool]: ...

    async def delete_work_pool(self, name: str) -> None: ...

    async def put_work_queue(self, pool: str, queue: WorkQueue) -> WorkPool: ...

    async def delete_work_queue(self, pool: str, name: str) -> WorkPool: ...

    async def register_worker(self, worker_id: str, name: str, pool: str | None) -> None:
        """worker_id: a process of the store's, whose lease says whether it is there."""
        ...

    async def worker_ended(self, worker_id: str) -> None: ...

    async def workers(self, pool: str | None = None) -> list[Worker]:
        """Of a pool, or all; those of the last day."""
        ...


class Keys(Protocol):
    """Keys to the API, and the record of who changed what."""

    async def create_key(self, name: str, scope: Scope, expires: dt.datetime | None = None) -> tuple[ApiKey, str]:
        """The record, and the key itself, which is not kept."""
        ...

    async def keys(self) -> list[ApiKey]: ...

    async def revoke_key(self, key_id: UUID) -> ApiKey: ...

    async def find_key(self, secret: str) -> ApiKey | None:
        """Whose key it is, if it may be used now."""
        ...

    async def audit(self, actor: str, action: str, target: str, detail: str | None = None) -> None: ...

    async def audit_records(self, *, limit: int = 50, after: str | None = None) -> Page[AuditRecord]: ...


class Control(Deployments, Jobs, Upkeep, Pools, Keys, Protocol):
    """All of it."""


__all__ = ["Control", "Deployments", "Jobs", "Keys", "Pools", "Ref", "Upkeep"]
