"""A process that was declared dead stops its durable flow runs: others may have gone on with them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from tests.runtime.durability.given import ran
from tests.runtime.durability.killed import ask, change, journal

from upwell import flow, task
from upwell.composition import close_journal, open_recorder
from upwell.engine.stopping import UNDER_WAY, stop_durable_flow_runs
from upwell.exceptions import CancelledRun


@task
async def step(n: int) -> int:
    ran["step", n] += 1
    await asyncio.sleep(0.02)
    return n


@flow
async def inner() -> None:
    for n in range(100_000):
        await step(n)


@flow(durable=True)
async def durable() -> None:
    await inner()


@flow(durable=True)
def blocking() -> None:
    ran["blocking"] += 1
    for _ in range(100_000):
        time.sleep(0.05)


@flow
async def plain(until: asyncio.Event) -> int:
    await until.wait()
    return 7


def set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


async def declare_lost(home: Path) -> None:
    while not ran.total():
        await asyncio.sleep(0.01)
    change(home, "UPDATE processes SET state = 'lost'")


def test_durable_runs_of_a_process_that_was_declared_dead_are_stopped_and_say_why(tmp_path: Path) -> None:
    async def main() -> int:
        stopped = asyncio.Event()
        going_on = asyncio.ensure_future(plain(stopped))
        with pytest.raises(CancelledRun, match="declared dead"):
            await asyncio.gather(durable(), declare_lost(tmp_path / "here"))
        stopped.set()
        return await going_on  # nobody else goes on with a run that is not durable

    with journal(tmp_path / "here", lease_seconds=1):
        assert asyncio.run(main()) == 7


def test_how_a_run_ends_that_is_stopped_so_is_not_what_becomes_of_it(tmp_path: Path) -> None:
    home = tmp_path / "here"

    def stop_and_wait_for_the_end() -> None:
        stopped = [one.run for one in UNDER_WAY.copy()]
        stop_durable_flow_runs("Its process was declared dead.")
        while not all(run.state.is_final() for run in stopped):
            time.sleep(0.001)

    async def main() -> None:
        with pytest.raises(CancelledRun, match="declared dead"):
            await asyncio.gather(durable(), declare_lost(home))

    with journal(home, lease_seconds=1):
        recorder = open_recorder()
        assert recorder is not None
        recorder.journal.on_lost = stop_and_wait_for_the_end
        asyncio.run(main())
        close_journal()
        change(
            home,
            """UPDATE flow_runs SET state = 'SCHEDULED', state_name = 'AwaitingResume', process_id = NULL
            WHERE flow = 'durable'""",
        )
        asyncio.run(plain(set_event()))  # another process comes: what the lost one has left is brought in
        found = ask(home, "SELECT state, state_name FROM flow_runs WHERE flow = 'durable'")
        assert found == [("SCHEDULED", "AwaitingResume")]


def test_a_sync_one_is_stopped_too(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(CancelledRun, match="declared dead"):
            await asyncio.gather(asyncio.to_thread(blocking), declare_lost(tmp_path / "here"))

    with journal(tmp_path / "here", lease_seconds=1):
        asyncio.run(main())
