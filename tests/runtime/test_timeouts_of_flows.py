"""Timeouts of flows: they interrupt the flow's own code, and end what it has started."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from tests.runtime.test_timeouts import LONG, SOON, assert_timed_out, spin, until_begun

from upwell import flow, task
from upwell.core.errors import FlowRunTimeoutError
from upwell.testing import virtual_clock


def test_an_async_flow_is_cancelled_with_what_it_started() -> None:
    futures: list[Any] = []

    @task
    async def long() -> None:
        await asyncio.sleep(1000)

    @flow(timeout_seconds=10)
    async def slow() -> None:
        futures.append(long.submit())
        await asyncio.sleep(60)

    with virtual_clock() as clock:
        assert_timed_out(clock.run(slow(return_state=True)), 10.0, "Flow")
        assert clock.elapsed == pytest.approx(10, abs=0.01)
        assert futures[0].state.is_cancelled()
        assert "exceeded timeout" in futures[0].state.message
        with pytest.raises(FlowRunTimeoutError):
            clock.run(slow())


@pytest.mark.timeout(0)  # pytest-timeout would take the alarm
def test_a_sync_flow_is_interrupted_with_what_it_started() -> None:
    futures: list[Any] = []

    @task
    async def long() -> None:
        await asyncio.sleep(1000)

    @flow(timeout_seconds=0.1)
    def spins() -> None:
        futures.append(long.submit())
        spin()

    @flow(timeout_seconds=0.1)
    def waits() -> None:
        futures.append(long.submit())
        futures[-1].result()

    for slow in (spins, waits):
        futures.clear()
        until_begun(futures, lambda slow=slow: assert_timed_out(slow(return_state=True), 0.1, "Flow"))  # type: ignore[misc]  # called in this turn
        assert [future.state.name for future in futures] == ["Cancelled"]


def test_a_waiting_sync_flow_is_interrupted_by_a_virtual_clock_too() -> None:
    @task
    async def long() -> None:
        await asyncio.sleep(1000)

    @flow(timeout_seconds=60)
    def waits() -> None:
        long.submit().result()

    with virtual_clock() as clock:
        assert_timed_out(waits(return_state=True), 60.0, "Flow")
        assert clock.elapsed == pytest.approx(60, abs=0.1)


def test_a_sync_flow_in_another_thread_is_interrupted_while_it_runs_and_while_it_waits() -> None:
    @task
    async def long() -> None:
        await asyncio.sleep(LONG)

    @flow(timeout_seconds=SOON)
    def spins() -> None:
        spin()

    @flow(timeout_seconds=SOON)
    def waits() -> None:
        long.submit().result()

    for slow in (spins, waits):
        states: list[Any] = []
        thread = threading.Thread(target=lambda slow=slow: states.append(slow(return_state=True)))  # noqa: B023  # called in this turn of the loop  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]  # a lambda needs no annotations here
        begun = time.monotonic()
        thread.start()
        thread.join(LONG)
        assert time.monotonic() - begun < LONG
        assert_timed_out(states[0], SOON, "Flow")


def test_two_timeouts_in_another_thread_each_end_their_own() -> None:
    @task(timeout_seconds=LONG)
    def inner() -> None:
        spin()

    @flow(timeout_seconds=SOON)
    def outer() -> None:
        inner()

    states: list[Any] = []
    thread = threading.Thread(target=lambda: states.append(outer(return_state=True)))
    thread.start()
    thread.join(LONG)
    assert_timed_out(states[0], SOON, "Flow")


def test_a_submitted_flow_has_its_timeout() -> None:
    @flow(timeout_seconds=10)
    async def slow() -> None:
        await asyncio.sleep(60)

    @flow
    async def outer() -> Any:
        state: Any = await slow.submit(return_state=True)  # type: ignore[func-returns-value]  # a state to be awaited
        return [state]

    with virtual_clock() as clock:
        state = clock.run(outer(return_state=True))
        assert clock.elapsed == pytest.approx(10, abs=0.01)
    assert not state.is_completed()


@pytest.mark.timeout(0)  # pytest-timeout would take the alarm
def test_a_timeout_around_a_timeout_ends_first_if_it_is_shorter() -> None:
    @task(timeout_seconds=LONG)
    def inner() -> None:
        spin()

    @flow(timeout_seconds=SOON)
    def outer() -> None:
        inner()

    begun = time.monotonic()
    assert_timed_out(outer(return_state=True), SOON, "Flow")
    assert time.monotonic() - begun < LONG

    @task(timeout_seconds=SOON)
    def short() -> None:
        spin()

    @flow(timeout_seconds=LONG)
    def long_around() -> str:
        return short(return_state=True).name

    assert long_around() == "TimedOut"
