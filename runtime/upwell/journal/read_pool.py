"""Several connections to one store, to read: a slow question holds up nobody but who asked it.

A SQLite file is asked in the loop's own thread first: most answers take less time there than two changes of threads do,
and threads that take turns at the interpreter's lock beside a busy loop cost twice the CPU (measured). What takes more
than a few milliseconds is given up there, and asked on a thread. Of the threads one serves all while its answers are
quick, for its pages are in memory; who has waited for it goes to another.

The loop waits for a thread much longer than the thread works: the two hand the interpreter's lock over for each row. So
a question that was slow is asked on a thread with the values with which it was, and with others only if they were, too.
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

SLOW_BY_NATURE: Final = 3
"""With so many different values within that time: then with any."""

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
        self._may_be_quick = True
        self._slow = SlowQuestions()

    async def fetch(self, query: str, /, **parameters: Any) -> list[Row]:
        return await self._answer(query, parameters, lambda database: database.fetch(query, **parameters))

    async def fetch_text(self, text: str, /, **parameters: Any) -> list[Row]:
        return await self._answer(text, parameters, lambda database: database.fetch_text(text, **parameters))

    async def _answer(
        self, question: str, values: dict[str, Any], ask: Callable[[Database], Awaitable[list[Row]]]
    ) -> list[Row]:
        now = asyncio.get_running_loop().time()
        if self._may_be_quick and not self._slow.is_known(question, values, now):
            quick = self._quick or await self._open_quick()
            if quick is not None:
                try:
                    return await ask(quick)
                except StoreSlow:
                    self._slow.note(question, values, now)
                except StoreUnavailable:
                    pass  # it may be locked for a moment: a thread can wait
        async with self._connection() as database:
            return await ask(database)

    async def _open_quick(self) -> Database | None:
        made = self._make()
        if type(made) is not SqliteDatabase:
            self._may_be_quick = False
            return None
        quick = SqliteDatabase(made.path, read_only=True, most_seconds=QUICK_SECONDS)
        await quick.open()
        if self._quick is None:
            self._quick = quick
            self._all.append(quick)
        else:  # somebody was faster
            await quick.close()
        return self._quick

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


class SlowQuestions:
    """Which questions have taken too long of late."""

    def __init__(self) -> None:
        self._until: dict[int | str, float] = {}  # of a question with its values, and of one with any
        self._times: dict[str, tuple[float, int]] = {}  # since when a question was slow, and with how many values

    def is_known(self, question: str, values: dict[str, Any], now: float) -> bool:
        """Whether it need not be tried again whether this is quick."""
        if not self._until:
            return False
        return self._until.get(question, 0.0) > now or self._until.get(_digest(question, values), 0.0) > now

    def note(self, question: str, values: dict[str, Any], now: float) -> None:
        """This has taken too long just now."""
        if len(self._until) >= MOST_SLOW:
            self._until.clear()
            self._times.clear()
        self._until[_digest(question, values)] = now + SLOW_FOR_SECONDS
        since, times = self._times.get(question, (now, 0))
        if now - since > SLOW_FOR_SECONDS:
            since, times = now, 0
        self._times[question] = since, times + 1
        if times + 1 >= SLOW_BY_NATURE:
            self._until[question] = now + SLOW_FOR_SECONDS


def _digest(question: str, values: dict[str, Any]) -> int:
    """Short, for values can be long. If two questions have the same one, one is asked on a thread for nothing."""
    return hash((question, *values.values()))
