"""However many runs are ready, the other tasks of the loop get their turns; counted, not timed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from upwell import task


async def _nothing(_: int) -> None:
    pass


async def _one_turn(_: int) -> None:
    await asyncio.sleep(0)


def _nothing_on_a_thread(_: int) -> None:
    pass


@pytest.mark.parametrize("work", [_nothing, _one_turn])
@pytest.mark.parametrize("awaited", ["not at all", "one by one", "together"])
def test_other_tasks_of_the_loop_get_their_turns_among_many_ready_runs(
    runs_only: Any, work: Callable[[int], Any], awaited: str
) -> None:
    runs = 100_000 if work is _nothing else 20_000
    ended: list[int] = []

    async def tick() -> None:
        while True:
            ended.append(sum_of_ended[0])
            await asyncio.sleep(0)

    sum_of_ended = [0]

    async def counted(number: int) -> None:
        await work(number)
        sum_of_ended[0] += 1

    async def main() -> None:
        futures = task(counted).map(range(runs))
        ticking = asyncio.create_task(tick())
        if awaited == "one by one":
            for future in futures:
                await future
        elif awaited == "together":
            await futures
        while sum_of_ended[0] < runs:
            await asyncio.sleep(0)
        ticking.cancel()

    runs_only.run(main)
    gaps = [after - before for before, after in zip(ended, [*ended[1:], runs], strict=True)]
    assert max(gaps) < runs / 4


def test_other_tasks_of_the_loop_get_their_turns_while_threads_report(runs_only: Any) -> None:
    runs = 20_000
    ended: list[int] = []

    async def tick(futures: Any) -> None:
        while True:
            ended.append(futures[0].call.open)
            await asyncio.sleep(0)

    async def main() -> None:
        futures: Any = task(_nothing_on_a_thread).map(range(runs))
        ticking = asyncio.create_task(tick(futures))
        await futures
        ticking.cancel()

    runs_only.run(main)
    gaps = [before - after for before, after in zip(ended, [*ended[1:], 0], strict=True)]
    assert max(gaps) < runs / 2
