"""The records of what is configured around flows: deployments, schedules, jobs, work pools, keys. One line a field."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Final, Literal, TypeAlias
from uuid import UUID

from msgspec import Meta, Struct, field

ScheduleKind: TypeAlias = Literal["cron", "interval", "rrule"]
Catchup: TypeAlias = Literal["none", "latest", "all"]
"""What becomes of the ticks that passed while nobody was there: none is run, the latest one, or all."""
WhenFull: TypeAlias = Literal["queue", "cancel_new", "cancel_running"]
"""What becomes of a run that is due while a deployment has as many as it may: it waits, or it or a running one goes."""
Scope: TypeAlias = Literal["read", "run", "admin"]
"""What a key may do; each includes those before it."""

DEFAULT_QUEUE: Final = "default"
DEFAULT_GRACE_SECONDS: Final = 30.0
"""How long a run that is cancelled has to end by itself, before its process is killed."""
MOST_JOBS: Final = 1_000
"""Jobs that are asked for at once."""
MOST_AHEAD_SECONDS: Final = 3_600
"""So far at most somebody may look ahead."""

_Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1000)]


class ScheduleSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A schedule as it is wanted.

    expression: five or six fields of cron, seconds between ticks, or an RRULE.
    slug: what it is known by in its deployment; made of the expression unless said.
    timezone: an IANA name. anchor: from when an interval or an RRULE counts.
    parameters: instead of the deployment's, by name.
    max_late_seconds: a run that has not begun so long after its tick is skipped; None: never.
    """

    kind: ScheduleKind
    expression: str
    slug: str | None = None
    timezone: str = "UTC"
    anchor: dt.datetime | None = None
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    active: bool = True
    catchup: Catchup = "latest"
    max_late_seconds: float | None = None


class Schedule(Struct, frozen=True, kw_only=True):
    """A schedule of a deployment. last_tick, next_tick: the last one that a run was made for, and the one after."""

    id: UUID
    deployment_id: UUID
    slug: str
    kind: ScheduleKind
    expression: str
    timezone: str
    anchor: dt.datetime | None
    parameters: dict[str, Any]
    active: bool
    catchup: Catchup
    max_late_seconds: float | None
    last_tick: dt.datetime | None
    next_tick: dt.datetime | None


class DeploymentSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A deployment as it is wanted: what is there by this flow and name becomes like this.

    entrypoint: where the flow is found, `path/to/file.py:flow` or `package.module:flow`.
    parameter_schema: JSON schema of the flow's parameters.
    work_pool: who carries the runs out; None: whoever serves it.
    schedules: those that there are to be; None leaves them as they are.
    concurrency_limit: how many of its runs go on at once; None: any number.
    paused: None leaves it as it is; a new one is not.
    """

    flow_name: str
    name: str
    entrypoint: str | None = None
    version: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    parameter_schema: dict[str, Any] = field(default_factory=dict[str, Any])
    work_pool: str | None = None
    work_queue: str | None = None
    job_variables: dict[str, Any] = field(default_factory=dict[str, Any])
    concurrency_limit: int | None = None
    when_full: WhenFull = "queue"
    paused: bool | None = None
    schedules: tuple[ScheduleSpec, ...] | None = None


class Deployment(Struct, frozen=True, kw_only=True):
    """A flow that can be started by its name. Its fields are those of its spec."""

    id: UUID
    flow_name: str
    name: str
    entrypoint: str | None
    version: str | None
    description: str | None
    tags: tuple[str, ...]
    parameters: dict[str, Any]
    parameter_schema: dict[str, Any]
    work_pool: str | None
    work_queue: str | None
    job_variables: dict[str, Any]
    concurrency_limit: int | None
    when_full: WhenFull
    paused: bool
    schedules: tuple[Schedule, ...]
    created: dt.datetime
    updated: dt.datetime

    @property
    def full_name(self) -> str:
        """What people know it by: `flow/deployment`."""
        return f"{self.flow_name}/{self.name}"


class RunSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run of a deployment as it is wanted.

    parameters: instead of the deployment's, by name. due: None is now.
    idempotency_key: a second run of the same key is the first one.
    priority: of two that are due, the one with the lower number begins first.
    """

    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    due: dt.datetime | None = None
    name: str | None = None
    tags: tuple[str, ...] = ()
    idempotency_key: str | None = None
    priority: int = 0
    work_queue: str | None = None
    job_variables: dict[str, Any] = field(default_factory=dict[str, Any])
    parent_flow_run_id: UUID | None = None
    parent_task_run_id: UUID | None = None


