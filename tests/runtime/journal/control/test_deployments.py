"""Deployments: as they are wanted, found by name, paused, deleted; and their runs."""

from __future__ import annotations

import datetime as dt
from typing import Any
from uuid import uuid4

import pytest
from tests.runtime.journal.control.conftest import Tell
from tests.runtime.journal.control.worlds import NOON, World, hourly, hours

from upwell.core.deployments import DeploymentSpec, RunSpec, ScheduleSpec, WorkPoolSpec, WorkQueue
from upwell.core.errors import ConflictError, InvalidRequestError, NotFoundError

SCHEMA = {
    "type": "object",
    "properties": {
        "day": {"type": "string"},
        "n": {"type": "integer", "minimum": 1},
        "pin": {"type": "string", "format": "password", "minLength": 4},
        "since": {"type": ["string", "null"], "format": "date-time"},
        "on": {"type": "string", "format": "date"},
        "id": {"anyOf": [{"type": "string", "format": "uuid"}, {"type": "null"}]},
    },
    "required": ["day"],
    "additionalProperties": False,
}


def test_what_is_applied_is_what_is_found(tell: Tell) -> None:
    async def story(world: World) -> None:
        wanted = DeploymentSpec(
            flow_name="report", name="daily", entrypoint="report.py:report", version="1", description="Ü",
            tags=("b", "a"), parameters={"day": "Monday", "deep": {"x": [1, None, 1.5]}}, job_variables={"a": {"b": 1}},
            concurrency_limit=2, when_full="cancel_new", schedules=(hourly(parameters={"n": 2}, catchup="all"),),
        )  # fmt: skip
        made = await world.control.apply_deployment(wanted)
        assert made == await world.control.deployment("report/daily") == await world.control.deployment(made.id)
        assert made == await world.control.deployment(str(made.id))
        assert (made.parameters, made.job_variables) == (wanted.parameters, wanted.job_variables)
        assert (made.tags, made.when_full, made.concurrency_limit) == (("a", "b"), "cancel_new", 2)
        (schedule,) = made.schedules
        assert (schedule.slug, schedule.parameters, schedule.catchup) == ("cron-0-x-x-x-x", {"n": 2}, "all")
        assert schedule.next_tick == NOON + dt.timedelta(hours=1)

        world.passes(60)
        again = await world.control.apply_deployment(wanted)
        assert again.id == made.id
        assert again.schedules == made.schedules, "nothing of it has changed"
        changed = await world.deploy(version="2")
        assert (changed.id, changed.version, changed.created) == (made.id, "2", made.created)
        assert [one.id for one in changed.schedules] == [schedule.id], "None leaves them as they are"
        assert (await world.deploy(schedules=())).schedules == ()

    tell(story)


