"""What becomes of jobs that do not begin."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.runtime.serving.workplace import Workplace, at_work, until

from upwell.core.deployments import Job
from upwell.history import History
from upwell.serving import claims
from upwell.serving.carriers import STOPS, Carried, How, MayStart

FLOWS = """
@flow
def one(): ...
"""
LOST = 10
"""So often a job is claimed by somebody of whom nothing is heard again."""


class BeginsNothing:
    """A carrier by which no run ever begins. lose: called for the first ones, which somebody else is to have."""

    def __init__(self) -> None:
        self.tried = 0
        self.lose: Callable[[Job], Awaitable[object]]
        self.then: Callable[[], object] = lambda: None

    async def carry(self, job: Job, may_start: MayStart) -> Carried:
        self.tried += 1
        if self.tried <= LOST:
            await self.lose(job)
            return Carried(How.VOID)
        self.then()
        return Carried(How.NOT_BEGUN, "not now") if await may_start() else STOPS

    async def open(self, begun: Callable[[UUID], None]) -> None: ...

    def use_template(self, template: dict[str, Any]) -> None: ...

    def expect(self, jobs: Sequence[Job]) -> None: ...

    def kill(self, flow_run_id: UUID) -> None: ...

    def preparing(self) -> Sequence[UUID]:
        return ()

    def give_up(self, flow_run_id: UUID) -> None: ...

    async def tidy(self) -> None: ...

    async def close(self) -> None: ...


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(claims, "GATHER_SECONDS", 0.01)


def loses(carrier: BeginsNothing, work: Workplace) -> None:
    carrier.lose = lambda job: work.control.release_job(job, "who had it is not there any more")


async def tried(carrier: BeginsNothing, work: Workplace) -> UUID:
    """A run that this worker has tried to begin."""
    made = await work.start("one")
    await until(lambda: carrier.tried > LOST)
    return made


async def is_for_others(flow_run_id: UUID) -> None:
    """The worker has stopped, and the run waits for another."""
    async with History() as history:
        run = await history.flow_run(flow_run_id)
    assert (run.state_name, run.state.message) == ("Scheduled", STOPS.message)


def test_a_worker_gives_a_job_up_that_it_could_not_begin_however_often_others_had_it(
    flows: Callable[[str], Path],
) -> None:
    folder, carrier = flows(FLOWS), BeginsNothing()

    async def main() -> None:
        async with at_work(folder, "one", carrier=carrier) as work:
            loses(carrier, work)
            run = await work.ended(await work.start("one"))
        assert (run.state_name, run.state.message) == ("Crashed", "not now")
        assert carrier.tried == LOST + claims.MOST_FAILURES

    asyncio.run(main())


def test_a_run_that_a_carrier_stumbles_over_waits_for_nobody(flows: Callable[[str], Path]) -> None:
    folder, carrier = flows(FLOWS), BeginsNothing()

    def stumble() -> None:
        raise OverflowError("too large")

    async def main() -> None:
        async with at_work(folder, "one", carrier=carrier) as work:
            loses(carrier, work)
            carrier.then = stumble
            run = await work.ended(await work.start("one"))
        assert (run.state_name, "too large" in str(run.state.message)) == ("Crashed", True)

    asyncio.run(main())


def test_a_worker_that_stops_gives_up_no_job(flows: Callable[[str], Path]) -> None:
    folder, carrier = flows(FLOWS), BeginsNothing()

    async def main() -> None:
        async with at_work(folder, "one", carrier=carrier) as work:
            loses(carrier, work)
            carrier.then = work.stop
            made = await tried(carrier, work)
        await is_for_others(made)

    asyncio.run(main())


def test_a_worker_that_is_told_twice_cancels_no_run_that_it_is_giving_back(
    flows: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, carrier = flows(FLOWS), BeginsNothing()

    async def main() -> None:
        async with at_work(folder, "one", carrier=carrier) as work:
            release = work.control.release_job

            async def slowly(job: Job, message: str) -> None:
                work.stop()  # the second time
                await asyncio.sleep(0.05)
                await release(job, message)

            loses(carrier, work)
            carrier.tried, carrier.then = LOST, work.stop
            monkeypatch.setattr(work.control, "release_job", slowly)
            made = await tried(carrier, work)
        await is_for_others(made)

    asyncio.run(main())
