"""Named limits in async code, and the limits of the store."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from upwell.concurrency import store_limits
from upwell.engine.slots import give_all_back, take_all
from upwell.engine.steps import live_async

if TYPE_CHECKING:
    from upwell.journal.limit_store import LimitInUse


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


async def create_limit(
    name: str, slots: int, slot_decay_per_second: float | None = None, *, active: bool = True
) -> None:
    """See `upwell.concurrency.sync.create_limit`."""
    store_limits.check_created(
        name, await store_limits.answer(store_limits.create(name, slots, slot_decay_per_second, active))
    )


async def update_limit(
    name: str,
    slots: int | None = None,
    slot_decay_per_second: float | None = None,
    *,
    active: bool | None = None,
) -> None:
    """See `upwell.concurrency.sync.update_limit`."""
    store_limits.check_found(
        name, await store_limits.answer(store_limits.update(name, slots, slot_decay_per_second, active))
    )


async def delete_limit(name: str) -> None:
    """See `upwell.concurrency.sync.delete_limit`."""
    store_limits.check_found(name, await store_limits.answer(store_limits.delete(name)))


async def list_limits() -> list[LimitInUse]:
    """See `upwell.concurrency.sync.list_limits`."""
    return await store_limits.answer(store_limits.in_use())  # type: ignore[no-any-return]  # what the future holds


__all__ = ["concurrency", "create_limit", "delete_limit", "list_limits", "rate_limit", "update_limit"]
