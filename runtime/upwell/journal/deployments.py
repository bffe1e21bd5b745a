"""Deployments and schedules in the store: as they are wanted, found, paused, taken away; and runs of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any, Final
from uuid import UUID

from upwell.core.deployments import DEFAULT_QUEUE, Deployment, DeploymentSpec, RunSpec, Schedule, ScheduleSpec
from upwell.core.errors import ConflictError, InvalidRequestError, NotFoundError
from upwell.core.model import FlowRunRecord, Page
from upwell.journal.control_part import (
    MOST_NUMBER,
    Part,
    checked_name,
    firsts,
    ids_json,
    new_id,
    now_micros,
)
from upwell.journal.database import Session
from upwell.journal.deployed_runs import NewRun, check_parameters, check_schema, put_runs, take_back
from upwell.journal.deployment_records import (
    COLUMNS,
    Ref,
    find_deployment,
    locked_deployment,
    values_of,
    with_schedules,
)
from upwell.journal.reader_pages import checked_limit, checked_tags, cursor, key_of, micros_of, pattern_of
from upwell.journal.reader_records import moment
from upwell.journal.schedules import (
    backfill_ticks,
    checked_schedules,
    put_schedule,
    same_schedule,
    start_anew,
    tick_key,
)

WHEN_FULL: Final = ("queue", "cancel_new", "cancel_running")
SCHEDULE_KEY: Final = "schedule:"
"""What the idempotency keys of ticks begin with; nobody else's may."""

BACKFILL_PRIORITY: Final = 100
"""What was missed lets what is due now go first."""

_OF_RUNS: Final = (
    "entrypoint", "version", "tags", "parameters", "work_pool", "work_queue", "job_variables",
)  # fmt: skip
"""What the runs made ahead have from their deployment."""


