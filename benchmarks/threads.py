"""Sync tasks on threads, beside the standard library's thread pool, through asyncio and bare."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from benchmarks.rows import Rival, Row, Run, Setting, Side
from upwell import Runtime, task


def bare(number: int) -> int:
    return number


noop = task(task_runner="threads")(bare)


async def upwell_map(size: int) -> list[int]:
    return await noop.map(range(size))


@contextmanager
def upwell_map_from_sync(setting: Setting) -> Generator[Run]:
    with Runtime():
        yield lambda: noop.map(range(setting.size)).result()


async def run_in_executor(size: int) -> list[int]:
    loop = asyncio.get_running_loop()
    return await asyncio.gather(*[loop.run_in_executor(None, bare, number) for number in range(size)])


@contextmanager
def executor_submit(setting: Setting) -> Generator[Run]:
    with ThreadPoolExecutor() as pool:

        def run() -> list[int]:
            futures = [pool.submit(bare, number) for number in range(setting.size)]
            return [future.result() for future in futures]

        yield run


_NO_WORK = "A task that does anything, or that lets other threads run."

ROWS = [
    Row(
        name="threads",
        measures="A map of 100,000 no-op sync tasks on threads, from async code, and all results.",
        leaves_out=_NO_WORK,
        ours=Side("map", upwell_map),
        rivals=(
            Rival("run_in_executor and gather", run_in_executor, most=0.25),
            Rival("ThreadPoolExecutor.submit", executor_submit, most=1.0),
        ),
        size=100_000,
        quick_size=20_000,
        on_loops=True,
        rounds=3,
    ),
    Row(
        name="threads-sync",
        measures="The same from sync code, with the runtime's loop on a thread beside.",
        leaves_out=_NO_WORK,
        ours=Side("map", upwell_map_from_sync),
        rivals=(Rival("ThreadPoolExecutor.submit", executor_submit),),
        size=100_000,
        quick_size=20_000,
        rounds=5,
    ),
]
