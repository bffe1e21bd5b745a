"""Every scenario is cancelled at each of its awaits, up to three times: it ends, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from upwell import Runtime, as_completed, flow, task, wait_async
from upwell.concurrency import remove_limit, set_limit
from upwell.concurrency.asyncio import concurrency
from upwell.testing import cancel_everywhere

SECOND = 0.002
"""One second of the scenarios, in seconds of loops that go by machine time."""


@task
async def rest(seconds: float = 1) -> float:
    await asyncio.sleep(seconds * SECOND)
    return seconds


@task
def plain(n: int) -> int:
    return n


@task(retries=2, retry_delay_seconds=5 * SECOND)
async def third_time_lucky(attempts: list[int]) -> int:
    attempts.append(1)
    await asyncio.sleep(SECOND)
    if len(attempts) < 3:
        raise ValueError(len(attempts))
    return len(attempts)


async def hook(*_: Any) -> None:
    await asyncio.sleep(SECOND)


def sync_hook(*_: Any) -> None: ...


@flow
async def map_of_coroutines() -> None:
    await rest.map(range(5))


@flow
async def bounded_map() -> None:
    await rest.map(range(5), max_at_once=2)


@flow
async def paced_map() -> None:
    await rest.map(range(4), max_per_second=1 / SECOND)


@flow
async def retries() -> None:
    future = third_time_lucky.submit([])
    await third_time_lucky([])
    await future


@flow
async def chain() -> None:
    future = rest.submit(1)
    for _ in range(3):
        future = rest.submit(future)
    await future


@flow
async def inner(seconds: float) -> float:
    return await rest.submit(seconds)


@flow
async def nested_flows() -> None:
    left = inner.submit(3)
    await inner(1)
    rest.submit(2)
    await left


@task
async def limited() -> None:
    async with concurrency("db"):
        await asyncio.sleep(SECOND)


@flow
async def named_limits() -> None:
    futures = [limited.submit() for _ in range(3)]
    async with concurrency("db"):
        await asyncio.sleep(SECOND)
    for future in futures:
        await future


@task(tags=["few"])
async def tagged() -> None:
    await asyncio.sleep(SECOND)


@flow
async def tag_limits() -> None:
    for future in [tagged.submit() for _ in range(3)]:
        await future


@flow(task_runner="threads")
async def sync_tasks_on_threads() -> None:
    futures = plain.map(range(4))
    await plain.submit(futures[0])
    await futures


async def ordered_stream_left_early() -> None:
    async for result in rest.stream(range(6), max_at_once=3):
        if result == 3:
            break


async def unordered_stream_left_early() -> None:
    async for result in rest.stream(range(6), max_at_once=3, ordered=False):
        if result == 3:
            break


async def runtime_closing_with_work_in_flight() -> None:
    async with Runtime() as runtime:
        futures = runtime.map(rest, range(4))
        runtime.submit(plain, 1)
        await futures[1]


@task(on_completion=[hook, sync_hook], on_cancellation=[hook], on_running=[hook])
async def task_with_hooks() -> None:
    await asyncio.sleep(SECOND)


@flow(on_running=[hook], on_completion=[hook, sync_hook], on_failure=[hook], on_cancellation=[hook])
async def flow_with_hooks() -> None:
    await task_with_hooks.submit()
    await task_with_hooks()


@flow
async def waiting_for_several() -> None:
    futures = rest.map(range(3))
    await wait_async(futures, timeout=1.5 * SECOND)
    async for future in as_completed(futures):
        await future


@flow
async def a_run_that_waits_for_another() -> None:
    @task
    async def waits() -> float:
        return await rest.submit(2)

    await waits.submit()


@task(tags=["few"])
async def holds_a_place_and_waits() -> None:
    await tagged.submit()
    await rest.submit(1)


@flow
async def runs_that_give_their_place_to_others() -> None:
    futures = [holds_a_place_and_waits.submit() for _ in range(3)]
    for future in futures:
        await future


@task(tags=["few"], timeout_seconds=60, retries=1, retry_delay_seconds=SECOND)
async def items(attempts: list[int]) -> AsyncIterator[int]:
    attempts.append(1)
    await asyncio.sleep(SECOND)
    if len(attempts) < 2:
        raise ValueError(len(attempts))
    for i in range(2):
        yield i
        await asyncio.sleep(SECOND)


@flow(timeout_seconds=60, retries=1)
async def items_of_a_flow() -> AsyncIterator[int]:
    async for i in items([]):
        yield i
        await rest.submit(i)


async def generators_that_are_tried_again() -> None:
    async for _ in items_of_a_flow():
        await asyncio.sleep(SECOND)


@flow
async def a_stream_that_is_left_open() -> None:
    stream = aiter(rest.stream(range(6), max_at_once=3))
    await anext(stream)
    await rest(1)


SCENARIOS: list[Callable[[], Any]] = [
    map_of_coroutines,
    bounded_map,
    paced_map,
    retries,
    chain,
    nested_flows,
    named_limits,
    tag_limits,
    sync_tasks_on_threads,
    ordered_stream_left_early,
    unordered_stream_left_early,
    runtime_closing_with_work_in_flight,
    flow_with_hooks,
    waiting_for_several,
    a_run_that_waits_for_another,
    runs_that_give_their_place_to_others,
    generators_that_are_tried_again,
    a_stream_that_is_left_open,
]


def _name(scenario: Any) -> str:
    return getattr(scenario, "__name__", repr(scenario))


@pytest.fixture(autouse=True)
def _limits() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]  # by pytest
    set_limit("db", 1)
    set_limit("tag:few", 1)
    yield
    remove_limit("db")
    remove_limit("tag:few")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=_name)
def test_cancelled_anywhere_it_ends_and_leaves_nothing(scenario: Callable[[], Any]) -> None:
    assert cancel_everywhere(scenario) > 0


@pytest.mark.parametrize("scenario", SCENARIOS, ids=_name)
def test_the_same_on_uvloop(scenario: Callable[[], Any]) -> None:
    uvloop = pytest.importorskip("uvloop")
    assert cancel_everywhere(scenario, times=(1, 2), loop_factory=uvloop.new_event_loop) > 0
