"""Sees which processes have died before somebody is shown what they run: nobody else may have looked since."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final

from upwell.composition import is_remote, make_database
from upwell.journal.database import Database, StoreError
from upwell.journal.liveness import LOOKS_PER_LEASE, Observer, watch_over
from upwell.journal.migrations import migrate
from upwell.journal.sqlite import SqliteDatabase
from upwell.settings import Settings, current

LOOK_SECONDS: Final = 1.0
"""Between two looks while somebody watches."""


@asynccontextmanager
async def seen_who_died(watching: bool) -> AsyncGenerator[None]:
    """Who has died is declared so. watching: and whoever dies while this goes on.

    Nothing is done where there is no store yet, or where it cannot be used: who asks it then will say so. A server
    sees to its own.
    """
    settings = current()
    database = _database(settings)
    if database is None:
        yield
        return
    observer = Observer(database, None, settings.durable_max_crashes)
    watch: asyncio.Task[None] | None = None
    try:
        with suppress(StoreError):
            await database.open()
            await migrate(database)
            await observer.look()
        if watching:
            watch = asyncio.create_task(watch_over(observer.look, LOOKS_PER_LEASE * LOOK_SECONDS))
        yield
    finally:
        if watch is not None:
            watch.cancel()
            await asyncio.wait([watch])
        await database.close()


def _database(settings: Settings) -> Database | None:
    if is_remote(settings) or settings.journal == "memory":
        return None
    database = make_database(settings, on_a_thread=True)
    return None if isinstance(database, SqliteDatabase) and not database.path.exists() else database