class SqlDeployments(Part):
    """Flows that can be started by name; see `control.Deployments`."""

    # --- as they are wanted -------------------------------------------------------------------------------

    async def apply_deployment(self, wanted: DeploymentSpec) -> Deployment:
        _check_spec(wanted)

        async def apply(session: Session) -> Deployment:
            now = now_micros()
            wanted_queue = await _queue_of(session, wanted)
            named = {"flow": wanted.flow_name, "name": wanted.name}
            is_new = False
            while not (found := await session.fetch("lock_deployment_by_name", **named)):
                is_new = bool(await session.fetch("new_deployment", id=new_id(), now=now, **named))
            before = await find_deployment(session, UUID(found[0][0]))
            await session.fetch("change_deployment", id=str(before.id), now=now, **values_of(wanted, wanted_queue))
            if not is_new:
                await _follow(session, before, await find_deployment(session, before.id), now)
            if wanted.schedules is not None:
                await _match_schedules(session, before, wanted.schedules, now)
            return await find_deployment(session, before.id)

        return await self._transact(apply)

    async def delete_deployment(self, ref: Ref) -> None:
        async def delete(session: Session) -> None:
            deployment = await locked_deployment(session, ref)
            identity = str(deployment.id)
            await session.fetch("remove_schedules", deployment_id=identity)
            await session.fetch("remove_deployment", id=identity)
            await take_back(session, firsts(await session.fetch("not_begun", deployment_id=identity)))

        await self._transact(delete)

    async def pause_deployment(self, ref: Ref, paused: bool) -> Deployment:
        async def pause(session: Session) -> Deployment:
            before = await locked_deployment(session, ref)
            now = now_micros()
            await session.fetch("pause_deployment", id=str(before.id), paused=int(paused), now=now)
            after = await find_deployment(session, before.id)
            await _follow(session, before, after, now)
            return await find_deployment(session, before.id)

        return await self._transact(pause)

    # --- schedules ----------------------------------------------------------------------------------------

    async def put_schedule(self, ref: Ref, wanted: ScheduleSpec) -> Deployment:
        async def put(session: Session) -> Deployment:
            deployment = await locked_deployment(session, ref)
            slug, schedule = next(iter(checked_schedules([wanted]).items()))
            before = next((one for one in deployment.schedules if one.slug == slug), None)
            await _check_schedule(deployment, slug, schedule)
            if before is None or not same_schedule(before, schedule):
                await put_schedule(session, deployment, slug, schedule, now_micros())
            return await find_deployment(session, deployment.id)

        return await self._transact(put)

    async def set_schedule_active(self, ref: Ref, slug: str, active: bool) -> Deployment:
        async def change(session: Session) -> Deployment:
            deployment = await locked_deployment(session, ref)
            schedule = _schedule_of(deployment, slug)
            if schedule.active != active:
                await put_schedule(session, deployment, slug, _as_wanted(schedule, active=active), now_micros())
            return await find_deployment(session, deployment.id)

        return await self._transact(change)

    async def delete_schedule(self, ref: Ref, slug: str) -> Deployment:
        async def delete(session: Session) -> Deployment:
            deployment = await locked_deployment(session, ref)
            _schedule_of(deployment, slug)
            await _remove_schedule(session, deployment, slug)
            return await find_deployment(session, deployment.id)

        return await self._transact(delete)

    # --- finding them -------------------------------------------------------------------------------------

    async def deployment(self, ref: Ref) -> Deployment:
        return await find_deployment(self._reading, ref)

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
        limit = checked_limit(limit)
        parameters: dict[str, Any] = {"n": limit + 1}
        conditions = ["1 = 1"]
        found = key_of(after, deployment=(str, str))
        if found is not None:
            parameters["after_flow"], parameters["after_name"] = found[1]
            conditions.append("(d.flow, d.name) > (:after_flow, :after_name)")
        if flow is not None:
            parameters["flow"] = flow
            conditions.append("d.flow = :flow")
        if work_pool is not None:
            parameters["work_pool"] = work_pool
            conditions.append("d.work_pool = :work_pool")
        if text:
            parameters["text"] = pattern_of(text)
            conditions.append("lower(d.flow || '/' || d.name) LIKE :text ESCAPE '!'")
        for number, tag in enumerate(checked_tags(tags)):
            parameters[f"tag_{number}"] = tag
            each = f"(SELECT value FROM json_each(d.tags) AS t{number})"
            conditions.append(f"d.tags IS NOT NULL AND :tag_{number} IN {each}")
        where = " AND ".join(conditions)
        query = f"SELECT {COLUMNS} FROM deployments d WHERE {where} ORDER BY d.flow, d.name LIMIT :n"
        rows = await self._reading.fetch_text(query, **parameters)
        items = await with_schedules(self._reading, rows[:limit])
        last = items[-1] if items else None
        more = len(rows) > limit and last is not None
        return Page(items=tuple(items), next=cursor("deployment", last.flow_name, last.name) if more and last else None)

    # --- runs ---------------------------------------------------------------------------------------------

    async def run_deployment(self, ref: Ref, wanted: RunSpec) -> FlowRunRecord:
        async def run(session: Session) -> FlowRunRecord:
            deployment = await locked_deployment(session, ref)
            return await self._flow_run(session, await run_now(session, deployment, wanted))

        return await self._transact(run)

    async def backfill(
        self, ref: Ref, slug: str, since: dt.datetime, until: dt.datetime, *, dry_run: bool = False
    ) -> list[dt.datetime]:
        since_micros, until_micros = _moment(since, "since"), _moment(until, "until")
        if since_micros > until_micros:
            raise InvalidRequestError(f"The time from {since} to {until} is none: it ends before it begins.")

        async def fill(session: Session) -> list[dt.datetime]:
            now = now_micros()
            deployment = await (find_deployment if dry_run else locked_deployment)(session, ref)
            schedule = _schedule_of(deployment, slug)
            ticks = backfill_ticks(schedule, since_micros, min(until_micros, now))
            keys = {tick_key(deployment.id, slug, tick): tick for tick in ticks}
            there = await session.fetch("flow_runs_of_keys", flow=deployment.flow_name, keys=ids_json(keys))
            for key in firsts(there):
                del keys[key]
            if not dry_run:
                parameters = {**deployment.parameters, **schedule.parameters}
                runs = [
                    NewRun(tick, parameters, idempotency_key=key, priority=BACKFILL_PRIORITY)
                    for key, tick in keys.items()
                ]
                await put_runs(session, deployment, runs, now)
            return [moment(tick) for tick in keys.values()]

        return await self._transact(fill)