class Job(Struct, frozen=True, kw_only=True):
    """A flow run that somebody is to carry out, as whoever has claimed it gets it.

    worker_id: who has claimed it; empty: nobody.
    claim: how often it has been claimed; who claims it later makes this claim void.
    resume: it has begun before, in a process that died: what it finished counts.
    fork_of, fork_before: it takes over what that run had finished, before that task run began.
    commit, repository: which its code is of, as whoever carries it out has fetched it.
    """

    flow_run_id: UUID
    name: str
    flow_name: str
    deployment_id: UUID | None
    deployment_name: str | None
    entrypoint: str
    parameters: dict[str, Any]
    tags: tuple[str, ...]
    due: dt.datetime
    created: dt.datetime
    job_variables: dict[str, Any]
    worker_id: str
    claim: int
    resume: bool = False
    fork_of: UUID | None = None
    fork_before: UUID | None = None
    deployment_version: str | None = None
    commit: str | None = None
    repository: str | None = None


class JobScope(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose jobs: of these deployments, or of this work pool and these queues of it (none: all)."""

    deployments: Annotated[tuple[UUID, ...], Meta(max_length=10_000)] = ()
    pool: _Name | None = None
    queues: Annotated[tuple[_Name, ...], Meta(max_length=1000)] = ()


class ClaimSpec(JobScope, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which jobs a worker takes, and how many at most."""

    worker_id: _Name
    limit: Annotated[int, Meta(ge=0, le=MOST_JOBS)] = 1


class ExpectSpec(JobScope, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which jobs somebody gets ready for: those that will be due within this time, and how many at most."""

    within_seconds: Annotated[float, Meta(ge=0, le=MOST_AHEAD_SECONDS)]
    limit: Annotated[int, Meta(ge=0, le=MOST_JOBS)] = 1


class CancelRequest(Struct, frozen=True, kw_only=True):
    """Somebody wants a flow run to end. grace_seconds: after that its process is killed."""

    flow_run_id: UUID
    requested: dt.datetime
    by: str
    reason: str | None
    grace_seconds: float


class WorkQueue(Struct, frozen=True, kw_only=True):
    """A queue of a work pool. priority: of two queues, the one with the lower number is served first."""

    name: str
    priority: int
    paused: bool
    concurrency_limit: int | None


class WorkPoolSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A work pool as it is wanted: what is not said, or None, stays as it is.

    concurrency_limit: 0 takes it away.
    exist_ok: False makes it a conflict if there is one of this name.
    """

    kind: _Name | None = None
    description: Annotated[str, Meta(max_length=10_000)] | None = None
    concurrency_limit: Annotated[int, Meta(ge=0, le=1_000_000_000)] | None = None
    base_job_template: dict[str, Any] | None = None
    paused: bool | None = None
    exist_ok: bool = True


class WorkPool(Struct, frozen=True, kw_only=True):
    """Where workers take jobs from. kind: `process` or `docker`.

    base_job_template: `{"job_configuration": ..., "variables": JSON schema}`, as its kind of worker reads it.
    """

    name: str
    kind: str
    description: str | None
    paused: bool
    concurrency_limit: int | None
    base_job_template: dict[str, Any]
    queues: tuple[WorkQueue, ...]
    created: dt.datetime


class Worker(Struct, frozen=True, kw_only=True):
    """Somebody who carries jobs out. pool: None is one that serves its own deployments. id: its process's."""

    id: str
    name: str
    pool: str | None
    host: str
    pid: int
    online: bool
    started: dt.datetime
    last_seen: dt.datetime


class ApiKey(Struct, frozen=True, kw_only=True):
    """A key to the API; the key itself is shown once and never stored. prefix: its first characters, for people."""

    id: UUID
    name: str
    scope: Scope
    prefix: str
    created: dt.datetime
    expires: dt.datetime | None
    revoked: dt.datetime | None
    last_used: dt.datetime | None


class AuditRecord(Struct, frozen=True, kw_only=True):
    """Who changed what. actor: a key's name, or `loopback`."""

    at: dt.datetime
    actor: str
    action: str
    target: str
    detail: str | None


__all__ = [
    "DEFAULT_GRACE_SECONDS",
    "DEFAULT_QUEUE",
    "MOST_AHEAD_SECONDS",
    "MOST_JOBS",
    "ApiKey",
    "AuditRecord",
    "CancelRequest",
    "Catchup",
    "ClaimSpec",
    "Deployment",
    "DeploymentSpec",
    "ExpectSpec",
    "Job",
    "JobScope",
    "RunSpec",
    "Schedule",
    "ScheduleKind",
    "ScheduleSpec",
    "Scope",
    "WhenFull",
    "WorkPool",
    "WorkPoolSpec",
    "WorkQueue",
    "Worker",
]
