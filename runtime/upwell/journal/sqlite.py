"""A SQLite file as the store: one connection of its own, in WAL mode, safe with many processes at once."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import time
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Final, Protocol

from upwell.journal.database import Columns, Row, Session, StoreDamaged, StoreError, StoreSlow, StoreUnavailable
from upwell.journal.forks import no_fork_while_held
from upwell.journal.sessions import SqlSession, finish, storable
from upwell.journal.sql import BulkInsert, Dialect, differs_by_row

BUSY_SECONDS: Final = 60.0
"""How long a statement waits for other processes; a writer's turn is milliseconds."""

SHORT_BUSY_SECONDS: Final = 0.02
"""The same where waiting would block the event loop: then the loop gets its turn, and it is tried again."""

PAUSE_SECONDS: Final = 0.01
"""Between two tries of what SQLite does not wait for."""

MOST_ROWS: Final = 2048
MOST_VALUES: Final = 30_000
"""Of one INSERT. SQLite allows 32,766 values, and no other thread has its turn while they are handed over. After each
statement this thread must wait for its turn; but to prepare one takes twice as long as to insert its rows."""

KEPT_STATEMENTS: Final = 256
"""How many texts of such INSERTs are remembered."""

PAGE_BYTES: Final = 8192
"""Twice SQLite's default: a quarter faster for rows that are put one after the other."""

CACHE_KIB: Final = 16 * 1024
STEPS_BETWEEN_LOOKS: Final = 2000
"""Of SQLite's machine, a fraction of a millisecond: so often is seen whether a statement takes too long."""

WAITED_TIMES: Final = 5
"""So many times as long as a statement may have a processor it may take in all."""

WAL_BYTES: Final = 64 * 1024 * 1024
"""The write-ahead log is cut back to this after a checkpoint."""

_PASSING: Final = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}
"""Errors after which another try may succeed."""

_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class _RawConnection(Protocol):
    """What is needed of a connection; aiosqlite's is one."""

    def execute_fetchall(self, sql: str, parameters: Iterable[Any] | None = None) -> Awaitable[Iterable[Any]]: ...

    async def close(self) -> None: ...