async def run_now(session: Session, deployment: Deployment, wanted: RunSpec) -> str:
    """Make a run of a deployment that is locked; its id, or that of the one of the same idempotency key."""
    key = wanted.idempotency_key
    if key is not None and (not key or key.startswith(SCHEDULE_KEY)):
        raise InvalidRequestError(f"The idempotency key {key!r} is empty, or begins as those of ticks do.")
    if key is not None and (found := await _run_of_key(session, deployment, key)) is not None:
        return found
    if abs(wanted.priority) > MOST_NUMBER:
        raise InvalidRequestError(f"priority is {wanted.priority}, and must be within {MOST_NUMBER:,} of 0.")
    parameters = {**deployment.parameters, **wanted.parameters}
    check_parameters(parameters, deployment.parameter_schema)
    now = now_micros()
    if wanted.work_queue is not None:
        await _check_queue(session, deployment.work_pool, wanted.work_queue)
    root = None
    if wanted.parent_flow_run_id is not None:
        rows = await session.fetch("read_flow_run", id=str(wanted.parent_flow_run_id))
        root = UUID(rows[0][16]) if rows else None
    run = NewRun(
        now if wanted.due is None else _moment(wanted.due, "due"),
        parameters,
        name=None if wanted.name is None else checked_name(wanted.name, "flow run"),
        tags=wanted.tags,
        idempotency_key=key,
        priority=wanted.priority,
        work_queue=wanted.work_queue,
        job_variables=wanted.job_variables,
        parent_flow_run_id=wanted.parent_flow_run_id,
        parent_task_run_id=wanted.parent_task_run_id,
        root_flow_run_id=root,
    )
    made = await put_runs(session, deployment, [run], now)
    if made:
        return made[0]
    assert key is not None
    found = await _run_of_key(session, deployment, key)  # somebody else's, made this moment
    assert found is not None
    return found


async def _run_of_key(session: Session, deployment: Deployment, key: str) -> str | None:
    rows = await session.fetch("flow_run_of_key", flow=deployment.flow_name, key=key)
    if not rows:
        return None
    of = await session.fetch("job", id=rows[0][0])
    if not of or of[0][3] != str(deployment.id):
        raise ConflictError(
            f"The idempotency key {key!r} belongs to a run of flow {deployment.flow_name!r} that is not of this "
            "deployment: choose another one."
        )
    return str(rows[0][0])


# --- changes ------------------------------------------------------------------------------------------------


def _check_spec(wanted: DeploymentSpec) -> None:
    checked_name(wanted.flow_name, "flow")
    checked_name(wanted.name, "deployment")
    if wanted.concurrency_limit is not None and not 1 <= wanted.concurrency_limit <= MOST_NUMBER:
        raise InvalidRequestError(
            f"concurrency_limit is {wanted.concurrency_limit}, and must be 1 or more, {MOST_NUMBER:,} at most, or None."
        )
    if wanted.when_full not in WHEN_FULL:
        raise InvalidRequestError(f"when_full is {wanted.when_full!r}, and must be one of {', '.join(WHEN_FULL)}.")
    if wanted.work_queue is not None and wanted.work_pool is None:
        raise InvalidRequestError(f"work_queue is {wanted.work_queue!r}, but no work pool is said that it is of.")
    check_schema(wanted.parameter_schema)
    check_parameters(wanted.parameters, wanted.parameter_schema, partly=True)
    for slug, schedule in checked_schedules(wanted.schedules or ()).items():
        _check_schedule_parameters(slug, {**wanted.parameters, **schedule.parameters}, wanted.parameter_schema)


