"""Named limits of this process: how many at once, or how many a second.

`set_limit("db", 5)`; then `with concurrency("db"):` from `upwell.concurrency.sync`, or `async with` from
`upwell.concurrency.asyncio`. The limit `tag:x` bounds the task runs that have the tag `x`.
"""

from __future__ import annotations

from upwell.engine.limits import PROCESS_LIMITS, NamedLimit


def set_limit(name: str, limit: int, slot_decay_per_second: float = 0.0, active: bool = True) -> NamedLimit:
    """Create or change a limit, for every runtime of this process.

    slot_decay_per_second: above zero, slots become free with time, this many a second, and not by being given
    back; `rate_limit` needs that. active: False lets everybody through.

    Raises:
        ConfigurationError: a limit below zero, or a decay that is none.
    """
    return PROCESS_LIMITS.set(name, limit, slot_decay_per_second, active)


def get_limit(name: str) -> NamedLimit | None:
    """The limit of this name, if there is one."""
    return PROCESS_LIMITS.get(name)


def remove_limit(name: str) -> None:
    """Forget a limit: nobody waits for it any more."""
    PROCESS_LIMITS.remove(name)


__all__ = ["NamedLimit", "get_limit", "remove_limit", "set_limit"]
