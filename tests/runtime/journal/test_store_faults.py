"""RELIABILITY T5: whatever the store does, runs are none the worse for it, and in the end it has everything once."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.postgres import PostgresServer
from tests.runtime.journal.writing import ask, count_rows, journal_of, spooled

from upwell import flow, get_run_logger, task
from upwell.journal.batch import Batch
from upwell.journal.database import Database, StoreUnavailable
from upwell.journal.journal import Journal
from upwell.journal.postgres import PostgresDatabase
from upwell.journal.processes import Process
from upwell.journal.sqlite import MemoryDatabase, SqliteDatabase
from upwell.journal.store import SqlStore
from upwell.testing.crashing_store import Fault, FaultyDatabase

RUNS = 12
EXPECTED = sum(x * x for x in range(RUNS))
NEVER = 10**9


@flow
async def sums() -> int:
    failed: set[int] = set()

    @task(retries=1)
    async def square(x: int) -> int:
        if x % 5 == 0 and x not in failed:
            failed.add(x)
            raise ValueError(x)
        get_run_logger().info("squared %s", x)
        return x * x

    @task
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    return await total.submit(square.map(range(RUNS)))


def run_with(database: Database, folder: Path, *, opened: bool) -> None:
    """The flow, recorded there; `opened` waits for the first look at the store first."""
    with journal_of(lambda: database, folder) as journal:
        if opened:
            journal.ask(lambda store: store.state_of(journal.process)).result(30)
        assert asyncio.run(sums()) == EXPECTED
    assert spooled(folder) == []


def bring_in(database: Database, folder: Path) -> None:
    """What a journal had to leave behind, because its store was slow to come back, comes in with the next one."""
    with journal_of(lambda: database, folder) as journal:
        journal.ask(lambda store: store.state_of(journal.process)).result(30)
    assert spooled(folder) == []


@contextmanager
def patience(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Generator[None]:
    """Who waits for a flush waits so long for a store that fails."""
    with monkeypatch.context() as patching:
        patching.setattr("upwell.journal.journal.PATIENCE_SECONDS", seconds)
        yield


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What is stored if nothing fails."""
    memory = MemoryDatabase()
    run_with(memory, tmp_path_factory.mktemp("wanted"), opened=True)
    found = count_rows(memory)
    assert (found["flow_runs"], found["task_runs"], found["edges"]) == (1, RUNS + 1, RUNS)
    assert found["logs"] > RUNS
    return found


def check_fault(
    n: int, fault: Fault, times: int, wanted: dict[str, int], folder: Path, caplog: pytest.LogCaptureFixture
) -> bool:
    """Run with this fault; whether it happened."""
    memory = MemoryDatabase()
    database = FaultyDatabase(memory, fail_at=n, fault=fault, times=times)
    caplog.clear()
    run_with(database, folder, opened=False)
    assert count_rows(memory) == wanted, f"fault {n}"
    assert len(complaints(caplog)) <= 1, f"fault {n}: {complaints(caplog)}"  # none as it takes leave, when all is safe
    return bool(database.failed)


