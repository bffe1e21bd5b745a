"""Limits of the store, which hold across all processes that share it: made, changed, removed and listed.

Each function answers with a `concurrent.futures` future; `upwell.concurrency.sync` and `.asyncio` wait for it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from upwell.composition import open_shared_limits
from upwell.core.errors import ConfigurationError
from upwell.engine.clock import ERRANDS

if TYPE_CHECKING:
    from upwell.journal.shared_limits import SharedLimits


def create(name: str, slots: int, slot_decay_per_second: float | None, active: bool) -> Any:
    from upwell.journal.limit_store import checked_limit  # here, as below: few programs make limits

    return _of_the_store().create(checked_limit(name, slots, slot_decay_per_second, active))


def update(name: str, slots: int | None, slot_decay_per_second: float | None, active: bool | None) -> Any:
    from upwell.journal.limit_store import LimitChange

    return _of_the_store().update(LimitChange(name, slots, slot_decay_per_second, active))


def delete(name: str) -> Any:
    return _of_the_store().delete(name)


def in_use() -> Any:
    return _of_the_store().in_use()


async def answer(asked: Any) -> Any:
    """Wait for one of these on the running loop."""
    ERRANDS.add(asked)
    try:
        return await asyncio.wrap_future(asked)
    finally:
        ERRANDS.discard(asked)


def check_created(name: str, created: bool) -> None:
    """Raises ConfigurationError if there was such a limit already."""
    if not created:
        raise ConfigurationError(f"The store has a limit {name!r} already; update_limit({name!r}, ...) changes it.")


def check_found(name: str, found: bool) -> None:
    """Raises ConfigurationError if there is no such limit."""
    if not found:
        raise ConfigurationError(f"The store has no limit {name!r}; create_limit({name!r}, ...) makes it.")


def _of_the_store() -> SharedLimits:
    limits = open_shared_limits()
    if limits is None:
        raise ConfigurationError(
            "Limits that hold across processes need a store, and UPWELL_JOURNAL=off goes without one; "
            "set_limit(...) makes a limit of this process alone."
        )
    return limits
