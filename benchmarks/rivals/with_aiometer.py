"""aiometer: `run_all` of coroutines, bounded by nothing."""

import asyncio
from contextlib import contextmanager
from functools import partial

import aiometer


async def noop(number):
    return number


async def run_all(size):
    return await aiometer.run_all([partial(noop, number) for number in range(size)])


@contextmanager
def opened():
    yield lambda size: asyncio.run(run_all(size))
