"""Which jobs a worker gets: those that are due, in their order, within the limits of deployments, pools and queues.

What is under way is counted with the rows of the limits locked, so no two workers can pass a limit together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import msgspec

from upwell.core.deployments import ClaimSpec, ExpectSpec, Job, JobScope
from upwell.core.errors import ConflictError
from upwell.journal.control_part import firsts, ids_json, now_micros
from upwell.journal.database import Row, Session
from upwell.journal.full import see_to_full
from upwell.journal.reader_records import moment

AWAITING_RESUME: Final = "AwaitingResume"


def scope_of(wanted: JobScope) -> dict[str, Any]:
    """Whose jobs are wanted, as queries have it."""
    return {"pool": wanted.pool, "deployments": ids_json(wanted.deployments)}


class _Limits:
    """How many more may be claimed, of which deployment and which queue."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.deployments: dict[str, int] = {}
        self.queues: dict[str, int | None] = {}
        self.sees_to_full = False

    def take(self, deployment_id: str, concurrency: int | None, queue: str | None) -> bool:
        """Whether one more may be, which is counted then."""
        left = self.deployments.get(deployment_id)
        if concurrency is not None and left is None:  # it was not limited when the limits were locked
            self.deployments[deployment_id] = left = 0
        in_queue = self.queues.get(queue) if queue is not None else None
        if self.total < 1 or (left is not None and left < 1) or (in_queue is not None and in_queue < 1):
            return False
        self.total -= 1
        if left is not None:
            self.deployments[deployment_id] = left - 1
        if queue is not None and in_queue is not None:
            self.queues[queue] = in_queue - 1
        return True

    def closed(self) -> list[str]:
        return [one for one, left in self.deployments.items() if left < 1]

    def open_queues(self) -> list[str]:
        return [name for name, left in self.queues.items() if left is None or left > 0]


async def claim(session: Session, wanted: ClaimSpec) -> list[Job]:
    """The next jobs that this worker may have; they are its own then."""
    rows = await session.fetch("process_state", id=wanted.worker_id)
    if not rows or rows[0][0] != "alive":
        raise ConflictError(
            f"The worker {wanted.worker_id} is not known here, or was declared dead: it may claim nothing any more."
        )
    now = now_micros()
    limits = await _limits(session, wanted, now)
    chosen: list[str] = []
    while limits.total > 0:
        page = await _page(session, wanted, now, limits, chosen)
        at_work = set(firsts(await session.fetch("runs_at_work", ids=ids_json(row[0] for row in page))))
        for run_id in at_work:  # somebody has resumed it by hand
            await session.fetch("set_job", id=run_id, state="begun")
        before = len(at_work) == 0, limits.total, len(limits.closed()), len(limits.open_queues())
        for run_id, deployment_id, queue, concurrency, pool in page:
            if run_id not in at_work and limits.take(
                deployment_id, concurrency, queue if pool == wanted.pool else None
            ):
                chosen.append(run_id)
        if before == (True, limits.total, len(limits.closed()), len(limits.open_queues())):
            break
    if not chosen:
        return []
    ids = ids_json(chosen)
    await session.fetch("claim_jobs", ids=ids, worker_id=wanted.worker_id, now=now)
    jobs = await jobs_of(session, chosen)
    return [jobs[one] for one in chosen]


async def could_claim(session: Session, wanted: ClaimSpec) -> bool:
    """Whether it is worth while to try: a look before the store is locked, where that locks all of it."""
    now = now_micros()
    limits = await _limits(session, wanted, now, looks_only=True)
    return limits.sees_to_full or (limits.total > 0 and bool(await _page(session, wanted, now, limits, [])))


async def _page(session: Session, wanted: ClaimSpec, now: int, limits: _Limits, chosen: Sequence[str]) -> list[Row]:
    """The next ones that are due, as far as it is known that there is a place for them."""
    closed, queues = ids_json(limits.closed()), ids_json(limits.open_queues())
    return await session.fetch(
        "jobs_due", now=now, most=limits.total, closed=closed, queues=queues, taken=ids_json(chosen), **scope_of(wanted)
    )


async def expected(session: Session, wanted: ExpectSpec) -> list[Job]:
    """The next jobs that will be due."""
    now = now_micros()
    until = now + int(wanted.within_seconds * 1e6)
    queues = msgspec.json.encode(list(wanted.queues)).decode()
    rows = await session.fetch(
        "jobs_expected", now=now, until=until, queues=queues, most=wanted.limit, **scope_of(wanted)
    )
    jobs = await jobs_of(session, firsts(rows))
    return [jobs[one] for one in firsts(rows) if one in jobs]


async def jobs_of(session: Session, ids: Sequence[str]) -> dict[str, Job]:
    """Jobs as whoever has claimed them gets them, by the ids of their runs."""
    return {row[0]: _job(row) for row in await session.fetch("jobs_claimed", ids=ids_json(ids))}


async def _limits(session: Session, wanted: ClaimSpec, now: int, *, looks_only: bool = False) -> _Limits:
    """How many may be claimed, with all rows locked that say so."""
    limits = _Limits(wanted.limit)
    if wanted.pool is not None:
        await _limits_of_pool(session, wanted.pool, wanted.queues, limits)
    limited = await session.fetch("lock_limited_deployments", now=now, **scope_of(wanted))
    if limited:
        for deployment_id, concurrency, when_full in limited:
            limits.sees_to_full |= when_full != "queue"
            if when_full != "queue" and not looks_only:
                await see_to_full(session, deployment_id, concurrency, when_full, now)
        counts: dict[str, int] = dict(
            await session.fetch("under_way_by_deployment", ids=ids_json(row[0] for row in limited))
        )
        limits.deployments = {row[0]: row[1] - counts.get(row[0], 0) for row in limited}
    return limits


async def _limits_of_pool(session: Session, pool: str, queues: Sequence[str], limits: _Limits) -> None:
    found = await session.fetch("lock_pool", name=pool)
    if not found or found[0][0]:
        return  # with no queue open, nothing is found
    rows = await session.fetch("lock_queues", pool=pool)
    counts = Counter[str](dict(await session.fetch("under_way_by_queue", pool=pool)))
    concurrency = found[0][1]
    if concurrency is not None:
        limits.total = min(limits.total, concurrency - counts.total())
    for name, _, paused, in_queue in rows:
        if not paused and (not queues or name in queues):
            limits.queues[name] = None if in_queue is None else in_queue - counts[name]


def _job(row: Row) -> Job:
    (run_id, name, flow, deployment_id, deployment_name, entrypoint, parameters, tags, due, created, variables,
     worker_id, claims, state_name, fork_of, fork_before, version) = row  # fmt: skip  # in their order
    decode = msgspec.json.decode
    return Job(
        flow_run_id=UUID(run_id),
        name=name,
        flow_name=flow,
        deployment_id=UUID(deployment_id),
        deployment_name=deployment_name,
        entrypoint=entrypoint,
        parameters=decode(parameters),
        tags=tuple(decode(tags)) if tags else (),
        due=moment(due),
        created=moment(created),
        job_variables=decode(variables),
        worker_id=worker_id or "",
        claim=claims,
        resume=state_name == AWAITING_RESUME,
        fork_of=None if fork_of is None else UUID(fork_of),
        fork_before=None if fork_before is None else UUID(fork_before),
        deployment_version=version,
    )
