"""What is done to many flow runs at once is done to each that it can be done to, and said of the others why not."""

from __future__ import annotations

import datetime as dt
from uuid import uuid4

import pytest
from msgspec.structs import replace
from tests.runtime.journal.control.conftest import Tell
from tests.runtime.journal.control.worlds import NOON, World

from upwell.core.bulk import BulkSpec
from upwell.core.deployments import Deployment
from upwell.core.errors import InvalidRequestError, UnknownRunError
from upwell.core.model import FlowRunRecord
from upwell.journal import bulk

LATER = NOON + dt.timedelta(hours=1)


async def runs_of(world: World, deployment: Deployment, number: int) -> list[FlowRunRecord]:
    made: list[FlowRunRecord] = []
    for place in range(number):
        world.passes(1)
        made.append(await world.run(deployment, name=f"run-{place}", due=LATER))
    return made


def test_those_that_fit_are_cancelled_and_no_others(tell: Tell) -> None:
    async def story(world: World) -> None:
        nightly, other = await world.deploy("nightly"), await world.deploy("other")
        runs = await runs_of(world, nightly, 25)
        kept = (await runs_of(world, other, 1))[0]
        await world.end(runs[3].id)
        spec = BulkSpec(action="cancel", deployment="report/nightly", reason="moved")
        would = await world.control.change_flow_runs(replace(spec, dry_run=True), by="ann")
        assert (would.done, would.refused, len(would.items)) == (0, 0, 24)
        assert (await world.state(runs[0].id)).name == "Scheduled"
        done = await world.control.change_flow_runs(spec, by="ann")
        assert (done.done, done.refused, done.next) == (24, 0, None)
        assert [item.name for item in done.items][:4] == ["run-0", "run-1", "run-2", "run-4"]
        assert all(item.run is not None and item.run.state.name == "Cancelled" for item in done.items)
        state = await world.state(runs[0].id)
        assert state.message == f"Cancelled by {world.known_as('ann')} before it had begun: moved"
        assert (await world.state(runs[3].id)).name == "Completed"
        assert (await world.state(kept.id)).name == "Scheduled"

    tell(story)


def test_what_is_refused_keeps_no_other_from_being_done(tell: Tell) -> None:
    async def story(world: World) -> None:
        runs = await runs_of(world, await world.deploy(), 3)
        await world.end(runs[1].id)
        nobody = uuid4()
        ids = tuple(run.id for run in runs)
        spec = BulkSpec(action="cancel", ids=(*ids, nobody))
        would = await world.control.change_flow_runs(replace(spec, dry_run=True), by="ann")
        assert [item.refused is None for item in would.items] == [True, False, True, False]
        done = await world.control.change_flow_runs(spec, by="ann")
        assert (done.done, done.refused) == (2, 2)
        said = {item.name: item.refused for item in done.items}
        assert said["run-0"] is None
        assert "has ended Completed already" in str(said["run-1"])
        assert f"no flow run {nobody}" in str(said[str(nobody)])

    tell(story)


def test_many_are_run_again_and_deleted(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy()
        runs = await runs_of(world, deployment, 3)
        for run in runs[:2]:
            await world.end(run.id, "FAILED")
        again = await world.control.change_flow_runs(BulkSpec(action="retry", flow="report"), by="ann")
        new = [item.run.id for item in again.items if item.run is not None]
        assert len(set(new)) == 2
        assert not set(new) & {run.id for run in runs}
        gone = await world.control.change_flow_runs(BulkSpec(action="delete", state="FAILED"), by="ann")
        assert [(item.name, item.run) for item in gone.items] == [("run-0", None), ("run-1", None)]
        for run in runs[:2]:
            with pytest.raises(UnknownRunError):
                await world.reader.flow_run(run.id)
        assert {run.id for run in await world.runs(deployment)} == {runs[2].id, *new}

    tell(story)


def test_durable_runs_that_wait_are_resumed(tell: Tell) -> None:
    async def story(world: World) -> None:
        deployment = await world.deploy()
        for name in ("crashed", "fine"):
            await world.run(deployment, name=name)
        worker, child = await world.process(), await world.process(dead=True)
        jobs = {job.name: job for job in await world.claim(worker, deployment)}
        await world.begin(jobs["crashed"], child, durable=True)
        await world.begin(jobs["fine"], worker)
        await world.look()
        done = await world.control.change_flow_runs(BulkSpec(action="resume", flow="report"), by="ann")
        assert [(item.name, item.refused) for item in done.items] == [("crashed", None)]
        assert [job.name for job in await world.claim(worker, deployment)] == ["crashed"]

    tell(story)


def test_more_than_one_answer_holds_are_gone_on_with(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PAGE_RUNS", 3)
    monkeypatch.setattr(bulk, "MOST_SECONDS", -1.0)

    async def story(world: World) -> None:
        runs = await runs_of(world, await world.deploy(), 7)
        by_flow = BulkSpec(action="delete", dry_run=True, flow="report")
        for spec in (by_flow, replace(by_flow, flow=None, ids=tuple(run.id for run in runs))):
            names: list[str] = []
            after: str | None = None
            while True:
                some = await world.control.change_flow_runs(replace(spec, after=after), by="ann")
                assert len(some.items) <= 3
                names += [item.name for item in some.items]
                if (after := some.next) is None:
                    break
            assert names == [run.name for run in runs]
        first = await world.control.change_flow_runs(BulkSpec(action="cancel", flow="report", limit=2), by="ann")
        assert (len(first.items), first.next is None) == (2, False)

    tell(story)


def test_nothing_is_done_to_all_runs_by_mistake(tell: Tell) -> None:
    async def story(world: World) -> None:
        run = (await runs_of(world, await world.deploy(), 1))[0]
        for spec in (BulkSpec(action="delete"), BulkSpec(action="delete", ids=(run.id,), flow="report")):
            with pytest.raises(InvalidRequestError, match="Delete which runs"):
                await world.control.change_flow_runs(spec, by="ann")
        assert (await world.reader.flow_run(run.id)).name == "run-0"

    tell(story)
