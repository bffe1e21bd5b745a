"""What people and workers ask of a store, asked of a server: the seam of `control.py` over its API.

What may be asked twice is asked again while the server cannot be reached for a moment. Who changes what, the server
notes by itself: it knows whose key it was.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote
from uuid import UUID

import msgspec
from msgspec import Struct

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
from upwell.core.errors import AccessError, InvalidRequestError, NotFoundError
from upwell.core.model import FlowRunRecord, Page
from upwell.journal.control import Ref
from upwell.journal.remote_client import ApiClient, read

T = TypeVar("T")

_encode: Final = msgspec.json.Encoder().encode


class _Done(Struct):
    done: bool


class _Number(Struct):
    number: int


class _NewKey(Struct):
    key: ApiKey
    secret: str


class RemoteControl:
    """Answers from a server's API. See `Control`."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._handed_out: dict[UUID, int] = {}
        self._may_have_lost_claims = False

    async def _get(self, kind: type[T], path: str, **query: Any) -> T:
        return read(await self._client.ask("GET", path, query=query), kind)

    async def _send(self, method: str, path: str, body: Any = None, *, twice: bool = True) -> bytes:
        """twice: it is all the same whether it is done once or twice."""
        send = self._client.ask if twice else self._client.request
        try:
            content = None if body is None else _encode(body)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequestError(f"What is wanted cannot be said in JSON: {error}.") from error
        return await send(method, path, content=content)

    # --- deployments ----------------------------------------------------------------------------------------

    async def apply_deployment(self, wanted: DeploymentSpec) -> Deployment:
        return read(await self._send("PUT", "/deployments", wanted), Deployment)

    async def deployment(self, ref: Ref) -> Deployment:
        return await self._get(Deployment, _address(ref))

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
        given = {"flow": flow, "text": text, "tags": _list(tags), "work_pool": work_pool}
        return await self._get(Page[Deployment], "/deployments", **given, limit=limit, after=after)

    async def delete_deployment(self, ref: Ref) -> None:
        await self._send("DELETE", await self._place(ref), twice=False)

    async def pause_deployment(self, ref: Ref, paused: bool) -> Deployment:
        return read(await self._send("POST", f"{await self._place(ref)}/{'pause' if paused else 'resume'}"), Deployment)

    async def put_schedule(self, ref: Ref, wanted: ScheduleSpec) -> Deployment:
        return read(await self._send("PUT", f"{await self._place(ref)}/schedules", wanted), Deployment)

    async def set_schedule_active(self, ref: Ref, slug: str, active: bool) -> Deployment:
        path = f"{await self._place(ref)}/schedules/{_part(slug)}"
        return read(await self._send("PATCH", path, {"active": active}), Deployment)

    async def delete_schedule(self, ref: Ref, slug: str) -> Deployment:
        path = f"{await self._place(ref)}/schedules/{_part(slug)}"
        return read(await self._send("DELETE", path, twice=False), Deployment)

    async def run_deployment(self, ref: Ref, wanted: RunSpec) -> FlowRunRecord:
        twice = wanted.idempotency_key is not None
        return read(await self._send("POST", f"{await self._place(ref)}/runs", wanted, twice=twice), FlowRunRecord)

    async def backfill(
        self, ref: Ref, slug: str, since: dt.datetime, until: dt.datetime, *, dry_run: bool = False
    ) -> list[dt.datetime]:
        path = f"{await self._place(ref)}/schedules/{_part(slug)}/backfill"
        body = {"since": _aware(since, "since"), "until": _aware(until, "until"), "dry_run": dry_run}
        return read(await self._send("POST", path, body, twice=dry_run), list[dt.datetime])

    async def _place(self, ref: Ref) -> str:
        """The address of a deployment, by its id."""
        identity = _id_in(ref)
        return f"/deployments/{identity or (await self.deployment(ref)).id}"

    # --- jobs -----------------------------------------------------------------------------------------------

    async def claim_jobs(self, wanted: ClaimSpec) -> list[Job]:
        if self._may_have_lost_claims and (found := await self._lost_claims(wanted.worker_id)):
            return found
        try:
            return self._note(read(await self._send("POST", "/jobs/claim", wanted, twice=False), list[Job]))
        except BaseException:
            self._may_have_lost_claims = True
            raise

    async def expected_jobs(self, wanted: ExpectSpec) -> list[Job]:
        return read(await self._send("POST", "/jobs/expected", wanted), list[Job])

    async def claimed_jobs(self, worker_id: str) -> list[Job]:
        return read(await self._send("POST", "/jobs/claimed", {"worker_id": worker_id}), list[Job])

    async def _lost_claims(self, worker_id: str) -> list[Job]:
        """Jobs that were claimed by a request whose answer did not arrive."""
        jobs = await self.claimed_jobs(worker_id)
        self._may_have_lost_claims = False
        return self._note([job for job in jobs if self._handed_out.get(job.flow_run_id) != job.claim])

    def _note(self, jobs: list[Job]) -> list[Job]:
        for job in jobs:
            self._handed_out[job.flow_run_id] = job.claim
        while len(self._handed_out) > _MOST_REMEMBERED:
            del self._handed_out[next(iter(self._handed_out))]
        return jobs

    async def begin_job(self, job: Job, process_id: str, *, durable: bool = False) -> bool:
        body = {"job": job, "process_id": process_id, "durable": durable}
        return read(await self._send("POST", "/jobs/begin", body), _Done).done

    async def release_job(self, job: Job, reason: str) -> None:
        await self._send("POST", "/jobs/release", {"job": job, "message": reason})

    async def fail_job(self, job: Job, message: str) -> None:
        await self._send("POST", "/jobs/fail", {"job": job, "message": message})

    async def request_cancel(
        self, flow_run_id: UUID, *, by: str, reason: str | None = None, grace_seconds: float | None = None
    ) -> FlowRunRecord:
        body = {"reason": reason, "grace_seconds": grace_seconds}
        return read(await self._send("POST", f"/flow-runs/{flow_run_id}/cancel", body, twice=False), FlowRunRecord)

    async def cancel_requests(
        self, flow_run_ids: Sequence[UUID] = (), process_id: str | None = None
    ) -> list[CancelRequest]:
        body = {"flow_run_ids": list(flow_run_ids), "process_id": process_id}
        return read(await self._send("POST", "/cancel-requests/query", body), list[CancelRequest])

    async def retry_flow_run(self, flow_run_id: UUID) -> FlowRunRecord:
        return read(await self._send("POST", f"/flow-runs/{flow_run_id}/retry", twice=False), FlowRunRecord)

    async def resume_flow_run(self, flow_run_id: UUID) -> FlowRunRecord:
        return read(await self._send("POST", f"/flow-runs/{flow_run_id}/resume", twice=False), FlowRunRecord)

    async def fork_flow_run(self, flow_run_id: UUID, before: UUID | None = None) -> FlowRunRecord:
        answer = await self._send("POST", f"/flow-runs/{flow_run_id}/fork", {"before": before}, twice=False)
        return read(answer, FlowRunRecord)

    async def delete_flow_run(self, flow_run_id: UUID) -> None:
        await self._send("DELETE", f"/flow-runs/{flow_run_id}", twice=False)

    async def change_flow_runs(self, wanted: BulkSpec, *, by: str) -> BulkDone:
        return read(await self._send("POST", "/flow-runs/bulk", wanted, twice=False), BulkDone)

    # --- upkeep ---------------------------------------------------------------------------------------------

    async def make_ticks(self) -> int:
        return read(await self._send("POST", "/upkeep/ticks"), _Number).number

    async def mark_late(self, after_seconds: float) -> int:
        return read(await self._send("POST", "/upkeep/late", {"after_seconds": after_seconds}), _Number).number

    async def reap_jobs(self) -> int:
        return read(await self._send("POST", "/upkeep/jobs"), _Number).number

    # --- pools ----------------------------------------------------------------------------------------------

    async def put_work_pool(self, name: str, wanted: WorkPoolSpec) -> WorkPool:
        return read(await self._send("PUT", f"/work-pools/{_part(name)}", wanted, twice=wanted.exist_ok), WorkPool)

    async def work_pool(self, name: str) -> WorkPool:
        return await self._get(WorkPool, f"/work-pools/{_part(name)}")

    async def work_pools(self) -> list[WorkPool]:
        return await self._get(list[WorkPool], "/work-pools")

    async def delete_work_pool(self, name: str) -> None:
        await self._send("DELETE", f"/work-pools/{_part(name)}", twice=False)

    async def put_work_queue(self, pool: str, queue: WorkQueue) -> WorkPool:
        body = {"priority": queue.priority, "paused": queue.paused, "concurrency_limit": queue.concurrency_limit}
        return read(await self._send("PUT", f"/work-pools/{_part(pool)}/queues/{_part(queue.name)}", body), WorkPool)

    async def delete_work_queue(self, pool: str, name: str) -> WorkPool:
        path = f"/work-pools/{_part(pool)}/queues/{_part(name)}"
        return read(await self._send("DELETE", path, twice=False), WorkPool)

    async def register_worker(self, worker_id: str, name: str, pool: str | None) -> None:
        await self._send("PUT", f"/workers/{_part(worker_id)}", {"name": name, "pool": pool})

    async def worker_ended(self, worker_id: str) -> None:
        await self._send("DELETE", f"/workers/{_part(worker_id)}")

    async def workers(self, pool: str | None = None) -> list[Worker]:
        return await self._get(list[Worker], "/workers", pool=pool)

    # --- keys -----------------------------------------------------------------------------------------------

    async def create_key(self, name: str, scope: Scope, expires: dt.datetime | None = None) -> tuple[ApiKey, str]:
        body = {"name": name, "scope": scope, "expires": None if expires is None else _aware(expires, "expires")}
        made = read(await self._send("POST", "/api-keys", body, twice=False), _NewKey)
        return made.key, made.secret

    async def keys(self) -> list[ApiKey]:
        return await self._get(list[ApiKey], "/api-keys")

    async def revoke_key(self, key_id: UUID) -> ApiKey:
        return read(await self._send("DELETE", f"/api-keys/{key_id}", twice=False), ApiKey)

    async def find_key(self, secret: str) -> ApiKey | None:
        other = self._client.with_key(secret)
        try:
            return read(await other.ask("GET", "/api-keys/own"), ApiKey)
        except AccessError:
            return None
        finally:
            await other.close()

    async def audit(self, actor: str, action: str, target: str, detail: str | None = None) -> None:
        """Nothing: the server notes what it is asked to change."""

    async def audit_records(self, *, limit: int = 50, after: str | None = None) -> Page[AuditRecord]:
        return await self._get(Page[AuditRecord], "/audit", limit=limit, after=after)


