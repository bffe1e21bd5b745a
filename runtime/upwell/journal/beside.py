"""A connection beside the journal's to the same SQLite file: a quick question at a time, in the caller's thread."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any, Final

from upwell.journal.database import Row
from upwell.journal.forks import no_fork_while_held
from upwell.journal.sqlite import CACHE_KIB, STEPS_BETWEEN_LOOKS, WAITED_TIMES, connection_uri, file_at

LOOK_SECONDS: Final = 0.05
"""How often is seen whether the file is still there: not each time, for that costs more than the statement."""

FIRST_PAUSE_SECONDS: Final = 0.02
LAST_PAUSE_SECONDS: Final = 5.0
"""After statements that could not be carried out, for how long none is tried: longer each time."""

ABANDONED: Final[list[sqlite3.Connection]] = []
"""To files that were replaced: closed, they would delete the log of those that stand there now."""


class Beside:
    """Reads, and waits for nobody: where it takes long there is no answer, and the journal is to ask.

    most_seconds: for how long a statement may have a processor.
    """

    def __init__(self, path: Path, most_seconds: float) -> None:
        self._path = path
        self._most_seconds = most_seconds
        self._lock = no_fork_while_held()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._looked = self._not_before = self._until = self._latest = 0.0
        self._pause = FIRST_PAUSE_SECONDS
        self._pid = os.getpid()
        self._is_closed = False

    def ask(self, text: str, values: Sequence[Any]) -> list[Row] | None:
        """The rows of a statement; None: it was not carried out. From any thread."""
        if os.getpid() != self._pid:  # a fork: the connection is the parent's
            return None
        with self._lock:
            now = perf_counter()
            if self._is_closed or now < self._not_before:
                return None
            try:
                connection = self._connected(now)
                if connection is not None:
                    self._until = thread_time() + self._most_seconds
                    self._latest = now + WAITED_TIMES * self._most_seconds
                    answer = connection.execute(text, values).fetchall()
                    self._pause = FIRST_PAUSE_SECONDS
                    return answer
            except sqlite3.Error as error:
                if not _is_busy(error):
                    self._not_before = now + self._pause
                    self._pause = min(2 * self._pause, LAST_PAUSE_SECONDS)
            return None

    def _connected(self, now: float) -> sqlite3.Connection | None:
        """The connection; None where there is none to the file that is there now."""
        if self._connection is not None and now - self._looked > LOOK_SECONDS:
            self._looked = now
            self._let_go_if_replaced()
        if self._connection is None:
            self._file, self._looked = file_at(self._path), now
            if self._file is not None:  # else it may be made this moment, and would be taken for another one later
                self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        uri = connection_uri(self._path, "rw")  # although it reads: it may come first, and need a log
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=0, check_same_thread=False)
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            connection.set_progress_handler(self._is_too_late, STEPS_BETWEEN_LOOKS)
        except BaseException:  # such as: somebody makes the file this moment
            connection.close()
            raise
        return connection

    def _is_too_late(self) -> bool:
        return thread_time() > self._until or perf_counter() > self._latest

    def _let_go_if_replaced(self) -> None:
        if self._connection is not None and self._file != file_at(self._path):
            ABANDONED.append(self._connection)
            self._connection = None

    def close(self) -> None:
        """Ask nothing any more."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._is_closed = True
            self._let_go_if_replaced()
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
