"""A PostgreSQL database as the store: one connection, made anew when it was lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from upwell.core.errors import ConfigurationError, MissingExtraError
from upwell.journal.database import Columns, Row, Session, StoreDamaged, StoreError, StoreUnavailable
from upwell.journal.sessions import SqlSession, finish, storable
from upwell.journal.sql import BulkInsert, Dialect, differs_by_row

if TYPE_CHECKING:
    import asyncpg

CONNECT_SECONDS: Final = 10.0
STATEMENT_SECONDS: Final = 60.0
"""What a statement may take, waits for the locks of others included. The connection is given up with it."""
CLOSE_SECONDS: Final = 5.0

MOST_ROWS: Final = 10_000
"""Of one INSERT."""

_PASSING: Final = (
    "08",  # the connection
    "25006",  # read-only: a stand-by, or not yet the primary
    "25P03",  # a transaction that idled for too long
    "40",  # deadlocks, and transactions that cannot be put in any order
    "53",  # too many connections, no memory, no disk
    "55P03",  # a lock is not available
    "57",  # cancelled, shut down, starting up
    "58",  # input and output
)
"""What the codes of those errors begin with for which another try may succeed."""

_DAMAGED: Final = ("XX001", "XX002")


class PostgresDatabase:
    """A PostgreSQL database, by its URL: `postgresql://user:password@host:port/database`.

    A transaction that is cut off while it is committed raises StoreUnavailable, and may have been committed.
    """

    def __init__(self, url: str) -> None:
        self.dialect = Dialect.POSTGRES
        self.place = _without_secrets(url)
        self._url = url.replace("+asyncpg://", "://", 1)
        self._is_open = False
        self._connection: _Connection | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        async with self._turn:
            self._is_open = True
            try:
                await self._connected()
            except BaseException:
                self._is_open = False
                raise

    async def close(self) -> None:
        async with self._turn:
            self._is_open = False
            connection, self._connection = self._connection, None
            if connection is not None:
                await finish(connection.close())

    async def fetch(self, query: str, /, **parameters: Any) -> list[Row]:
        async with self._turn:
            return await self._session(await self._connected()).fetch(query, **parameters)

    async def fetch_text(self, text: str, /, **parameters: Any) -> list[Row]:
        async with self._turn:
            return await self._session(await self._connected()).fetch_text(text, **parameters)

    async def insert(self, query: str | BulkInsert, rows: Sequence[Row], /) -> None:
        async with self.transaction() as session:
            await session.insert(query, rows)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Session]:
        async with self._turn:
            connection = await self._connected()
            try:
                await connection.run("BEGIN ISOLATION LEVEL READ COMMITTED")
                yield self._session(connection)
            except BaseException:
                await finish(connection.roll_back())
                raise
            await finish(connection.run("COMMIT"))

    async def execute_script(self, statements: Sequence[str], _: Session, /) -> None:
        for statement in statements:
            await self._lent().run(statement)

    def _lent(self) -> _Connection:
        """The connection on which a transaction is open."""
        if self._connection is None:
            raise StoreUnavailable(f"The store {self.place} is closed.")
        return self._connection

    def _session(self, connection: _Connection) -> SqlSession:
        return SqlSession(connection, Dialect.POSTGRES)

    async def _connected(self) -> _Connection:
        """The connection; a new one if it was lost. A transaction keeps to the one that it began on."""
        if not self._is_open:
            raise StoreUnavailable(f"The store {self.place} is closed.")
        if self._connection is None or self._connection.is_lost():
            self._connection = None
            self._connection = await _connect(self._url, self.place)
        return self._connection


class _Connection:
    """One connection to the server."""

    def __init__(self, connection: asyncpg.Connection[Any], place: str) -> None:
        self._connection = connection
        self._place = place

    def is_lost(self) -> bool:
        return self._connection.is_closed()

    async def run(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        return await self._run(sql, storable(values, Dialect.POSTGRES))

    async def insert_rows(self, insert: BulkInsert, rows: Sequence[Row]) -> None:
        text = insert_from_arrays(insert)
        for start in range(0, len(rows), MOST_ROWS):
            part = rows[start : start + MOST_ROWS]
            columns = part.columns if isinstance(part, Columns) else zip(*part, strict=True)
            await self._run(text, [storable(column, Dialect.POSTGRES) for column in columns])

    async def _run(self, sql: str, values: Sequence[Any]) -> list[Row]:
        try:
            rows = await self._connection.fetch(sql, *values)
        except Exception as error:
            if isinstance(error, TimeoutError) or _is_confused(error):
                self._connection.terminate()
            translated = _translated(error, self._place, lost=self.is_lost())
            if translated is None:
                raise
            raise translated from error
        return [tuple(row) for row in rows]

    async def roll_back(self) -> None:
        """End the transaction, if need be by ending the connection."""
        try:
            await self._connection.execute("ROLLBACK", timeout=CLOSE_SECONDS)
        except Exception:
            self._connection.terminate()

    async def close(self) -> None:
        try:
            await self._connection.close(timeout=CLOSE_SECONDS)
        except Exception:  # it has gone before
            self._connection.terminate()


async def _connect(url: str, place: str) -> _Connection:
    try:
        import asyncpg  # here: so that no program pays for it that does not use it
    except ImportError as error:
        raise MissingExtraError(
            f"The store {place} needs asyncpg, which is not installed: pip install 'upwell[postgres]'."
        ) from error

    try:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(
            url,
            timeout=CONNECT_SECONDS,
            command_timeout=STATEMENT_SECONDS,
            server_settings={"application_name": "upwell"},
        )
    except (asyncpg.PostgresError, OSError) as error:
        raise _unavailable(error, place) from error
    except (asyncpg.InterfaceError, ValueError) as error:
        raise ConfigurationError(
            f"The store {place} cannot be connected to: {error}. "
            "Its URL should be like postgresql://user:password@host:5432/database."
        ) from error
    try:
        await _values_as_in_sqlite(connection)
    except BaseException:
        connection.terminate()
        raise
    return _Connection(connection, place)


async def _values_as_in_sqlite(connection: asyncpg.Connection[Any]) -> None:
    """Truth values are 0 and 1; sums of integers, which are NUMERIC here, are int."""
    await connection.set_type_codec(
        "bool", schema="pg_catalog", encoder=lambda value: "t" if value else "f", decoder=lambda text: int(text == "t")
    )
    await connection.set_type_codec(
        "numeric",
        schema="pg_catalog",
        encoder=str,
        decoder=lambda text: float(text) if "." in text or text.isalpha() else int(text),
    )


def _translated(error: Exception, place: str, *, lost: bool) -> StoreError | None:
    """The error in our own words; None for a mistake of ours, such as a query that is wrong."""
    code: str = getattr(error, "sqlstate", None) or ""
    if code.startswith(_DAMAGED):
        return StoreDamaged(f"The store {place} is damaged, as its server says: {error}. Bring it back from a copy.")
    if lost or code.startswith(_PASSING) or isinstance(error, OSError) or _is_outdated_plan(error):
        return _unavailable(error, place)
    return None


def _is_outdated_plan(error: Exception) -> bool:
    """Another process has changed the schema."""
    import asyncpg

    return isinstance(error, asyncpg.InvalidCachedStatementError | asyncpg.OutdatedSchemaCacheError)


def _is_confused(error: Exception) -> bool:
    """asyncpg has lost track of what the server says, as when that ends the connection while it is asked something."""
    import asyncpg

    return isinstance(error, asyncpg.InternalClientError) and not isinstance(error, asyncpg.OutdatedSchemaCacheError)


def _unavailable(error: Exception, place: str) -> StoreUnavailable:
    if isinstance(error, TimeoutError):
        reason = "it did not answer in time"
    elif _is_confused(error):
        reason = f"the connection was lost ({error})"
    else:
        reason = str(error).rstrip(".") or repr(error)
    return StoreUnavailable(f"The store {place} cannot be used: {reason}.")


@cache
def insert_from_arrays(insert: BulkInsert) -> str:
    """One statement for any number of rows, each column an array."""
    names = iter(f"v{number}" for number in range(insert.width))
    row = ", ".join(f"r.{next(names)}" if differs_by_row(value) else value for value in insert.row)
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(insert.types, 1))
    columns = ", ".join(f"v{number}" for number in range(insert.width))
    return f"{insert.before} SELECT {row} FROM unnest({arrays}) AS r({columns}) {insert.after}"


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    host = "".join(query.get("host", ())) or parts.netloc.rpartition("@")[2]
    user = "".join(query.get("user", ())) or (parts.username or "")
    return f"postgresql://{user}{'@' if user else ''}{host}/{parts.path.strip('/')}"
