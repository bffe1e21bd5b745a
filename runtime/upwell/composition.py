"""The one place where settings become parts: which journal this process keeps, and where."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upwell.core.errors import ConfigurationError
from upwell.engine.recorder import Recorder, record_with
from upwell.settings import Settings
from upwell.settings import current as settings

if TYPE_CHECKING:
    from upwell.journal.database import Database
    from upwell.journal.journal import Journal

_opening = threading.Lock()
_journal: Journal | None = None
_made_for: Settings | None = None


def open_recorder() -> Recorder | None:
    """Where this process records what happens, opened when it is first asked for; None where nothing is recorded."""
    wanted = settings()
    journal = _journal
    if wanted is _made_for and (journal is None or (not journal.closed and journal.pid == os.getpid())):
        return None if journal is None else journal.recorder
    with _opening:
        return _open(wanted)


def _open(wanted: Settings) -> Recorder | None:
    global _journal, _made_for
    before, _journal = _journal, None
    if before is not None and before.pid == os.getpid() and _made_for is not None:
        if not before.closed and _same_journal(_made_for, wanted):
            _journal, _made_for = before, wanted
            return before.recorder
        before.close()
    if wanted.journal != "off":
        _journal = _new_journal(wanted)
    _made_for = wanted
    return None if _journal is None else _journal.recorder


def _same_journal(one: Settings, other: Settings) -> bool:
    """Whether two settings mean the same journal."""
    names = ("journal", "home", "database_url", "journal_flush_seconds", "database_synchronous", "lease_seconds")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _new_journal(wanted: Settings) -> Journal:
    import atexit  # here: so that no program pays for it that records nothing

    from upwell.journal.journal import Journal
    from upwell.journal.processes import this_process
    from upwell.journal.spool import Spool
    from upwell.journal.store import SqlStore, Store

    process = this_process(wanted.lease_seconds)

    def make_store() -> Store:
        return SqlStore(make_database(wanted))

    check_database_url(wanted)
    journal = Journal(make_store, process, Spool(home(wanted) / "spool", process), wanted.journal_flush_seconds)
    atexit.register(journal.close)
    return journal


def close_journal() -> None:
    """Write what is left and close the journal now; whatever is recorded later opens another."""
    global _journal, _made_for
    with _opening:
        closing, _journal, _made_for = _journal, None, None
    if closing is not None:
        import atexit

        atexit.unregister(closing.close)
        closing.close()


def home(wanted: Settings | None = None) -> Path:
    """Where upwell keeps what it keeps."""
    given = (wanted or settings()).home
    return Path(given).expanduser() if given else Path.home() / ".upwell"


def make_database(wanted: Settings | None = None, *, read_only: bool = False) -> Database:
    """The database that the settings name, not opened yet.

    Raises:
        ConfigurationError: a URL of a kind that is not known.
    """
    wanted = wanted or settings()
    from upwell.journal.sqlite import MemoryDatabase, SqliteDatabase  # here: loads sqlite3

    if wanted.journal == "memory":
        return MemoryDatabase()
    url = wanted.database_url
    if url is None:
        return SqliteDatabase(home(wanted) / "upwell.db", wanted.database_synchronous, read_only=read_only)
    check_database_url(wanted)
    if url.startswith(_POSTGRES):
        from upwell.journal.postgres import PostgresDatabase

        return PostgresDatabase(url)
    path = Path(url.removeprefix("sqlite:///")).expanduser()
    return SqliteDatabase(path, wanted.database_synchronous, read_only=read_only)


_POSTGRES = ("postgresql://", "postgres://")


def check_database_url(wanted: Settings) -> None:
    """Whether the URL is of a kind that is known.

    Raises:
        ConfigurationError: it is not.
    """
    url: Any = wanted.database_url
    if url is not None and "://" in url and not url.startswith((*_POSTGRES, "sqlite:///")):
        raise ConfigurationError(
            f"UPWELL_DATABASE_URL is {url.partition('://')[0]!r}://..., and must be sqlite:///path/to/file.db or "
            "postgresql://user@host/name."
        )


record_with(open_recorder)