class SqliteDatabase:
    """A SQLite file, on a thread of its own unless it is used in the caller's.

    synchronous: "NORMAL" (survives the process; the last flush may go with the power) or "FULL" (survives both).
    in_this_thread: statements block the caller's event loop, and cost no change of threads: for a loop that has nothing
        else to do, such as the journal's. Others' locks are waited for without blocking it.
        One that is only read so needs no loop at all: nothing of it is ever suspended.
    most_seconds: a statement that has a processor for longer, and so blocks the loop, is given up: it raises StoreSlow.
    """

    def __init__(
        self,
        path: Path,
        synchronous: str = "NORMAL",
        *,
        read_only: bool = False,
        in_this_thread: bool = False,
        most_seconds: float | None = None,
    ) -> None:
        self.dialect = Dialect.SQLITE
        self.path = path
        self.place = str(path)
        self._synchronous = synchronous
        self._read_only = read_only
        self._in_this_thread = in_this_thread or most_seconds is not None
        self._most_seconds = most_seconds
        self._raw: _RawConnection | None = None
        self._file: tuple[int, int] | None = None
        self._needs_no_loop = read_only and in_this_thread
        self._turn: AbstractAsyncContextManager[None] = nullcontext() if self._needs_no_loop else self._make_turn()
        self._session = SqlSession(self, Dialect.SQLITE)

    async def open(self) -> None:
        """Connect; the file and its folder are made if they are missing, for their owner only."""
        async with self._turn:
            if self._raw is None:
                try:
                    await self._finish(self._connect())
                except BaseException:
                    await self._finish(self._disconnect())
                    raise

    def _make_turn(self) -> AbstractAsyncContextManager[None]:
        return _TurnWithoutForks() if self._in_this_thread else _make_lock()

    async def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        await (work if self._needs_no_loop else finish(work))

    async def _connect(self) -> None:
        if not self._read_only:
            _make_private_file(self.path)
        uri = connection_uri(self.path, "ro" if self._read_only else "rw")
        if self._in_this_thread:
            timeout = BUSY_SECONDS if self._needs_no_loop else SHORT_BUSY_SECONDS
            with _translated(self.place):
                connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout)
            self._raw = _Direct(connection) if self._most_seconds is None else _Bounded(connection, self._most_seconds)
        else:
            await self._connect_on_a_thread(uri)
        for pragma in self._pragmas():
            await self._set(pragma)
        self._file = file_at(self.path)

    async def _connect_on_a_thread(self, uri: str) -> None:
        import asyncio  # here, as below: so that no program pays for it that does not need it

        import aiosqlite

        connecting = aiosqlite.connect(uri, uri=True, isolation_level=None, timeout=BUSY_SECONDS)
        thread = connecting._thread  # pyright: ignore[reportPrivateUsage]  # there is no other way to it
        thread.daemon = True  # a program that forgets to close ends all the same
        with _translated(self.place):
            try:
                self._raw = await connecting
            except sqlite3.Error:
                while thread.is_alive():  # noqa: ASYNC110  # it ends at once, and tells the loop: that must be there still
                    await asyncio.sleep(0)
                raise

    async def _set(self, pragma: str) -> None:
        """SQLite itself does not wait for its turn to change the journal mode of a new file."""
        until = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                await self.run(f"PRAGMA {pragma}")
            except StoreUnavailable as error:
                if _code(error.__cause__) != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
            else:
                return
            await _pause(PAUSE_SECONDS)

    def _pragmas(self) -> list[str]:
        if self._read_only:
            return [f"cache_size = -{CACHE_KIB}"]
        return [
            f"page_size = {PAGE_BYTES}",  # this and the next before anything is in the file
            "auto_vacuum = INCREMENTAL",  # so that retention can give pages back
            "journal_mode = WAL",
            f"synchronous = {self._synchronous}",
            f"cache_size = -{CACHE_KIB}",
            f"journal_size_limit = {WAL_BYTES}",
            f"wal_autocheckpoint = {WAL_BYTES // 2 // PAGE_BYTES}",  # each costs a wait for the disk
            "temp_store = MEMORY",
        ]

    async def close(self) -> None:
        async with self._turn:
            await self._finish(self._disconnect())

    async def _disconnect(self) -> None:
        raw, self._raw = self._raw, None
        if raw is not None:
            with _translated(self.place):
                await raw.close()

    # --- asking and changing ------------------------------------------------------------------------------

    async def fetch(self, query: str, /, **parameters: Any) -> list[Row]:
        async with self._turn:
            return await self._session.fetch(query, **parameters)

    async def fetch_text(self, text: str, /, **parameters: Any) -> list[Row]:
        async with self._turn:
            return await self._session.fetch_text(text, **parameters)

    async def insert(self, query: str | BulkInsert, rows: Sequence[Row], /) -> None:
        async with self.transaction() as session:
            await session.insert(query, rows)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Session]:
        async with self._turn:
            self._check_still_there()
            try:
                await self._begin()
                yield self._session
                await self.run("COMMIT")
            except BaseException:
                await finish(self._roll_back())
                raise

    async def _begin(self) -> None:
        """Get the file for ourselves. Once it is ours, no statement has to wait for others."""
        until = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                await self.run("BEGIN IMMEDIATE")
            except StoreUnavailable as error:
                if _code(error.__cause__) != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
            else:
                return
            await _pause(PAUSE_SECONDS * random.random())

    def _check_still_there(self) -> None:
        """SQLite goes on writing to a file that was deleted, and nobody would ever read that."""
        if self._raw is not None and self._file is not None and self._file != file_at(self.path):
            _ABANDONED.append(self._raw)  # closed, it would delete the log of the file that stands there now
            self._raw = None
            raise StoreUnavailable(f"The store {self.place} was deleted or replaced while it was open.")

    async def _roll_back(self) -> None:
        try:
            await self.run("ROLLBACK")
        except (sqlite3.OperationalError, StoreError):
            pass  # there is none: it never began, is committed, or SQLite has rolled back, as when the disk is full

    async def execute_script(self, statements: Sequence[str], _: Session, /) -> None:
        for statement in statements:
            await self.run(statement)

    # --- one statement --------------------------------------------------------------------------------------

    async def run(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """For the session. One that is cancelled is carried out all the same, before the next one is."""
        if self._raw is None:
            raise StoreUnavailable(f"The store {self.place} is closed.")
        with _translated(self.place):
            try:
                return list(await self._raw.execute_fetchall(sql, values))
            except UnicodeEncodeError:
                return list(await self._raw.execute_fetchall(sql, storable(values, Dialect.SQLITE)))

    async def insert_rows(self, insert: BulkInsert, rows: Sequence[Row]) -> None:
        """For the session: in statements of few sizes, which SQLite then has prepared already."""
        start = 0
        for size in _sizes(len(rows), insert.width):
            await self.run(insert_of_size(insert, size), _values(rows[start : start + size]))
            start += size


class MemoryDatabase(SqliteDatabase):
    """The same in memory: for `UPWELL_JOURNAL=memory`, tests and simulations.

    It answers at once, in the caller's thread: a simulation that chooses the order of events chooses all of them.

    beside: another one, whose store this is to be, too. The store is there until nobody holds any of them.
    """

    def __init__(self, *, beside: MemoryDatabase | None = None) -> None:
        super().__init__(Path(":memory:"))
        self.place = "memory"
        self._memory: _Memory = _Memory() if beside is None else beside._memory
        self._turn = self._memory.turn

    async def _connect(self) -> None:
        self._raw = self._memory


class _TurnWithoutForks:
    """One at a time on a loop, and no fork of this process meanwhile."""

    def __init__(self) -> None:
        self._turn = _make_lock()
        self._at_work = no_fork_while_held()

    async def __aenter__(self) -> None:
        await self._turn.__aenter__()
        self._at_work.acquire()  # a fork, by another thread, takes no longer than a disk does

    async def __aexit__(self, *_: object) -> None:
        self._at_work.release()
        await self._turn.__aexit__(None, None, None)


class _Direct:
    """A connection that is used in the caller's thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def execute_fetchall(self, sql: str, parameters: Iterable[Any] | None = None) -> Iterable[Any]:
        return self._connection.execute(sql, tuple(parameters or ())).fetchall()

    async def close(self) -> None:
        self._connection.close()


class _Bounded(_Direct):
    """The same for whoever cannot wait: a statement that takes too long is interrupted.

    What counts is what it has of a processor: where that is given to others meanwhile, a thread would wait, too. But a
    disk is not waited for here either.
    """

    def __init__(self, connection: sqlite3.Connection, most_seconds: float) -> None:
        super().__init__(connection)
        self._most_seconds = most_seconds
        self._until = self._latest = 0.0
        connection.set_progress_handler(self._is_too_late, STEPS_BETWEEN_LOOKS)

    def _is_too_late(self) -> bool:
        return time.thread_time() > self._until or time.monotonic() > self._latest

    async def execute_fetchall(self, sql: str, parameters: Iterable[Any] | None = None) -> Iterable[Any]:
        self._until = time.thread_time() + self._most_seconds
        self._latest = time.monotonic() + WAITED_TIMES * self._most_seconds
        try:
            return self._connection.execute(sql, tuple(parameters or ())).fetchall()
        except sqlite3.OperationalError as error:
            if _code(error) == sqlite3.SQLITE_INTERRUPT:
                raise StoreSlow("This would take too long.") from error
            raise


class _Memory(_Direct):
    """One to a store in memory, used by one at a time."""

    def __init__(self) -> None:
        super().__init__(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))
        self.turn = _make_lock()

    async def close(self) -> None:
        """What is in memory stays."""

    def __del__(self) -> None:
        self._connection.close()


async def _pause(seconds: float) -> None:
    from asyncio import sleep  # here, as above

    await sleep(seconds)


def _make_lock() -> AbstractAsyncContextManager[None]:
    from asyncio import Lock  # here, as above

    return Lock()


def _sizes(rows: int, width: int) -> Iterator[int]:
    """How many rows each of the statements takes that insert so many: few different numbers."""
    size = min(MOST_ROWS, MOST_VALUES // max(width, 1))
    while rows:
        while size > rows:
            size //= 2
        yield size
        rows -= size


def _values(rows: Sequence[Row]) -> Sequence[Any]:
    """The values of these rows, one row after the other."""
    if not isinstance(rows, Columns):
        return tuple(chain.from_iterable(rows))
    width = len(rows.columns)
    values = [None] * (len(rows) * width)
    for place, column in enumerate(rows.columns):
        if type(column[0]) is bytes:
            # For bytes `sqlite3` looks for an adapter, in vain, and that takes ten times as long as to copy a few
            # (CPython, `need_adapt` in Modules/_sqlite/cursor.c); for a bytearray it does not.
            column = [bytearray(value) if type(value) is bytes else value for value in column]
        values[place::width] = column
    return values


@lru_cache(KEPT_STATEMENTS)
def insert_of_size(insert: BulkInsert, size: int) -> str:
    """One statement for so many rows."""
    row = "(" + ",".join("?" if differs_by_row(value) else value for value in insert.row) + ")"
    return f"{insert.before}VALUES {','.join([row] * size)}{insert.after}"


def file_at(path: Path) -> tuple[int, int] | None:
    """Which file is there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


_ABANDONED: Final[list[_RawConnection]] = []


def connection_uri(path: Path, mode: str) -> str:
    """The file as SQLite's own URIs name it. mode: "ro" or "rw"; it is not made."""
    from urllib.parse import quote

    return f"file:{quote(str(path.absolute()))}?mode={mode}"


def _make_private_file(path: Path) -> None:
    """Make the file and its folder if they are missing: 0600 in 0700, whatever the umask.

    One that is there is not opened for a look: to close it again would drop the locks that this process has on it.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists():
            _check_writable(path)
        else:
            opened = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                os.fchmod(opened, 0o600)
            finally:
                os.close(opened)
    except OSError as error:
        raise StoreUnavailable(
            f"The store {path} cannot be opened: {error.strerror or error}. Set UPWELL_HOME or UPWELL_DATABASE_URL to "
            "a place that can be written, or UPWELL_JOURNAL=off to go without."
        ) from error


def _check_writable(path: Path) -> None:
    """Raises OSError for what SQLite would only say of that it cannot open it."""
    if path.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    for needed in (path, path.resolve().parent):  # beside the file stands its log
        if not os.access(needed, os.W_OK):
            raise OSError(errno.EACCES, f"{needed} cannot be written")


def _code(error: BaseException | None) -> int:
    """SQLite's number of an error, without the details that it carries; 0 if it has none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


class _translated:
    """Say what SQLite raises in our own words. A class, for it is on the way of every statement."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if not isinstance(error, sqlite3.Error):
            return
        code = _code(error)
        if code in _PASSING:
            raise StoreUnavailable(f"The store {self._place} cannot be used: {error}.") from error
        if code in _DAMAGED:
            raise StoreDamaged(
                f"The store {self._place} is damaged, or is no SQLite file: {error}. Move it away to start with a "
                "new one, or bring it back from a copy; `PRAGMA integrity_check` says more."
            ) from error
