"""Ends that are written at once: safe before the next call, in their tables soon, and none by who was declared dead."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.noted_ends import noted_ends
from tests.runtime.journal.test_liveness_of_processes import stop_between_writes, until

from upwell import flow, task
from upwell.composition import close_journal, flush_journal, open_recorder
from upwell.engine.console import ensure_configured
from upwell.engine.strict import Ends, EndWriter
from upwell.journal import end_log
from upwell.journal.database import StoreUnavailable
from upwell.journal.end_log import EndLog, fence, log_beside, logs_beside
from upwell.journal.liveness import Observer, give_up_process
from upwell.journal.processes import this_host
from upwell.journal.retention import Limits, tidy
from upwell.journal.safe_ends import bring_in
from upwell.journal.sqlite import SqliteDatabase
from upwell.settings import temporary_settings
from upwell.transactions import transaction

FINISHED = "SELECT t.number, t.inputs, length(r.record) FROM task_runs t JOIN task_run_results r USING (series, number)"


@pytest.fixture(autouse=True)
def home(tmp_path: Path) -> Iterator[Path]:
    """The folder of a journal that does not write by itself before a minute is over."""
    with temporary_settings(journal="on", home=str(tmp_path), journal_flush_seconds=60.0, logging_level="CRITICAL"):
        yield tmp_path
        close_journal()
    ensure_configured()  # the loggers say again what they did before


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


def test_each_end_is_noted_before_the_next_call_begins(home: Path) -> None:
    assert calls(str(home)) == [1, 2, 3]
    assert ask(home, FINISHED) == [(0, "x=0", 2), (1, "x=1", 2), (2, "x=2", 2)]
    assert ask(home, "SELECT ends FROM processes") == [(3,)]


def test_where_the_disk_is_waited_for_it_is_by_who_calls(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    pwrite = os.pwrite

    def write(opened: int, content: bytes, at: int) -> int:
        waited.append(at)
        return pwrite(opened, content, at)

    monkeypatch.setattr(os, "pwrite", write)
    with temporary_settings(database_synchronous="FULL"):
        assert calls(str(home)) == [1, 2, 3]
        close_journal()
    assert len(waited) == 3
    assert ask(home, FINISHED) == [(0, "x=0", 2), (1, "x=1", 2), (2, "x=2", 2)]
    assert logs(home) == []


def test_but_a_loop_does_not_wait_for_the_disk(home: Path) -> None:
    @task
    async def triple(x: int) -> int:
        return 3 * x

    @flow(durable="strict")
    async def in_a_loop() -> int:
        for x in range(3):
            await triple(x)
        return len(noted_ends(home / "upwell.db"))

    assert asyncio.run(in_a_loop()) == 3, "what is stored in memory takes no time"
    close_journal()
    with temporary_settings(database_synchronous="FULL"):
        assert asyncio.run(in_a_loop()) == 0
        close_journal()


def test_the_log_is_for_its_owner_and_is_gone_once_the_journal_has_everything(home: Path) -> None:
    calls(str(home))
    ((key,),) = ask(home, "SELECT key FROM processes")
    assert log_beside(home / "upwell.db", key).stat().st_mode & 0o777 == 0o600
    close_journal()
    assert logs(home) == []


def test_another_who_writes_to_the_file_is_not_waited_for(home: Path) -> None:
    @flow(durable="strict")
    def beside_another() -> bool:
        double(1)
        with closing(sqlite3.connect(home / "upwell.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            double(2)
            double(3)
            was_safe = strict().are_safe()
            other.execute("COMMIT")
        return was_safe

    assert beside_another()
    assert ask(home, FINISHED) == [(0, "x=1", 2), (1, "x=2", 2), (2, "x=3", 2)]


def test_where_no_log_can_be_made_the_journal_is_waited_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @flow(durable="strict")
    def without_log() -> list[int]:
        known: list[int] = []
        monkeypatch.setattr(os, "write", full)
        for x in range(3):
            double(x)
            known.append(len(ask(home, FINISHED)))
        monkeypatch.undo()
        return known

    assert without_log() == [0, 1, 2], "each call waits for the end of the one before"
    assert logs(home) == []


def test_where_there_is_no_room_the_journal_is_waited_for_and_makes_some(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(end_log, "HALF_BYTES", 600)
    monkeypatch.setattr(end_log, "FILE_BYTES", 4096 + 1200)

    @flow(durable="strict")
    def many() -> int:
        for x in range(50):
            double(x)
        return writer().written

    assert 25 < many() < 50
    assert len(ask(home, FINISHED)) == 50


def test_what_another_process_holds_up_is_waited_for(home: Path) -> None:
    """The next call does not begin before the end of the one before is safe."""

    @flow(durable="strict")
    def failing() -> list[int]:
        double(1)
        fail(2, return_state=True)
        double(3)
        return [int(number) for (number,) in ask(home, "SELECT number FROM task_runs WHERE state = 'FAILED'")]

    assert failing() == [0]


def test_who_was_declared_dead_writes_no_end(home: Path) -> None:
    @flow(durable="strict")
    def declared_dead() -> bool:
        double(1)
        before = strict().are_safe()
        ((process_id, key),) = ask(home, "SELECT id, key FROM processes")
        fence(log_beside(home / "upwell.db", key), process_id)
        double(2)
        return before and not strict().are_safe() and not log().add(b"facts")

    assert declared_dead()


@pytest.mark.parametrize("moved", ["upwell.db", "upwell.db-ends-1"])
def test_nothing_is_relied_on_that_nobody_would_find(home: Path, monkeypatch: pytest.MonkeyPatch, moved: str) -> None:
    monkeypatch.setattr(end_log, "LOOK_SECONDS", -1)

    @flow(durable="strict")
    def replaced() -> bool:
        double(1)
        (home / moved).rename(home / "away")
        written = log().add(b"facts")
        (home / "away").rename(home / moved)
        return written

    assert replaced() is False


def test_in_a_fork_and_after_the_end_nothing_is_written(home: Path) -> None:
    calls(str(home))
    found = log()
    child = os.fork()
    if not child:
        os._exit(found.add(b"facts") or strict().writer is not None)
    assert os.waitpid(child, 0)[1] == 0
    close_journal()
    assert not found.add(b"facts")


def test_what_dies_with_the_process_is_the_journals() -> None:
    @flow(durable="strict")
    def without() -> bool:
        return double(1) == 2 and strict().writer is None and double(2) == 4

    with temporary_settings(journal="memory"):
        assert without()
        close_journal()


KILLED = """
import os, signal, sys
from upwell import flow, task

