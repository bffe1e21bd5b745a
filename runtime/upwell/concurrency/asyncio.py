"""Named limits in async code."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from upwell.engine.slots import give_all_back, take_all
from upwell.engine.steps import live_async


@asynccontextmanager
async def concurrency(
    names: str | list[str] | tuple[str, ...],
    occupy: int = 1,
    timeout_seconds: float | None = None,
    strict: bool = False,
) -> AsyncGenerator[None, None]:
    """Hold `occupy` slots of each limit while the block runs; see `upwell.concurrency.sync.concurrency`."""
    held = await live_async(take_all(names, occupy, timeout_seconds, strict))
    try:
        yield
    finally:
        give_all_back(held)


async def rate_limit(
    names: str | list[str] | tuple[str, ...],
    occupy: int = 1,
    timeout_seconds: float | None = None,
    strict: bool = False,
) -> None:
    """Wait for slots of each limit, and use them up; see `upwell.concurrency.sync.rate_limit`."""
    await live_async(take_all(names, occupy, timeout_seconds, strict, as_rate=True))


__all__ = ["concurrency", "rate_limit"]
