"""What services do to the store now and then: make ticks, mark what is late, put back what was left lying.

Each step is one short transaction that skips what another has locked, so any number of services may be at it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final
from uuid import UUID

from upwell.core.errors import NotFoundError
from upwell.core.states import CANCELLED, SCHEDULED
from upwell.engine.loggers import ENGINE
from upwell.journal.control_part import Part, add_states, at, end_run, firsts, ids_json, now_micros
from upwell.journal.database import Session, StoreError
from upwell.journal.deployment_records import find_deployment, schedule_of
from upwell.journal.full import see_to_full
from upwell.journal.schedules import refill

CLAIM_MICROS: Final = 900_000_000
"""A job that was claimed so long ago, and never begun, is somebody else's."""

MOST_SCHEDULES: Final = 500
"""That are looked at in one go."""

MOST_LATE_SECONDS: Final = 1e9

MOST_JOBS: Final = 500
"""Of one transaction."""


class SqlUpkeep(Part):
    """What keeps jobs and schedules going; see `control.Upkeep`."""

    async def make_ticks(self) -> int:
        moment = now_micros()
        found = await self._database.fetch("schedules_to_look_at", now=moment, most=MOST_SCHEDULES)
        made = 0
        for schedule_id, deployment_id in found:
            try:
                made += await self._transact(partial(_refill, schedule_id, deployment_id, moment))
            except StoreError:
                raise
            except Exception as error:  # the others are none the worse for it
                ENGINE.error("The schedule %s of deployment %s cannot tick: %s", schedule_id, deployment_id, error)
        return made

    async def mark_late(self, after_seconds: float) -> int:
        now = now_micros()
        before = now - int(min(after_seconds, MOST_LATE_SECONDS) * 1e6)
        if not await self._database.fetch("is_anything_late", now=now, before=before):
            return 0

        async def mark(session: Session) -> int:
            too_late = await session.fetch("jobs_too_late", now=now, most=MOST_JOBS)
            for run_id, due, latest in too_late:
                seconds = (latest - due) / 1e6
                message = f"Nobody began it within {seconds:g} seconds of its time, {at(due)}: that is too late."
                await end_run(session, run_id, now, CANCELLED.value, message, "Skipped")
            ids = ids_json(firsts(await session.fetch("jobs_late", before=before, most=MOST_JOBS)))
            await session.fetch("jobs_are_late", ids=ids)
            message = f"It should have begun more than {after_seconds:g} seconds ago, and nobody has taken it yet."
            found = await session.fetch("states_of_flow_runs", ids=ids)
            late = [run_id for run_id, state, name in found if state == SCHEDULED.value and name is None]
            await session.fetch("flow_runs_are_late", ids=ids_json(late), message=message)
            await add_states(session, [(run_id, now, SCHEDULED.value, "Late", message) for run_id in late])
            return len(too_late) + len(late)

        return await _until_none_is_left(partial(self._transact, mark))

    async def reap_jobs(self) -> int:
        now = now_micros()
        if not await self._database.fetch("is_anything_to_reap", before=now - CLAIM_MICROS, now=now):
            return 0
        return await _until_none_is_left(partial(self._transact, partial(_reap, now)))


async def _until_none_is_left(step: Callable[[], Awaitable[int]]) -> int:
    """Do this again as long as there is as much to do as one transaction does; how much it was in all."""
    total = 0
    while True:
        done = await step()
        total += done
        if done < MOST_JOBS:
            return total


async def _refill(schedule_id: str, deployment_id: str, now: int, session: Session) -> int:
    return await refill_schedule(session, schedule_id, deployment_id, now)


async def refill_schedule(session: Session, schedule_id: str, deployment_id: str, now: int) -> int:
    """Make the runs of a schedule that are to be there by now; how many."""
    await session.fetch("lock_deployment", id=deployment_id)
    found = await session.fetch("lock_schedule", id=schedule_id)
    if not found:
        return 0
    schedule, look = schedule_of(found[0]), found[0][13]
    try:
        deployment = await find_deployment(session, UUID(deployment_id))
    except NotFoundError:
        return 0
    if not schedule.active or deployment.paused or look > now:  # somebody else was faster
        return 0
    return await refill(session, deployment, schedule, now)


async def _reap(now: int, session: Session) -> int:
    done = 0
    for deployment_id in firsts(await session.fetch("full_deployments", now=now)):
        limited = await session.fetch("lock_limited_deployment", id=deployment_id)
        for _, concurrency, when_full in limited:
            if when_full != "queue":
                done += await see_to_full(session, deployment_id, concurrency, when_full, now)
    for run_id in firsts(await session.fetch("jobs_to_put_back", before=now - CLAIM_MICROS)):
        await session.fetch("put_job_back", id=run_id)
        done += 1
    for run_id in firsts(await session.fetch("jobs_to_resume")):
        await session.fetch("let_job_wait_again", id=run_id)
        done += 1
    ended = firsts(await session.fetch("jobs_that_have_ended", most=MOST_JOBS))
    for run_id in ended:
        await session.fetch("set_job", id=run_id, state="ended")
    await session.fetch("remove_answered_cancel_requests")
    return done + len(ended)
