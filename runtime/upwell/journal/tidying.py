"""When a store is tidied by those who write to it: now and then, and, where nobody has for long, as a process ends.

Programs that end before it is their turn would let the store grow without end: one after the other does a little.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from upwell.engine.clock import clock
from upwell.engine.finish import within
from upwell.engine.loggers import ENGINE
from upwell.journal.database import Database, Session, StoreError
from upwell.journal.store import Store

FIRST_SECONDS: Final = 10.0
EVERY_SECONDS: Final = 3600.0

END_SECONDS: Final = 0.5
"""How long the end of a process is put off for it at most."""

_EVERY: Final = int(EVERY_SECONDS * 1e6)

_DONE: Final = "tidied"
"""A chore that is nobody's until it is due again."""


class Tidy(Protocol):
    """Does what is to be done for a store's upkeep. at_end: only if that is due."""

    async def __call__(self, store: Store, /, *, at_end: bool) -> object: ...


async def tidy_now_and_then(tidy: Tidy, open_store: Callable[[], Store | None]) -> None:
    """Again and again. open_store: the store, while it can be used."""
    await asyncio.sleep(FIRST_SECONDS)
    while True:
        try:
            store = open_store()
            if store is not None:
                await tidy(store, at_end=False)
        except StoreError:
            pass  # there is a next time; if it is more than that, writing says so
        except Exception as error:
            ENGINE.warning("The store's upkeep has failed, and is tried again later", exc_info=error)
        await asyncio.sleep(EVERY_SECONDS)


async def tidy_at_end(tidy: Tidy, store: Store) -> None:
    """Once more, if it is due; never raises."""
    try:
        await within(END_SECONDS, tidy(store, at_end=True))
    except Exception as error:
        ENGINE.debug("The store was not tidied at the end", exc_info=error)


async def is_due(database: Database, process_id: str) -> bool:
    """Whether nobody has done it for long. In a new store there is nothing to be done yet."""
    found = await database.fetch("chore_until", name=_DONE)
    if not found:
        async with database.transaction() as session:
            await was_done(session, process_id)
        return False
    return not 0 <= found[0][0] - _now() <= _EVERY  # far from now it is if a clock was set


async def was_done(session: Session, process_id: str) -> None:
    """It need not be done again before it is due."""
    await session.fetch("put_chore", name=_DONE, process_id=process_id, until=_now() + _EVERY)


def _now() -> int:
    """In whole microseconds, as in the store: a sum of floats may end up past what it is compared with."""
    return int(clock().time() * 1e6)
