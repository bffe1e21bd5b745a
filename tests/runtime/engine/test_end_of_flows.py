"""A flow whose function has returned, or raised, and that waits for what it has started: what ends that wait."""

# A lambda as a hook needs no annotations here.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from upwell import Runtime, flow, task
from upwell.core.errors import CancelledRun, FlowRunTimeoutError
from upwell.engine.stopping import ids_under_way, stop_flow_run
from upwell.runtime import flow_run
from upwell.testing import run_virtual, virtual_clock

LONG = 1000.0
Cancel = Callable[[Coroutine[Any, Any, Any], list[Any]], Coroutine[Any, Any, None]]


@task
async def rest(seconds: float = LONG) -> None:
    await asyncio.sleep(seconds)


async def by_wait_for(work: Coroutine[Any, Any, Any], _: list[Any]) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(work, 1)


async def by_its_task(work: Coroutine[Any, Any, Any], _: list[Any]) -> None:
    running = asyncio.create_task(work)
    await asyncio.sleep(1)
    running.cancel("No longer wanted.")
    with pytest.raises(asyncio.CancelledError, match="wanted"):
        await running


async def by_somebody_else(work: Coroutine[Any, Any, Any], ids: list[Any]) -> None:
    running = asyncio.create_task(work)
    await asyncio.sleep(1)
    assert stop_flow_run(str(ids[0]), "Somebody said so.")
    with pytest.raises(CancelledRun, match="Somebody said so"):
        await running


@pytest.mark.parametrize("raises", [False, True], ids=["returned", "raised"])
@pytest.mark.parametrize("cancel", [by_wait_for, by_its_task, by_somebody_else])
def test_a_cancellation_ends_what_it_waits_for(cancel: Cancel, raises: bool) -> None:
    heard: list[Any] = []
    futures: list[Any] = []
    ids: list[Any] = []

    @flow(on_cancellation=[lambda _, run, state: heard.append((run, state))])
    async def leaves() -> None:
        ids.append(flow_run.id)
        futures.append(rest.submit())
        await asyncio.sleep(0.1)
        if raises:
            raise ValueError

    with virtual_clock() as clock:
        clock.run(cancel(leaves(), ids))
        assert clock.elapsed == pytest.approx(1, abs=0.01)
    [(run, state)] = heard
    assert run.state.is_cancelled()
    assert [it.name for it in run.states][-2:] == ["Cancelling", "Cancelled"]
    assert state.message
    assert futures[0].state.is_cancelled()
    assert state.message in futures[0].state.message


def test_a_second_cancellation_leaves_what_clears_up_alone() -> None:
    heard: list[str] = []

    @task
    async def tidy() -> None:
        try:
            await asyncio.sleep(LONG)
        finally:
            await asyncio.sleep(10)
            heard.append("tidied")

    @flow(on_cancellation=[lambda *_: heard.append("hook")])
    async def leaves() -> None:
        tidy.submit()
        await asyncio.sleep(0.1)

    async def main() -> None:
        running = asyncio.create_task(leaves())
        for _ in range(3):
            await asyncio.sleep(1)
            running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    with virtual_clock() as clock:
        clock.run(main())
        assert clock.elapsed == pytest.approx(11, abs=0.01)
    assert heard == ["tidied", "hook"]


def test_a_cancellation_that_comes_as_the_last_ends_counts() -> None:
    states: list[Any] = []

    @flow(on_cancellation=[lambda _, __, state: states.append(state)])
    async def leaves() -> None:
        rest.submit(1)

    async def main() -> None:
        running = asyncio.create_task(leaves())
        asyncio.get_running_loop().call_later(1, running.cancel)
        with pytest.raises(asyncio.CancelledError):
            await running

    run_virtual(main())
    assert len(states) == 1


def test_who_is_cancelled_in_a_hook_has_ended_all_the_same() -> None:
    runs: list[Any] = []

    async def slow(_: Any, run: Any, __: Any) -> None:
        runs.append(run)
        await asyncio.sleep(LONG)

    @flow(on_cancellation=[slow], on_completion=[slow])
    async def leaves(seconds: float) -> None:
        rest.submit(seconds)

    async def main(seconds: float) -> None:
        running = asyncio.create_task(leaves(seconds))
        for _ in range(2):
            await asyncio.sleep(1)
            running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    run_virtual(main(LONG))
    run_virtual(main(0))
    assert [run.state.name for run in runs] == ["Cancelled", "Completed"]


