"""When a store is tidied: as a process ends, too, if nobody has for long."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from upwell import flow, task
from upwell.composition import close_journal
from upwell.engine.clock import clock
from upwell.journal import tidying
from upwell.journal.database import Database
from upwell.journal.migrations import migrate
from upwell.journal.store import Store
from upwell.journal.tidying import EVERY_SECONDS, is_due, tidy_at_end, was_done
from upwell.settings import temporary_settings


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with temporary_settings(journal="on", home=str(tmp_path), retention_rows=5):
        yield tmp_path
        close_journal()


@task
def step(number: int) -> int:
    return number


@flow
def steps() -> None:
    step.map(range(4)).wait()


def short_process() -> None:
    steps()
    close_journal()


def ask(home: Path, text: str) -> list[Any]:
    with sqlite3.connect(home / "upwell.db") as connection:
        rows = connection.execute(text).fetchall()
    connection.close()
    return rows


def test_processes_that_end_at_once_keep_their_store_within_its_limits(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tidying, "END_SECONDS", 60.0)
    for _ in range(3):
        short_process()
    assert ask(home, "SELECT count(*) FROM task_runs") == [(12,)], "it is not due"
    ask(home, f"UPDATE chores SET until = until - {int((EVERY_SECONDS + 1) * 1e6)}")
    short_process()
    assert ask(home, "SELECT count(*) FROM task_runs") == [(4,)]
    for _ in range(2):
        short_process()
    assert ask(home, "SELECT count(*) FROM task_runs") == [(12,)], "it was just done"


def test_it_is_due_when_nobody_has_done_it_for_long(
    make_database: Callable[[], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        database = make_database()
        await database.open()
        await migrate(database)
        assert not await is_due(database, "a"), "a new store"
        assert not await is_due(database, "a")
        now = clock().time()
        for seconds, due in ((EVERY_SECONDS - 60, False), (EVERY_SECONDS + 60, True), (-86_400, True)):
            monkeypatch.setattr(clock(), "time", lambda at=now + seconds: at, raising=False)
            assert await is_due(database, "a") is due, seconds
        for moment in (now, 1_800_000_000.6124449):  # the second of which, as a float, and an hour are more than that
            monkeypatch.setattr(clock(), "time", lambda at=moment: at, raising=False)
            async with database.transaction() as session:
                await was_done(session, "b")
            assert not await is_due(database, "a")
        await database.close()

    asyncio.run(main())


def test_the_end_is_put_off_for_a_moment_only_and_never_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []

    async def endless(_: Store, /, *, at_end: bool) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(at_end)

    async def fails(_: Store, /, *, at_end: bool) -> None:
        raise OSError

    monkeypatch.setattr(tidying, "END_SECONDS", 0.01)
    store: Any = None
    asyncio.run(tidy_at_end(endless, store))
    asyncio.run(tidy_at_end(fails, store))
    assert ended == [True]
