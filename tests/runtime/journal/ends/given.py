"""What these tests run, and where they look."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.noted_ends import noted_ends

from upwell import flow, task
from upwell.composition import open_recorder
from upwell.engine.strict import Ends, EndWriter
from upwell.journal.end_log import EndLog, logs_beside
from upwell.journal.liveness import give_up_process
from upwell.journal.safe_ends import bring_in
from upwell.journal.sqlite import SqliteDatabase

FINISHED = "SELECT t.number, t.inputs, length(r.record) FROM task_runs t JOIN task_run_results r USING (series, number)"


def ask(home: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(home / "upwell.db", isolation_level=None)) as connection:
        return connection.execute(query).fetchall()


def strict() -> Ends:
    recorder = open_recorder()
    assert recorder is not None
    return recorder.strict


def writer() -> EndWriter:
    found = strict().writer
    assert found is not None
    return found


def log() -> EndLog:
    """That of this process."""
    found: Any = writer()
    assert found._log is not None
    return found._log  # type: ignore[no-any-return]


@task
def double(x: int) -> int:
    return 2 * x


@task
def fail(x: int) -> int:
    raise ValueError(x)


@flow(durable="strict")
def calls(home: str, *fails: str) -> list[int]:
    """How many ends are noted after each of three calls."""
    seen: list[int] = []
    for x in range(3):
        double(x)
        if "double" in fails:
            fail(x, return_state=True)
        seen.append(len(noted_ends(Path(home) / "upwell.db")))
    return seen


def logs(home: Path) -> list[str]:
    return [path.name for path in logs_beside(home / "upwell.db").values()]


async def given_up(home: Path, process_id: str) -> None:
    """As whoever started this process does, when it says that it is dead."""
    database = SqliteDatabase(home / "upwell.db")
    await database.open()
    async with database.transaction() as session:
        await give_up_process(database, session, process_id, "It was given up.", 5)
    await database.close()


async def brought_in(home: Path, process_id: str, key: int) -> None:
    """As whoever declares this process dead does."""
    database = SqliteDatabase(home / "upwell.db")
    await database.open()
    async with database.transaction() as session:
        await bring_in(database, session, process_id, key)
    await database.close()