@pytest.mark.parametrize(("kind", "end"), [("on_running", "Cancelled"), ("on_completion", "Completed")])
def test_a_generator_that_is_cancelled_in_a_hook_has_ended_all_the_same(kind: str, end: str) -> None:
    runs: list[Any] = []

    async def slow(_: Any, run: Any, __: Any) -> None:
        runs.append(run)
        await asyncio.sleep(LONG)

    hooks: dict[str, Any] = {kind: [slow]}

    @flow(**hooks)
    async def numbers() -> AsyncIterator[int]:
        yield 1

    async def take() -> None:
        async for _ in numbers():
            pass

    async def main() -> None:
        running = asyncio.create_task(take())
        await asyncio.sleep(1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    run_virtual(main())
    assert [run.state.name for run in runs] == [end]
    assert ids_under_way() == []


# --- its own time is up -----------------------------------------------------------------------------------------------


def leaving(kind: str, futures: list[Any], **options: Any) -> Any:
    """A flow that returns at once, and leaves a task run behind."""

    @flow(timeout_seconds=10, **options)
    async def leaves() -> None:
        futures.append(rest.submit())

    @flow(timeout_seconds=10, **options)
    def leaves_sync() -> None:
        futures.append(rest.submit())

    return leaves if kind == "async" else leaves_sync


def assert_timed_out(state: Any, futures: list[Any]) -> None:
    assert state.name == "TimedOut"
    assert isinstance(state.data, FlowRunTimeoutError)
    assert [future.state.name for future in futures] == ["Cancelled"] * len(futures)
    assert all("exceeded timeout" in future.state.message for future in futures)


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_its_timeout_bounds_what_it_waits_for(kind: str) -> None:
    futures: list[Any] = []
    leaves = leaving(kind, futures)
    with virtual_clock() as clock:
        state = leaves(return_state=True) if kind == "sync" else clock.run(leaves(return_state=True))
        assert clock.elapsed == pytest.approx(10, abs=0.1)
    assert_timed_out(state, futures)
    assert len(futures) == 1


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_the_same_of_a_submitted_one(kind: str) -> None:
    futures: list[Any] = []
    states: list[Any] = []
    inner = leaving(kind, futures, on_failure=[lambda _, __, state: states.append(state)])

    @flow
    async def outer() -> None:
        await inner.submit()

    with virtual_clock() as clock:
        with pytest.raises(FlowRunTimeoutError):
            clock.run(outer())
        assert clock.elapsed == pytest.approx(10, abs=0.1)
    assert len(states) == 1
    assert_timed_out(states[0], futures)


def test_a_timeout_in_that_wait_is_tried_again() -> None:
    attempts: list[int] = []

    @flow(timeout_seconds=10, retries=1)
    async def leaves() -> str:
        attempts.append(1)
        rest.submit(LONG if len(attempts) == 1 else 9)
        return "in time"

    with virtual_clock() as clock:
        assert clock.run(leaves()) == "in time"
        assert clock.elapsed == pytest.approx(10 + 9, abs=0.01)


def test_one_that_raised_has_failed_when_its_time_is_up() -> None:
    futures: list[Any] = []

    @flow(timeout_seconds=10)
    async def fails() -> None:
        futures.append(rest.submit())
        await asyncio.sleep(1)
        raise ValueError("mine")

    with virtual_clock() as clock:
        with pytest.raises(ValueError, match="mine"):
            clock.run(fails())
        assert clock.elapsed == pytest.approx(10, abs=0.01)
    assert "exceeded timeout" in futures[0].state.message


@pytest.mark.parametrize("cancelled_at", [9.999, 10, 10.001])
def test_its_timeout_and_a_cancellation_at_once_are_one_end(cancelled_at: float) -> None:
    heard: list[str] = []
    futures: list[Any] = []
    hooks: Any = [lambda _, __, state: heard.append(state.name)]
    leaves = leaving("async", futures, on_cancellation=hooks, on_failure=hooks)

    async def main() -> None:
        running = asyncio.create_task(leaves())
        asyncio.get_running_loop().call_later(cancelled_at, running.cancel)
        with pytest.raises((asyncio.CancelledError, FlowRunTimeoutError)):
            await running

    run_virtual(main())
    assert heard in (["Cancelled"], ["TimedOut"])
    assert futures[0].state.is_cancelled()


def test_the_time_of_a_generator_is_what_it_has_not_used_itself() -> None:
    futures: list[Any] = []

    @flow(timeout_seconds=10)
    async def gives() -> AsyncIterator[int]:
        await asyncio.sleep(4)
        yield 1
        futures.append(rest.submit())

    async def take_all() -> None:
        async for _ in gives():
            await asyncio.sleep(50)

    async def main() -> None:
        with pytest.raises(FlowRunTimeoutError):
            await take_all()

    with virtual_clock() as clock:
        clock.run(main())
        assert clock.elapsed == pytest.approx(4 + 50 + 6, abs=0.01)
    assert futures[0].state.is_cancelled()


# --- its runtime is closed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "way"), [("async", "called"), ("async", "submitted"), ("sync", "submitted")])
def test_a_runtime_that_is_closed_cancels_it(kind: str, way: str) -> None:
    states: list[Any] = []
    begun = asyncio.Event()
    hooks: Any = [lambda _, __, state: states.append(state)]

    @task
    async def started() -> None:
        begun.set()
        await asyncio.sleep(LONG)

    @flow(on_cancellation=hooks, on_completion=hooks)
    async def leaves() -> None:
        started.submit()

    @flow(on_cancellation=hooks, on_completion=hooks)
    def leaves_sync() -> None:
        started.submit()

    async def main() -> None:
        async with Runtime() as rt:
            if kind == "sync":
                running: Any = rt.submit(leaves_sync)
            else:
                running = rt.submit(leaves) if way == "submitted" else asyncio.create_task(leaves())
            await begun.wait()
        with pytest.raises(CancelledRun, match="The runtime was closed"):
            await running

    asyncio.run(main())
    assert [state.name for state in states] == ["Cancelled"]
    assert "The runtime was closed" in states[0].message


def test_one_that_went_on_after_its_runtime_was_closed_says_itself_how_it_ended() -> None:
    @flow
    async def copes() -> str:
        try:
            await rest.submit()
        except CancelledRun:
            return "coped"
        return "never"

    async def main() -> Any:
        async with Runtime():
            running = asyncio.create_task(copes())
            await asyncio.sleep(1)
        return await running

    assert run_virtual(main()) == "coped"