async def _check_schedule(deployment: Deployment, slug: str, wanted: ScheduleSpec) -> None:
    _check_schedule_parameters(slug, {**deployment.parameters, **wanted.parameters}, deployment.parameter_schema)


def _check_schedule_parameters(slug: str, parameters: dict[str, Any], schema: dict[str, Any]) -> None:
    try:
        check_parameters(parameters, schema)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"The schedule {slug!r} cannot run. {error}") from error


async def _queue_of(session: Session, wanted: DeploymentSpec) -> str | None:
    """The queue of the pool that is wanted; made if it is missing."""
    if wanted.work_pool is None:
        return None
    if not await session.fetch("lock_pool", name=wanted.work_pool):
        raise NotFoundError(
            f"There is no work pool {wanted.work_pool!r}: make it with `upwell work-pool create {wanted.work_pool}`."
        )
    queue = checked_name(wanted.work_queue or DEFAULT_QUEUE, "work queue")
    await session.fetch("ensure_queue", pool=wanted.work_pool, name=queue)
    return queue


async def _check_queue(session: Session, pool: str | None, queue: str) -> None:
    known = [row[1] for row in await session.fetch("queues_of_pools", names=ids_json([pool]))] if pool else []
    if queue not in known:
        if not pool:
            raise NotFoundError(f"There is no work queue {queue!r}: its deployment has no work pool.")
        raise NotFoundError(
            f"There is no work queue {queue!r}: the work pool {pool!r} has {', '.join(known)}. Make it with "
            f"`upwell work-pool queue create {pool} {queue}`."
        )


async def _follow(session: Session, before: Deployment, after: Deployment, now: int) -> None:
    """Have the runs that were made ahead be as the deployment is now."""
    identity = str(after.id)
    changed = any(getattr(before, name) != getattr(after, name) for name in _OF_RUNS)
    if changed or before.paused != after.paused:
        ahead = await session.fetch("made_ahead", deployment_id=identity, slug=None, after=now)
        await take_back(session, firsts(ahead))
        for schedule in before.schedules:
            await start_anew(session, schedule, now, skip=before.paused)
    if (before.work_pool, before.work_queue) != (after.work_pool, after.work_queue):
        await session.fetch(
            "move_jobs_to_pool", deployment_id=identity, work_pool=after.work_pool, work_queue=after.work_queue
        )


async def _match_schedules(session: Session, before: Deployment, wanted: Sequence[ScheduleSpec], now: int) -> None:
    there = {schedule.slug: schedule for schedule in before.schedules}
    for slug, schedule in checked_schedules(wanted).items():
        found = there.pop(slug, None)
        if found is None or not same_schedule(found, schedule):
            await put_schedule(session, before, slug, schedule, now)
    for slug in there:
        await _remove_schedule(session, before, slug)


async def _remove_schedule(session: Session, deployment: Deployment, slug: str) -> None:
    identity = str(deployment.id)
    await session.fetch("remove_schedule", deployment_id=identity, slug=slug)
    await take_back(session, firsts(await session.fetch("made_ahead", deployment_id=identity, slug=slug, after=0)))


def _schedule_of(deployment: Deployment, slug: str) -> Schedule:
    for schedule in deployment.schedules:
        if schedule.slug == slug:
            return schedule
    known = ", ".join(one.slug for one in deployment.schedules) or "none"
    raise NotFoundError(f"The deployment {deployment.full_name} has no schedule {slug!r}. It has: {known}.")


def _as_wanted(schedule: Schedule, *, active: bool) -> ScheduleSpec:
    fields: dict[str, Any] = {name: getattr(schedule, name) for name in ScheduleSpec.__struct_fields__}
    fields["active"] = active
    return ScheduleSpec(**fields)


def _moment(moment: dt.datetime, name: str) -> int:
    try:
        return micros_of(moment, name)
    except ValueError as error:
        raise InvalidRequestError(str(error)) from None


__all__ = ["SqlDeployments", "run_now"]
