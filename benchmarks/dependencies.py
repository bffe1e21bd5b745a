"""Runs that wait for runs, and runs one by one: chains, reduces, single submits, direct calls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from benchmarks.coroutines import bare, noop
from benchmarks.rows import Rival, Row, Side
from upwell import flow, task


async def bare_add_one(number: int) -> int:
    return number + 1


add_one = task(bare_add_one)


@task
async def total(numbers: Sequence[int]) -> int:
    return sum(numbers)


async def upwell_chain(size: int) -> int:
    future = add_one.submit(0)
    for _ in range(size - 1):
        future = add_one.submit(future)
    return await future


async def bare_tasks_in_turn(size: int) -> int:
    number = 0
    for _ in range(size):
        number = await asyncio.create_task(bare_add_one(number))
    return number


async def upwell_map_and_reduce(size: int) -> int:
    return await total.submit(noop.map(range(size)))


async def gather_and_sum(size: int) -> int:
    return sum(await asyncio.gather(*[bare(number) for number in range(size)]))


async def upwell_submit_and_await(size: int) -> None:
    for number in range(size):
        await noop.submit(number)


async def create_and_await(size: int) -> None:
    for number in range(size):
        await asyncio.create_task(bare(number))


@task
def square(number: int) -> int:
    return number * number


@flow
def direct_calls(size: int) -> int:
    return sum(square(number) for number in range(size))


ROWS = [
    Row(
        name="chain",
        measures="A chain of 10,000 submitted runs, each taking the future of the one before.",
        leaves_out="Wide graphs; results that are large.",
        ours=Side("submit of a future", upwell_chain),
        rivals=(Rival("await create_task, in turn", bare_tasks_in_turn, most=1.0),),
        size=10_000,
        quick_size=10_000,
        on_loops=True,
        rounds=15,
    ),
    Row(
        name="reduce",
        measures="A map over 10,000, then one run that takes all 10,000 futures and sums their results.",
        leaves_out="Futures deeper in the arguments than in one list.",
        ours=Side("map and submit", upwell_map_and_reduce),
        rivals=(Rival("gather and sum", gather_and_sum, most=0.6),),
        size=10_000,
        quick_size=10_000,
        on_loops=True,
        rounds=15,
    ),
    Row(
        name="submit-one",
        measures="Submitting one run and awaiting it, 10,000 times in turn on one warm loop.",
        leaves_out="The first run on a loop, which sets the runtime up.",
        ours=Side("await submit", upwell_submit_and_await),
        rivals=(Rival("await create_task", create_and_await, most=1.5),),
        size=10_000,
        quick_size=10_000,
        on_loops=True,
        rounds=15,
    ),
    Row(
        name="direct-call",
        measures="A direct call of a sync task within a sync flow, 10,000 times in turn.",
        leaves_out="Validation of parameters, retries, hooks, prints.",
        ours=Side("call", direct_calls),
        size=10_000,
        quick_size=10_000,
        most=10.0,
    ),
]
