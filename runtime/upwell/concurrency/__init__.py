"""Named limits: how many at once, or how many a second.

`set_limit("db", 5)` makes a limit of this process; then `with concurrency("db"):` from `upwell.concurrency.sync`, or
`async with` from `upwell.concurrency.asyncio`. The limit `tag:x` bounds the task runs that have the tag `x`.

`create_limit("db", 5)`, in those two modules, makes one in the store: it holds across all processes that share it. A
limit of the process or of a runtime goes before one of the store that has the same name.
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
    """The limit of this name, if there is one in this process."""
    return PROCESS_LIMITS.own(name)


def remove_limit(name: str) -> None:
    """Forget a limit: nobody waits for it any more."""
    PROCESS_LIMITS.remove(name)


__all__ = ["NamedLimit", "get_limit", "remove_limit", "set_limit"]
