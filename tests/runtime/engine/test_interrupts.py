"""Interrupts reach the code that they are meant for, wherever they find it."""

# A lambda as a hook needs no annotations here.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from upwell import flow, task
from upwell.core.errors import CancelledRun, FlowRunTimeoutError
from upwell.core.states import CANCELLING
from upwell.engine.remote import Remote
from upwell.engine.stopping import stop_flow_run
from upwell.runtime import flow_run
from upwell.testing import run_virtual

LONG = 60
"""Seconds that nothing lasts which is interrupted, however busy the machine is."""


def _spin() -> None:
    end = time.monotonic() + 0.1  # past the timeout
    while time.monotonic() < end:
        pass


def _in_a_callback() -> None:
    """Asyncio logs what a callback raises."""

    async def main() -> None:
        asyncio.get_running_loop().call_soon(_spin)
        await asyncio.sleep(LONG)

    asyncio.run(main())


class _Slow:
    def __del__(self) -> None:
        _spin()


def _in_a_finalizer() -> None:
    """Python prints what a finalizer raises."""
    _Slow()
    time.sleep(LONG)


@pytest.mark.timeout(0)  # pytest-timeout would take the alarm
@pytest.mark.parametrize("code", [_in_a_callback, _in_a_finalizer])
def test_an_interrupt_that_would_only_be_logged_comes_a_moment_later(code: Callable[[], None]) -> None:
    with pytest.raises(FlowRunTimeoutError):
        flow(timeout_seconds=0.03)(code)()


# --- runs inside of what is interrupted -------------------------------------------------------------------------------


def _noting(heard: list[Any], make: Any, begin: Callable[[], object]) -> Any:
    """A task or flow that goes on for long, and notes how it ends."""

    def inner() -> None:
        begin()
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            time.sleep(0.001)

    hooks: Any = [lambda _, __, state: heard.append((state.name, state.message))]
    return make(on_cancellation=hooks, on_crashed=hooks, on_failure=hooks, on_completion=hooks)(inner)


def _wait_for(heard: list[Any]) -> list[Any]:
    """Until something was heard: a thread that is slow to react may have been given up."""
    end = time.monotonic() + LONG
    while not heard and time.monotonic() < end:
        time.sleep(0.001)
    return heard


@pytest.mark.timeout(0)  # pytest-timeout would take the alarm
@pytest.mark.parametrize("place", ["on the main thread", "on a worker's thread"])
@pytest.mark.parametrize("kind", [task, flow], ids=["task", "flow"])
def test_what_is_called_in_a_run_whose_time_is_up_is_cancelled(kind: Any, place: str) -> None:
    heard: list[Any] = []
    begun: list[int] = []
    inner = _noting(heard, kind, lambda: begun.append(1))

    @task(timeout_seconds=0.1)
    def outer() -> None:
        inner()

    @flow
    def whole() -> Any:
        return outer(return_state=True) if place == "on the main thread" else outer.submit(return_state=True)

    while not begun:  # others may want the machine
        state: Any = whole(return_state=True)
        assert state.name == "TimedOut"
    assert _wait_for(heard) == [("Cancelled", "The run around it exceeded its timeout.")]


@pytest.mark.parametrize("kind", [task, flow], ids=["task", "flow"])
def test_what_is_called_in_a_run_that_is_cancelled_says_why(kind: Any) -> None:
    heard: list[Any] = []

    async def main() -> None:
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()
        inner = _noting(heard, kind, lambda: loop.call_soon_threadsafe(begun.set))

        @task
        def outer() -> None:
            inner()

        @flow
        async def whole() -> None:
            await outer.submit()

        running = asyncio.create_task(whole())
        await begun.wait()
        running.cancel("No longer wanted.")
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    [(name, message)] = _wait_for(heard)
    assert name == "Cancelled"
    assert "No longer wanted." in message


def test_a_subflow_on_a_thread_that_ends_what_it_has_started_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Any] = []
    due: list[Callable[[], None]] = []
    monkeypatch.setattr(Remote, "call_later", lambda _, __, callback: due.append(callback))

    async def main() -> None:
        begun, tidied = asyncio.Event(), asyncio.Event()

        @task
        async def tidy() -> None:
            try:
                begun.set()
                await asyncio.sleep(LONG)
            finally:
                await tidied.wait()

        @flow(on_running=[lambda _, run, __: runs.append(run)])
        def inner() -> None:
            tidy.submit().result()

        @flow
        async def outer() -> None:
            await inner.submit()

        running = asyncio.create_task(outer())
        await begun.wait()
        running.cancel("No longer wanted.")
        while not due or runs[0].state.type is not CANCELLING:
            await asyncio.sleep(0.001)
        due.pop()()  # its time of grace is over
        assert due
        tidied.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert runs[0].state.is_cancelled()
        assert "No longer wanted." in runs[0].state.message

    asyncio.run(main())


# --- who asks for the state of what is interrupted --------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt("enough"), asyncio.CancelledError("enough")])
def test_an_interrupt_rises_from_a_direct_call_whose_state_was_asked_for(error: BaseException) -> None:
    went_on: list[str] = []
    states: list[str] = []

    @task(on_cancellation=[lambda _, __, state: states.append(state.name)])
    def interrupted() -> None:
        raise error

    @flow
    def around() -> None:
        interrupted(return_state=True)
        went_on.append("around")

    with pytest.raises(type(error), match="enough"):
        around()
    assert (states, went_on) == (["Cancelled"], [])


def test_the_callers_cancellation_rises_from_a_direct_call_whose_state_was_asked_for() -> None:
    went_on: list[str] = []

    @task
    async def sleeps() -> None:
        await asyncio.sleep(LONG)

    @flow
    async def around() -> None:
        await sleeps(return_state=True)
        went_on.append("around")

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(around(), 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sleeps(return_state=True), 1)

    run_virtual(main())
    assert went_on == []


def test_a_flow_that_is_stopped_ends_although_it_asked_for_a_state() -> None:
    went_on: list[str] = []

    @task
    def spins(flow_run_id: str) -> None:
        stop_flow_run(flow_run_id, "enough")
        while True:
            time.sleep(0.001)

    @flow
    def around() -> None:
        spins(str(flow_run.id), return_state=True)
        went_on.append("around")

    with pytest.raises(CancelledRun, match="enough"):
        around()
    assert went_on == []


@pytest.mark.timeout(0)  # pytest-timeout would take the alarm
def test_a_flow_whose_time_is_up_ends_although_it_asked_for_a_state() -> None:
    went_on: list[str] = []

    @task
    def spins() -> None:
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            pass

    @flow(timeout_seconds=0.05)
    def around() -> None:
        spins(return_state=True)
        went_on.append("around")

    with pytest.raises(FlowRunTimeoutError):
        around()
    assert went_on == []
