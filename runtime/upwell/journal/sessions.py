"""What the databases share: a session that finds the words of a query, and text that any of them can hold."""

from __future__ import annotations

import re
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final, Protocol

from upwell.journal.database import Row
from upwell.journal.sql import BulkInsert, Dialect, bulk_inserts, queries, query_of

_REPLACEMENT: Final = "\ufffd"
_NOT_STORABLE: Final = {
    Dialect.SQLITE: re.compile("[\ud800-\udfff]"),
    Dialect.POSTGRES: re.compile("[\ud800-\udfff\0]"),
}


class Connection(Protocol):
    """What a session needs of a database."""

    async def run(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """One statement, its errors said in our own words."""
        ...

    async def insert_rows(self, insert: BulkInsert, rows: Sequence[Row]) -> None:
        """Many rows, inside a transaction."""
        ...


class SqlSession:
    """Queries by name or text, on one connection."""

    def __init__(self, connection: Connection, dialect: Dialect) -> None:
        self._connection = connection
        self._dialect = dialect

    async def fetch(self, query: str, /, **parameters: Any) -> list[Row]:
        found = queries(self._dialect)[query]
        return await self._connection.run(found.text, [parameters[name] for name in found.parameters])

    async def fetch_text(self, text: str, /, **parameters: Any) -> list[Row]:
        found = query_of(text, self._dialect)
        return await self._connection.run(found.text, [parameters[name] for name in found.parameters])

    async def insert(self, query: str | BulkInsert, rows: Sequence[Row], /) -> None:
        insert = bulk_inserts(self._dialect)[query] if isinstance(query, str) else query
        await self._connection.insert_rows(insert, rows)


async def finish(work: Coroutine[Any, Any, Any]) -> None:
    """Do this to its end, however often it is cancelled; then raise the cancellation, or else what it raised."""
    import asyncio  # here: a command that reads a file here has no event loop, and loads none

    from upwell.engine.finish import until_done

    task = asyncio.ensure_future(work)
    try:
        await until_done(task)
    finally:
        error = task.exception()
    if error is not None:
        raise error


def storable(values: Iterable[Any], dialect: Dialect) -> list[Any]:
    """The values, with U+FFFD for characters that this database cannot hold."""
    values = list(values)
    text = "".join([value for value in values if type(value) is str])
    if (text.isascii() and "\0" not in text) or not (pattern := _NOT_STORABLE[dialect]).search(text):
        return values
    return [pattern.sub(_REPLACEMENT, value) if isinstance(value, str) else value for value in values]
