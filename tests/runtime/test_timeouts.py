"""Timeouts: they interrupt, wherever the code runs; a timeout of the user's own code stays the user's."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.runtime.given import Run

from upwell import flow, task
from upwell.core.errors import ConfigurationError, FlowRunTimeoutError, RunTimeoutError, TaskRunTimeoutError
from upwell.testing import run_virtual, virtual_clock

SOON = 0.02
"""Seconds: the timeout of code that really blocks, which no clock but the machine's can interrupt."""


LONG = 60
"""Seconds that nothing lasts which is interrupted, however busy the machine is."""


def spin() -> None:
    """Block for long, one bytecode at a time."""
    end = time.monotonic() + LONG
    while time.monotonic() < end:
        pass


def until_begun(begun: Sequence[object], act: Callable[[], object]) -> None:
    """Once more where the time was up before the code had begun: others may want the machine."""
    for _ in range(20):
        act()
        if begun:
            return
    raise AssertionError("It never began.")


def assert_timed_out(state: Any, seconds: float, kind: str = "Task") -> None:
    assert state.name == "TimedOut"
    assert state.is_failed()
    assert state.message == f"{kind} run exceeded timeout of {seconds} second(s)"
    error = state.result(raise_on_failure=False)
    assert isinstance(error, TaskRunTimeoutError if kind == "Task" else FlowRunTimeoutError)
    assert isinstance(error, TimeoutError)
    assert isinstance(error, RunTimeoutError)


# --- coroutines -------------------------------------------------------------------------------------------------------


