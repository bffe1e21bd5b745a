"""Waits of a kind of their own: one that no number of cancellations can cut short, one that is short in any case."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def until_done(work: asyncio.Future[Any]) -> None:
    """Wait until `work` is done, then raise the cancellation that came meanwhile, if one did.

    `await shield(work)` followed by `await work` would lose the work at the second cancellation.
    """
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def within(seconds: float, wait: Coroutine[Any, Any, Any]) -> None:
    """Wait for this, but no longer than so long."""
    try:
        async with asyncio.timeout(seconds):  # `wait_for` would make a Task of it
            await wait
    except TimeoutError:
        pass
