"""Named limits in sync code."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from upwell.engine.slots import give_all_back, take_all
from upwell.engine.steps import live_blocking


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


__all__ = ["concurrency", "rate_limit"]