def test_what_cannot_be_is_refused_and_says_why(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy(parameter_schema=SCHEMA)
        refused: list[tuple[dict[str, Any], str]] = [
            ({"name": "a/b"}, "name"),
            ({"name": " "}, "empty"),
            ({"flow": "x" * 500}, "too long"),
            ({"concurrency_limit": 0}, "1 or more"),
            ({"when_full": "burst"}, "queue|when_full"),
            ({"work_queue": "q"}, "no work pool"),
            ({"parameter_schema": {"type": "nothing"}}, "JSON schema"),
            ({"parameter_schema": SCHEMA, "parameters": {"n": 0}}, "n: 0 is less than"),
            ({"parameter_schema": SCHEMA, "schedules": (hourly(),)}, "'day' is a required"),
            ({"schedules": (hourly(slug="a"), hourly(slug="a"))}, "different slugs"),
            ({"schedules": (hourly(slug="ä b"),)}, "slug"),
            ({"schedules": (hourly(timezone="Mars/Base"),)}, "time zone"),
            ({"schedules": (ScheduleSpec(kind="cron", expression="61 * * * *"),)}, "cannot be read"),
            ({"parameters": {"x": object()}}, "JSON"),
            ({"parameters": {"x": "x" * 600_000}}, "524,288"),
        ]
        for fields, why in refused:
            with pytest.raises(InvalidRequestError, match=why):
                await world.deploy(**fields)
        with pytest.raises(NotFoundError, match="work-pool create"):
            await world.deploy(work_pool="nowhere")
        with pytest.raises(NotFoundError, match="flow/deployment"):
            await world.control.deployment("daily")
        for ref in ("report/none", uuid4()):
            with pytest.raises(NotFoundError):
                await world.control.run_deployment(ref, RunSpec())
        assert await world.runs(deployment) == []

    tell(story)


def test_deployments_are_listed_in_pages_by_name(tell: Tell) -> None:
    async def story(world: World) -> None:
        await world.control.put_work_pool("pool", WorkPoolSpec())
        for flow, name in (("b", "x"), ("a", "y"), ("a", "x"), ("c_", "z")):
            await world.deploy(name, flow=flow, tags=("all", flow), work_pool="pool" if flow == "b" else None)
        first = await world.control.deployments(limit=3)
        assert [one.full_name for one in first] == ["a/x", "a/y", "b/x"]
        assert [one.full_name for one in await world.control.deployments(limit=3, after=first.next)] == ["c_/z"]
        filtered: list[tuple[dict[str, Any], list[str]]] = [
            ({"flow": "a"}, ["a/x", "a/y"]),
            ({"text": "A/X"}, ["a/x"]),
            ({"text": "_"}, ["c_/z"]),
            ({"tags": ["all", "b"]}, ["b/x"]),
            ({"tags": ["none"]}, []),
            ({"work_pool": "pool"}, ["b/x"]),
        ]
        for filters, names in filtered:
            assert [one.full_name for one in await world.control.deployments(**filters)] == names

    tell(story)


def test_a_run_has_what_its_deployment_and_its_caller_say(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy(parameter_schema=SCHEMA, parameters={"day": "Monday", "n": 1}, tags=("t",))
        due = NOON + dt.timedelta(minutes=5)
        run = await world.run(deployment, parameters={"n": 7, "pin": "hunter2"}, due=due, name="mine", tags=("u",))
        assert (run.name, run.flow_name, run.tags, run.due) == ("mine", "report", frozenset({"t", "u"}), due)
        assert run.deployment_id == deployment.id
        assert run.state.is_scheduled()
        assert run.state.message == "To begin at 2026-06-01 12:05:00 UTC."
        assert run.parameters == {"day": "'Monday'", "n": "7", "pin": "********"}
        worker = await world.process()
        assert await world.claim(worker, deployment) == []
        world.passes(300)
        (job,) = await world.claim(worker, deployment)
        assert job.parameters == {"day": "Monday", "n": 7, "pin": "hunter2"}
        assert (job.name, job.deployment_name, job.entrypoint, job.due) == ("mine", "daily", "report.py:report", due)
        for bad, why in (
            ({"n": "x"}, "n: 'x' is not of type 'integer'"),
            ({"pin": "abc"}, "pin: it is not as it must be"),
            ({"month": 1}, "'month' was unexpected"),
            ({"on": "someday"}, "on: 'someday' is not a 'date'"),
            ({"since": "noon"}, "since: 'noon' is not a 'date-time'"),
            ({"id": "mine"}, "id: 'mine' is not valid under any"),
        ):
            with pytest.raises(InvalidRequestError, match=why) as refused:
                await world.run(deployment, parameters=bad)
            assert "abc" not in str(refused.value)
        for good in ({"on": "2026-06-01"}, {"since": "2026-06-01T12:00:00Z"}, {"since": None}, {"id": str(run.id)}):
            await world.run(deployment, parameters=good)
        with pytest.raises(InvalidRequestError, match="time zone"):
            await world.run(deployment, due=dt.datetime(2026, 1, 1))

    tell(story)


def test_of_one_idempotency_key_there_is_one_run(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment, other = await world.deploy(), await world.deploy("other")
        run = await world.run(deployment, idempotency_key="once")
        assert (await world.run(deployment, idempotency_key="once")).id == run.id
        with pytest.raises(ConflictError, match="once"):
            await world.run(other, idempotency_key="once")
        with pytest.raises(InvalidRequestError, match="ticks"):
            await world.run(deployment, idempotency_key="schedule:x")
        assert len(await world.runs(deployment)) == 1

    tell(story)


def test_what_was_made_ahead_follows_what_its_deployment_becomes(tell: Tell) -> None:
    async def story(world: World) -> None:
        await world.control.put_work_pool("pool", WorkPoolSpec())
        deployment = await world.deploy(parameters={"day": 1}, schedules=(hourly(),))
        later = await world.run(deployment, due=NOON + dt.timedelta(days=1))
        assert await world.control.make_ticks() == 3
        await world.deploy(parameters={"day": 2}, work_pool="pool")
        assert [run.id for run in await world.runs(deployment)] == [later.id], "the ticks were taken back"
        assert await world.control.make_ticks() == 3
        world.passes(86_400 + 60)
        jobs = await world.claim(await world.process(), pool="pool")
        assert {job.parameters["day"] for job in jobs} == {1, 2}
        assert {job.flow_run_id for job in jobs if job.parameters["day"] == 1} == {later.id}

    tell(story)


def test_of_a_paused_deployment_nothing_begins_and_nothing_ticks(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy(schedules=(hourly(catchup="all"),))
        await world.control.make_ticks()
        run = await world.run(deployment)
        worker = await world.process()
        assert (await world.control.pause_deployment("report/daily", True)).paused
        assert [one.id for one in await world.runs(deployment)] == [run.id]
        world.passes(7200)
        assert (await world.control.make_ticks(), await world.claim(worker, deployment)) == (0, [])
        await world.control.pause_deployment(deployment.id, False)
        assert [job.flow_run_id for job in await world.claim(worker, deployment)] == [run.id]
        await world.control.make_ticks()
        assert await world.due_times(deployment) == [NOON, *hours(15, 16, 17)], "the pause is not caught up with"

    tell(story)


def test_with_a_deployment_goes_what_has_not_begun(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy(schedules=(hourly(),))
        await world.control.make_ticks()
        runs = [await world.run(deployment) for _ in range(2)]
        worker, child = await world.process(), await world.process()
        begun, claimed = await world.claim(worker, deployment)
        await world.begin(begun, child)
        await world.control.delete_deployment("report/daily")
        assert not await world.control.begin_job(claimed, child), "its claim is void"
        assert [run.id for run in await world.runs(deployment)] == [begun.flow_run_id]
        assert begun.flow_run_id in {run.id for run in runs}
        with pytest.raises(NotFoundError):
            await world.control.deployment(deployment.id)
        await world.end(begun.flow_run_id)
        with pytest.raises(NotFoundError):
            await world.control.retry_flow_run(begun.flow_run_id)

    tell(story)


def test_a_work_queue_that_is_named_for_a_run_must_be_there(tell: Tell) -> None:
    async def story(world: World) -> None:
        await world.control.put_work_pool("pool", WorkPoolSpec())
        await world.control.put_work_queue(
            "pool", WorkQueue(name="fast", priority=1, paused=False, concurrency_limit=None)
        )
        deployment = await world.deploy(work_pool="pool")
        await world.run(deployment, work_queue="fast")
        with pytest.raises(NotFoundError, match="default, fast"):
            await world.run(deployment, work_queue="fats")

    tell(story)
