"""Work pools, their queues, and who works there."""

from __future__ import annotations

from typing import Any

import pytest
from tests.runtime.journal.control.conftest import Tell
from tests.runtime.journal.control.worlds import NOON, World

from upwell.core.deployments import WorkPool, WorkPoolSpec, WorkQueue
from upwell.core.errors import ConflictError, InvalidRequestError, NotFoundError

FAST = WorkQueue(name="fast", priority=0, paused=False, concurrency_limit=2)
DEFAULT = WorkQueue(name="default", priority=1, paused=False, concurrency_limit=None)


def test_a_pool_is_what_was_said_of_it_last(tell: Tell) -> None:
    async def story(world: World) -> None:
        async def put(name: str, **wanted: Any) -> WorkPool:
            return await world.control.put_work_pool(name, WorkPoolSpec(**wanted))

        template = {"job_configuration": {"image": "{{ image }}"}, "variables": {"type": "object"}}
        made = await put("pool", kind="docker", description="Ü", concurrency_limit=3, base_job_template=template)
        assert (made.kind, made.description, made.concurrency_limit, made.created) == ("docker", "Ü", 3, NOON)
        assert (made.base_job_template, made.queues) == (template, (DEFAULT,))
        paused = await put("pool", paused=True)
        assert paused == await world.control.work_pool("pool")
        assert (paused.paused, paused.kind, paused.concurrency_limit) == (True, "docker", 3), "the rest stays"
        assert (await put("pool", concurrency_limit=0)).concurrency_limit is None
        await put("other")
        assert [pool.name for pool in await world.control.work_pools()] == ["other", "pool"]
        with pytest.raises(ConflictError, match="already"):
            await put("pool", exist_ok=False)
        assert (await put("\U0001f469\u200d\U0001f467")).name == "\U0001f469\u200d\U0001f467", "a mother and her child"
        for refused in (put("a>b"), put(".."), put("a\u200bb"), put("x", kind="moon"), put("x", concurrency_limit=-1)):
            with pytest.raises(InvalidRequestError):
                await refused
        with pytest.raises(NotFoundError, match="'x'"):
            await world.control.work_pool("x")

    tell(story)


def test_what_is_used_is_not_deleted(tell: Tell) -> None:
    async def story(world: World) -> None:
        await world.control.put_work_pool("pool", WorkPoolSpec())
        await world.control.put_work_queue("pool", FAST)
        deployment = await world.deploy(work_pool="pool", work_queue="fast")
        with pytest.raises(ConflictError, match="report/daily"):
            await world.control.delete_work_pool("pool")
        with pytest.raises(ConflictError, match="report/daily"):
            await world.control.delete_work_queue("pool", "fast")
        with pytest.raises(ConflictError, match="pause it"):
            await world.control.delete_work_queue("pool", "default")
        run = await world.run(deployment)
        await world.deploy(work_pool="pool", work_queue="slow")
        assert (await world.control.delete_work_queue("pool", "fast")).queues[0] == DEFAULT
        worker = await world.process()
        jobs = await world.claim(worker, pool="pool", queues=["slow"])
        assert [job.flow_run_id for job in jobs] == [run.id], "it has gone where its deployment went"
        await world.control.delete_deployment(deployment.id)
        await world.control.delete_work_pool("pool")
        for missing in ("delete_work_pool", "work_pool"):
            with pytest.raises(NotFoundError):
                await getattr(world.control, missing)("pool")

    tell(story)


def test_what_waits_in_a_queue_that_goes_waits_in_the_default_one(tell: Tell) -> None:
    async def story(world: World) -> None:
        await world.control.put_work_pool("pool", WorkPoolSpec())
        await world.control.put_work_queue("pool", FAST)
        deployment = await world.deploy(work_pool="pool")
        run = await world.run(deployment, work_queue="fast")
        await world.control.delete_work_queue("pool", "fast")
        jobs = await world.claim(await world.process(), pool="pool", queues=["default"])
        assert [job.flow_run_id for job in jobs] == [run.id]
        with pytest.raises(NotFoundError):
            await world.control.delete_work_queue("pool", "fast")

    tell(story)


def test_workers_are_seen_as_long_as_they_are_there(tell: Tell) -> None:
    async def story(world: World) -> None:
        await world.control.put_work_pool("pool", WorkPoolSpec())
        one, other, dead = await world.process(), await world.process(), await world.process(dead=True)
        await world.control.register_worker(one, "one", "pool")
        world.passes(1)
        await world.control.register_worker(other, "other", None)
        await world.control.register_worker(dead, "dead", "pool")
        await world.look()
        await world.control.worker_ended(other)
        found = {worker.name: worker for worker in await world.control.workers()}
        assert {name: worker.online for name, worker in found.items()} == {"one": True, "other": False, "dead": False}
        assert (found["one"].id, found["one"].pool, found["one"].started) == (one, "pool", NOON)
        assert {worker.name for worker in await world.control.workers("pool")} == {"one", "dead"}
        with pytest.raises(ConflictError, match="declared dead"):
            await world.control.register_worker(dead, "dead", "pool")
        with pytest.raises(NotFoundError):
            await world.control.register_worker(one, "one", "nowhere")
        world.passes(90_000)
        assert await world.control.workers() == []

    tell(story)
