"""Coroutines on the loop: maps of very many, beside `asyncio.gather` and `TaskGroup`."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, Final

from benchmarks.rows import Rival, Row, Run, Setting, Side, Unit
from upwell import flow, task

RAISED: Final = (100_000, 50, 1000)
"""The collector's thresholds where they are raised: for both sides alike."""
PART: Final = 10_000
AT_ONCE: Final = 64
LONG_SECONDS: Final = 0.2

Work = Callable[[int], Coroutine[Any, Any, object]]


async def bare(number: int) -> int:
    return number


async def bare_sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


noop = task(bare)
sleep = task(bare_sleep)


async def upwell_map(size: int) -> list[int]:
    return await noop.map(range(size))


@flow
async def flow_of_noops(size: int) -> int:
    return len(await noop.map(range(size)))


async def upwell_map_in_flow(size: int) -> int:
    return await flow_of_noops(size)


async def upwell_map_in_parts(size: int) -> None:
    for _ in range(max(1, size // PART)):
        await noop.map(range(min(size, PART)))


async def gather(size: int) -> list[int]:
    return await asyncio.gather(*[bare(number) for number in range(size)])


async def task_group(size: int) -> list[int]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(bare(number)) for number in range(size)]
    return [task.result() for task in tasks]


def raised(work: Work) -> Callable[[Setting], Any]:
    """The same work with the collector's thresholds raised while it runs."""

    @contextmanager
    def opened(setting: Setting) -> Generator[Run]:
        def run() -> None:
            before = gc.get_threshold()
            gc.set_threshold(*RAISED)
            try:
                setting.run(work(setting.size))
            finally:
                gc.set_threshold(*before)

        yield run

    return opened


async def upwell_sleep_0(size: int) -> None:
    await sleep.map([0.0] * size)


async def gather_sleep_0(size: int) -> None:
    await asyncio.gather(*[bare_sleep(0.0) for _ in range(size)])


async def upwell_sleep_long(size: int) -> None:
    await sleep.map([LONG_SECONDS] * size)


async def gather_sleep_long(size: int) -> None:
    await asyncio.gather(*[bare_sleep(LONG_SECONDS) for _ in range(size)])


async def upwell_bounded(size: int) -> None:
    await sleep.map([0.0] * size, max_at_once=AT_ONCE)


async def gather_bounded(size: int) -> None:
    semaphore = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with semaphore:
            await bare_sleep(0.0)

    await asyncio.gather(*[one() for _ in range(size)])


_NO_WORK = "A task that does anything; dependencies, retries, limits; a flow around it."


ROWS = [
    Row(
        name="map-10k",
        measures="A map of 10,000 no-op coroutines and all results.",
        leaves_out=_NO_WORK,
        ours=Side("map", upwell_map),
        rivals=(Rival("asyncio.gather", gather), Rival("TaskGroup", task_group)),
        size=10_000,
        quick_size=10_000,
        on_loops=True,
        rounds=9,
    ),
    Row(
        name="map-100k",
        measures="A map of 100,000 no-op coroutines and all results.",
        leaves_out=_NO_WORK,
        ours=Side("map", upwell_map),
        rivals=(Rival("asyncio.gather", gather, most=0.3), Rival("TaskGroup", task_group)),
        size=100_000,
        quick_size=100_000,
        on_loops=True,
    ),
    Row(
        name="map-100k-raised",
        measures=f"The same with the garbage collector's thresholds raised to {RAISED} on both sides.",
        leaves_out=_NO_WORK,
        ours=Side("map", raised(upwell_map)),
        rivals=(Rival("asyncio.gather", raised(gather), most=0.6), Rival("TaskGroup", raised(task_group))),
        size=100_000,
        quick_size=100_000,
        on_loops=True,
    ),
    Row(
        name="map-100k-flow",
        measures="A map of 100,000 no-op coroutines within an async flow.",
        leaves_out="Where the flow's log lines go is not a terminal.",
        ours=Side("map", upwell_map_in_flow),
        rivals=(Rival("asyncio.gather", gather, most=0.3),),
        size=100_000,
        quick_size=100_000,
        on_loops=True,
        rounds=3,
    ),
    Row(
        name="map-1m",
        measures="A map of 1,000,000 no-op coroutines and all results; a single run of each.",
        leaves_out=_NO_WORK,
        ours=Side("map", upwell_map),
        rivals=(Rival("asyncio.gather", gather),),
        size=1_000_000,
        quick_size=100_000,
        on_loops=True,
        rounds=1,
        warm_up=False,
        peak=False,
    ),
    Row(
        name="map-growth",
        measures="The cost of a run in one map of 1,000,000, beside the same in maps of 10,000, one after another.",
        leaves_out=_NO_WORK,
        ours=Side("map of 1,000,000", upwell_map),
        rivals=(Rival("maps of 10,000", upwell_map_in_parts, most=1.3),),
        size=1_000_000,
        quick_size=100_000,
        on_loops=True,
        rounds=3,
        warm_up=False,
        peak=False,
    ),
    Row(
        name="map-memory",
        measures="Peak memory of a run in a map of 1,000,000 while all futures and results are held.",
        leaves_out="What the process needs besides.",
        ours=Side("map", upwell_map),
        rivals=(Rival("asyncio.gather", gather),),
        size=1_000_000,
        quick_size=100_000,
        unit=Unit.KIB,
        most=1.0,
    ),
    Row(
        name="sleep-0",
        measures="A map of 100,000 coroutines that each suspend once: `asyncio.sleep(0)`.",
        leaves_out="Waiting for anything real.",
        ours=Side("map", upwell_sleep_0),
        rivals=(Rival("asyncio.gather", gather_sleep_0, most=0.7),),
        size=100_000,
        quick_size=100_000,
        on_loops=True,
    ),
    Row(
        name="sleep-long",
        measures=f"A map of 100,000 coroutines that each sleep {LONG_SECONDS} s, all in flight together.",
        leaves_out=f"The {LONG_SECONDS} s count, on both sides.",
        ours=Side("map", upwell_sleep_long),
        rivals=(Rival("asyncio.gather", gather_sleep_long, most=1.3),),
        size=100_000,
        quick_size=100_000,
        on_loops=True,
    ),
    Row(
        name="bounded",
        measures=f"A map of 100,000 coroutines that each suspend once, at most {AT_ONCE} at once.",
        leaves_out="Waiting for anything real.",
        ours=Side("map(max_at_once=64)", upwell_bounded),
        rivals=(Rival("gather and Semaphore(64)", gather_bounded, most=0.8),),
        size=100_000,
        quick_size=100_000,
        on_loops=True,
    ),
]
