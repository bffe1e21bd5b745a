"""Jobs in the store: claimed within the limits, begun by one process, given back, failed, cancelled, run again.

A claim is void once somebody else has the job: who begins a run, gives it back or fails it must be the one of the last
claim. Waits in a circle are avoided by locking in one order; it stands in `queries/jobs.sql`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from upwell.core.deployments import (
    DEFAULT_GRACE_SECONDS,
    MOST_AHEAD_SECONDS,
    MOST_JOBS,
    CancelRequest,
    ClaimSpec,
    ExpectSpec,
    Job,
)
from upwell.core.errors import ConflictError, InvalidRequestError, UnknownRunError
from upwell.core.model import FlowRunRecord
from upwell.core.states import CANCELLED, CRASHED
from upwell.journal.absence import Absence
from upwell.journal.control_part import Part, end_run, firsts, ids_json, now_micros
from upwell.journal.database import Database, Session
from upwell.journal.deployed_runs import NewRun, check_parameters, put_runs
from upwell.journal.deployment_records import find_deployment
from upwell.journal.job_claims import AWAITING_RESUME, claim, could_claim, expected, jobs_of, scope_of
from upwell.journal.reader import Reader
from upwell.journal.reader_records import moment
from upwell.journal.sql import Dialect
from upwell.settings import current as settings

MOST_REASON: Final = 1_000
"""Characters of a reason."""


class SqlJobs(Part):
    """Flow runs that somebody is to carry out; see `control.Jobs`."""

    def __init__(self, database: Database, reading: Session | None = None) -> None:
        super().__init__(database, reading)
        self._absence = Absence(database)

    # --- claiming -----------------------------------------------------------------------------------------

    async def claim_jobs(self, wanted: ClaimSpec) -> list[Job]:
        _check_number(wanted.limit)
        scope = scope_of(wanted)
        if await self._absence.is_to_be_seen_to(scope):
            await self._transact(lambda session: self._absence.see_to(session, scope))
        if not wanted.limit or not await self._database.fetch("is_any_job_due", now=now_micros(), **scope):
            return []
        if self._database.dialect is Dialect.SQLITE and not await could_claim(self._database, wanted):
            return []
        return await self._transact(lambda session: claim(session, wanted))

    async def expected_jobs(self, wanted: ExpectSpec) -> list[Job]:
        if not 0 <= wanted.within_seconds <= MOST_AHEAD_SECONDS:
            raise InvalidRequestError(
                f"within_seconds is {wanted.within_seconds}, and must be from 0 to {MOST_AHEAD_SECONDS:,}."
            )
        _check_number(wanted.limit)
        return await expected(self._reading, wanted)

    async def claimed_jobs(self, worker_id: str) -> list[Job]:
        ids = firsts(await self._database.fetch("claimed_by", worker_id=worker_id))
        return list((await jobs_of(self._database, ids)).values())

    async def begin_job(self, job: Job, process_id: str, *, durable: bool = False) -> bool:
        async def begin(session: Session) -> bool:
            rows = await session.fetch("process_state", id=process_id)
            if not rows or rows[0][0] != "alive":
                return False
            state = await _state_of_claim(session, job)
            run = await session.fetch("flow_run_of_job", id=str(job.flow_run_id))
            if state is None or not run or run[0][3] is not None:
                return False
            if state == "begun":
                return bool(run[0][4] == process_id)  # its answer was lost on the way
            if run[0][4] is not None:
                return False  # somebody has resumed it by hand meanwhile
            await session.fetch("set_job", id=str(job.flow_run_id), state="begun")
            await session.fetch("flow_run_begins", id=str(job.flow_run_id), process_id=process_id, durable=int(durable))
            return True

        return await self._transact(begin)

    async def release_job(self, job: Job, reason: str) -> None:
        async def release(session: Session) -> None:
            if await _state_of_claim(session, job) == "claimed":
                await session.fetch("put_job_back", id=str(job.flow_run_id))
                await session.fetch("note_of_job", id=str(job.flow_run_id), message=reason[:MOST_REASON])

        await self._transact(release)

    async def fail_job(self, job: Job, message: str) -> None:
        identity = str(job.flow_run_id)
        message = message[:MOST_REASON]

        async def fail(session: Session) -> int | None:
            """The key of the process that is given up, if one is."""
            owner = await session.fetch("process_of_job", id=identity)
            process_id = owner[0][0] if owner else None
            if process_id is not None:
                await session.fetch("process_state", id=process_id)  # locked before the job, as all do
            state = await _state_of_claim(session, job)
            run = await session.fetch("flow_run_of_job", id=identity)
            if state is None or not run:
                return None
            if run[0][3] is not None:
                await session.fetch("set_job", id=identity, state="ended")
            elif state == "begun":
                if process_id is not None and run[0][4] == process_id:
                    from upwell.journal.liveness import give_up_process  # here: commands that only look need none

                    most = settings().durable_max_crashes
                    return await give_up_process(self._database, session, process_id, message, most)
            else:
                await _end_unbegun(session, identity, CRASHED.value, message)
            return None

        given_up = await self._transact(fail)
        if given_up is not None:
            from upwell.journal.safe_ends import remove_log  # here, too

            await remove_log(self._database, given_up)

    # --- cancelling ---------------------------------------------------------------------------------------

    async def request_cancel(
        self, flow_run_id: UUID, *, by: str, reason: str | None = None, grace_seconds: float | None = None
    ) -> FlowRunRecord:
        grace = DEFAULT_GRACE_SECONDS if grace_seconds is None else grace_seconds
        if not 0 <= grace <= 1e9:
            raise InvalidRequestError(f"grace_seconds is {grace}, and must be 0 or more.")
        identity, why = str(flow_run_id), None if reason is None else reason[:MOST_REASON]

        async def cancel(session: Session) -> FlowRunRecord:
            await session.fetch("job", id=identity)
            run = await session.fetch("flow_run_of_job", id=identity)
            if not run:
                raise UnknownRunError(f"There is no flow run {flow_run_id} in {self._database.place}.")
            state, state_name, _, ended, process_id, _, name, _ = run[0]
            if ended is not None:
                raise ConflictError(f"The flow run '{name}' has ended {state_name or state.capitalize()} already.")
            if process_id is not None:
                now = now_micros()
                await session.fetch(
                    "put_cancel_request", id=identity, now=now, actor=by, reason=why, grace=int(grace * 1e6)
                )
            else:
                await _end_unbegun(session, identity, CANCELLED.value, cancelled_by(by, why))
            return await self._flow_run(session, identity)

        return await self._transact(cancel)

    async def cancel_requests(
        self, flow_run_ids: Sequence[UUID] = (), process_id: str | None = None
    ) -> list[CancelRequest]:
        if process_id is not None:
            rows = await self._database.fetch("cancel_requests_of_process", process_id=process_id)
        elif flow_run_ids:
            rows = await self._database.fetch("cancel_requests_of_flow_runs", ids=ids_json(flow_run_ids))
        else:
            rows = await self._database.fetch("cancel_requests")
        return [
            CancelRequest(
                flow_run_id=UUID(run_id), requested=moment(at), by=by, reason=reason, grace_seconds=grace / 1e6
            )
            for run_id, at, by, reason, grace in rows
        ]

    # --- running again --------------------------------------------------------------------------------------

    async def retry_flow_run(self, flow_run_id: UUID) -> FlowRunRecord:
        async def retry(session: Session) -> FlowRunRecord:
            again = await _RunAgain.of(session, flow_run_id, self._database.place)
            if not again.ended:
                raise ConflictError(f"The flow run '{again.name}' has not ended, so there is nothing to retry.")
            return await self._flow_run(session, await again.put(session))

        return await self._transact(retry)

    async def fork_flow_run(self, flow_run_id: UUID, before: UUID | None = None) -> FlowRunRecord:
        reader = Reader(self._database, self._database.place)
        if before is not None:
            task_run = await reader.task_run(before)
            if task_run.flow_run_id != flow_run_id or task_run.start_time is None:
                raise ConflictError(f"The task run '{task_run.name}' is none of this flow run's, or never began.")

        async def fork(session: Session) -> FlowRunRecord:
            again = await _RunAgain.of(session, flow_run_id, self._database.place)
            if not again.durable:
                raise ConflictError(f"The flow run '{again.name}' is not durable: nothing that it finished was kept.")
            made = await again.put(session)
            first = None if before is None else str(before)
            await session.fetch("job_is_fork", id=made, fork_of=str(flow_run_id), before=first)
            return await self._flow_run(session, made)

        return await self._transact(fork)

    async def resume_flow_run(self, flow_run_id: UUID) -> FlowRunRecord:
        identity = str(flow_run_id)

        async def resume(session: Session) -> FlowRunRecord:
            job = await session.fetch("job", id=identity)
            run = await session.fetch("flow_run_of_job", id=identity)
            if not run:
                raise UnknownRunError(f"There is no flow run {flow_run_id} in {self._database.place}.")
            state, state_name, _, ended, _, _, name, _ = run[0]
            shown = state_name or state.capitalize()
            if ended is not None:
                raise ConflictError(f"The flow run '{name}' has ended {shown}: retry it, for an end is never undone.")
            if state_name != AWAITING_RESUME:
                raise ConflictError(f"The flow run '{name}' is {shown}, so there is nothing to resume.")
            if not job:
                raise ConflictError(
                    f"The flow run '{name}' is of no deployment: upwell.resume('{identity}') goes on with it."
                )
            if job[0][0] != "claimed":
                await session.fetch("let_job_wait_again", id=identity)
            return await self._flow_run(session, identity)

        return await self._transact(resume)

    async def delete_flow_run(self, flow_run_id: UUID) -> None:
        identity = str(flow_run_id)

        async def delete(session: Session) -> None:
            job = await session.fetch("job", id=identity)
            run = await session.fetch("flow_run_of_job", id=identity)
            if not run:
                raise UnknownRunError(f"There is no flow run {flow_run_id} in {self._database.place}.")
            _, state_name, _, ended, process_id, _, name, _ = run[0]
            if ended is None and (process_id is not None or not job or state_name == AWAITING_RESUME):
                raise ConflictError(f"The flow run '{name}' has not ended: cancel it first.")
            if ended is None:
                await end_run(session, identity, now_micros(), CANCELLED.value, "Deleted before it had begun.")

        from upwell.journal.retention import remove_flow_run  # here: few delete runs

        await self._transact(delete)
        await remove_flow_run(self._database, identity)


class _RunAgain(NamedTuple):
    """What a run of a deployment was started with, to start another."""

    name: str
    ended: bool
    durable: bool
    deployment_id: str
    run: NewRun

    @classmethod
    async def of(cls, session: Session, flow_run_id: UUID, place: str) -> _RunAgain:
        rows = await session.fetch("job_to_run_again", id=str(flow_run_id))
        if not rows:
            raise UnknownRunError(f"There is no flow run {flow_run_id} in {place}.")
        deployment_id, parameters, variables, priority, queue, tags, ended, name, durable = rows[0]
        if deployment_id is None:
            raise ConflictError(f"The flow run '{name}' is of no deployment: nobody knows how to run it again.")
        decode = msgspec.json.decode
        own_tags = tuple(decode(tags)) if tags else ()
        run = NewRun(
            now_micros(), decode(parameters), tags=own_tags, priority=priority, work_queue=queue,
            job_variables=decode(variables),
        )  # fmt: skip  # one run
        return cls(name, ended is not None, bool(durable), deployment_id, run)

    async def put(self, session: Session) -> str:
        """Make the other run; its id."""
        await session.fetch("lock_deployment", id=self.deployment_id)
        deployment = await find_deployment(session, UUID(self.deployment_id))
        check_parameters(self.run.parameters, deployment.parameter_schema)
        run = self.run if deployment.work_pool else self.run._replace(work_queue=None)
        return (await put_runs(session, deployment, [run], run.due))[0]


def _check_number(limit: int) -> None:
    if not 0 <= limit <= MOST_JOBS:
        raise InvalidRequestError(f"limit is {limit}, and must be from 0 to {MOST_JOBS:,}.")


def cancelled_by(by: str, reason: str | None) -> str:
    """Why a run that had not begun is cancelled."""
    return f"Cancelled by {by} before it had begun{f': {reason}' if reason else '.'}"


async def _state_of_claim(session: Session, job: Job) -> str | None:
    """How it stands with a job whose claim is the last one; None if it is void. Locked."""
    rows = await session.fetch("job", id=str(job.flow_run_id))
    if not rows:
        return None
    state, worker_id, claims, *_ = rows[0]
    return state if worker_id == job.worker_id and claims == job.claim else None


async def _end_unbegun(session: Session, identity: str, state: str, message: str) -> None:
    asked = await session.fetch("cancel_request", id=identity)
    if asked and state != CANCELLED.value:
        state, message = CANCELLED.value, cancelled_by(asked[0][1], asked[0][2])
    await end_run(session, identity, now_micros(), state, message)


__all__ = ["SqlJobs", "cancelled_by"]
