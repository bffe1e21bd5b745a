"""Finish what was begun: a wait that no number of cancellations can cut short."""

from __future__ import annotations

import asyncio
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
