"""Work pools in the store, their queues, and who works there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from upwell.core.deployments import DEFAULT_QUEUE, Worker, WorkPool, WorkPoolSpec, WorkQueue
from upwell.core.errors import ConflictError, InvalidRequestError, NotFoundError
from upwell.journal.control_part import MOST_NUMBER, Part, checked_name, firsts, ids_json, json_of, now_micros
from upwell.journal.database import Row, Session
from upwell.journal.processes import machine_of
from upwell.journal.reader_records import moment

KINDS: Final = ("process", "docker")
DAY_MICROS: Final = 86_400_000_000
MOST_WORKERS: Final = 1_000
MOST_NAMED: Final = 3
"""Deployments that are named as standing in the way."""


class SqlPools(Part):
    """Work pools; see `control.Pools`."""

    async def put_work_pool(self, name: str, wanted: WorkPoolSpec) -> WorkPool:
        checked_name(name, "work pool")
        kind, limit = wanted.kind, _checked_limit(wanted.concurrency_limit)
        if kind not in (None, *KINDS):
            raise InvalidRequestError(f"The kind of a work pool is {kind!r}, and must be {' or '.join(KINDS)}.")

        async def put(session: Session) -> WorkPool:
            is_new = await session.fetch("new_pool", name=name, kind=kind or KINDS[0], now=now_micros())
            if not is_new and not wanted.exist_ok:
                raise ConflictError(f"There is a work pool {name!r} already.")
            await session.fetch("lock_pool", name=name)
            before = await _pool(session, name)
            template = before.base_job_template if wanted.base_job_template is None else wanted.base_job_template
            await session.fetch(
                "change_pool",
                name=name,
                kind=kind or before.kind,
                description=before.description if wanted.description is None else wanted.description,
                paused=int(before.paused if wanted.paused is None else wanted.paused),
                concurrency=before.concurrency_limit if limit is None else limit or None,
                base_job_template=json_of(template),
            )
            await session.fetch("ensure_queue", pool=name, name=DEFAULT_QUEUE)
            return await _pool(session, name)

        return await self._transact(put)

    async def work_pool(self, name: str) -> WorkPool:
        return await _pool(self._reading, name)

    async def work_pools(self) -> list[WorkPool]:
        return await _with_queues(self._reading, await self._reading.fetch("pools"))

    async def delete_work_pool(self, name: str) -> None:
        async def delete(session: Session) -> None:
            await session.fetch("lock_pool", name=name)
            await _pool(session, name)
            await _refuse_if_used(session, name, None, f"The work pool {name!r}")
            await session.fetch("remove_queues", pool=name)
            await session.fetch("remove_pool", name=name)

        await self._transact(delete)

    async def put_work_queue(self, pool: str, queue: WorkQueue) -> WorkPool:
        checked_name(queue.name, "work queue")
        limit = _checked_limit(queue.concurrency_limit)
        if abs(queue.priority) > MOST_NUMBER:
            raise InvalidRequestError(f"priority is {queue.priority}, and must be within {MOST_NUMBER:,} of 0.")

        async def put(session: Session) -> WorkPool:
            await session.fetch("lock_pool", name=pool)
            await _pool(session, pool)
            await session.fetch(
                "put_queue",
                pool=pool,
                name=queue.name,
                priority=queue.priority,
                paused=int(queue.paused),
                concurrency=limit or None,
            )
            return await _pool(session, pool)

        return await self._transact(put)

    async def delete_work_queue(self, pool: str, name: str) -> WorkPool:
        if name == DEFAULT_QUEUE:
            raise ConflictError(f"The queue {name!r} is there as long as its work pool: pause it instead.")

        async def delete(session: Session) -> WorkPool:
            await session.fetch("lock_pool", name=pool)
            await _pool(session, pool)
            await _refuse_if_used(session, pool, name, f"The work queue {name!r}")
            if not await session.fetch("remove_queue", pool=pool, name=name):
                raise NotFoundError(f"The work pool {pool!r} has no queue {name!r}.")
            await session.fetch("move_jobs_of_queue", pool=pool, name=name, into=DEFAULT_QUEUE)
            return await _pool(session, pool)

        return await self._transact(delete)

    # --- workers ------------------------------------------------------------------------------------------

    async def register_worker(self, worker_id: str, name: str, pool: str | None) -> None:
        checked_name(name, "worker")

        async def register(session: Session) -> None:
            rows = await session.fetch("process_state", id=worker_id)
            if not rows or rows[0][0] != "alive":
                raise ConflictError(f"The process {worker_id} of worker {name!r} is unknown, or was declared dead.")
            if pool is not None:
                await _pool(session, pool)
            await session.fetch("put_worker", id=worker_id, name=name, pool=pool, now=now_micros())

        await self._transact(register)

    async def worker_ended(self, worker_id: str) -> None:
        async def end(session: Session) -> None:
            await session.fetch("end_worker", id=worker_id, now=now_micros())
            for job in firsts(await session.fetch("jobs_of_worker", id=worker_id)):
                await session.fetch("put_job_back", id=job)

        await self._transact(end)

    async def workers(self, pool: str | None = None) -> list[Worker]:
        rows = await self._reading.fetch("workers", pool=pool, since=now_micros() - DAY_MICROS, most=MOST_WORKERS)
        return [
            Worker(
                id=process_id,
                name=name,
                pool=of_pool,
                host=machine_of(host or ""),
                pid=pid or 0,
                online=bool(online),
                started=moment(started),
                last_seen=moment(seen),
            )
            for process_id, name, of_pool, host, pid, online, started, seen in rows
        ]


async def _pool(session: Session, name: str) -> WorkPool:
    found = await _with_queues(session, await session.fetch("pool", name=name))
    if not found:
        raise NotFoundError(f"There is no work pool {name!r}.")
    return found[0]


async def _with_queues(session: Session, rows: Sequence[Row]) -> list[WorkPool]:
    queues: dict[str, list[WorkQueue]] = {row[0]: [] for row in rows}
    for pool, name, priority, paused, concurrency in await session.fetch("queues_of_pools", names=ids_json(queues)):
        queues[pool].append(WorkQueue(name=name, priority=priority, paused=bool(paused), concurrency_limit=concurrency))
    return [
        WorkPool(
            name=name,
            kind=kind,
            description=description,
            paused=bool(paused),
            concurrency_limit=concurrency,
            base_job_template=msgspec.json.decode(template),
            queues=tuple(queues[name]),
            created=moment(created),
        )
        for name, kind, description, paused, concurrency, template, created in rows
    ]


async def _refuse_if_used(session: Session, pool: str, queue: str | None, what: str) -> None:
    rows = await session.fetch("deployments_of_pool", pool=pool, queue=queue, most=MOST_NAMED + 1)
    if rows:
        named = ", ".join(f"{flow}/{name}" for flow, name in rows[:MOST_NAMED])
        more = " and others" if len(rows) > MOST_NAMED else ""
        raise ConflictError(f"{what} is used by {named}{more}: delete those, or deploy them elsewhere, first.")


def _checked_limit(limit: int | None) -> int | None:
    if limit is not None and not 0 <= limit <= MOST_NUMBER:
        raise InvalidRequestError(f"concurrency_limit is {limit}, and must be 0 (any number) to {MOST_NUMBER:,}.")
    return limit
