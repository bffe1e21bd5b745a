"""Named limits in sync code, and the limits of the store."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from upwell.concurrency import store_limits
from upwell.engine.slots import give_all_back, take_all
from upwell.engine.steps import live_blocking

if TYPE_CHECKING:
    from upwell.journal.limit_store import LimitInUse


@contextmanager
def concurrency(
    names: str | list[str] | tuple[str, ...],
    occupy: int = 1,
    timeout_seconds: float | None = None,
    strict: bool = False,
) -> Generator[None, None, None]:
    """Hold `occupy` slots of each limit while the block runs; who waits first is let in first.

    A limit that does not exist costs nothing, unless `strict`.

    Raises:
        AcquireConcurrencySlotTimeoutError: not had within `timeout_seconds`.
        ConcurrencySlotAcquisitionError: `strict`, and there is no such limit.
        BlockingWaitError: the wait would block an event loop.
    """
    held = live_blocking(take_all(names, occupy, timeout_seconds, strict))
    try:
        yield
    finally:
        give_all_back(held)


def rate_limit(
    names: str | list[str] | tuple[str, ...],
    occupy: int = 1,
    timeout_seconds: float | None = None,
    strict: bool = False,
) -> None:
    """Wait until `occupy` slots of each limit are free, and use them up; they come back with time.

    Raises:
        As `concurrency`; ConfigurationError for a limit without `slot_decay_per_second`.
    """
    live_blocking(take_all(names, occupy, timeout_seconds, strict, as_rate=True))


def create_limit(name: str, slots: int, slot_decay_per_second: float | None = None, *, active: bool = True) -> None:
    """Make a limit in the store: it holds across all processes that share it, from 5 seconds later at the latest.

    Args:
        slot_decay_per_second: slots become free with time, this many a second; `rate_limit` needs that.
        active: False lets everybody through.

    Raises:
        ConfigurationError: there is one of that name; a limit below zero; a decay that is none; nothing is recorded.
        StoreUnavailable: the store cannot be used now.
    """
    store_limits.check_created(name, store_limits.create(name, slots, slot_decay_per_second, active).result())


def update_limit(
    name: str,
    slots: int | None = None,
    slot_decay_per_second: float | None = None,
    *,
    active: bool | None = None,
) -> None:
    """Change a limit of the store while it is in use: what is None stays. A decay of 0 is none.

    Raises:
        As `create_limit`; ConfigurationError if there is none of that name.
    """
    store_limits.check_found(name, store_limits.update(name, slots, slot_decay_per_second, active).result())


def delete_limit(name: str) -> None:
    """Remove a limit from the store, whoever holds slots of it: who waits is let through.

    Raises:
        As `update_limit`.
    """
    store_limits.check_found(name, store_limits.delete(name).result())


def list_limits() -> list[LimitInUse]:
    """All limits of the store, and how many slots are taken now, how many wishes wait."""
    return store_limits.in_use().result()  # type: ignore[no-any-return]  # what the future holds


__all__ = ["concurrency", "create_limit", "delete_limit", "list_limits", "rate_limit", "update_limit"]
