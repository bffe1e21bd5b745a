"""The one place where settings become parts: which journal this process keeps, and where."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from upwell.core.errors import ConfigurationError
from upwell.engine.limits import share_limits_of
from upwell.engine.loggers import ENGINE
from upwell.engine.recorder import Recorder, record_with
from upwell.settings import Settings
from upwell.settings import current as settings

if TYPE_CHECKING:
    from pathlib import Path

    from upwell.engine.strict import EndWriter
    from upwell.journal.beside import Beside
    from upwell.journal.control import Control
    from upwell.journal.database import Database
    from upwell.journal.journal import Journal
    from upwell.journal.limit_store import LimitStore
    from upwell.journal.liveness import Watch
    from upwell.journal.remote_client import ApiClient
    from upwell.journal.shared_limits import SharedLimits
    from upwell.journal.store import Store
    from upwell.journal.sweeping import Sweeper
    from upwell.journal.tidying import Tidy
    from upwell.result_folders import StoreFolder
    from upwell.results import ResultStore

_opening = threading.Lock()
_open_now: tuple[Settings, Journal | None] | None = None  # one value, so that any thread reads of both or none
_of_parents: list[Journal] = []  # kept, so that a forked process does not end what is its parent's
_prepared = False
_has_worker = False
_watch: Watch | None = None
_limits: SharedLimits | None = None


def open_recorder() -> Recorder | None:
    """Where this process records what happens, opened when it is first asked for; None where nothing is recorded."""
    wanted, found = settings(), _open_now
    if found is not None and found[0] is wanted:
        journal = found[1]
        if journal is None:
            return None
        if not journal.closed:
            return journal.recorder
    # The settings have not been seen before: most of what happens asks here, and no more.
    from upwell.engine.console import ensure_configured  # here: it knows of runs, and whoever only reads has none

    ensure_configured()
    with _opening:
        return _open(wanted)


def _open(wanted: Settings) -> Recorder | None:
    global _open_now
    made_for, journal = _open_now or (None, None)
    if made_for is not None and journal is not None and not journal.closed and _same_journal(made_for, wanted):
        _open_now = wanted, journal
        _record_logs(wanted, journal)
        return journal.recorder
    if made_for is wanted and journal is None:
        return None
    _open_now = None
    if journal is not None:
        journal.close()
    journal = _new_journal(wanted) if wanted.journal != "off" else None
    _record_logs(wanted, journal)
    _open_now = wanted, journal
    return None if journal is None else journal.recorder


def _same_journal(one: Settings, other: Settings) -> bool:
    """Whether two settings mean the same journal."""
    names = ("journal", "home", "database_url", "journal_flush_seconds", "database_synchronous", "lease_seconds")
    others = ("retention_days", "retention_rows", "retention_bytes", "retention_audit_days", "api_url", "api_key")
    return all(getattr(one, name) == getattr(other, name) for name in (*names, *others))


def _new_journal(wanted: Settings) -> Journal | None:
    """A journal; None, and a warning, where none can be kept. Nothing that runs fails because of it."""
    check_database_url(wanted)
    from upwell.engine.stopping import stop_durable_flow_runs
    from upwell.journal.cache import QUICK_SECONDS, JournalCache
    from upwell.journal.cancel_watch import CancelWatch
    from upwell.journal.journal import Journal
    from upwell.journal.kept import Kept
    from upwell.journal.liveness import Watch
    from upwell.journal.processes import this_process
    from upwell.journal.spool import Spool
    from upwell.journal.store import SqlStore

    process = this_process(wanted.lease_seconds)

    def make_store() -> Store:
        if is_remote(wanted):
            from upwell.journal.remote_store import RemoteStore  # here: few programs work through a server

            # a server that hangs is given up in time for the lease to be renewed through another try
            return RemoteStore(api_client(wanted, max(2.0, wanted.lease_seconds / 3)))
        return SqlStore(make_database(wanted))

    def large_results() -> ResultStore:
        from upwell.results import ResultStore  # here: few programs store large ones

        return ResultStore(_folder_of_store(home(wanted) / "results", wanted))

    try:
        spool = Spool(_spool_folder(wanted), process)
        tidy = _tidier(wanted, process.id)
        journal = Journal(make_store, process, spool, wanted.journal_flush_seconds, tidy, Kept(large_results))
    except (RuntimeError, OSError) as error:  # no home folder, no more threads or files, the interpreter ends
        ENGINE.warning(
            "Nothing is recorded: %s. Set UPWELL_HOME to a folder that can be written, or UPWELL_JOURNAL=off.", error
        )
        return None
    journal.recorder.cache = JournalCache(journal, lambda: _beside(wanted, QUICK_SECONDS))
    journal.recorder.strict.open_writer = lambda: _end_writer(journal, wanted)
    journal.on_lost = lambda: stop_durable_flow_runs("Its process was declared dead: another may have gone on with it.")
    _prepare_process()
    global _watch
    _watch = None
    if not (is_remote(wanted) or _has_worker):  # else the server, or the worker, looks after the processes
        _watch = Watch(journal, _database_of, wanted.durable_max_crashes)
        _watch.begin()
    CancelWatch(journal, control_of, dies=_has_worker).begin()
    return journal


def _file_here(wanted: Settings) -> Path | None:
    """The SQLite file that this process itself writes to, if its store is one."""
    return None if wanted.journal != "on" or is_remote(wanted) else sqlite_file(wanted)


def _beside(wanted: Settings, most_seconds: float) -> Beside | None:
    """Another connection to the SQLite file that is the store; None where it is none."""
    if (path := _file_here(wanted)) is None:
        return None
    from upwell.journal.beside import Beside  # here: few programs need one

    return Beside(path, most_seconds)


def _end_writer(journal: Journal, wanted: Settings) -> EndWriter | None:
    """What writes the ends of strict flows at once; None where that would wait for a server."""
    if (path := _file_here(wanted)) is None:
        return None
    from upwell.journal.end_writer import LogEndWriter  # here: few programs need one

    return LogEndWriter(journal, path, waits_for_disk=wanted.database_synchronous == "FULL")


def is_remote(wanted: Settings) -> bool:
    """Whether it is a server whose store is used."""
    return wanted.api_url is not None and wanted.journal != "memory"


def be_a_workers_child() -> None:
    """This process is there for one run: the store's upkeep is its worker's, and it may be killed for that run."""
    global _has_worker
    _has_worker = True


def api_client(wanted: Settings, most_seconds: float | None = None, patience_seconds: float | None = None) -> ApiClient:
    """The server that the settings name, which is given up after so many seconds without an answer.

    patience_seconds: how long it is tried again where it cannot be reached.
    """
    from upwell.journal.remote_client import TIMEOUT_SECONDS, ApiClient  # here: few programs work through a server

    seconds = TIMEOUT_SECONDS if most_seconds is None else min(most_seconds, TIMEOUT_SECONDS)
    return ApiClient(wanted.api_url or "", wanted.api_key, seconds, patience_seconds=patience_seconds)


def _prepare_process() -> None:
    """Once for each process: what a fork does to a journal, and how a child of `multiprocessing` ends."""
    global _prepared
    if not _prepared:
        _prepared = True
        os.register_at_fork(after_in_child=_after_fork)
    if multiprocessing := sys.modules.get("multiprocessing.util"):
        multiprocessing.Finalize(None, close_journal, exitpriority=-100)  # its children skip what atexit would do


def _after_fork() -> None:
    """In the child: the journal, its thread and its connection are the parent's; the child opens its own."""
    global _opening, _open_now
    _opening = threading.Lock()
    if _open_now is not None and (journal := _open_now[1]) is not None:
        _of_parents.append(journal)
        journal.abandon()
    _open_now = None


