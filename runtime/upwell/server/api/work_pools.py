"""Work pools, their queues, and who works there. What jobs look like is said by an administrator."""

from __future__ import annotations

from typing import Annotated

from litestar import delete, get, put
from litestar.params import JSONBody
from litestar.types import ControllerRouterHandler
from msgspec import Meta, Struct

from upwell.core.deployments import Worker, WorkPool, WorkPoolSpec, WorkQueue
from upwell.server import auth
from upwell.server.api.asked import PathId, PathName, Request, Text, note
from upwell.server.parts import parts_of

Bound = Annotated[int, Meta(ge=0, le=1_000_000_000)]
"""How many at once."""

Name = Annotated[str, Meta(min_length=1, max_length=1000)]


class WorkQueueBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A queue as it is wanted."""

    priority: Annotated[int, Meta(ge=0, le=1_000_000)] = 1
    paused: bool = False
    concurrency_limit: Bound | None = None


class WorkerBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody who carries jobs out."""

    name: Name
    pool: Name | None = None


@get("/api/work-pools", opt=auth.READ)
async def work_pools(request: Request) -> list[WorkPool]:
    """All work pools."""
    return await parts_of(request).control.work_pools()


@get("/api/work-pools/{name:str}", opt=auth.READ)
async def work_pool(request: Request, name: PathName) -> WorkPool:
    """One work pool."""
    return await parts_of(request).control.work_pool(name)


@put("/api/work-pools/{name:str}", opt=auth.ADMIN)
async def put_work_pool(request: Request, name: PathName, data: JSONBody[WorkPoolSpec]) -> WorkPool:
    """Make a work pool, or change the one of this name."""
    pool = await parts_of(request).control.put_work_pool(name, data)
    await note(request, "put work pool", name)
    return pool


@delete("/api/work-pools/{name:str}", opt=auth.ADMIN)
async def delete_work_pool(request: Request, name: PathName) -> None:
    """Remove a work pool."""
    await parts_of(request).control.delete_work_pool(name)
    await note(request, "delete work pool", name)


@put("/api/work-pools/{name:str}/queues/{queue:str}", opt=auth.ADMIN)
async def put_work_queue(request: Request, name: PathName, queue: PathName, data: JSONBody[WorkQueueBody]) -> WorkPool:
    """Make a queue of a work pool, or change the one of this name."""
    wanted = WorkQueue(name=queue, priority=data.priority, paused=data.paused, concurrency_limit=data.concurrency_limit)
    pool = await parts_of(request).control.put_work_queue(name, wanted)
    await note(request, "put work queue", f"{name}/{queue}")
    return pool


@delete("/api/work-pools/{name:str}/queues/{queue:str}", opt=auth.ADMIN, status_code=200)
async def delete_work_queue(request: Request, name: PathName, queue: PathName) -> WorkPool:
    """Remove a queue of a work pool."""
    pool = await parts_of(request).control.delete_work_queue(name, queue)
    await note(request, "delete work queue", f"{name}/{queue}")
    return pool


@get("/api/workers", opt=auth.READ)
async def workers(request: Request, pool: Text = None) -> list[Worker]:
    """Who carries jobs out, or did within the last day."""
    return await parts_of(request).control.workers(pool)


@put("/api/workers/{worker_id:uuid}", opt=auth.RUN, status_code=204)
async def register_worker(request: Request, worker_id: PathId, data: JSONBody[WorkerBody]) -> None:
    """Say who carries jobs out. The id is that of a process of the store's."""
    await parts_of(request).control.register_worker(str(worker_id), data.name, data.pool)


@delete("/api/workers/{worker_id:uuid}", opt=auth.RUN)
async def worker_ended(request: Request, worker_id: PathId) -> None:
    """It carries out no more jobs."""
    await parts_of(request).control.worker_ended(str(worker_id))


def work_pool_routes() -> list[ControllerRouterHandler]:
    """The routes of this file."""
    pools: list[ControllerRouterHandler] = [work_pools, work_pool, put_work_pool, delete_work_pool]
    return [*pools, put_work_queue, delete_work_queue, workers, register_worker, worker_ended]
