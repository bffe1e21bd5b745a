"""Programs for the tests of migrations: a race of processes, and processes that are killed on the way.

    python migrating.py race PLACE PROCESSES     all at once; prints what each has applied
    python migrating.py kill PLACE [STRIDE]      killed after each STRIDE-th statement; prints what was found each time

They fork themselves, so that a process costs next to nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from upwell.journal import postgres
from upwell.journal.database import Database
from upwell.journal.migrations import migrate
from upwell.journal.sql import Dialect, Migration, migrations, schema_in_words_of
from upwell.journal.sqlite import SqliteDatabase


def main() -> None:
    """Run the program that the arguments name."""
    program, place, *numbers = sys.argv[1:]
    programs: dict[str, Callable[..., Any]] = {"race": race, "kill": kill_on_the_way}
    print(json.dumps(programs[program](place, *map(int, numbers))))


def race(place: str, processes: int) -> list[str]:
    """Many processes migrate at once; what each has applied, or its error."""
    gate, opener = os.pipe()
    pipes = [os.pipe() for _ in range(processes)]
    children: list[int] = []
    for _, answer in pipes:
        child = os.fork()
        if child:
            children.append(child)
            continue
        os.close(opener)
        os.read(gate, 1)
        os.write(answer, said(lambda: upgrade(place, next_steps(place))).encode())
        os._exit(0)
    os.close(opener)
    for child in children:
        os.waitpid(child, 0)
    return [os.read(reader, 10_000).decode() for reader, _ in pipes]


def kill_on_the_way(place: str, stride: int = 1) -> list[dict[str, Any]]:
    """A process migrates, and is killed after a statement; each time a later one. What was found after each."""
    found: list[dict[str, Any]] = []
    after = 0
    while True:
        after += stride
        child = os.fork()
        if not child:
            die_after(after)
            asyncio.run(upgrade(place, next_steps(place)))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if not killed:
            return [*found, {"killed": False, "status": status, "left": said(lambda: look(place))}]
        found.append({"killed": True, "left": said(lambda: look(place))})


def die_after(statements: int) -> None:
    """This process kills itself when so many statements have been carried out."""
    done = 0

    def dying(run: Callable[..., Any]) -> Callable[..., Any]:
        async def dies(*args: Any) -> Any:
            nonlocal done
            rows = await run(*args)
            done += 1
            if done == statements:
                os.kill(os.getpid(), signal.SIGKILL)
            return rows

        return dies

    SqliteDatabase.run = dying(SqliteDatabase.run)  # type: ignore[method-assign]  # a failpoint
    postgres._Connection._run = dying(postgres._Connection._run)  # type: ignore[method-assign]  # pyright: ignore


async def upgrade(place: str, steps: list[Migration]) -> list[int]:
    """Migrate; the steps that were applied."""
    database = database_at(place)
    await database.open()
    try:
        return await migrate(database, steps)
    finally:
        await database.close()


async def look(place: str) -> str:
    """What the version of before finds: `new`, `old` if it can be used, or its error."""
    database = database_at(place)
    await database.open()
    try:
        if await tables(database) == 0:
            return "new"
        await migrate(database)
        await database.fetch_text("UPDATE variables SET updated = updated + 1")
        rows = await database.fetch_text("SELECT value FROM variables UNION SELECT 'none' ORDER BY 1")
        await database.fetch_text("SELECT count(*) FROM blocks")
        return f"old {rows[0][0]}"
    finally:
        await database.close()


async def tables(database: Database) -> int:
    """How many tables there are."""
    if database.dialect is Dialect.SQLITE:
        return int((await database.fetch_text("SELECT count(*) FROM sqlite_master"))[0][0])
    return int((await database.fetch_text("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()"))[0][0])


def said(work: Callable[[], Any]) -> str:
    """What comes of it, in words."""
    try:
        return str(asyncio.run(work()))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def database_at(place: str) -> Database:
    """The database at a path or URL."""
    return postgres.PostgresDatabase(place) if "://" in place else SqliteDatabase(Path(place))


def next_steps(place: str) -> list[Migration]:
    """All steps there are, and two of a version to come."""
    dialect = database_at(place).dialect
    steps = migrations(dialect)
    head = steps[-1].number
    scripts = {
        "notes": (
            "ALTER TABLE variables ADD COLUMN note INTEGER",
            "UPDATE variables SET value = 'changed', note = 1",
            "CREATE TABLE notes (key INTEGER PRIMARY KEY, text TEXT NOT NULL)",
            "INSERT INTO notes (text) VALUES ('here')",
        ),
        "no_blocks": ("CREATE INDEX variables_note ON variables (note)", "DROP TABLE blocks"),
    }
    more = [
        Migration(head + number, name, tuple(schema_in_words_of(dialect, line) for line in script))
        for number, (name, script) in enumerate(scripts.items(), 1)
    ]
    return [*steps, *more]


if __name__ == "__main__":
    main()