def _record_logs(wanted: Settings, journal: Journal | None) -> None:
    """Have the lines of runs recorded, too."""
    from upwell.journal import log_lines

    if journal is None:
        log_lines.remove()
    else:
        log_lines.record_in(journal.recorder, wanted.logging_extra_loggers)


def close_journal() -> None:
    """Write what is left and close the journal now; whatever starts later opens another."""
    global _open_now
    with _opening:
        closing, _open_now = _open_now, None
    if closing is not None and closing[1] is not None:
        _record_logs(closing[0], None)
        closing[1].close()


def journal_kept() -> tuple[Settings, Journal] | None:
    """The journal that this process keeps, if it has begun to, with the settings that it was opened for; opens none."""
    found = _open_now
    return None if found is None or found[1] is None or found[1].closed else (found[0], found[1])


def flush_journal() -> None:
    """Block until what was recorded until now is safe; at once where nothing is recorded."""
    found = journal_kept()
    if found is not None and found[1].recorder.awake:
        found[1].flush()


def _spool_folder(wanted: Settings) -> Path | None:
    """Where what the store does not take is put: a folder for each store; None for one in memory."""
    if wanted.journal == "memory":
        return None
    from hashlib import blake2b

    store = wanted.api_url if is_remote(wanted) and wanted.api_url else wanted.database_url or "upwell.db"
    return home(wanted) / "spool" / blake2b(store.encode(), digest_size=8).hexdigest()