@pytest.mark.parametrize("fault", Fault)
def test_whichever_operation_fails_runs_go_on_and_everything_is_stored_once(
    fault: Fault, wanted: dict[str, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    happened = [check_fault(n, fault, 1, wanted, tmp_path, caplog) for n in range(1, 51)]
    assert happened[:3] == [True] * 3


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("fault", Fault)
def test_however_often_they_fail(
    fault: Fault, times: int, wanted: dict[str, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(1, 5001):
        if not check_fault(n, fault, times, wanted, tmp_path, caplog):
            assert n > 3
            return


def test_an_error_that_nobody_foresaw_is_a_fault_like_any_other(
    wanted: dict[str, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(1, 30):
        memory = MemoryDatabase()
        database = FaultyDatabase(memory, fail_at=n, error=lambda: ZeroDivisionError("nobody foresaw this"))
        run_with(database, tmp_path, opened=False)
        assert count_rows(memory) == wanted, f"operation {n}"


@flow
def keyed() -> int:
    return 1


def test_a_flow_that_needs_the_store_waits_longer_for_it_than_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = FaultyDatabase(MemoryDatabase(), fail_at=1, times=3)
    with journal_of(lambda: database, tmp_path), patience(monkeypatch, 0.0):
        assert keyed(idempotency_key="a") == 1
    assert database.failed == 3


def test_and_in_the_end_it_fails_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upwell.journal.durable.PATIENCE_SECONDS", 0.0)
    database = FaultyDatabase(MemoryDatabase(), fail_at=1, times=NEVER)
    with (
        journal_of(lambda: database, tmp_path),
        patience(monkeypatch, 0.0),
        pytest.raises(StoreUnavailable, match="made to fail"),
    ):
        keyed(idempotency_key="a")


def test_what_a_store_that_fails_for_good_does_not_take_is_spooled_and_brought_in_by_the_next(
    wanted: dict[str, int], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = MemoryDatabase()
    with journal_of(lambda: FaultyDatabase(memory, fail_at=1, times=NEVER), tmp_path):
        with patience(monkeypatch, 0.2):
            assert asyncio.run(sums()) == EXPECTED
        with patience(monkeypatch, 10_000):  # who knows that the store fails does not wait for it again
            assert asyncio.run(sums()) == EXPECTED
    assert len(complaints(caplog)) == 1
    assert f"What the store did not take is kept in {tmp_path}" in caplog.text
    assert len(spooled(tmp_path)) == 1
    with journal_of(lambda: memory, tmp_path) as journal:
        assert journal.flush(10)
    assert spooled(tmp_path) == []
    assert count_rows(memory) == {table: 2 * count for table, count in wanted.items()}


def test_what_was_spooled_comes_in_before_what_is_newer_as_soon_as_the_store_works_again(
    wanted: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = MemoryDatabase()
    database = FaultyDatabase(memory, fail_at=1, times=NEVER)
    with patience(monkeypatch, 0.2), journal_of(lambda: database, tmp_path) as journal:
        assert asyncio.run(sums()) == EXPECTED
        assert spooled(tmp_path)
        database.stop_failing()
        assert asyncio.run(sums()) == EXPECTED
        assert journal.flush(30)
    bring_in(database, tmp_path)
    assert count_rows(memory) == {table: 2 * count for table, count in wanted.items()}


def test_what_is_spooled_while_a_spool_is_brought_in_comes_before_what_is_newer_too(
    wanted: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = MemoryDatabase()
    database = FaultyDatabase(memory, fail_at=1, times=NEVER)
    is_bringing_in, may_go_on = threading.Event(), threading.Event()
    take_over = SqlStore.take_over

    async def held(self: SqlStore, process: Process, batch: Batch) -> None:
        is_bringing_in.set()
        while not may_go_on.is_set():
            await asyncio.sleep(0.005)
        await take_over(self, process, batch)

    async def goes_on_until_all_is_written(journal: Journal) -> None:
        running = asyncio.create_task(sums())
        unwritten = journal._unwritten  # pyright: ignore[reportPrivateUsage]  # no one else can say when it is there
        recorded = len(unwritten)
        while len(unwritten) == recorded and not running.done():
            await asyncio.sleep(0)
        may_go_on.set()
        assert await running == EXPECTED

    monkeypatch.setattr(SqlStore, "take_over", held)
    for patience in ("PATIENCE_SECONDS", "SLOW_SECONDS"):
        monkeypatch.setattr(f"upwell.journal.journal.{patience}", 0.2)
    with journal_of(lambda: database, tmp_path) as journal:
        assert asyncio.run(sums()) == EXPECTED
        database.stop_failing()
        assert is_bringing_in.wait(30)
        assert asyncio.run(sums()) == EXPECTED  # spooled at once, for the store has not said that it works again
        asyncio.run(goes_on_until_all_is_written(journal))
    bring_in(database, tmp_path)
    assert count_rows(memory) == {table: 3 * count for table, count in wanted.items()}


def test_with_no_room_for_a_spool_either_runs_go_on_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spool").write_text("in the way")
    memory = MemoryDatabase()
    with (
        patience(monkeypatch, 0.2),
        journal_of(lambda: FaultyDatabase(memory, fail_at=1, times=NEVER), tmp_path),
    ):
        for _ in range(3):
            assert asyncio.run(sums()) == EXPECTED
    warning, no_spool, lost = complaints(caplog)  # and not that the end hung
    assert "tries again" in warning
    assert "either" in no_spool
    assert "lost" in lost


def test_a_file_that_another_process_locks_for_seconds_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    with patience(monkeypatch, 0.2), journal_of(lambda: SqliteDatabase(path), tmp_path) as journal:
        assert asyncio.run(sums()) == EXPECTED
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN EXCLUSIVE")
        freed = threading.Timer(1, lambda: other.execute("ROLLBACK"))
        freed.start()
        assert asyncio.run(sums()) == EXPECTED
        freed.join()
        assert journal.flush(30)
        other.close()
    assert complaints(caplog) == []
    assert count_rows(SqliteDatabase(path))["flow_runs"] == 2


FLOW = """
import asyncio, resource, sys
from upwell import flow, task

@task
async def echo(x):
    return x

@flow
async def many(n):
    return sum([await future for future in echo.map(range(n))])

limit = int(sys.argv[1])
assert asyncio.run(many(10)) == 45
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for n in (20_000, 3, 3):
    assert asyncio.run(many(n)) == n * (n - 1) // 2
print("fine")
"""


def run_script(script: str, home: Path, *arguments: str, **variables: str) -> tuple[str, str]:
    environment = {**os.environ, "UPWELL_JOURNAL": "on", "UPWELL_HOME": str(home), "UPWELL_LOGGING_LEVEL": "WARNING"}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_a_full_disk_does_not_fail_a_run(tmp_path: Path) -> None:
    output, errors = run_script(FLOW, tmp_path, str(400_000))
    assert output == "fine\n"
    assert errors.count("tries again") == 1
    assert errors.count("either") <= 1
    assert "Traceback" not in errors
    assert ask(SqliteDatabase(tmp_path / "upwell.db"), "PRAGMA integrity_check") == [("ok",)]


DELETED = """
import asyncio, sys
from pathlib import Path
from upwell import flow

@flow
async def nothing():
    return 1

assert asyncio.run(nothing()) == 1
for file in Path(sys.argv[1]).glob("upwell.db*"):
    file.unlink()
for _ in range(2):
    assert asyncio.run(nothing()) == 1
"""


def test_a_file_that_is_deleted_under_it_is_made_anew(tmp_path: Path) -> None:
    _, errors = run_script(DELETED, tmp_path, str(tmp_path))
    assert errors.count("was deleted") == 1
    assert len(errors.splitlines()) == 1
    assert count_rows(SqliteDatabase(tmp_path / "upwell.db"))["flow_runs"] == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with little room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_once_a_full_disk_has_room_again_everything_is_stored(
    small_disk: Path, wanted: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    database = SqliteDatabase(small_disk / "store.db")
    with journal_of(lambda: database, small_disk) as journal:
        assert asyncio.run(sums()) == EXPECTED
        ballast = small_disk / "ballast"
        with pytest.raises(OSError, match="No space"):
            ballast.write_bytes(bytes(4_000_000))
        for _ in range(3):
            assert asyncio.run(sums()) == EXPECTED
        ballast.unlink()
        assert journal.flush(10)
        assert asyncio.run(sums()) == EXPECTED
    bring_in(database, small_disk)
    assert count_rows(database) == {table: 5 * count for table, count in wanted.items()}


def test_a_home_that_is_no_folder_does_not_fail_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    output, errors = run_script(FLOW, tmp_path / "file", "0")
    assert output == "fine\n"
    assert errors.count("tries again") == 1
    assert "UPWELL_HOME" in errors


def test_a_server_that_crashes_and_comes_back_has_everything_once(
    postgres: PostgresServer, postgres_url: str, wanted: dict[str, int], tmp_path: Path
) -> None:
    with journal_of(lambda: PostgresDatabase(postgres_url), tmp_path) as journal:
        assert asyncio.run(sums()) == EXPECTED
        restarting = threading.Thread(target=postgres.restart)
        restarting.start()
        for _ in range(3):
            assert asyncio.run(sums()) == EXPECTED
        restarting.join()
        assert journal.flush(10)
        assert asyncio.run(sums()) == EXPECTED
    bring_in(PostgresDatabase(postgres_url), tmp_path)
    assert count_rows(PostgresDatabase(postgres_url)) == {table: 5 * count for table, count in wanted.items()}