_MOST_REMEMBERED: Final = 10_000


def _address(ref: Ref) -> str:
    if (identity := _id_in(ref)) is not None:
        return f"/deployments/{identity}"
    flow, slash, name = str(ref).partition("/")
    if not slash or not flow or not name:
        raise NotFoundError(f"{ref!r} is no deployment: it must be an id, or `flow/deployment`.")
    return f"/deployments/by-name/{_part(flow)}/{_part(name)}"


def _id_in(ref: Ref) -> UUID | None:
    if isinstance(ref, UUID):
        return ref
    try:
        return UUID(ref)
    except ValueError:
        return None


def _part(text: str) -> str:
    """A name as a part of an address.

    Raises:
        InvalidRequestError: it would lead to another address, whatever else is done there.
    """
    if text in ("", ".", ".."):
        raise InvalidRequestError(f"{text!r} is no name.")
    if "/" in text:  # which no name has: in an address it would be two
        raise InvalidRequestError(f"{text!r} is no name, for it has a slash in it.")
    return quote(text, safe="")


def _list(tags: Iterable[str] | None) -> list[str] | None:
    return None if tags is None else list(tags)


def _aware(moment: dt.datetime, name: str) -> dt.datetime:
    if moment.tzinfo is None:
        raise InvalidRequestError(f"{name} is {moment.isoformat()}, and needs a time zone.")
    return moment