def home(wanted: Settings | None = None) -> Path:
    """Where upwell keeps what it keeps."""
    from pathlib import Path  # here: programs that record nothing do without

    given = (wanted or settings()).home
    return Path(given).expanduser() if given else Path.home() / ".upwell"


def result_folder(wanted: Settings | None = None) -> Path | StoreFolder:
    """Where results are stored that are too large for the database, where nobody says another place."""
    wanted = wanted or settings()
    return _folder_of_store(_result_path(wanted), wanted)


def _tidier(wanted: Settings, process_id: str) -> Tidy:
    """What does the upkeep of the store that the settings name, unless a server or a worker sees to that."""
    sweeper: Sweeper | None = None

    async def keep_tidy(store: Store, /, *, at_end: bool) -> None:
        nonlocal sweeper
        from upwell.journal.store import SqlStore
        from upwell.journal.tidying import is_due

        if not isinstance(store, SqlStore) or _has_worker or (at_end and not await is_due(store.database, process_id)):
            return
        from upwell.journal.retention import Limits, tidy  # here: most programs have ended before it is time for it

        sweeper = sweeper or make_sweeper(wanted)
        await tidy(store.database, process_id, Limits.of(wanted), None if at_end else sweeper)

    return keep_tidy


def make_sweeper(wanted: Settings) -> Sweeper:
    """What removes the files of results that nothing names any more, of the store that the settings name."""
    from upwell.journal.sweeping import Sweeper  # here: most programs have ended before it is time for it

    folders = {folder: _store_name(folder, wanted) for folder in (home(wanted) / "results", _result_path(wanted))}
    return Sweeper(folders, _spool_folder(wanted))


def _result_path(wanted: Settings) -> Path:
    from pathlib import Path

    given = wanted.results_local_storage_path
    return Path(given).expanduser() if given else home(wanted) / "results"


def _folder_of_store(folder: Path, wanted: Settings) -> Path | StoreFolder:
    """This folder, in which is said whose results are there."""
    if wanted.journal != "on":  # nobody knows of them but this process
        return folder
    from upwell.result_folders import StoreFolder  # here: few programs store results

    return StoreFolder(folder, _store_name(folder, wanted))


def _store_name(folder: Path, wanted: Settings) -> str:
    """What a store is known by in a folder: the same for all processes that use both, and for no other store."""
    from hashlib import blake2b
    from pathlib import Path
    from socket import gethostname
    from urllib.parse import urlsplit

    url = wanted.database_url or ""
    if is_remote(wanted):
        name = str(wanted.api_url)
    elif url.startswith(_POSTGRES):
        parts = urlsplit(url)
        name = f"{parts.hostname}:{parts.port}{parts.path}"
    else:
        around = home(wanted).absolute()
        path = Path(url.removeprefix("sqlite:///")).expanduser().absolute() if url else around / "upwell.db"
        is_beside = path.is_relative_to(around) and folder.absolute().is_relative_to(around)
        name = str(path.relative_to(around)) if is_beside else f"{gethostname()}:{path}"
    return blake2b(name.encode(), digest_size=8).hexdigest()


def make_database(
    wanted: Settings | None = None, *, read_only: bool = False, on_a_thread: bool | None = None
) -> Database:
    """The database that the settings name, not opened yet.

    on_a_thread: whether it is used beside a loop that must not wait; unless said, if it is only read.

    Raises:
        ConfigurationError: a URL of a kind that is not known.
    """
    wanted = wanted or settings()
    from upwell.journal.sqlite import MemoryDatabase  # here: loads sqlite3

    if wanted.journal == "memory":
        return MemoryDatabase()
    check_database_url(wanted)
    path = sqlite_file(wanted)
    if path is None:
        from upwell.journal.postgres import PostgresDatabase

        return PostgresDatabase(wanted.database_url or "")
    return _sqlite(path, wanted, read_only, on_a_thread)


def sqlite_file(wanted: Settings) -> Path | None:
    """The SQLite file that is the store, if it is one."""
    from pathlib import Path

    url = wanted.database_url
    if url is None:
        return home(wanted) / "upwell.db"
    return None if url.startswith(_POSTGRES) else Path(url.removeprefix("sqlite:///")).expanduser()