@task(timeout_seconds=10)
async def sleeps(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "in time"


@pytest.mark.parametrize("way", ["call", "submit", "map"])
def test_a_coroutine_is_cancelled_when_its_time_is_up(way: str) -> None:
    async def start(seconds: float) -> Any:
        if way == "call":
            return await sleeps(seconds, return_state=True)
        if way == "submit":
            return await sleeps.submit(seconds, return_state=True)
        return (await sleeps.map([seconds], return_state=True))[0]

    with virtual_clock() as clock:
        assert_timed_out(clock.run(start(60)), 10.0)
        assert clock.elapsed == pytest.approx(10, abs=0.01)
        assert clock.run(start(9)).result() == "in time"


def test_a_stream_raises_the_timeout() -> None:
    async def main() -> None:
        with pytest.raises(TaskRunTimeoutError):
            async for _ in sleeps.stream([60]):
                pass

    run_virtual(main())


def test_the_code_sees_its_cancellation_and_may_clean_up() -> None:
    seen: list[str] = []

    @task(timeout_seconds=1)
    async def tidy() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        finally:
            seen.append("finally")

    async def main() -> None:
        with pytest.raises(TaskRunTimeoutError):
            await tidy.submit()

    run_virtual(main())
    assert seen == ["cancelled", "finally"]


def test_a_timeout_is_of_one_attempt_and_is_tried_again() -> None:
    attempts: list[int] = []

    @task(timeout_seconds=1, retries=2, retry_delay_seconds=10)
    async def slow_at_first() -> int:
        attempts.append(1)
        await asyncio.sleep(60 if len(attempts) < 3 else 0.5)
        return len(attempts)

    async def main() -> tuple[int, int]:
        submitted: int = await slow_at_first.submit()
        attempts.clear()
        return submitted, await slow_at_first()

    with virtual_clock() as clock:
        assert clock.run(main()) == (3, 3)
        assert clock.elapsed == pytest.approx(2 * (1 + 10 + 1 + 10 + 0.5), abs=0.01)


@pytest.mark.parametrize("way", ["call", "submit"])
def test_a_timeout_error_of_the_users_own_stays_the_users(way: str) -> None:
    @task(timeout_seconds=60)
    async def own() -> None:
        async with asyncio.timeout(1):
            await asyncio.sleep(30)

    @task(timeout_seconds=60)
    async def raised() -> None:
        raise TimeoutError("mine")

    @task(timeout_seconds=60)
    def raised_sync() -> None:
        raise TimeoutError("mine")

    @flow(timeout_seconds=60)
    async def raised_in_flow() -> None:
        raise TimeoutError("mine")

    async def main() -> None:
        for it in (own, raised, raised_sync):
            state: Any = it.submit(return_state=True) if way == "submit" else it(return_state=True)
            if asyncio.iscoroutine(state):
                state = await state
            assert state.name == "Failed"
            assert type(state.result(raise_on_failure=False)) is TimeoutError
        state = await raised_in_flow(return_state=True)
        assert state.name == "Failed"
        assert type(state.result(raise_on_failure=False)) is TimeoutError

    run_virtual(main())


def test_waiting_for_an_upstream_a_place_or_a_retry_takes_no_time_of_the_run() -> None:
    @task
    async def first() -> int:
        await asyncio.sleep(60)
        return 1

    @task(timeout_seconds=1)
    async def quick(x: Any) -> Any:
        await asyncio.sleep(0.6)
        return x

    @flow
    async def around() -> Any:
        return await quick.submit(first.submit()), await quick.map([1, 2, 3], max_at_once=1)

    assert run_virtual(around()) == (1, [1, 2, 3])


def test_a_run_that_ends_at_the_same_time_as_its_timeout_has_one_end(run: Run) -> None:
    @task(timeout_seconds=0.002)
    async def close_call(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "in time"

    async def main() -> None:
        states: Any = await close_call.map([0.0015, 0.002, 0.0025] * 5, return_state=True)
        assert {state.name for state in states} <= {"Completed", "TimedOut"}

    run(main())


# --- sync code ----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(0)  # pytest-timeout would take the alarm
def test_a_direct_call_is_interrupted_in_the_main_thread() -> None:
    @task(timeout_seconds=SOON)
    def spins() -> None:
        spin()

    @task(timeout_seconds=SOON)
    def blocks() -> None:
        time.sleep(LONG)

    begun = time.monotonic()
    assert_timed_out(spins(return_state=True), SOON)
    assert_timed_out(blocks(return_state=True), SOON)
    with pytest.raises(TaskRunTimeoutError):
        spins()
    assert time.monotonic() - begun < LONG


def test_a_direct_call_is_interrupted_in_another_thread() -> None:
    @task(timeout_seconds=SOON)
    def spins() -> None:
        spin()

    states: list[Any] = []
    thread = threading.Thread(target=lambda: states.append(spins(return_state=True)))
    thread.start()
    thread.join(LONG)
    assert_timed_out(states[0], SOON)


@pytest.mark.timeout(0)  # pytest-timeout would take the alarm
@pytest.mark.parametrize("in_thread", [False, True])
def test_a_direct_call_whose_time_is_up_as_it_begins_or_ends_has_timed_out_or_completed(
    ends: Callable[..., Any], in_thread: bool
) -> None:
    @task(timeout_seconds=1e-6)
    def late() -> None:
        spin()

    @task(timeout_seconds=0.002)
    def close_call() -> None:
        end = time.perf_counter() + 0.00197
        while time.perf_counter() < end:
            pass

    def names() -> set[str]:
        return {state.name for state in (close_call(return_state=True) for _ in range(100))}

    assert_timed_out(ends(late, return_state=True) if in_thread else late(return_state=True), 1e-6)
    assert (ends(names) if in_thread else names()) <= {"Completed", "TimedOut"}


@pytest.mark.parametrize("runner", ["concurrent", "threads"])
def test_a_task_that_waits_for_another_on_its_thread_is_woken_when_its_time_is_up(
    runner: str, caplog: pytest.LogCaptureFixture
) -> None:
    over = threading.Event()

    @task
    def long() -> None:
        over.wait(1)

    @task(timeout_seconds=SOON)
    def waits() -> None:
        try:
            long.submit().result()
        finally:
            over.set()

    @flow(task_runner=runner)
    def around() -> None:
        assert_timed_out(waits.submit(return_state=True), SOON)

    with caplog.at_level(logging.WARNING):
        around()
    assert over.is_set()
    assert "abandoned" not in caplog.text


@pytest.mark.parametrize("runner", ["concurrent", "threads", "sequential"])
def test_a_submitted_sync_task_is_interrupted_in_its_thread(runner: str) -> None:
    reached: list[str] = []

    @task(timeout_seconds=SOON)
    def spins() -> None:
        try:
            spin()
        finally:
            reached.append("finally")
        reached.append("after")

    @task
    def fine() -> str:
        return "fine"

    @flow(task_runner=runner)
    def around() -> None:
        state: Any = spins.submit(return_state=True)
        assert_timed_out(state, SOON)
        assert fine.submit().result() == "fine"

    until_begun(reached, around)
    assert reached == ["finally"]


@pytest.mark.parametrize("runner", ["threads"])
def test_a_coroutine_in_a_workers_thread_is_cancelled(runner: str) -> None:
    seen: list[str] = []

    @task(timeout_seconds=SOON)
    async def sleeps_there() -> None:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    @flow(task_runner=runner)
    def around() -> None:
        state: Any = sleeps_there.submit(return_state=True)
        assert_timed_out(state, SOON)

    until_begun(seen, around)
    assert seen == ["cancelled"]


def test_a_thread_that_does_not_react_is_abandoned_said_so_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    from upwell.task_runners import ThreadPoolTaskRunner

    gate = threading.Lock()
    gate.acquire()

    @task(timeout_seconds=SOON)
    def stuck() -> None:
        gate.acquire()

    @task
    def fine(x: int) -> int:
        return x

    @flow(task_runner=ThreadPoolTaskRunner(1))
    def around() -> list[int]:
        state: Any = stuck.submit(return_state=True)
        assert_timed_out(state, SOON)
        return fine.map(range(3)).result()

    def said() -> None:
        assert around() == [0, 1, 2]
        warnings.extend(record for record in caplog.records if "was abandoned" in record.getMessage())

    warnings: list[logging.LogRecord] = []
    try:
        until_begun(warnings, said)
    finally:
        gate.release()
    assert {record.levelname for record in warnings} == {"WARNING"}


def test_a_timeout_that_is_not_reached_leaves_no_trace(run: Run) -> None:
    @task(timeout_seconds=30)
    def quick(x: int) -> int:
        return x

    @task(timeout_seconds=30)
    async def quick_later(x: int) -> int:
        return x

    @flow(timeout_seconds=30)
    async def around() -> Any:
        return quick(1), await quick_later(2), await quick.map(range(20)), await quick_later.map(range(20))

    assert run(around()) == (1, 2, list(range(20)), list(range(20)))
    assert quick(4) == 4


# --- what is refused and what is logged ---------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "error"), [(0, ConfigurationError), (-1, ConfigurationError), ("1", TypeError)])
def test_a_timeout_that_makes_no_sense_is_refused_at_decoration(seconds: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="timeout_seconds"):
        task(timeout_seconds=seconds)(spin)
    with pytest.raises(error, match="timeout_seconds"):
        flow(timeout_seconds=seconds)(spin)


def test_a_timeout_is_logged_at_error(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        await sleeps.submit(60, return_state=True)

    run_virtual(main())
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "Task run exceeded timeout of 10.0 second(s)" in errors
