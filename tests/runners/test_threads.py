"""The thread pool where interrupts meet attempts that begin, or that end already: its workers outlive both."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from upwell import Runtime, task
from upwell.core.errors import CancelledRun
from upwell.core.lifecycle import Outcome, OutcomeKind
from upwell.core.seams import Attempt
from upwell_runners.threads import ThreadPoolTaskRunner

PATIENCE_SECONDS = 10.0
"""How long a test waits for what comes at once, unless it never does."""


def from_another_thread(do: Callable[[], None]) -> None:
    thread = threading.Thread(target=do)
    thread.start()
    thread.join()


def interrupt(runner: ThreadPoolTaskRunner, attempt: Attempt) -> None:
    """As the loop's thread does it, which is not the worker's."""
    error = CancelledRun("No longer wanted.")
    from_another_thread(lambda: runner.interrupt(attempt, OutcomeKind.CANCELLED, error))


class InterruptsLate(ThreadPoolTaskRunner):
    """The attempts of `unwanted` are given up before a worker takes them, and interrupted as it lets them go."""

    def is_given_up(self, attempt: Attempt) -> bool:
        return attempt.name.startswith("unwanted") or super().is_given_up(attempt)

    def report(self, attempt: Attempt, outcome: Outcome) -> None:
        if attempt.name.startswith("unwanted"):
            interrupt(self, attempt)
        super().report(attempt, outcome)


@pytest.mark.anyio
async def test_a_worker_outlives_an_attempt_that_is_interrupted_as_it_lets_it_go() -> None:
    @task
    def unwanted() -> None:
        raise AssertionError("was begun")

    @task
    def wanted() -> int:
        return 1

    async with Runtime(task_runner=InterruptsLate(max_workers=1)):
        first, second = unwanted.submit(), wanted.submit()
        with pytest.raises(CancelledRun):
            await first
        assert await second == 1


@pytest.mark.anyio
async def test_code_that_clears_up_after_an_interrupt_is_not_interrupted_again() -> None:
    cleared_up = list[int]()
    runner = ThreadPoolTaskRunner(max_workers=1)

    @task
    def clears_up() -> None:
        attempt = next(iter(runner._workers))  # pyright: ignore[reportPrivateUsage]  # what it executes
        try:
            interrupt(runner, attempt)
            threading.Event().wait(PATIENCE_SECONDS)
        finally:
            interrupt(runner, attempt)
            cleared_up.extend(range(3))

    async with Runtime(task_runner=runner):
        with pytest.raises(CancelledRun, match="No longer wanted"):
            await clears_up.submit()
    assert cleared_up == [0, 1, 2]
