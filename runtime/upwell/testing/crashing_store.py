"""A database that fails when it is told to: to show what a program does while its store is in trouble.

    database = FaultyDatabase(MemoryDatabase(), fail_at=7)

fails its seventh operation, and works before and after.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any

from upwell.journal.database import Database, Row, Session, StoreUnavailable
from upwell.journal.sql import BulkInsert, Dialect


class Fault(Enum):
    """What goes wrong.

    REFUSED: an operation fails, and nothing was done. TORN: a transaction is undone as it is to be committed.
    UNKNOWN: a transaction is committed, and then the answer is lost.
    """

    REFUSED = "refused"
    TORN = "torn"
    UNKNOWN = "unknown"


def _unavailable() -> Exception:
    return StoreUnavailable("The store was made to fail by a test.")


class FaultyDatabase:
    """A database around another one.

    fail_at: which operation fails, the first being 1; of TORN and UNKNOWN, which transaction.
    times: how many fail from there on. error: makes what they raise.
    """

    def __init__(
        self,
        database: Database,
        *,
        fail_at: int,
        fault: Fault = Fault.REFUSED,
        times: int = 1,
        error: Callable[[], Exception] = _unavailable,
    ) -> None:
        self.operations = 0
        self.transactions = 0
        self.failed = 0
        self._database = database
        self._fail_at = fail_at
        self._fault = fault
        self._times = times
        self._error = error

    def stop_failing(self) -> None:
        """From here on everything works."""
        self._times = 0

    @property
    def dialect(self) -> Dialect:
        return self._database.dialect

    @property
    def place(self) -> str:
        return self._database.place

    async def open(self) -> None:
        self._operate()
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    async def fetch(self, query: str, /, **parameters: Any) -> list[Row]:
        self._operate()
        return await self._database.fetch(query, **parameters)

    async def fetch_text(self, text: str, /, **parameters: Any) -> list[Row]:
        self._operate()
        return await self._database.fetch_text(text, **parameters)

    async def insert(self, query: str | BulkInsert, rows: Sequence[Row], /) -> None:
        self._operate()
        await self._database.insert(query, rows)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Session]:
        self._operate()
        async with self._database.transaction() as session:
            yield _FaultySession(self, session)
            self.transactions += 1
            fails = self._fault is not Fault.REFUSED and self._is_at(self.transactions)
            if fails and self._fault is Fault.TORN:
                self._fail()
        if fails:
            self._fail()

    async def execute_script(self, statements: Sequence[str], session: Session, /) -> None:
        self._operate()
        inner = session.inner if isinstance(session, _FaultySession) else session
        await self._database.execute_script(statements, inner)

    def _operate(self) -> None:
        self.operations += 1
        if self._fault is Fault.REFUSED and self._is_at(self.operations):
            self._fail()

    def _is_at(self, number: int) -> bool:
        return self._fail_at <= number < self._fail_at + self._times

    def _fail(self) -> None:
        self.failed += 1
        raise self._error()


class _FaultySession:
    """A session of such a database."""

    def __init__(self, database: FaultyDatabase, session: Session) -> None:
        self._faulty = database
        self.inner = session

    async def fetch(self, query: str, /, **parameters: Any) -> list[Row]:
        self._faulty._operate()  # pyright: ignore[reportPrivateUsage]  # one class in two parts
        return await self.inner.fetch(query, **parameters)

    async def fetch_text(self, text: str, /, **parameters: Any) -> list[Row]:
        self._faulty._operate()  # pyright: ignore[reportPrivateUsage]
        return await self.inner.fetch_text(text, **parameters)

    async def insert(self, query: str | BulkInsert, rows: Sequence[Row], /) -> None:
        self._faulty._operate()  # pyright: ignore[reportPrivateUsage]
        await self.inner.insert(query, rows)
