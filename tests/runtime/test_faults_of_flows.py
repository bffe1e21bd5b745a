"""A flow and what it started: it waits for all of it, however little that goes along, and tells what became of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from upwell import Runtime, flow, task
from upwell.core.errors import CancelledRun, FailedRun, NotReadyRun, TaskRunTimeoutError
from upwell.task_runners import ThreadPoolTaskRunner
from upwell.testing import virtual_clock

Ends = Callable[..., Any]


@task
def count(x: Any) -> int:
    return int(x) + 1


@task
def fail() -> None:
    raise KeyError("boom")


def test_a_coroutine_that_swallows_its_cancellation_is_waited_for() -> None:
    @task
    async def stubborn() -> str:
        for _ in range(3):
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                pass
        return "as it likes"

    states: list[Any] = []

    @flow(timeout_seconds=0.01)
    async def run() -> None:
        states.append(stubborn.submit())
        await asyncio.sleep(10)

    with virtual_clock() as clock:  # no time passes before it has begun
        state = clock.run(run(return_state=True))
    assert state.name == "TimedOut"
    assert states[0].state.is_completed()


def test_a_flow_that_returns_while_tasks_run_waits_for_them(ends: Ends) -> None:
    ended: list[str] = []

    @task
    def on_a_thread() -> None:
        time.sleep(0.005)
        ended.append("thread")

    @task
    async def on_the_loop() -> None:
        await asyncio.sleep(0.005)
        ended.append("loop")

    @flow
    def run() -> str:
        on_a_thread.submit()
        on_the_loop.submit()
        return "returned"

    @flow
    async def arun() -> str:
        return run.fn()

    assert ends(run) == "returned"
    assert sorted(ended) == ["loop", "thread"]
    assert ends(asyncio.run, arun()) == "returned"
    assert len(ended) == 4


def test_a_thread_that_is_given_up_after_a_timeout_is_replaced(ends: Ends) -> None:
    release = threading.Event()

    @task(timeout_seconds=0.01)
    def hang() -> None:
        while not release.is_set():
            try:
                release.wait(10)
            except BaseException:  # deaf to everything
                pass

    @flow(task_runner=ThreadPoolTaskRunner(1))
    def run() -> Any:
        hanging = hang.submit()
        with pytest.raises(TaskRunTimeoutError):
            hanging.result()
        return count.map(range(100)).result()

    try:
        assert ends(run) == list(range(1, 101))
    finally:
        release.set()


def test_a_run_that_is_cancelled_says_so_to_who_awaits_it(ends: Ends) -> None:
    async def main() -> None:
        async with Runtime() as runtime:
            waiting = runtime.submit(task(asyncio.sleep), 10)
            await asyncio.sleep(0)
        with pytest.raises(CancelledRun, match="closed"):
            await waiting

    ends(asyncio.run, main())


def test_nobody_looked_at_a_failure_so_the_flow_fails(ends: Ends) -> None:
    @flow
    def run() -> None:
        fail.submit()

    with pytest.raises(FailedRun, match="never looked at") as caught:
        ends(run)
    assert repr(caught.value.__cause__) == "KeyError('boom')"


def test_a_dependant_of_a_failure_is_not_ready_and_names_it(ends: Ends) -> None:
    @flow
    def run() -> Any:
        failed = fail.submit()
        with pytest.raises(NotReadyRun, match="fail-0"):
            count.submit(failed).result()

    ends(run)
