"""Flow runs of this process end when somebody asks the store for it."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, cast
from uuid import UUID

import pytest

from upwell import flow
from upwell.core.deployments import CancelRequest
from upwell.core.states import State
from upwell.journal import cancel_watch
from upwell.journal.cancel_watch import CancelWatch
from upwell.journal.control import Jobs
from upwell.journal.database import StoreUnavailable
from upwell.journal.processes import Process
from upwell.runtime import flow_run


class Host:
    """A journal on the test's own loop."""

    process = Process("me", "here", 1, "", 30.0)
    closed = False

    def ask(self, work: Callable[[Any], Awaitable[None]]) -> Future[None]:
        self.task = asyncio.ensure_future(work(None))
        return cast("Future[None]", self.task)


class Asked:
    """Answers with a request for each run that is there, once it has failed once."""

    def __init__(self) -> None:
        self.times = 0
        self.wanted: list[UUID] = []

    async def cancel_requests(self, flow_run_ids: Any = (), process_id: str | None = None) -> list[CancelRequest]:
        assert process_id == "me"
        self.times += 1
        if self.times == 1:
            raise StoreUnavailable("not now")
        now = dt.datetime.now(dt.UTC)
        return [
            CancelRequest(flow_run_id=run, requested=now, by="Ada", reason=None, grace_seconds=0.0)
            for run in self.wanted
        ]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]  # by pytest
    monkeypatch.setattr(cancel_watch, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(cancel_watch, "SPARE_SECONDS", 0.0)


async def watched(asked: Asked, *, dies: bool, work: Callable[[], Awaitable[None]]) -> None:
    host = Host()
    CancelWatch(host, lambda _: cast("Jobs", asked), dies=dies).begin()
    try:
        await work()
    finally:
        host.task.cancel()
        await asyncio.wait([host.task])


def test_the_store_is_asked_only_while_flow_runs_are_under_way() -> None:
    asked = Asked()

    @flow
    async def waits() -> None:
        asked.wanted.append(cast("UUID", flow_run.id))
        await asyncio.sleep(60)

    async def work() -> None:
        await asyncio.sleep(0.1)
        assert asked.times == 0
        state: State = await waits(return_state=True)
        assert (state.is_cancelled(), state.message) == (True, "Cancelled by Ada.")
        times = asked.times
        assert times >= 2
        await asyncio.sleep(0.1)
        assert asked.times == times

    asyncio.run(watched(asked, dies=False, work=work))


@pytest.mark.parametrize("dies", [False, True])
def test_only_a_process_of_one_job_kills_itself_for_a_run_that_does_not_end(
    dies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, killed = Asked(), list[tuple[int, int]]()

    def kill(group: int, number: int) -> None:
        killed.append((group, number))

    monkeypatch.setattr("os.killpg", kill)

    @flow
    async def stubborn() -> None:
        asked.wanted.append(cast("UUID", flow_run.id))
        for _ in range(20):
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                pass

    async def work() -> None:
        await stubborn()

    asyncio.run(watched(asked, dies=dies, work=work))
    assert bool(killed) is dies
    assert set(killed) <= {(0, 9)}
