"""What a reader asks its questions of: a database that others write to, the journal's own memory, or nothing yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from upwell.journal.database import Database, Row, StoreError
from upwell.journal.migrations import migrate, version_of
from upwell.journal.sql import BulkInsert, newest_schema
from upwell.journal.sqlite import SqliteDatabase

if TYPE_CHECKING:
    from upwell.journal.journal import Journal
    from upwell.journal.store import Store


class MakeDatabase(Protocol):
    """Makes the database that is to be read."""

    def __call__(self, *, read_only: bool) -> Database: ...


async def open_to_read(make_database: MakeDatabase) -> Database | None:
    """The database, opened; None if nothing was recorded there yet, and then nothing is made.

    A store of an older version is migrated.

    Raises:
        StoreTooNew: it is of a newer one.
    """
    database = make_database(read_only=True)
    if isinstance(database, SqliteDatabase) and not database.path.exists():
        return None
    await database.open()
    try:
        version = await version_of(database, database)
        if version == 0:
            await database.close()
            return None
        if version < newest_schema():
            await _bring_up_to_date(make_database(read_only=False))
        await migrate(database)  # nothing is left to be done, or the store is too new
    except BaseException:
        await database.close()
        raise
    return database


async def see_who_died(make_database: MakeDatabase, most_crashes: int) -> None:
    """Declare so whoever has died, before their runs are shown; where nothing can be written these stay as they are."""
    from upwell.journal.liveness import Observer  # here: who reads a file needs no event loop

    database = make_database(read_only=False)
    try:
        with suppress(StoreError):
            await database.open()
            await Observer(database, None, most_crashes).look()
    finally:
        await database.close()


async def _bring_up_to_date(database: Database) -> None:
    await database.open()
    try:
        await migrate(database)
    finally:
        await database.close()


class InMemory:
    """A store in memory, asked on its journal's thread, with all that was recorded before in it."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def fetch(self, query: str, /, **parameters: Any) -> list[Row]:
        return await self._ask(lambda database: database.fetch(query, **parameters))

    async def fetch_text(self, text: str, /, **parameters: Any) -> list[Row]:
        return await self._ask(lambda database: database.fetch_text(text, **parameters))

    async def insert(self, query: str | BulkInsert, rows: Sequence[Row], /) -> None:
        raise NotImplementedError("it is only read")

    async def _ask(self, question: Callable[[Database], Any]) -> list[Row]:
        import asyncio  # here: who reads a file needs no event loop, and no journal

        from upwell.journal.store import SqlStore

        def of_store(store: Store) -> Any:
            assert isinstance(store, SqlStore)
            return question(store.database)

        answer: list[Row] = await asyncio.wrap_future(self._journal.ask(of_store))
        return answer


class Nothing:
    """A store in which nothing was ever recorded."""

    async def fetch(self, query: str, /, **parameters: Any) -> list[Row]:
        return []

    async def fetch_text(self, text: str, /, **parameters: Any) -> list[Row]:
        return []

    async def insert(self, query: str | BulkInsert, rows: Sequence[Row], /) -> None:
        raise NotImplementedError("it is only read")


__all__ = ["InMemory", "MakeDatabase", "Nothing", "open_to_read", "see_who_died"]
