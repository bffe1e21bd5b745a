"""Retries: how often, after how long, whether at all; a run that waits for its retry holds no slot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
from tests.runtime.given import Run

from upwell import exponential_backoff, flow, runtime, task
from upwell.testing import run_virtual, virtual_clock

ATTEMPT: ContextVar[str] = ContextVar("attempt", default="the first")
WAYS = ["call", "submit", "map", "stream"]


class Flaky:
    """Fails so many times, and notes when it was called."""

    def __init__(self, failures: int, error: Callable[[], BaseException] = lambda: ValueError("again")) -> None:
        self.failures = failures
        self.error = error
        self.moments: list[float] = []

    def __call__(self, now: float) -> int:
        self.moments.append(now)
        if len(self.moments) <= self.failures:
            raise self.error()
        return len(self.moments)

    @property
    def pauses(self) -> list[float]:
        return [round(b - a, 6) for a, b in zip(self.moments, self.moments[1:], strict=False)]


async def start(it: Any, way: str) -> Any:
    """Run an async task of one argument in one of the ways there are."""
    if way == "call":
        return await it(0)
    if way == "submit":
        return await it.submit(0)
    if way == "map":
        return (await it.map([0]))[0]
    return [x async for x in it.stream([0])][0]  # noqa: RUF015  # all of it is taken


def start_sync(it: Any, way: str) -> Any:
    if way == "call":
        return it(0)
    if way == "submit":
        return it.submit(0).result()
    if way == "map":
        return it.map([0]).result()[0]
    return list(it.stream([0]))[0]  # noqa: RUF015  # all of it is taken


def flaky_task(flaky: Flaky, **options: Any) -> Any:
    @task(**options)
    async def attempt(_: int) -> int:
        return flaky(asyncio.get_running_loop().time())

    return attempt


def flaky_sync_task(flaky: Flaky, clock: Any, **options: Any) -> Any:
    @task(**options)
    def attempt(_: int) -> int:
        return flaky(clock.elapsed)

    return attempt


# --- how often --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_a_failed_run_is_tried_again_until_it_succeeds(way: str) -> None:
    flaky = Flaky(2)
    assert run_virtual(start(flaky_task(flaky, retries=3), way)) == 3
    with virtual_clock() as clock:
        flaky = Flaky(2)
        assert start_sync(flaky_sync_task(flaky, clock, retries=3), way) == 3


@pytest.mark.parametrize("way", WAYS)
def test_a_run_whose_retries_are_used_up_fails_with_its_last_exception(way: str) -> None:
    flaky = Flaky(10, lambda: ValueError(f"attempt {len(flaky.moments)}"))
    with pytest.raises(ValueError, match=r"^attempt 3$"):
        run_virtual(start(flaky_task(flaky, retries=2), way))
    assert len(flaky.moments) == 3


def test_the_run_count_counts_attempts() -> None:
    counts: list[int] = []

    @task(retries=2)
    async def attempt() -> None:
        counts.append(runtime.task_run.run_count)
        raise ValueError("again")

    @flow
    async def around() -> None:
        await attempt(return_state=True)
        await attempt.submit(return_state=True)

    run_virtual(around())
    assert counts == [1, 2, 3] * 2


# --- after how long -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("delay", "pauses"),
    [  # pyright: ignore[reportUnknownArgumentType]  # a lambda needs no annotations here
        (None, [0, 0, 0]),
        (0, [0, 0, 0]),
        (60, [60, 60, 60]),
        (0.5, [0.5, 0.5, 0.5]),
        ([1, 5, 30], [1, 5, 30]),
        ([1, 5], [1, 5, 5]),
        ([7], [7, 7, 7]),
        (exponential_backoff(10), [10, 20, 40]),
        (lambda retries: [retries] * retries, [3, 3, 3]),  # pyright: ignore[reportUnknownLambdaType]  # a lambda needs no annotations here
    ],
)
def test_delays_may_be_a_number_a_list_or_a_function(way: str, delay: Any, pauses: list[float]) -> None:
    flaky = Flaky(3)
    assert run_virtual(start(flaky_task(flaky, retries=3, retry_delay_seconds=delay), way)) == 4
    assert flaky.pauses == pytest.approx(pauses, abs=0.001)
    with virtual_clock() as clock:
        flaky = Flaky(3)
        start_sync(flaky_sync_task(flaky, clock, retries=3, retry_delay_seconds=delay), way)
        assert flaky.pauses == pytest.approx(pauses, abs=0.001)


@pytest.mark.parametrize("way", ["call", "submit"])
def test_jitter_is_really_applied_and_stays_in_its_bounds(way: str) -> None:
    flaky = Flaky(40)
    it = flaky_task(flaky, retries=40, retry_delay_seconds=100, retry_jitter_factor=0.5)
    run_virtual(start(it, way))
    assert all(50 <= pause <= 150 for pause in flaky.pauses)
    assert len(set(flaky.pauses)) > 30
    assert min(flaky.pauses) < 90
    assert max(flaky.pauses) > 110


def test_a_run_that_waits_for_its_retry_says_when_and_why() -> None:
    flaky = Flaky(1)
    it = flaky_task(flaky, retries=1, retry_delay_seconds=60)

    @flow
    async def around() -> Any:
        future = it.submit(0)
        await asyncio.sleep(10)
        state = future.state
        await future
        return [state.name, state]

    _, state = run_virtual(around())
    assert state.name == "AwaitingRetry"
    assert state.is_scheduled()
    assert state.message == "Attempt 1 of 2 failed: ValueError('again')"
    assert state.scheduled_time is not None


def test_a_retry_is_announced_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    run_virtual(start(flaky_task(Flaky(1), retries=2, retry_delay_seconds=1.5), "submit"))
    line = "Task run failed with exception: ValueError('again') - Retry 1/2 will start 1.5 second(s) from now"
    assert line in [record.getMessage() for record in caplog.records if record.levelname == "INFO"]


# --- whether at all -----------------------------------------------------------------------------------------------


async def yes_if_value_error_later(_task: Any, _run: Any, state: Any) -> bool:
    await asyncio.sleep(0)
    return isinstance(state.result(raise_on_failure=False), ValueError)


def yes_if_value_error(_task: Any, _run: Any, state: Any) -> bool:
    return isinstance(state.result(raise_on_failure=False), ValueError)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("condition", [yes_if_value_error, yes_if_value_error_later])
def test_the_condition_decides(way: str, condition: Any) -> None:
    flaky = Flaky(2)
    assert run_virtual(start(flaky_task(flaky, retries=5, retry_condition_fn=condition), way)) == 3
    flaky = Flaky(2, lambda: KeyError("other"))
    with pytest.raises(KeyError):
        run_virtual(start(flaky_task(flaky, retries=5, retry_condition_fn=condition), way))
    assert len(flaky.moments) == 1
    with virtual_clock() as clock:
        flaky = Flaky(2)
        assert start_sync(flaky_sync_task(flaky, clock, retries=5, retry_condition_fn=condition), way) == 3


def test_the_condition_gets_the_task_the_run_and_the_state() -> None:
    got: list[Any] = []

    def condition(it: Any, run: Any, state: Any) -> bool:
        got.append((it, run.name, run.run_count, state.name))
        return True

    it = flaky_task(Flaky(2), retries=5, retry_condition_fn=condition)
    run_virtual(start(it, "call"))
    assert [entry[0] is it for entry in got] == [True, True]
    assert [entry[2:] for entry in got] == [(1, "Failed"), (2, "Failed")]


@pytest.mark.parametrize("way", ["call", "submit"])
def test_a_condition_that_raises_means_no_retry_and_is_logged(way: str, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: Any) -> bool:
        raise KeyError("condition")

    flaky = Flaky(2)
    with pytest.raises(ValueError, match="again"):
        run_virtual(start(flaky_task(flaky, retries=5, retry_condition_fn=broken), way))
    assert len(flaky.moments) == 1
    assert any("condition" in record.getMessage() and record.levelname == "ERROR" for record in caplog.records)


@pytest.mark.parametrize("way", WAYS[1:])  # a call awaited runs in the context of who awaits it
def test_what_a_failed_attempt_has_set_in_its_context_the_next_does_not_see(way: str) -> None:
    @task(retries=2)
    async def attempt(_: int) -> str:
        seen = ATTEMPT.get()
        ATTEMPT.set(f"{seen} and another")
        if runtime.task_run.run_count < 3:
            raise ValueError("again")
        return seen

    assert run_virtual(start(attempt, way)) == "the first"


def test_a_base_exception_is_not_tried_again() -> None:
    flaky = Flaky(2, lambda: asyncio.CancelledError())

    @flow
    async def around() -> Any:
        return await flaky_task(flaky, retries=5).submit(0, return_state=True)

    state = run_virtual(around(return_state=True)).result(raise_on_failure=False)
    assert len(flaky.moments) == 1
    assert state is not None


# --- slots ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", ["max_at_once", "sequential", "tag"])
def test_a_run_that_waits_for_its_retry_holds_no_slot(bound: str) -> None:
    from upwell.concurrency import remove_limit, set_limit

    order: list[str] = []

    @task(retries=1, retry_delay_seconds=60, tags=["narrow"])
    async def attempt(name: str) -> None:
        order.append(name)
        if order.count(name) == 1 and name == "flaky":
            raise ValueError("again")

    @flow(task_runner="sequential" if bound == "sequential" else None)
    async def around() -> None:
        if bound == "max_at_once":
            await attempt.map(["flaky", "other"], max_at_once=1)
        else:
            await attempt.map(["flaky", "other"])

    if bound == "tag":
        set_limit("tag:narrow", 1)
    try:
        with virtual_clock() as clock:
            clock.run(around())
            assert clock.elapsed == pytest.approx(60, abs=0.01)
    finally:
        remove_limit("tag:narrow")
    assert order == ["flaky", "other", "flaky"]


# --- flows ------------------------------------------------------------------------------------------------------------


def test_a_flow_is_tried_again_with_its_tasks() -> None:
    calls: list[str] = []

    @task
    async def step() -> None:
        calls.append("step")

    @flow(retries=2, retry_delay_seconds=[5, 10])
    async def around() -> int:
        calls.append("flow")
        await step.submit()
        if calls.count("flow") < 3:
            raise ValueError("again")
        return runtime.flow_run.run_count

    with virtual_clock() as clock:
        assert clock.run(around()) == 3
        assert clock.elapsed == pytest.approx(15, abs=0.01)
    assert calls == ["flow", "step"] * 3


def test_a_sync_flow_is_tried_again() -> None:
    attempts: list[int] = []

    @flow(retries=2, retry_delay_seconds=exponential_backoff(10))
    def around() -> int:
        attempts.append(1)
        if len(attempts) < 3:
            raise ValueError("again")
        return len(attempts)

    with virtual_clock() as clock:
        assert around() == 3
        assert clock.elapsed == pytest.approx(30, abs=0.01)


def test_a_flow_that_failed_by_an_unseen_task_is_tried_again() -> None:
    attempts: list[int] = []

    @task
    def odd() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("once")

    @flow(retries=1)
    def around() -> str:
        odd.submit()
        return "fine"

    assert around() == "fine"


@pytest.mark.parametrize("condition", [yes_if_value_error, yes_if_value_error_later])
def test_a_flow_asks_its_condition(condition: Any, run: Run) -> None:
    attempts: list[int] = []

    @flow(retries=5, retry_condition_fn=condition)
    def around() -> None:
        attempts.append(1)
        raise ValueError("again") if len(attempts) < 3 else KeyError("other")

    with pytest.raises(KeyError):
        around()
    assert len(attempts) == 3
    attempts.clear()

    @flow(retries=5, retry_condition_fn=condition)
    async def around_later() -> None:
        around.fn()

    with pytest.raises(KeyError):
        run(around_later())
    assert len(attempts) == 3


def test_a_submitted_flow_is_tried_again() -> None:
    attempts: list[int] = []

    @flow(retries=2, retry_delay_seconds=5)
    async def inner() -> int:
        attempts.append(1)
        if len(attempts) < 3:
            raise ValueError("again")
        return len(attempts)

    @flow
    async def outer() -> int:
        return await inner.submit()

    with virtual_clock() as clock:
        assert clock.run(outer()) == 3
        assert clock.elapsed == pytest.approx(10, abs=0.01)