@task
def step(x):
    print("step", x, flush=True)
    return x + 1

@task
def outer(x):
    print("outer", x, flush=True)
    return step(x * 100)

@flow(durable="strict")
def steps():
    x = 0
    for _ in range(5):
        x = step(x)
        if x == 4 and "die" in sys.argv:
            outer(1)
            os.kill(os.getpid(), signal.SIGKILL)
    return outer(x)

print("gives", steps())
"""


@pytest.mark.parametrize("synchronous", ["NORMAL", "FULL"])
def test_what_was_written_at_once_is_not_run_again_after_a_kill(home: Path, synchronous: str) -> None:
    program = home / "killed.py"
    program.write_text(KILLED)
    environment = {
        **os.environ, "UPWELL_JOURNAL": "on", "UPWELL_HOME": str(home), "UPWELL_JOURNAL_FLUSH_SECONDS": "60",
        "UPWELL_LOGGING_LEVEL": "CRITICAL", "UPWELL_DATABASE_SYNCHRONOUS": synchronous,
    }  # fmt: skip

    def run(*args: str) -> str:
        return subprocess.run(
            [sys.executable, str(program), *args], env=environment, stdout=subprocess.PIPE, text=True, timeout=60
        ).stdout

    assert run("die").splitlines() == ["step 0", "step 1", "step 2", "step 3", "outer 1", "step 100"]
    assert len(noted_ends(home / "upwell.db")) > 0
    assert run().splitlines() == ["step 4", "outer 5", "step 500", "gives 501"]
    assert logs(home) == []
    found = ask(home, "SELECT inputs, state, parent IS NULL FROM task_runs ORDER BY created, ended DESC")
    assert [row for row in found if row[0] in ("x=2", "x=100")] == [("x=2", "COMPLETED", 1), ("x=100", "COMPLETED", 0)]
    assert ask(home, "SELECT submitted FROM series WHERE task = 'step'") == [(7,)]


STOPPED = """
import os, sys
from upwell import flow, task

