"""Upwell: a map of a coroutine, on a warm runtime."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from upwell import Runtime, task


@task
async def noop(number: int) -> int:
    return number


@contextmanager
def opened() -> Generator[Callable[[int], list[Any]]]:
    with asyncio.Runner() as runner:
        runtime = Runtime()

        async def enter() -> None:
            await runtime.__aenter__()

        async def run(size: int) -> list[Any]:
            return await runtime.map(noop, range(size))

        runner.run(enter())
        yield lambda size: runner.run(run(size))
        runner.run(runtime.aclose())
