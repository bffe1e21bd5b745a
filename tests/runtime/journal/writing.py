"""What the tests of writing share: a journal over any database, and what is in a store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from upwell import composition
from upwell.engine.console import ensure_configured
from upwell.engine.recorder import record_with
from upwell.journal import log_lines
from upwell.journal.database import Database
from upwell.journal.journal import Journal
from upwell.journal.processes import this_process
from upwell.journal.spool import Spool
from upwell.journal.store import SqlStore

TABLES = ("flow_runs", "flow_run_states", "series", "task_runs", "task_run_states", "edges", "logs")


def new_journal(make_database: Callable[[], Database], folder: Path, lease_seconds: float = 30.0) -> Journal:
    process = this_process(lease_seconds)
    return Journal(lambda: SqlStore(make_database()), process, Spool(folder / "spool", process), 0.005)


@contextmanager
def journal_of(make_database: Callable[[], Database], folder: Path) -> Generator[Journal]:
    """What runs inside is recorded in this database; the journal is closed at the end."""
    ensure_configured()  # the journal complains from its thread, maybe before a flow has seen to its lines being heard
    journal = new_journal(make_database, folder)
    record_with(lambda: journal.recorder)
    log_lines.record_in(journal.recorder, ())
    try:
        yield journal
    finally:
        log_lines.remove()
        record_with(composition.open_recorder)
        journal.close()


def ask(database: Database, text: str) -> list[tuple[object, ...]]:
    """What a query answers."""

    async def asked() -> list[tuple[object, ...]]:
        await database.open()
        try:
            return await database.fetch_text(text)
        finally:
            await database.close()

    return asyncio.run(asked())


def count_rows(database: Database) -> dict[str, int]:
    """How many rows there are in each table."""
    return {table: int(str(ask(database, f"SELECT count(*) FROM {table}")[0][0])) for table in TABLES}


def spooled(folder: Path) -> list[str]:
    """The spool's files."""
    return sorted(path.name for path in (folder / "spool").glob("*"))
