"""Limits of tags: each bounds the runs that have its tag; runs that wait inside of others do not deadlock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.runtime.given import Crowd, Run

from upwell import Runtime, flow, tags, task
from upwell.concurrency import set_limit
from upwell.core.errors import (
    ConcurrencySlotAcquisitionError,
    ConfigurationError,
)
from upwell.testing import run_virtual, virtual_clock

# --- tags ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("reads_all_at_once")
@pytest.mark.parametrize("way", ["submit", "map", "stream", "call"])
def test_a_tag_limit_bounds_all_runs_with_the_tag(way: str) -> None:
    set_limit("tag:narrow", 2)
    crowd = Crowd()

    @task(tags=["narrow", "wide"])
    async def stay(i: int) -> None:
        await crowd.stay(i)

    async def main() -> None:
        if way == "submit":
            for future in [stay.submit(i) for i in range(6)]:
                await future
        elif way == "map":
            await stay.map(range(6))
        elif way == "stream":
            async for _ in stay.stream(range(6)):
                pass
        else:
            await asyncio.gather(*(stay(i) for i in range(6)))

    with virtual_clock() as clock:
        clock.run(main())
        assert clock.elapsed == pytest.approx(3, abs=0.01)
    assert crowd.most == 2


def test_a_tag_given_around_the_call_is_bounded_too() -> None:
    set_limit("tag:narrow", 1)
    crowd = Crowd()
    stay = crowd.for_a_second

    @flow
    async def around() -> None:
        with tags("narrow"):
            bounded = stay.map(range(3))
        free = stay.map(range(3))
        await bounded
        await free

    run_virtual(around())
    assert crowd.most == 4


def test_tasks_with_several_limited_tags_pass_them_all_without_deadlock() -> None:
    set_limit("tag:narrow", 1)
    set_limit("tag:wide", 2)
    crowd = Crowd()
    stay = crowd.for_a_second

    @flow
    async def around() -> None:
        both, wide = stay.with_options(tags=["wide", "narrow"]), stay.with_options(tags=["wide"])
        futures = [*both.map(range(5)), *wide.map(range(5))]
        for future in futures:
            await future

    run_virtual(around())
    assert crowd.most == 2


def test_a_run_that_waits_for_a_slot_says_for_which() -> None:
    set_limit("tag:narrow", 1)

    @task(tags=["narrow"])
    async def stay(i: int) -> None:
        await asyncio.sleep(10)

    @flow
    async def around() -> Any:
        futures = stay.map(range(2))
        await asyncio.sleep(1)
        state = futures[1].state
        return state.name, state.message

    assert run_virtual(around()) == ("AwaitingConcurrencySlot", "Waits for a slot of the limit 'tag:narrow'.")


def test_a_tag_limit_of_zero_refuses_runs_with_the_tag(ends: Callable[..., Any]) -> None:
    set_limit("tag:narrow", 0)

    @task(tags=["narrow"])
    def never() -> None:
        raise AssertionError("never runs")

    @flow
    def around() -> str:
        with pytest.raises((ConcurrencySlotAcquisitionError, ConfigurationError)):
            never.submit().result(timeout=5)
        with pytest.raises((ConcurrencySlotAcquisitionError, ConfigurationError)):
            never()
        return "refused"

    assert ends(around) == "refused"


def test_slots_of_cancelled_and_failed_runs_come_back() -> None:
    limit = set_limit("tag:narrow", 2)

    @task(tags=["narrow"])
    async def stay(i: int) -> None:
        if i == 0:
            raise ValueError("boom")
        await asyncio.sleep(1000)

    @flow(timeout_seconds=1)
    async def around() -> None:
        stay.map(range(6))
        await asyncio.sleep(100)

    run_virtual(around(return_state=True))
    assert limit.taken == 0


# --- nested waits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runner", ["concurrent", "threads", "sequential"])
def test_nested_waits_under_a_limit_of_one_do_not_deadlock(runner: str, run: Run, ends: Callable[..., Any]) -> None:
    set_limit("tag:narrow", 1)

    @task(tags=["narrow"])
    def nest(n: int) -> int:
        return 0 if n == 0 else nest.submit(n - 1).result() + 1

    @task(tags=["narrow"])
    async def nest_later(n: int) -> int:
        return 0 if n == 0 else await nest_later.submit(n - 1) + 1

    @flow(task_runner=runner)
    async def around() -> Any:
        return await nest.submit(5), await nest_later.submit(5), await nest_later.map([3, 3])

    assert ends(lambda: run(around())) == (5, 5, [3, 3])


def test_async_nested_waits_on_worker_threads_do_not_deadlock(ends: Callable[..., Any]) -> None:
    from upwell.task_runners import ThreadPoolTaskRunner

    @task
    async def nest(n: int) -> int:
        return 0 if n == 0 else sum(await nest.map([n - 1] * 2)) + 1

    @flow(task_runner=ThreadPoolTaskRunner(1))
    def around() -> int:
        return nest.submit(3).result()

    assert ends(around) == 2**3 - 1


@pytest.mark.parametrize("outer", ["call", "submit"])
@pytest.mark.parametrize("inner", ["call", "submit"])
def test_nested_calls_under_a_limit_of_one_do_not_deadlock(outer: str, inner: str) -> None:
    set_limit("tag:narrow", 1)

    @task(tags=["narrow"])
    async def leaf(x: int) -> int:
        return x

    @task(tags=["narrow"])
    async def parent(x: int) -> int:
        return await (leaf(x) if inner == "call" else leaf.submit(x))

    @flow
    async def around() -> Any:
        return await (parent(3) if outer == "call" else parent.submit(3))

    assert run_virtual(around()) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_deep_nested_waits_on_a_small_pool_do_not_deadlock(workers: int) -> None:
    from upwell.task_runners import ThreadPoolTaskRunner

    @task
    def nest(n: int) -> int:
        return 0 if n == 0 else sum(nest.map([n - 1] * 2).result()) + 1

    @flow(task_runner=ThreadPoolTaskRunner(workers))
    def around() -> int:
        return nest.submit(4).result()

    assert around() == 2**4 - 1


@pytest.mark.parametrize("way", ["submit", "call"])
def test_a_run_that_waits_for_several_runs_at_once_takes_its_slot_back_once(way: str) -> None:
    @task
    async def stay(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    async def wait_for(future: Any) -> Any:
        return await future

    @task(tags=["narrow"])
    async def gather() -> Any:
        return await asyncio.gather(*(wait_for(stay.submit(seconds)) for seconds in (1, 2, 3)))

    @task(tags=["narrow"])
    async def hold() -> None:
        await asyncio.sleep(5)

    async def main() -> Any:
        async with Runtime(limits={"tag:narrow": 1}):
            gathered = asyncio.ensure_future(gather() if way == "call" else wait_for(gather.submit()))
            await asyncio.sleep(0.5)
            await hold.submit()  # has the slot, while that one waits
            answers = [await gathered, await gather.submit(), await gather()]
            await hold()
            return answers

    assert run_virtual(main()) == [[1, 2, 3]] * 3


def test_a_thread_that_was_given_up_takes_no_slot_back(run: Run) -> None:
    @task
    async def stay() -> None:
        await asyncio.sleep(1000)

    waiting: list[Any] = []

    @task(tags=["narrow"])
    def wait() -> None:
        waiting.append(stay.submit())
        waiting[0].result()

    @flow
    async def around() -> None:
        await wait.submit()

    async def main() -> str:
        has_begun, may_end = asyncio.Event(), asyncio.Event()

        @task(tags=["narrow"])
        async def hold() -> None:
            has_begun.set()
            await may_end.wait()

        async with Runtime(limits={"tag:narrow": 1}):
            cancelled = asyncio.ensure_future(around())
            while not waiting:
                await asyncio.sleep(0.001)
            holding = hold.submit()
            await has_begun.wait()  # it has the slot, while the thread waits
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            may_end.set()
            await holding
            await hold()
            return "had the slot again"

    assert run(main()) == "had the slot again"
