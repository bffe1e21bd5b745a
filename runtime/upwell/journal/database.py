"""The seam to a database: named queries, rows in bulk, transactions. SQLite and PostgreSQL each have a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, overload

from upwell.core.errors import UpwellError
from upwell.journal.sql import BulkInsert, Dialect

Row = tuple[Any, ...]


class Columns(Sequence[Row]):
    """Rows that are held by columns: for many, a fraction of the cost."""

    def __init__(self, columns: Sequence[Sequence[Any]]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    def __iter__(self) -> Iterator[Row]:
        """Raises ValueError where columns are of different lengths: no row is ever left out, and nobody told."""
        return zip(*self.columns, strict=True)

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> Columns: ...

    def __getitem__(self, place: int | slice) -> Row | Columns:
        values = [column[place] for column in self.columns]
        return Columns(values) if isinstance(place, slice) else tuple(values)


class StoreError(UpwellError):
    """Something about the store; see its kinds."""


class StoreUnavailable(StoreError):
    """The database cannot be used just now: it is locked, full, or cannot be reached. Worth another try."""


class StoreRefuses(StoreUnavailable):
    """The server before the store does not take this from us; another key, or version of it, may change that."""


class StoreSlow(StoreUnavailable):
    """A question would have taken longer than whoever asks can wait for; nothing was changed."""


class StoreTooNew(StoreError):
    """The database was written by a newer upwell than this one."""


class StoreDamaged(StoreError):
    """The database cannot be read: the file is damaged, or is no database."""


class Session(Protocol):
    """What can be asked of a database, in a transaction or outside of one.

    Values are int, str, bytes, float and None, and come back as they went in; a truth value comes back as 0 or 1, as do
    sums of integers as int. In text, what the database cannot hold (half a surrogate pair; in PostgreSQL also the
    character 0) is replaced by U+FFFD: no log line can make a flush fail.

    Every method raises StoreUnavailable where another try may succeed. Mistakes in a query, and rows that break a
    constraint, raise what the database's own library raises.
    """

    async def fetch(self, query: str, /, **parameters: Any) -> list[Row]:
        """The rows that a named query answers; empty for one that only changes something."""
        ...

    async def fetch_text(self, text: str, /, **parameters: Any) -> list[Row]:
        """The same for a query that was put together, in the words that `sql.py` knows."""
        ...

    async def insert(self, query: str | BulkInsert, rows: Sequence[Row], /) -> None:
        """Insert these rows, in their order, by a named bulk query or one that was put together.

        Where it updates what is there already, no two of the rows may be for the same key.
        """
        ...


class Database(Session, Protocol):
    """One database, opened once and closed once, used on one event loop."""

    @property
    def dialect(self) -> Dialect:
        """Whose SQL it speaks."""
        ...

    @property
    def place(self) -> str:
        """Where it is, for messages; without a password."""
        ...

    async def open(self) -> None:
        """Connect. The schema is seen to by `migrations.migrate`.

        Raises:
            StoreUnavailable: it cannot be reached, or not be made.
            StoreDamaged: what is there is no database.
        """
        ...

    async def close(self) -> None:
        """Let go of it, once an open transaction has ended; may be called twice. It may be opened again."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[Session]:
        """All or nothing: committed at the end, rolled back if the code inside raises or is cancelled.

        A cancellation that comes while it is committed is raised when that is done.
        One that writes has the database to itself from its beginning where there is one writer at a time (SQLite);
        elsewhere its statements lock what they touch.
        """
        ...

    async def execute_script(self, statements: Sequence[str], session: Session, /) -> None:
        """Statements of a migration, inside a transaction of this database."""
        ...