ledger = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

@task
def step(x):
    os.write(ledger, b"%d\\n" % x)
    return x + 1

@flow(durable="strict")
def steps():
    x = 0
    while x < 300 or not os.path.exists(sys.argv[1] + ".end"):
        x = step(x)
    return x

steps()
"""


def test_who_was_declared_dead_while_stopped_relies_on_no_end_that_others_do_not_know(home: Path) -> None:
    """Every step whose successor began is known to those who go on; of what it does afterwards nothing is."""
    program, ledger = home / "stopped.py", home / "ledger"
    program.write_text(STOPPED)
    environment = {**os.environ, "UPWELL_JOURNAL": "on", "UPWELL_HOME": str(home), "UPWELL_LOGGING_LEVEL": "CRITICAL"}
    command = [sys.executable, str(program), str(ledger)]

    def begun() -> int:
        return len(ledger.read_text().splitlines()) if ledger.exists() else 0

    def completed() -> int:
        return int(ask(home, "SELECT count(*) FROM task_runs WHERE state = 'COMPLETED'")[0][0])

    child = subprocess.Popen(command, env=environment, text=True)
    try:
        until(lambda: begun() > 100)
        stop_between_writes(child, home)
        begun_before = begun()
        ((process_id,),) = ask(home, "SELECT id FROM processes")
        asyncio.run(given_up(home, process_id))
        known = completed()
        assert begun_before - 1 <= known <= begun_before
        assert logs(home) != [], "until its runs are looked after again"
        os.kill(child.pid, signal.SIGCONT)
        child.wait(60)  # its flow, which has no end of its own, is stopped
    finally:
        child.kill()
        child.wait()
    assert completed() == known
    assert ask(home, "SELECT state_name FROM flow_runs") == [("AwaitingResume",)]
    Path(f"{ledger}.end").touch()
    before = ledger.read_text().splitlines()
    subprocess.run(command, env=environment, check=True, timeout=60)
    after = ledger.read_text().splitlines()[len(before) :]
    assert not after or known <= int(after[0]) <= len(before), "it goes on there, or after what was spooled"
    assert completed() >= 300


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


def test_ends_of_a_run_that_another_has_taken_over_do_not_come_in(home: Path) -> None:
    """What a process wrote that was declared dead is brought in once, and before anybody takes its runs over."""

    @flow(durable="strict")
    def taken_over() -> list[tuple[Any, ...]]:
        double(1)
        ((process_id, key),) = ask(home, "SELECT id, key FROM processes")
        ask(home, "UPDATE flow_runs SET process_id = 'another'")
        ask(home, "INSERT INTO series (key, base, task, flow_run_id, created, submitted, process_id) "
                  "SELECT (1 << 28) + 1, 'b', 'double', id, 0, 0, 'another' FROM flow_runs")  # fmt: skip
        asyncio.run(brought_in(home, process_id, key))
        found = ask(home, "SELECT * FROM task_runs")
        ask(home, f"UPDATE flow_runs SET process_id = '{process_id}'")
        ask(home, "DELETE FROM series")
        return found

    assert taken_over() == []
    flush_journal()


def test_what_comes_in_does_not_make_runs_fewer(home: Path) -> None:
    """New runs are numbered after all that were submitted, and one that ended need not have been the last."""

    @flow(durable="strict")
    def more() -> list[tuple[Any, ...]]:
        double(1)
        flush_journal()
        ask(home, "UPDATE series SET submitted = 100")
        double(2)
        ((process_id, key),) = ask(home, "SELECT id, key FROM processes")
        asyncio.run(brought_in(home, process_id, key))
        return ask(home, "SELECT submitted FROM series")

    assert more() == [(100,)]


def test_what_is_in_the_tables_is_not_brought_in_again(home: Path) -> None:
    """Such a run may have been rolled back since: then it is to be run again."""
    rolled_back = "SELECT state_name, (SELECT count(*) FROM task_run_results) FROM task_runs"

    @flow(durable="strict")
    def rolls_back() -> list[tuple[Any, ...]]:
        with suppress(RuntimeError), transaction():
            double(1)
            raise RuntimeError
        flush_journal()
        ask(home, "DELETE FROM task_run_results")
        assert len(noted_ends(home / "upwell.db")) == 1
        ((process_id, key),) = ask(home, "SELECT id, key FROM processes")
        asyncio.run(brought_in(home, process_id, key))
        return ask(home, rolled_back)

    assert rolls_back() == [("RolledBack", 0)]


def test_what_was_brought_in_is_not_brought_in_again(home: Path) -> None:
    """Whoever has done that may have died before the log was removed."""

    @flow(durable="strict")
    def twice() -> list[tuple[Any, ...]]:
        double(1)
        ((process_id, key),) = ask(home, "SELECT id, key FROM processes")
        asyncio.run(brought_in(home, process_id, key))
        ask(home, "DELETE FROM task_run_results")
        ask(home, "UPDATE task_runs SET state = 'FAILED', state_name = 'RolledBack'")
        asyncio.run(brought_in(home, process_id, key))
        return ask(home, "SELECT state_name, (SELECT count(*) FROM task_run_results), ends FROM task_runs, processes")

    assert twice() == [("RolledBack", 0, 1)]


def test_what_an_earlier_version_has_written_to_the_database_is_brought_in(home: Path) -> None:
    @flow(durable="strict")
    def noted_before() -> list[tuple[Any, ...]]:
        double(1)
        ((path,),) = [tuple(logs_beside(home / "upwell.db").values())]
        ((_, facts),) = end_log.entries_in(path.read_bytes())
        ((process_id, key),) = ask(home, "SELECT id, key FROM processes")
        path.unlink()
        ask(home, f"INSERT INTO safe_ends VALUES ({(key << 28) + 1}, x'{facts.hex()}')")
        asyncio.run(brought_in(home, process_id, key))
        return ask(home, f"{FINISHED} WHERE NOT EXISTS (SELECT 1 FROM safe_ends)")

    assert noted_before() == [(0, "x=1", 2)]


def test_a_log_that_cannot_be_read_now_keeps_its_process_from_being_declared_dead(home: Path) -> None:
    calls(str(home))
    close_journal()
    ask(home, f"UPDATE processes SET state = 'alive', host = '{this_host()}', pid = 1, pid_started = 'long ago'")
    ((key,),) = ask(home, "SELECT key FROM processes")
    path = log_beside(home / "upwell.db", key)
    path.mkdir()

    async def look() -> list[str]:
        database = SqliteDatabase(home / "upwell.db")
        await database.open()
        try:
            return await Observer(database).look()
        finally:
            await database.close()

    with pytest.raises(StoreUnavailable, match="cannot be read"):
        asyncio.run(look())
    assert ask(home, "SELECT state FROM processes") == [("alive",)]
    path.rmdir()
    assert len(asyncio.run(look())) == 1


def test_logs_of_processes_that_are_lost_or_known_no_more_are_removed(home: Path) -> None:
    calls(str(home))
    close_journal()
    path = home / "upwell.db"
    ask(home, "INSERT INTO processes (key, id, host, pid, pid_started, state, beat, seen, lease_until) VALUES "
              "(50, 'lost', '', 1, '', 'lost', 0, 9e15, 0), (51, 'there', '', 1, '', 'alive', 0, 9e15, 0)")  # fmt: skip
    for key in (50, 51, 52):
        log_beside(path, key).touch()

    async def tidied() -> None:
        database = SqliteDatabase(path)
        await database.open()
        await tidy(database, "me", Limits())
        await database.close()

    asyncio.run(tidied())
    assert logs(home) == ["upwell.db-ends-51"]


def test_nothing_begins_before_it_is_safe_that_a_run_was_rolled_back(home: Path) -> None:
    """Its end was safe at once: who goes on after a kill would take it for completed."""

    @flow(durable="strict")
    def rolls_back() -> list[tuple[Any, ...]]:
        with suppress(RuntimeError), transaction():
            double(1)
            raise RuntimeError
        double(2)
        return ask(home, "SELECT state_name FROM task_runs WHERE inputs = 'x=1'")

    assert rolls_back() == [("RolledBack",)]
