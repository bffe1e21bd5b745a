"""Runs of deployments that belong to a flow run: none outlives it, whenever it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from upwell import flow, history
from upwell.composition import close_journal
from upwell.core.deployments import RunSpec
from upwell.core.model import FlowRunRecord
from upwell.deployments import arun_deployment, run_deployment
from upwell.journal.control import Ref
from upwell.journal.deployments import SqlDeployments
from upwell.settings import temporary_settings


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