def _sqlite(path: Path, wanted: Settings, read_only: bool, on_a_thread: bool | None) -> Database:
    """A SQLite file. The journal has a thread of its own, so its connection needs none; readers have a loop to keep."""
    from upwell.journal.sqlite import SqliteDatabase

    in_this_thread = not read_only if on_a_thread is None else not on_a_thread
    return SqliteDatabase(path, wanted.database_synchronous, read_only=read_only, in_this_thread=in_this_thread)


_POSTGRES = ("postgresql://", "postgres://")


def check_database_url(wanted: Settings) -> None:
    """Whether the URL names a database, and is of a kind that is known.

    Raises:
        ConfigurationError: it is not.
    """
    url = wanted.database_url
    if url is None or url.startswith(_POSTGRES):
        return
    if "://" in url and not url.startswith("sqlite:///"):
        raise ConfigurationError(
            f"UPWELL_DATABASE_URL is {url.partition('://')[0]!r}://..., and must be sqlite:///path/to/file.db or "
            "postgresql://user@host/name."
        )
    if url.rpartition("/")[2] in ("", ":memory:"):
        raise ConfigurationError(
            f"UPWELL_DATABASE_URL is {url!r}, which names no file. UPWELL_JOURNAL=memory keeps what has run in memory."
        )


def open_shared_limits() -> SharedLimits | None:
    """The limits of the store that this process records in; None where nothing is recorded."""
    global _limits
    recorder, limits = open_recorder(), _limits
    if recorder is None or (limits is not None and limits.host is recorder.journal):
        return None if recorder is None else limits
    from upwell.journal.shared_limits import SharedLimits  # here: few programs have limits
    from upwell.journal.store_parts import limits_of

    with _opening:
        if _limits is None or _limits.host is not recorder.journal:
            look = _watch.look if _watch is not None else _nobody
            _limits = SharedLimits(recorder.journal, limits_of, look)
        return _limits


async def _nobody(_: Store) -> None:
    """Where nobody is looked after."""


def _database_of(store: Store) -> Database:
    from upwell.journal.store import SqlStore

    if not isinstance(store, SqlStore):
        raise TypeError(f"{store!r} has no database")
    return store.database


@asynccontextmanager
async def open_control(patience_seconds: float | None = None, *, actor: str | None = None) -> AsyncGenerator[Control]:
    """What people and workers ask of the store that the settings name, or of a server, for use on this loop.

    patience_seconds: see `api_client`. actor: as whom to record what is changed; a server records that itself.

    Raises:
        StoreUnavailable: the store cannot be opened.
    """
    if is_remote(settings()):
        from upwell.journal.remote_control import RemoteControl  # here, as below: few programs have deployments

        async with _open_client(patience_seconds) as client:
            yield RemoteControl(client)
    else:
        from upwell.journal.sql_control import SqlControl

        async with _open_database() as database:
            if actor is None:
                yield SqlControl(database)
            else:
                from upwell.journal.audited import AuditedControl

                yield AuditedControl(database, actor)


@asynccontextmanager
async def open_limits(patience_seconds: float | None = None, *, actor: str) -> AsyncGenerator[LimitStore]:
    """The same of its limits, for who takes no slots of them."""
    if is_remote(settings()):
        from upwell.journal.remote_parts import RemoteLimits  # here, as below: few programs have limits
        from upwell.journal.remote_store import RemoteJournal

        async with _open_client(patience_seconds) as client:
            yield RemoteLimits(RemoteJournal(client))
    else:
        from upwell.journal.audited import AuditedLimits

        async with _open_database() as database:
            yield AuditedLimits(database, actor)


@asynccontextmanager
async def _open_client(patience_seconds: float | None) -> AsyncGenerator[ApiClient]:
    client = api_client(settings(), patience_seconds=patience_seconds)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def _open_database() -> AsyncGenerator[Database]:
    from upwell.journal.migrations import migrate

    database = make_database(settings(), on_a_thread=True)
    await database.open()
    try:
        await migrate(database)
        yield database
    finally:
        await database.close()


def control_of(store: Store) -> Control:
    """What people and workers ask, over the store of a journal, for use on that journal's loop."""
    from upwell.journal.store import SqlStore

    if isinstance(store, SqlStore):
        from upwell.journal.sql_control import SqlControl  # here, as below: few programs have deployments

        return SqlControl(store.database)
    from upwell.journal.remote_control import RemoteControl
    from upwell.journal.remote_store import RemoteStore

    if not isinstance(store, RemoteStore):
        raise TypeError(f"{store!r} is no store that has deployments")
    return RemoteControl(store.client)


record_with(open_recorder)
share_limits_of(open_shared_limits)
atexit.register(close_journal)  # first, so that it is called last: the loops that are closed before end what still runs
