"""Files of large results go when nothing names them any more, and never before, whoever writes them meanwhile."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.journal.conftest import MakeDatabase

from upwell import composition
from upwell.composition import make_sweeper, result_folder
from upwell.journal import sweeping
from upwell.journal.database import Database
from upwell.journal.migrations import migrate
from upwell.journal.retention import Limits, tidy
from upwell.journal.sqlite import SqliteDatabase
from upwell.journal.sweeping import GRACE_SECONDS, Sweeper, mark_folder
from upwell.results import ResultRecord, ResultStore
from upwell.settings import Settings

LARGE = "x" * 20_000


@pytest.fixture(autouse=True)
def looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call is a look."""
    monkeypatch.setattr(sweeping, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def sqlite(tmp_path: Path) -> MakeDatabase:
    """Where it is the files that matter."""
    return lambda: SqliteDatabase(tmp_path / "store.db", in_this_thread=True)


def store_in(folder: Path, mark: str = "ours") -> ResultStore:
    """A store of large results that belongs to a store of this name."""
    from upwell.result_folders import StoreFolder

    return ResultStore(StoreFolder(folder, mark))


def file_of(folder: Path, record: ResultRecord) -> Path:
    assert record.location is not None
    return folder / record.location


def age(path: Path, seconds: float = GRACE_SECONDS + 60) -> None:
    """It was written so long ago."""
    when = time.time() - seconds
    os.utime(path, (when, when))


def with_database(make_database: MakeDatabase, story: Callable[[Database], Awaitable[None]]) -> None:
    async def main() -> None:
        database = make_database()
        await database.open()
        try:
            await migrate(database)
            await story(database)
        finally:
            await database.close()

    asyncio.run(main())


async def looked(database: Database, sweeper: Sweeper, times: int = 1) -> None:
    for _ in range(times):
        await tidy(database, "p", Limits(), sweeper)


async def name_in(database: Database, kind: str, record: ResultRecord) -> None:
    """Have a row name this record."""
    data: bytes = record.to_bytes()
    async with database.transaction() as session:
        if kind == "task_run_results":
            await session.insert("put_results", [(1, 1, data, None)])
        elif kind == "cache_records":
            await session.insert("put_cache_records", [("key", "task", data, 1, None, None)])
        else:
            await session.fetch_text(
                "INSERT INTO flow_runs (id, flow, name, state, created, run_count, root_flow_run_id, result)"
                " VALUES ('r', 'f', 'n', 'RUNNING', 1, 1, 'r', :data)",
                data=data,
            )


@pytest.mark.parametrize("kind", ["task_run_results", "cache_records", "flow_runs"])
def test_a_file_goes_when_the_last_that_names_it_has_gone(
    make_database: MakeDatabase, tmp_path: Path, kind: str
) -> None:
    async def story(database: Database) -> None:
        folder = tmp_path / "results"
        results, sweeper = store_in(folder), Sweeper({folder: "ours"})
        named, unnamed = results.put(LARGE), results.put(LARGE + "y")
        own = results.put(LARGE, key="of/mine.bin")
        for record in (named, unnamed, own):
            age(file_of(folder, record))
        (folder / "ab").mkdir(exist_ok=True)
        half = folder / "ab" / ".upwell-0011223344556677.tmp"
        half.touch()
        age(half)
        await name_in(database, kind, named)
        await looked(database, sweeper)
        assert file_of(folder, unnamed).exists(), "one look is not enough"
        await looked(database, sweeper)
        assert results.get(named) == LARGE
        assert results.get(own) == LARGE
        assert not file_of(folder, unnamed).exists()
        assert not half.exists()
        await database_without(database, kind)
        await looked(database, sweeper, 2)
        assert not file_of(folder, named).exists()
        assert file_of(folder, own).exists(), "who has given it a name sees to it"

    with_database(make_database, story)


async def database_without(database: Database, table: str) -> None:
    async with database.transaction() as session:
        await session.fetch_text(f"DELETE FROM {table}")


def test_what_was_written_lately_stays(sqlite: MakeDatabase, tmp_path: Path) -> None:
    async def story(database: Database) -> None:
        folder = tmp_path / "results"
        results, sweeper = store_in(folder), Sweeper({folder: "ours"})
        record = results.put(LARGE)
        age(file_of(folder, record), GRACE_SECONDS - 60)
        await looked(database, sweeper, 3)
        assert results.get(record) == LARGE
        age(file_of(folder, record))
        await looked(database, sweeper)
        results.put(LARGE)  # an equal one: its record comes with the next flush
        await looked(database, sweeper, 2)
        assert results.get(record) == LARGE

    with_database(sqlite, story)


def test_a_folder_of_several_stores_or_of_none_is_left_alone(tmp_path: Path, sqlite: MakeDatabase) -> None:
    async def story(database: Database) -> None:
        shared, foreign, unknown = tmp_path / "shared", tmp_path / "foreign", tmp_path / "unknown"
        records = [store_in(shared).put(LARGE), store_in(foreign, "theirs").put(LARGE), ResultStore(unknown).put(LARGE)]
        mark_folder(shared, "theirs")
        files = [file_of(folder, record) for folder, record in zip((shared, foreign, unknown), records, strict=True)]
        for file in files:
            age(file)
        await looked(database, Sweeper(dict.fromkeys((shared, foreign, unknown, tmp_path / "none"), "ours")), 3)
        assert all(file.exists() for file in files)

    with_database(sqlite, story)


def test_nothing_goes_while_rows_wait_to_be_brought_in(tmp_path: Path, sqlite: MakeDatabase) -> None:
    async def story(database: Database) -> None:
        folder, spool = tmp_path / "results", tmp_path / "spool"
        record = store_in(folder).put(LARGE)
        age(file_of(folder, record))
        spool.mkdir()
        (spool / "waiting").touch()
        sweeper = Sweeper({folder: "ours"}, spool)
        await looked(database, sweeper, 3)
        assert file_of(folder, record).exists()
        (spool / "waiting").unlink()
        await looked(database, sweeper, 2)
        assert not file_of(folder, record).exists()

    with_database(sqlite, story)


def test_a_look_leaves_no_thread_behind(tmp_path: Path, sqlite: MakeDatabase) -> None:
    async def story(database: Database) -> None:
        before = threading.enumerate()
        await looked(database, Sweeper({tmp_path / "results": "ours"}, tmp_path / "spool"))
        for thread in threading.enumerate():
            if thread not in before:
                thread.join(30)
                assert not thread.is_alive()

    with_database(sqlite, story)


@pytest.mark.parametrize("races", [1, 2])
def test_writers_of_the_same_content_never_lose_it_and_readers_find_it(
    tmp_path: Path, sqlite: MakeDatabase, monkeypatch: pytest.MonkeyPatch, races: int
) -> None:
    """A file is written anew at the worst moments, before it is put aside and after, and read while it is aside."""
    folder = tmp_path / "results"
    results = store_in(folder)
    record = results.put(LARGE)
    file = file_of(folder, record)
    rename, lstat = Path.rename, Path.lstat
    written: list[str] = []
    found: list[tuple[str, bool]] = []

    def racing_rename(self: Path, target: Path) -> Path:
        if self == file and not written:
            results.put(LARGE)
            written.append("before it is put aside")
        return rename(self, target)

    def racing_lstat(self: Path) -> os.stat_result:
        if self.parent == file.parent and self.name.startswith(".upwell-"):
            assert not file.exists()
            found.append((results.get(record), results.exists(record)))
            if len(written) < races:
                results.put(LARGE)
                written.append("while it is aside")
        return lstat(self)

    async def story(database: Database) -> None:
        age(file)
        monkeypatch.setattr(Path, "rename", racing_rename)
        monkeypatch.setattr(Path, "lstat", racing_lstat)
        await looked(database, Sweeper({folder: "ours"}), 3)
        assert len(written) == races
        assert found == [(LARGE, True)]
        assert results.get(record) == LARGE
        assert [entry.name for entry in file.parent.iterdir()] == [file.name], "nothing is left aside"

    with_database(sqlite, story)


def test_results_are_whole_while_many_write_and_it_is_swept(tmp_path: Path, sqlite: MakeDatabase) -> None:
    folder = tmp_path / "results"
    values = [LARGE + str(number) for number in range(6)]
    faults: list[Exception] = []
    stop = threading.Event()

    def write() -> None:
        results = store_in(folder)
        while not stop.is_set():
            for value in values:
                try:
                    record = results.put(value)  # which is fresh now, so that nobody may take it away
                    assert results.get(record) == value
                    age(file_of(folder, record))  # and a week passes
                except FileNotFoundError:  # the file that was to be aged has gone already
                    pass
                except Exception as error:
                    faults.append(error)

    async def story(database: Database) -> None:
        sweeper = Sweeper({folder: "ours"})
        for _ in range(40):
            await looked(database, sweeper)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with_database(sqlite, story)
    finally:
        stop.set()
        writer.join()
    assert faults == []


def test_the_folder_of_a_store_is_told_from_those_of_others(tmp_path: Path) -> None:
    home = tmp_path / "home"

    def name(**others: Any) -> str:
        wanted = Settings(home=str(home), **others)
        folder = Path(str(result_folder(wanted).basepath))  # type: ignore[union-attr]  # pyright: ignore
        return composition._store_name(folder, wanted)  # pyright: ignore[reportPrivateUsage]

    plain = name()
    assert plain == name(database_url=f"sqlite:///{home}/upwell.db") == name(database_url=str(home / "upwell.db"))
    elsewhere = str(tmp_path / "elsewhere")
    others = [
        name(database_url=str(home / "other.db")),
        name(database_url="postgresql://one@host/name"),
        name(database_url="postgresql://one@host/other"),
        name(api_url="http://127.0.0.1:4200/api"),
        name(results_local_storage_path=elsewhere),
    ]
    assert len({plain, *others}) == 6
    assert name(database_url="postgresql://two:secret@host/name") == others[1], "who asks does not matter"


def test_a_process_marks_the_folder_that_its_sweeper_looks_after(tmp_path: Path, sqlite: MakeDatabase) -> None:
    wanted = Settings(home=str(tmp_path), journal="on")
    results = ResultStore(result_folder(wanted))
    record = results.put(LARGE)
    file = file_of(tmp_path / "results", record)
    age(file)

    async def story(database: Database) -> None:
        await looked(database, make_sweeper(wanted), 3)

    with_database(sqlite, story)
    assert not file.exists()
