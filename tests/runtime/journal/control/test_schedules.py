"""Schedules: a run for each tick, exactly one, in time; and what becomes of those that were missed."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from tests.runtime.journal.control.conftest import Tell
from tests.runtime.journal.control.worlds import NOON, World, every, hourly, hours, opened

from upwell.core.deployments import ScheduleSpec
from upwell.core.errors import InvalidRequestError, NotFoundError
from upwell.core.ticks import ticks_between
from upwell.journal.database import Database
from upwell.journal.reader import FlowRunFilter


def seconds(*numbers: float) -> list[dt.datetime]:
    """After noon."""
    return [NOON + dt.timedelta(seconds=number) for number in numbers]


def test_runs_are_made_ahead_for_an_hour_three_at_least_and_fifty_at_most(tell: Tell) -> None:
    async def story(world: World) -> None:
        rare = await world.deploy("rare", schedules=(ScheduleSpec(kind="cron", expression="0 0 1 1 *"),))
        often = await world.deploy("often", schedules=(every(600),))
        very_often = await world.deploy("very-often", schedules=(every(1),))
        assert await world.control.make_ticks() == 3 + 6 + 50
        assert await world.control.make_ticks() == 0
        assert [due.year for due in await world.due_times(rare)] == [2027, 2028, 2029]
        assert await world.due_times(often) == seconds(*range(600, 3601, 600))
        assert await world.due_times(very_often) == seconds(*range(1, 51))
        (run, *_) = await world.runs(often)
        assert run.state.message == "To begin at 2026-06-01 12:10:00 UTC."
        made = 59
        for _ in range(30):
            world.passes(20)
            made += await world.control.make_ticks()
        assert 600 + 25 <= made - 3 - (6 + 1) <= 600 + 50, "each tick once, and never too few ahead"
        (schedule,) = (await world.control.deployment(often.id)).schedules
        assert (schedule.last_tick, schedule.next_tick) == tuple(seconds(4200, 4800))

    tell(story)


def test_a_run_stands_where_it_began_and_not_where_it_was_made(tell: Tell) -> None:
    async def story(world: World) -> None:
        daily = ScheduleSpec(kind="cron", expression="0 18 * * *")
        deployment = await world.deploy(schedules=(daily,))
        await world.control.make_ticks()
        first, second, third = await world.runs(deployment)
        by_hand = await world.run(deployment)
        worker = await world.process()
        world.passes(6 * 3600 + 1)
        for job in await world.claim(worker, deployment):
            await world.begin(job, worker)
            await world.end(job.flow_run_id)
        world.passes(86_400 + 20)
        await world.control.mark_late(15)
        await world.control.request_cancel(third.id, by="ada")
        begun = FlowRunFilter(deployment=deployment.id, ahead=False)
        page = await world.reader.flow_runs(begun, "oldest", 10, None)
        assert [run.id for run in page.items] == [by_hand.id, first.id, second.id, third.id]
        recent = FlowRunFilter(deployment=deployment.id, since=world.now - dt.timedelta(hours=1))
        page = await world.reader.flow_runs(recent, "oldest", 10, None)
        assert [run.id for run in page.items] == [second.id, third.id], "late by now, and cancelled before its time"
        assert page.items[-1].created == world.now

    tell(story)


def test_each_schedule_has_parameters_of_its_own(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy(
            parameters={"a": 1, "b": 1},
            schedules=(every(60, slug="x", parameters={"b": 2}), every(60, slug="y", parameters={"a": 3})),
        )
        await world.control.make_ticks()
        world.passes(60)
        jobs = await world.claim(await world.process(), deployment)
        assert sorted((job.parameters["a"], job.parameters["b"]) for job in jobs) == [(1, 2), (3, 1)]

    tell(story)


def test_three_schedulers_make_one_run_a_tick(tell: Tell, make_database: Callable[[], Database]) -> None:
    """Each with a connection of its own, at the same moments."""

    async def story(world: World) -> None:
        deployment = await world.deploy(schedules=(every(5), every(7, slug="b"), hourly(catchup="all")))
        async with opened(make_database) as second, opened(make_database) as third:
            for _ in range(12):
                await asyncio.gather(*(scheduler.make_ticks() for scheduler in (world.control, second, third)))
                world.passes(40)
        times = await world.due_times(deployment)
        made = [run.idempotency_key for run in await world.runs(deployment)]
        assert len(made) == len(set(made)) == len(times)
        assert set(seconds(*range(5, 450, 5))) | set(hours(13, 14, 15)) <= set(times)
        sevenths = ticks_between(every(7), NOON, NOON + dt.timedelta(seconds=450))
        assert set(sevenths) <= {NOON, *times}

    tell(story)


@pytest.mark.parametrize(
    ("catchup", "run"),
    [("none", []), ("latest", hours(22)), ("all", hours(*range(13, 23)))],
)
def test_what_passed_while_nobody_was_there_is_run_as_catchup_says(tell: Tell, catchup: Any, run: list[Any]) -> None:
    """A served script is away for ten hours: three runs were made ahead, seven never."""

    async def story(world: World) -> None:
        deployment = await world.deploy(schedules=(hourly(catchup=catchup),))
        worker = await world.process()
        await world.control.make_ticks()
        await world.claim(worker, deployment)
        world.passes(10 * 3600 + 100)
        jobs = await world.claim(worker, deployment)
        await world.control.make_ticks()
        jobs += await world.claim(worker, deployment)
        assert sorted(job.due for job in jobs) == run
        skipped = await world.runs(deployment, state="Skipped")
        assert sorted(one.due for one in skipped if one.due) == [due for due in hours(13, 14, 15) if due not in run]
        assert all("nobody was there" in str(one.state.message) for one in skipped)
        assert [due for due in await world.due_times(deployment) if due > world.now] == hours(23, 24, 25)

    tell(story)


def test_what_waits_for_its_turn_is_not_taken_for_missed(tell: Tell) -> None:
    """The only worker is busy for an hour, and asks all the time."""

    async def story(world: World) -> None:
        deployment = await world.deploy(concurrency_limit=1, schedules=(every(600),))
        worker, child = await world.process(), await world.process()
        await world.control.make_ticks()
        world.passes(600)
        (job,) = await world.claim(worker, deployment)
        await world.begin(job, child)
        for turn in range(72):
            world.passes(50)
            await world.control.make_ticks()
            assert await world.claim(worker, deployment, limit=0 if turn % 2 else 1) == []
        await world.end(job.flow_run_id)
        assert [one.due for one in await world.claim(worker, deployment)] == seconds(1200)
        assert await world.runs(deployment, state="Skipped") == []

    tell(story)


def test_a_run_that_is_too_late_is_skipped_and_one_that_is_late_says_so(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy(schedules=(hourly(max_late_seconds=120, catchup="all"),))
        asked_for = await world.run(deployment, due=hours(13)[0])
        await world.control.make_ticks()
        world.passes(3600 + 10)
        assert await world.control.mark_late(15) == 0
        world.passes(10)
        assert (await world.control.mark_late(15), await world.control.mark_late(15)) == (2, 0)
        state = await world.state(asked_for.id)
        assert (state.type, state.name) == ("SCHEDULED", "Late")
        assert state.message == "It should have begun more than 15 seconds ago, and nobody has taken it yet."
        world.passes(101)
        worker = await world.process()
        jobs = await world.claim(worker, deployment)
        assert [job.flow_run_id for job in jobs] == [asked_for.id], "it is too late for the other, marked or not"
        assert await world.control.mark_late(15) == 1
        (skipped,) = await world.runs(deployment, state="Skipped")
        assert (skipped.due, skipped.state.type) == (hours(13)[0], "CANCELLED")
        assert "120 seconds" in str(skipped.state.message)
        world.passes(86_400)
        assert await world.control.make_ticks() == 3, "what is too late already is not made any more"

    tell(story)


def test_a_changed_or_deleted_schedule_takes_back_what_it_made_ahead(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy(schedules=(hourly(slug="a"), hourly(slug="b")))
        keep = await world.run(deployment, due=NOON + dt.timedelta(days=1))
        await world.control.make_ticks()
        worker = await world.process()
        world.passes(3600)
        claimed = {job.flow_run_id for job in await world.claim(worker, deployment)}
        assert len(claimed) == 2
        await world.control.put_schedule(deployment.id, every(1800, slug="a"))
        await world.control.make_ticks()
        times = [run.due for run in await world.runs(deployment) if run.id not in claimed | {keep.id}]
        assert times == sorted([*hours(14, 15, 16), *hours(14), *seconds(5400, 9000)]), "a's hours are gone"
        await world.control.set_schedule_active("report/daily", "b", False)
        await world.control.delete_schedule("report/daily", "a")
        assert await world.control.make_ticks() == 0
        assert [run.id for run in await world.runs(deployment)] == [keep.id], "nobody had begun the others"
        (left,) = (await world.control.set_schedule_active(deployment.id, "b", True)).schedules
        assert (left.active, left.next_tick) == (True, hours(14)[0])
        assert await world.control.make_ticks() == 3
        with pytest.raises(NotFoundError, match="It has: b"):
            await world.control.delete_schedule(deployment.id, "a")

    tell(story)


def test_a_tick_that_was_cancelled_is_not_made_again(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy(schedules=(hourly(),))
        await world.control.make_ticks()
        first = (await world.runs(deployment))[0]
        await world.control.request_cancel(first.id, by="ada")
        await world.control.pause_deployment(deployment.id, True)
        await world.control.pause_deployment(deployment.id, False)
        await world.control.make_ticks()
        assert await world.due_times(deployment) == hours(14, 15)

    tell(story)


def test_a_past_time_is_filled_where_it_has_no_runs(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy(schedules=(hourly(slug="h", parameters={"x": 1}),))
        fill = world.control.backfill
        assert await fill("report/daily", "h", *hours(3, 6), dry_run=True) == hours(3, 4, 5, 6)
        assert await world.runs(deployment) == []
        assert await fill("report/daily", "h", *hours(3, 6)) == hours(3, 4, 5, 6)
        assert await fill("report/daily", "h", *hours(2, 24)) == hours(2, *range(7, 13)), "no further than now"
        assert await world.control.mark_late(15) == 0, "it is not late, for it was just asked for"
        world.passes(600)
        now = await world.run(deployment)
        worker = await world.process()
        jobs = await world.claim(worker, deployment)
        assert jobs[0].flow_run_id == now.id, "what is due now goes first"
        assert [job.due for job in jobs[1:]] == hours(*range(2, 13))
        assert jobs[1].parameters == {"x": 1}
        with pytest.raises(InvalidRequestError, match="before it begins"):
            await fill("report/daily", "h", *hours(6, 3))
        with pytest.raises(InvalidRequestError, match="1,000 ticks"):
            await fill("report/daily", "h", NOON - dt.timedelta(days=400), NOON)
        with pytest.raises(InvalidRequestError, match="time zone"):
            await fill("report/daily", "h", dt.datetime(2026, 1, 1), NOON)

    tell(story)


def test_a_clock_that_steps_makes_no_tick_twice(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy(schedules=(every(60, catchup="all"),))
        for step in (0, 600, -1200, 30, 3600, -600, 600, 600):
            world.passes(step)
            await world.control.make_ticks()
        keys = [run.idempotency_key for run in await world.runs(deployment)]
        assert len(keys) == len(set(keys))
        assert set(seconds(*range(60, 3600, 60))) <= set(await world.due_times(deployment))

    tell(story)


@pytest.mark.parametrize(("when_full", "left"), [("queue", 5), ("cancel_new", 2), ("cancel_running", 5)])
def test_a_deployment_that_is_full_does_with_new_runs_as_it_says(tell: Tell, when_full: Any, left: int) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy(concurrency_limit=2, when_full=when_full)
        worker, child = await world.process(), await world.process()
        first = [await world.run(deployment) for _ in range(2)]
        for job in await world.claim(worker, deployment):
            await world.begin(job, child)
        world.passes(1)
        for _ in range(3):
            await world.run(deployment)
        assert await world.claim(worker, deployment) == []
        assert await world.control.reap_jobs() == 0, "the one who asked has seen to it"
        unfinished = [run for run in await world.runs(deployment) if not run.state.is_final()]
        assert len(unfinished) == left
        asked = {request.flow_run_id for request in await world.control.cancel_requests()}
        assert asked == ({run.id for run in first} if when_full == "cancel_running" else set())
        for run_id in asked:
            await world.end(run_id, "CANCELLED")
        assert len(await world.claim(worker, deployment)) == (2 if when_full == "cancel_running" else 0)
        if when_full != "queue":
            world.passes(1)
            await world.run(deployment)
            assert await world.control.reap_jobs() > 0, "a service sees to it, too"
            assert await world.control.reap_jobs() == 0

    tell(story)


def test_one_schedule_that_cannot_tick_keeps_no_other_from_it(tell: Tell, caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        await world.deploy("a", schedules=(hourly(),))
        await world.deploy("b", schedules=(hourly(),))
        async with world.database.transaction() as session:
            await session.fetch_text(
                "UPDATE schedules SET timezone = 'Mars/Base' WHERE id = (SELECT min(id) FROM schedules)"
            )
        assert await world.control.make_ticks() == 3
        assert "Mars/Base" in caplog.text

    tell(story)
