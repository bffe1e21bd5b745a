"""Jobs: claimed by one worker at a time, within limits, begun by one process, and never lost."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace
from tests.runtime.journal.control.conftest import Tell
from tests.runtime.journal.control.worlds import NOON, World, every, opened

from upwell.core.deployments import ClaimSpec, Deployment, DeploymentSpec, ExpectSpec, RunSpec, WorkPoolSpec, WorkQueue
from upwell.core.errors import ConflictError, InvalidRequestError, NotFoundError, UnknownRunError
from upwell.journal.control import Control
from upwell.journal.database import Database
from upwell.journal.end_log import log_beside
from upwell.journal.sqlite import SqliteDatabase


def queue(name: str, priority: int = 1, **fields: object) -> WorkQueue:
    return WorkQueue(**{"name": name, "priority": priority, "paused": False, "concurrency_limit": None, **fields})  # type: ignore[arg-type]


def test_a_job_is_claimed_by_one_worker_and_begun_by_one_process(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy()
        run = await world.run(deployment)
        one, other, child = [await world.process() for _ in range(3)]
        (job,) = await world.claim(one, deployment)
        assert (job.flow_run_id, job.worker_id, job.claim, job.resume) == (run.id, one, 1, False)
        assert await world.claim(other, deployment) == []
        assert await world.control.claimed_jobs(one) == [job]
        assert await world.control.begin_job(job, child)
        assert await world.control.begin_job(job, child), "its answer may have been lost"
        assert not await world.control.begin_job(job, other)
        assert await world.control.claimed_jobs(one) == []
        assert (await world.reader.flow_run(run.id)).due == NOON

    tell(story)


def test_a_claim_is_void_once_somebody_else_has_the_job(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy()
        await world.run(deployment)
        one, other, child = [await world.process() for _ in range(3)]
        (old,) = await world.claim(one, deployment)
        await world.control.release_job(old, "it is about to stop")
        (new,) = await world.claim(other, deployment)
        assert new.claim == 2
        assert not await world.control.begin_job(old, child)
        await world.control.release_job(old, "again")
        await world.control.fail_job(old, "and again")
        assert await world.control.claimed_jobs(other) == [new], "nothing of that counted"
        assert await world.control.begin_job(new, child)
        await world.control.release_job(new, "too late")
        assert not await world.control.begin_job(replace(new, flow_run_id=uuid4()), child)
        assert not await world.control.begin_job(new, str(uuid4())), "nobody knows this process"

    tell(story)


def test_jobs_come_by_queue_priority_and_time(tell: Tell) -> None:
    async def story(world: World) -> None:
        await world.control.put_work_pool("pool", WorkPoolSpec())
        await world.control.put_work_queue("pool", queue("slow", 9))
        await world.control.put_work_queue("pool", queue("fast", 0))
        deployment = await world.deploy(work_pool="pool")
        wanted = (("e", "slow", -5, 0), ("d", None, 5, 0), ("c", None, 0, 2), ("b", None, 0, 1), ("a", "fast", 9, 3))
        for name, work_queue, priority, minutes in wanted:
            due = NOON + dt.timedelta(minutes=minutes)
            await world.run(deployment, name=name, work_queue=work_queue, priority=priority, due=due)
        await world.run(deployment, due=NOON + dt.timedelta(hours=1))
        world.passes(600)
        worker = await world.process()
        assert [job.name for job in await world.claim(worker, pool="pool", limit=2)] == ["a", "b"]
        assert [job.name for job in await world.claim(worker, pool="pool", queues=["slow"])] == ["e"]
        assert [job.name for job in await world.claim(worker, pool="pool")] == ["c", "d"]
        assert await world.claim(worker, pool="other") == []

    tell(story)


def test_who_looks_ahead_sees_what_will_be_due_and_takes_nothing(tell: Tell) -> None:
    async def story(world: World) -> None:
        await world.control.put_work_pool("pool", WorkPoolSpec())
        await world.control.put_work_queue("pool", queue("slow", 9))
        first, other = await world.deploy("first", work_pool="pool"), await world.deploy("other")
        for name, deployment, minutes, work_queue in (
            ("b", first, 2, "slow"), ("a", first, 1, None), ("due", first, 0, None), ("far", first, 60, None),
            ("c", other, 3, None),
        ):  # fmt: skip  # a table
            due = NOON + dt.timedelta(minutes=minutes)
            await world.run(deployment, name=name, due=due, work_queue=work_queue)

        async def expected(limit: int = 10, **scope: Any) -> list[str]:
            jobs = await world.control.expected_jobs(ExpectSpec(within_seconds=600, limit=limit, **scope))
            assert all((job.worker_id, job.claim) == ("", 0) for job in jobs)
            return [job.name for job in jobs]

        assert await expected(pool="pool") == ["a", "b"]
        assert await expected(pool="pool", queues=["slow"]) == ["b"]
        assert await expected(pool="pool", limit=1) == ["a"]
        assert await expected(pool="pool", limit=0) == []
        assert await expected(pool="elsewhere") == []
        assert await expected(deployments=[other.id]) == ["c"]
        assert await expected(deployments=[first.id, other.id]) == ["a", "b", "c"]
        await world.control.pause_deployment(first.id, True)
        assert await expected(pool="pool") == []
        await world.control.pause_deployment(first.id, False)
        world.passes(90)
        assert await expected(pool="pool") == ["b"]
        assert [job.name for job in await world.claim(await world.process(), pool="pool")] == ["due", "a"]
        for wrong in (-1, 3_601):
            with pytest.raises(InvalidRequestError, match="within_seconds"):
                await world.control.expected_jobs(ExpectSpec(within_seconds=wrong, pool="pool"))

    tell(story)


def test_limits_of_deployments_pools_and_queues_hold(tell: Tell) -> None:
    async def story(world: World) -> None:
        await world.control.put_work_pool("pool", WorkPoolSpec(concurrency_limit=4))
        await world.control.put_work_queue("pool", queue("narrow", concurrency_limit=1))
        first = await world.deploy("first", work_pool="pool", concurrency_limit=2)
        second = await world.deploy("second", work_pool="pool", work_queue="narrow")
        third = await world.deploy("third", work_pool="pool")
        for deployment in (first, second, third):
            world.passes(1)
            for _ in range(5):
                await world.run(deployment)
        worker, child = await world.process(), await world.process()
        jobs = await world.claim(worker, pool="pool")
        assert Counter(job.deployment_name for job in jobs) == {"first": 2, "second": 1, "third": 1}
        assert await world.claim(worker, pool="pool") == []
        ending = next(job for job in jobs if job.deployment_name == "first")
        await world.begin(ending, child)
        assert await world.claim(worker, pool="pool") == []
        await world.end(ending.flow_run_id)
        (following,) = await world.claim(worker, pool="pool")
        assert following.deployment_name == "first", "its place is free as soon as it has ended"
        await world.control.put_work_pool("pool", WorkPoolSpec(concurrency_limit=0))
        assert {job.deployment_name for job in await world.claim(worker, pool="pool")} == {"third"}

    tell(story)


def test_nothing_is_taken_of_a_paused_pool_or_queue(tell: Tell) -> None:
    async def story(world: World) -> None:
        await world.control.put_work_pool("pool", WorkPoolSpec(paused=True))
        deployment = await world.deploy(work_pool="pool")
        await world.run(deployment)
        worker = await world.process()
        assert await world.claim(worker, pool="pool") == []
        await world.control.put_work_pool("pool", WorkPoolSpec(paused=False))
        await world.control.put_work_queue("pool", queue("default", paused=True))
        assert await world.claim(worker, pool="pool") == []
        await world.control.put_work_queue("pool", queue("default"))
        assert len(await world.claim(worker, pool="pool")) == 1

    tell(story)


def test_a_worker_that_died_leaves_its_claims_to_others(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy()
        run = await world.run(deployment)
        dead, alive, child = await world.process(dead=True), await world.process(), await world.process()
        (lost,) = await world.claim(dead, deployment)
        assert await world.control.reap_jobs() == 0
        await world.look()
        assert (await world.control.reap_jobs(), await world.control.reap_jobs()) == (1, 0)
        with pytest.raises(ConflictError, match="dead"):
            await world.claim(dead, deployment)
        assert not await world.control.begin_job(lost, child)
        (job,) = await world.claim(alive, deployment)
        assert (job.flow_run_id, job.claim) == (run.id, 2)
        world.passes(901)
        assert await world.control.reap_jobs() == 1, "it was claimed a quarter of an hour ago, and never begun"
        (again,) = await world.claim(alive, deployment)
        assert again.claim == 3
        await world.control.register_worker(alive, "worker", None)
        await world.control.worker_ended(alive)
        assert await world.control.claimed_jobs(alive) == []

    tell(story)


def test_a_run_whose_process_died_is_crashed(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy()
        runs = [await world.run(deployment, idempotency_key=key) for key in ("a", "b")]
        worker, dead, child = await world.process(), await world.process(dead=True), await world.process()
        first, second = await world.claim(worker, deployment)
        await world.begin(first, dead)
        await world.begin(second, child)
        await world.look()
        await world.control.fail_job(second, "Its process was killed by signal 9.")
        for run in runs:
            assert (await world.state(run.id)).is_crashed()
        assert (await world.state(second.flow_run_id)).message == "Its process was killed by signal 9."
        await world.control.fail_job(second, "again")
        assert [str(state) for state in await world.reader.states(second.flow_run_id)] == [
            "Scheduled('To begin as soon as somebody takes it.')",
            "Crashed('Its process was killed by signal 9.')",
        ]
        await world.control.reap_jobs()
        again = await world.control.retry_flow_run(second.flow_run_id)
        assert again.id != second.flow_run_id

    tell(story)


def test_the_log_of_a_process_that_is_said_to_have_died_goes_with_it(tell: Tell, tmp_path: Path) -> None:
    """What a process notes beside a SQLite file; there is none elsewhere."""

    async def story(world: World) -> None:
        deployment = await world.deploy()
        await world.run(deployment)
        (job,) = await world.claim(await world.process(), deployment)
        child = await world.process()
        await world.begin(job, child)
        ((key,),) = await world.database.fetch("process_key", id=child)
        mine, others = (log_beside(tmp_path / "store.db", one) for one in (key, key + 1))
        for log in (mine, others):
            log.touch()
        await world.control.fail_job(job, "Its process was killed by signal 9.")
        assert mine.exists() is not isinstance(world.database, SqliteDatabase)
        assert others.exists()

    tell(story)


def test_a_durable_run_whose_process_died_waits_to_be_gone_on_with(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy()
        run = await world.run(deployment)
        worker = await world.process()
        for crash in range(4):
            (job,) = await world.claim(worker, deployment)
            assert (job.flow_run_id, job.claim, job.resume) == (run.id, crash + 1, crash > 0)
            process = await world.process(dead=True)
            await world.begin(job, process, durable=True)
            if crash % 2:
                await world.look()
            else:
                await world.control.fail_job(job, "Killed.")
            state = await world.state(run.id)
            assert (state.name, state.type) == ("AwaitingResume", "SCHEDULED")
        with pytest.raises(ConflictError, match="cancel it first"):
            await world.control.delete_flow_run(run.id)
        assert (await world.control.resume_flow_run(run.id)).state_name == "AwaitingResume"
        (job,) = await world.claim(worker, deployment)
        await world.begin(job, await world.process(dead=True))
        await world.look()
        assert "It has crashed 5 times" in str(await world.state(run.id))
        with pytest.raises(ConflictError, match="retry it"):
            await world.control.resume_flow_run(run.id)
        assert await world.claim(worker, deployment) == []

    tell(story)


def test_what_could_not_be_begun_is_crashed(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy()
        run = await world.run(deployment)
        (job,) = await world.claim(await world.process(), deployment)
        await world.control.fail_job(job, "There is no module 'report'.")
        assert str(await world.state(run.id)) == "Crashed(\"There is no module 'report'.\")"
        assert not await world.control.begin_job(job, await world.process())

    tell(story)


def test_a_run_that_has_not_begun_is_cancelled_at_once(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy()
        waiting, claimed = await world.run(deployment), await world.run(deployment)
        worker, child = await world.process(), await world.process()
        jobs = await world.claim(worker, deployment, limit=1)
        claimed, waiting = (claimed, waiting) if jobs[0].flow_run_id == claimed.id else (waiting, claimed)
        for run in (waiting, claimed):
            ended = await world.control.request_cancel(run.id, by="ada", reason="wrong day")
            assert (
                str(ended.state) == f"Cancelled('Cancelled by {world.known_as('ada')} before it had begun: wrong day')"
            )
        assert not await world.control.begin_job(jobs[0], child)
        assert await world.claim(worker, deployment) == []
        assert await world.control.cancel_requests() == []
        with pytest.raises(ConflictError, match="has ended Cancelled already"):
            await world.control.request_cancel(waiting.id, by="ada")
        with pytest.raises(UnknownRunError):
            await world.control.request_cancel(uuid4(), by="ada")

    tell(story)


def test_a_run_at_work_is_asked_to_end_and_is_cancelled_when_its_process_is_gone(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy()
        run, other = await world.run(deployment), await world.run(deployment)
        worker, child = await world.process(), await world.process()
        jobs = {job.flow_run_id: job for job in await world.claim(worker, deployment)}
        await world.begin(jobs[run.id], child)
        await world.begin(jobs[other.id], await world.process())
        asked = await world.control.request_cancel(run.id, by="ada", reason="late", grace_seconds=60)
        assert asked.state.is_running(), "a state that is shown was reached"
        (request,) = await world.control.cancel_requests([run.id, other.id])
        assert (request.by, request.reason, request.grace_seconds, request.requested) == (
            world.known_as("ada"), "late", 60, NOON,
        )  # fmt: skip
        assert await world.control.cancel_requests(process_id=child) == [request]
        world.passes(10)
        await world.control.request_cancel(run.id, by="bob", grace_seconds=0)
        (sooner,) = await world.control.cancel_requests()
        assert (sooner.grace_seconds, sooner.requested, sooner.by) == (10, NOON, world.known_as("ada"))
        await world.control.request_cancel(run.id, by="bob", grace_seconds=600)
        assert await world.control.cancel_requests() == [sooner], "never later"
        await world.control.fail_job(jobs[run.id], "Its process was killed.")
        assert (
            str(await world.state(run.id))
            == f"Cancelled('Cancelled by {world.known_as('ada')}: late. Its process was killed.')"
        )
        assert (await world.state(other.id)).is_running()
        assert await world.control.cancel_requests() == []

    tell(story)


def test_a_durable_run_that_is_to_be_cancelled_is_not_gone_on_with(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy()
        run = await world.run(deployment)
        worker = await world.process()
        (job,) = await world.claim(worker, deployment)
        await world.begin(job, await world.process(dead=True), durable=True)
        await world.control.request_cancel(run.id, by="ada")
        await world.look()
        assert (await world.state(run.id)).is_cancelled()
        assert await world.claim(worker, deployment) == []

    tell(story)


def test_a_run_is_run_again_as_another_and_deleted_with_all_of_it(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy(parameters={"a": 1})
        run = await world.run(deployment, parameters={"b": [2]}, tags=("t",), priority=3, idempotency_key="k")
        with pytest.raises(ConflictError, match="has not ended"):
            await world.control.retry_flow_run(run.id)
        worker, child = await world.process(), await world.process()
        (job,) = await world.claim(worker, deployment)
        await world.begin(job, child)
        for refused in (world.control.delete_flow_run(run.id), world.control.resume_flow_run(run.id)):
            with pytest.raises(ConflictError):
                await refused
        await world.end(run.id, "FAILED")
        await world.deploy(parameters={"a": 2})
        again = await world.control.retry_flow_run(run.id)
        assert (again.tags, again.idempotency_key) == (frozenset({"t"}), None)
        (new,) = await world.claim(worker, deployment)
        assert (new.flow_run_id, new.parameters) == (again.id, {"a": 1, "b": [2]}), "with what that one had"
        await world.control.delete_flow_run(run.id)
        with pytest.raises(UnknownRunError):
            await world.reader.flow_run(run.id)
        waiting = await world.run(deployment)
        await world.control.delete_flow_run(waiting.id)
        assert [found.id for found in await world.runs(deployment)] == [again.id]
        assert await world.database.fetch_text("SELECT count(*) FROM jobs") == [(1,)]
        for missing in (run.id, waiting.id):
            with pytest.raises(UnknownRunError):
                await world.control.delete_flow_run(missing)

    tell(story)


def test_a_fork_is_another_run_that_knows_what_it_takes_over(tell: Tell) -> None:
    async def story(world: World) -> None:
        schema = {"properties": {"n": {"type": "integer"}}}
        deployment = await world.deploy(parameter_schema=schema)
        run = await world.run(deployment, parameters={"n": 3}, tags=("own",), priority=2)
        worker, child = await world.process(), await world.process()
        (job,) = await world.claim(worker, deployment)
        with pytest.raises(ConflictError, match="is not durable"):
            await world.control.fork_flow_run(run.id)
        await world.begin(job, child, durable=True)
        await world.end(run.id, "FAILED")
        fork = await world.control.fork_flow_run(run.id)
        assert fork.id != run.id
        assert (fork.deployment_id, fork.tags, fork.state.name) == (deployment.id, frozenset({"own"}), "Scheduled")
        (again,) = await world.claim(worker, deployment)
        assert (again.flow_run_id, again.fork_of, again.fork_before) == (fork.id, run.id, None)
        assert again.parameters == {"n": 3}
        with pytest.raises(UnknownRunError):
            await world.control.fork_flow_run(run.id, before=uuid4())
        with pytest.raises(UnknownRunError):
            await world.control.fork_flow_run(uuid4())

    tell(story)


def test_many_workers_share_the_jobs_and_pass_no_limit(tell: Tell, make_database: Callable[[], Database]) -> None:
    """Each with a connection of its own, all at once."""

    async def story(world: World) -> None:
        await world.control.put_work_pool("pool", WorkPoolSpec(concurrency_limit=30))
        free = await world.deploy("free", work_pool="pool")
        limited = await world.deploy("limited", work_pool="pool", concurrency_limit=3)
        for deployment, runs in ((free, 40), (limited, 20)):
            for _ in range(runs):
                await world.run(deployment)
        claimed: list[str] = []

        async def work(worker: str) -> None:
            async with opened(make_database) as control:
                while jobs := await control.claim_jobs(ClaimSpec(worker_id=worker, pool="pool", limit=2)):
                    claimed.extend(f"{job.deployment_name} {job.flow_run_id}" for job in jobs)

        await asyncio.gather(*[work(await world.process()) for _ in range(6)])
        assert len(set(claimed)) == len(claimed) == 30
        assert Counter(one.partition(" ")[0] for one in claimed)["limited"] == 3

    tell(story)


def test_whatever_is_done_at_once_is_done_once(tell: Tell, make_database: Callable[[], Database]) -> None:
    """Claims, beginnings, cancels, failures, ticks, changes and deletions by many, on the same few runs."""

    async def story(world: World) -> None:
        chance = random.Random(7)
        child = await world.process()
        begun: list[UUID] = []

        async def act(worker: str) -> None:
            async with opened(make_database) as control:
                for _ in range(12):
                    deployment = await control.apply_deployment(
                        DeploymentSpec(
                            flow_name="f",
                            name=chance.choice("ab"),
                            version=chance.choice("12"),
                            schedules=(every(60),),
                            concurrency_limit=2,
                            when_full=chance.choice(("queue", "cancel_new", "cancel_running")),
                        )
                    )
                    try:
                        await one_act(control, worker, deployment)
                    except (ConflictError, NotFoundError):
                        pass

        async def one_act(control: Control, worker: str, deployment: Deployment) -> None:
            what = chance.randrange(8)
            run = await control.run_deployment(deployment.id, RunSpec(idempotency_key=chance.choice(["x", "y", None])))
            await control.make_ticks()
            for job in await control.claim_jobs(ClaimSpec(worker_id=worker, deployments=(deployment.id,), limit=3)):
                if what < 3:
                    if await control.begin_job(job, child):
                        begun.append(job.flow_run_id)
                elif what < 5:
                    await control.release_job(job, "no")
                else:
                    await control.fail_job(job, "no")
            if what == 6:
                await control.request_cancel(run.id, by="ada")
            if what == 7:
                await control.delete_deployment(deployment.id)
            await control.reap_jobs()
            await control.mark_late(0)

        await asyncio.gather(*[act(await world.process()) for _ in range(4)])
        assert begun
        assert len(begun) == len(set(begun))
        rows = await world.database.fetch_text(
            "SELECT j.state, f.ended IS NULL, f.process_id IS NULL FROM jobs j "
            "LEFT JOIN flow_runs f ON f.id = j.flow_run_id"
        )
        allowed = {("waiting", 1, 1), ("claimed", 1, 1), ("begun", 1, 0), ("ended", 0, 1)}
        assert set(rows) <= allowed
        twice = "SELECT idempotency_key FROM flow_runs GROUP BY flow, idempotency_key HAVING count(*) > 1"
        assert await world.database.fetch_text(twice + " AND idempotency_key IS NOT NULL") == []

    tell(story)
