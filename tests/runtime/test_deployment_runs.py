"""Runs of deployments that belong to a flow run: none outlives it, whenever it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from upwell import flow, history
from upwell.composition import close_journal
from upwell.core.deployments import RunSpec
from upwell.core.model import FlowRunRecord
from upwell.core.states import State, StateType
from upwell.deployment_runs import RESTART_SECONDS
from upwell.deployments import arun_deployment, await_for_flow_run, run_deployment
from upwell.engine.clock import clock
from upwell.history import History
from upwell.journal.control import Ref
from upwell.journal.database import StoreUnavailable
from upwell.journal.deployments import SqlDeployments
from upwell.settings import temporary_settings
from upwell.testing import virtual_clock


@flow
def plain() -> None:
    """Nobody carries it out."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """A store of the test's own."""
    with temporary_settings(home=str(tmp_path), journal="on"):
        yield tmp_path
        close_journal()


@pytest.mark.parametrize("as_subflow", [True, False])
def test_a_child_does_not_outlive_the_flow_that_waits_for_it(store: Path, as_subflow: bool) -> None:
    plain.to_deployment("a").apply()

    @flow(timeout_seconds=0.3)
    async def around() -> Any:
        await arun_deployment("plain/a", as_subflow=as_subflow)

    while not (children := history.flow_runs(flow="plain").items):  # its time may be up before there is a child
        assert asyncio.run(around(return_state=True)).name == "TimedOut"
    (child,) = children
    assert child.state_type == ("CANCELLED" if as_subflow else "SCHEDULED")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when the store has made a run; it is a while until it has said so."""
    made, run = asyncio.Event(), SqlDeployments.run_deployment

    async def answers_late(self: SqlDeployments, ref: Ref, wanted: RunSpec) -> FlowRunRecord:
        begun = await run(self, ref, wanted)
        made.set()
        await asyncio.sleep(0.4)
        return begun

    monkeypatch.setattr(SqlDeployments, "run_deployment", answers_late)
    return made


def test_a_child_that_was_made_as_its_flow_was_cancelled_does_not_outlive_it(store: Path, made: asyncio.Event) -> None:
    plain.to_deployment("a").apply()

    @flow
    async def around() -> Any:
        await arun_deployment("plain/a")

    async def main() -> None:
        running = asyncio.ensure_future(around())
        await made.wait()
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(main())
    assert [child.state_type for child in history.flow_runs(flow="plain").items] == ["CANCELLED"]


@pytest.mark.timeout(0)  # pytest-timeout would take the alarm
@pytest.mark.usefixtures("made")
def test_a_child_that_was_made_as_the_time_of_its_sync_flow_was_up_does_not_outlive_it(store: Path) -> None:
    plain.to_deployment("a").apply()

    @flow(timeout_seconds=0.3)
    def around() -> None:
        run_deployment("plain/a")

    while not (children := history.flow_runs(flow="plain").items):  # its time may be up before there is a child
        assert around(return_state=True).name == "TimedOut"
    assert [child.state_type for child in children] == ["CANCELLED"]


@pytest.mark.parametrize("away_seconds", [50, 90])
def test_who_waits_for_a_run_outlasts_a_restart_of_the_server(
    store: Path, away_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain.to_deployment("a").apply()
    made = run_deployment("plain/a", timeout=0)
    ended = replace(made, state=State(type=StateType.COMPLETED, name="Completed", timestamp=made.created))
    begun = 0.0

    async def look(_: History, run_id: UUID) -> FlowRunRecord:
        passed = clock().time() - begun
        if 0 < passed < away_seconds:
            raise StoreUnavailable("The server cannot be reached.")
        return ended if passed else made

    monkeypatch.setattr(History, "flow_run", look)

    async def main() -> FlowRunRecord:
        nonlocal begun
        begun = clock().time()
        return await await_for_flow_run(made.id)

    with virtual_clock() as virtual:
        if away_seconds < RESTART_SECONDS:
            assert virtual.run(main()) is ended
        else:
            with pytest.raises(StoreUnavailable):
                virtual.run(main())
