"""Several connections to one store, to read: a slow question holds up nobody but who asked it.

A SQLite file is asked in the loop's own thread first: most answers take less time there than two changes of threads do,
and threads that take turns at the interpreter's lock beside a busy loop cost twice the CPU (measured). What takes more
than a few milliseconds is given up there, and asked on a thread. Of the threads one serves all while its answers are
quick, for its pages are in memory; who has waited for it goes to another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from upwell.journal.database import Database, Row, StoreSlow, StoreUnavailable
from upwell.journal.sql import BulkInsert
from upwell.journal.sqlite import SqliteDatabase

MOST_CONNECTIONS: Final = 4
PATIENCE_SECONDS: Final = 0.025
QUICK_SECONDS: Final = 0.004
"""For so long the loop may be held up by one question."""

SLOW_FOR_SECONDS: Final = 2.0
"""For so long a question that took too long is asked on a thread at once."""

MOST_SLOW: Final = 1000


class ReadPool:
    """A session of whichever connection is free; further ones are opened when they are needed.

    make: makes a database that is read only, and not open yet.
    """

    def __init__(self, make: Callable[[], Database], most: int = MOST_CONNECTIONS) -> None:
        self._make = make
        self._first = asyncio.Semaphore(1)
        self._others = asyncio.Semaphore(most - 1)
        self._free: dict[asyncio.Semaphore, list[Database]] = {self._first: [], self._others: []}
        self._all: list[Database] = []
        self._quick: Database | None = None
        self._slow: dict[str, float] = {}

    async def fetch(self, query: str, /, **parameters: Any) -> list[Row]:
        return await self._answer(query, lambda database: database.fetch(query, **parameters))

    async def fetch_text(self, text: str, /, **parameters: Any) -> list[Row]:
        return await self._answer(text, lambda database: database.fetch_text(text, **parameters))

    async def _answer(self, question: str, ask: Callable[[Database], Awaitable[list[Row]]]) -> list[Row]:
        now = asyncio.get_running_loop().time()
        if self._slow.get(question, 0.0) < now:
            quick = self._quick or await self._open_quick()
            if quick is not None:
                try:
                    return await ask(quick)
                except StoreSlow:
                    self._note_slow(question, now)
                except StoreUnavailable:
                    pass  # it may be locked for a moment: a thread can wait
        async with self._connection() as database:
            return await ask(database)

    async def _open_quick(self) -> Database | None:
        made = self._make()
        if type(made) is not SqliteDatabase:
            return None
        quick = SqliteDatabase(made.path, read_only=True, most_seconds=QUICK_SECONDS)
        await quick.open()
        if self._quick is None:
            self._quick = quick
            self._all.append(quick)
        else:  # somebody was faster
            await quick.close()
        return self._quick

    def _note_slow(self, question: str, now: float) -> None:
        if len(self._slow) >= MOST_SLOW:
            self._slow.clear()
        self._slow[question] = now + SLOW_FOR_SECONDS

    async def insert(self, query: str | BulkInsert, rows: Sequence[Row], /) -> None:
        raise NotImplementedError("it is only read")

    async def close(self) -> None:
        """Let go of all; may be called twice. Who asks again opens them again."""
        closing, self._all = self._all, []
        self._quick = None
        for free in self._free.values():
            free.clear()
        for database in closing:
            await database.close()

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[Database]:
        turns = await self._turn()
        free = self._free[turns]
        try:
            if free:
                database = free.pop()
            else:
                database = self._make()
                await database.open()
                self._all.append(database)
            try:
                yield database
            finally:
                if database in self._all:
                    free.append(database)
        finally:
            turns.release()

    async def _turn(self) -> asyncio.Semaphore:
        """Wait until there is a connection: the first one, or another if that takes long."""
        if not self._first.locked():
            await self._first.acquire()
            return self._first
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._first.acquire()
        except TimeoutError:
            pass
        else:
            return self._first
        await self._others.acquire()
        return self._others
