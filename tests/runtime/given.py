"""Tasks that many tests run, and the loop they run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from upwell import Task, task

Run = Callable[[Coroutine[Any, Any, Any]], Any]
"""What the fixture `run` gives."""


@task
def square(x: int) -> int:
    """The square."""
    return x * x


@task
async def square_later(x: int) -> int:
    await asyncio.sleep(0)
    return x * x


@task
def double(x: int) -> int:
    return 2 * x


@task
async def double_later(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


@task
def fail(message: str = "boom") -> int:
    raise ValueError(message)


@task
async def fail_later(message: str = "boom") -> int:
    await asyncio.sleep(0)
    raise ValueError(message)


@task
async def after(seconds: float, value: Any = None) -> Any:
    """Its value, or how long it took."""
    await asyncio.sleep(seconds)
    return seconds if value is None else value


class Crowd:
    """Counts who is inside at once, and when each came in."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self.came: list[tuple[Any, float]] = []

    async def stay(self, name: Any = None, seconds: float = 1.0) -> None:
        self.came.append((name, round(asyncio.get_running_loop().time(), 3)))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.now -= 1

    @property
    def for_seconds(self) -> Task[[float], Coroutine[Any, Any, None]]:
        """A task that stays inside for so long."""

        @task
        async def stay(seconds: float) -> None:
            await self.stay(seconds=seconds)

        return stay

    @property
    def for_a_second(self) -> Task[[Any], Coroutine[Any, Any, None]]:
        """A task that stays inside for a second, and is known by what it is given."""

        @task
        async def stay(name: Any) -> None:
            await self.stay(name)

        return stay
