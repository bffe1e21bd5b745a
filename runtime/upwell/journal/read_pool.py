"""Several connections to one store, to read: a slow question holds up nobody but who asked it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from upwell.journal.database import Database, Row
from upwell.journal.sql import BulkInsert

MOST_CONNECTIONS: Final = 4


class ReadPool:
    """A session of whichever connection is free; further ones are opened when all are in use.

    make: makes a database that is read only, and not open yet.
    """

    def __init__(self, make: Callable[[], Database], most: int = MOST_CONNECTIONS) -> None:
        self._make = make
        self._turns = asyncio.Semaphore(most)
        self._free: list[Database] = []
        self._all: list[Database] = []

    async def fetch(self, query: str, /, **parameters: Any) -> list[Row]:
        async with self._connection() as database:
            return await database.fetch(query, **parameters)

    async def fetch_text(self, text: str, /, **parameters: Any) -> list[Row]:
        async with self._connection() as database:
            return await database.fetch_text(text, **parameters)

    async def insert(self, query: str | BulkInsert, rows: Sequence[Row], /) -> None:
        raise NotImplementedError("it is only read")

    async def close(self) -> None:
        """Let go of all; may be called twice. Who asks again opens them again."""
        closing, self._all, self._free = self._all, [], []
        for database in closing:
            await database.close()

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[Database]:
        async with self._turns:
            if self._free:
                database = self._free.pop()  # the one used last: its pages are in memory
            else:
                database = self._make()
                await database.open()
                self._all.append(database)
            try:
                yield database
            finally:
                if database in self._all:
                    self._free.append(database)
