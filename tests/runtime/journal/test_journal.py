"""The journal's own life: its thread, its flushes, its end; and what becomes of it in other processes."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.journal.writing import ask, count_rows, journal_of, new_journal, spooled

from upwell import Runtime, composition, flow, task
from upwell.engine.recorder import BEHIND, recorder
from upwell.journal.journal import Journal
from upwell.journal.sqlite import MemoryDatabase, SqliteDatabase
from upwell.settings import temporary_settings

PATIENCE_SECONDS = 30.0
"""What has not happened by then never will."""


@task
def echo(x: Any) -> Any:
    return x


@flow
def some(n: int = 3) -> int:
    return sum(echo.map(range(n)).result())


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home in which a journal is kept."""
    with temporary_settings(journal="on", home=str(tmp_path), journal_flush_seconds=0.01):
        try:
            yield tmp_path
        finally:
            composition.close_journal()


def stored(home: Path) -> dict[str, int]:
    return count_rows(SqliteDatabase(home / "upwell.db"))


# --- flushes --------------------------------------------------------------------------------------------------


def test_when_a_flow_has_ended_all_of_it_is_in_the_file(home: Path) -> None:
    assert some() == 3
    rows = stored(home)
    assert (rows["flow_runs"], rows["task_runs"], rows["flow_run_states"]) == (1, 3, 3)


def test_what_happens_outside_of_flows_is_in_the_file_soon(home: Path) -> None:
    echo(0)
    composition.flush_journal()  # the file is there
    echo(1)
    until = time.monotonic() + PATIENCE_SECONDS
    while stored(home)["task_runs"] < 2 and time.monotonic() < until:
        time.sleep(0.01)
    assert ask(SqliteDatabase(home / "upwell.db"), "SELECT state FROM task_runs") == [("COMPLETED",)] * 2


def test_of_much_that_happens_the_first_is_in_the_file_before_a_flush_is_due(home: Path) -> None:
    @task
    async def nothing(_: int) -> None: ...

    @flow
    async def main() -> int:
        await nothing.map(range(BEHIND * 10))
        until = time.monotonic() + PATIENCE_SECONDS
        while not (written := (await asyncio.to_thread(stored, home))["task_runs"]) and time.monotonic() < until:
            await asyncio.sleep(0.01)
        return written

    composition.flush_journal()  # the file is there
    with temporary_settings(journal_flush_seconds=3600.0):
        assert asyncio.run(main()) >= BEHIND
    assert stored(home)["task_runs"] == BEHIND * 10


@task
def named(number: Any = 0, *more: Any, password: str = "") -> Any:
    return number, more, password


def test_direct_calls_are_recorded_as_they_were_made(home: Path) -> None:
    @flow
    def main() -> None:
        named(1)
        named([1, 2], "x", password="hunter2")
        named(number=None)
        named()
        with pytest.raises(ZeroDivisionError):
            divided(0)
        named(10**5000)

    @task
    def divided(by: int) -> float:
        return 1 / by

    main()
    rows = ask(SqliteDatabase(home / "upwell.db"), "SELECT state, inputs FROM task_runs ORDER BY series, number")
    assert rows == [
        ("COMPLETED", "number=1"),
        ("COMPLETED", "number=[1, 2], more[0]='x', password=********"),
        ("COMPLETED", "number=None"),
        ("COMPLETED", None),
        ("COMPLETED", "number=<int of 16,610 bits>"),
        ("FAILED", "by=0"),
    ]


@task(task_runner="processes")
def root(number: float, password: str = "") -> float:
    if number < 0:
        raise ValueError(number)
    return float(number**0.5)


def test_a_map_on_processes_is_recorded_run_by_run(home: Path) -> None:
    @flow
    def main() -> None:
        futures = root.map([4, -1, 0.25, *range(3, 500)])
        assert futures[2].result() == 0.5
        futures.wait()
        assert futures[1].state.is_failed()

    main()
    rows = ask(
        SqliteDatabase(home / "upwell.db"),
        "SELECT number, state, inputs, run_count, created <= started AND started <= ended FROM task_runs ORDER BY 1",
    )
    assert rows == [
        (0, "COMPLETED", "number=4", 1, 1),
        (1, "FAILED", "number=-1", 1, 1),
        (2, "COMPLETED", "number=0.25", 1, 1),
        *((number, "COMPLETED", f"number={number}", 1, 1) for number in range(3, 500)),
    ]


def test_a_number_of_too_many_digits_loses_no_run_of_a_map(home: Path) -> None:
    @flow
    def main() -> None:
        named.map([1, 10**5000, 2]).wait()

    main()
    rows = ask(SqliteDatabase(home / "upwell.db"), "SELECT inputs FROM task_runs ORDER BY number")
    assert rows == [("number=1",), ("number=<int of 16,610 bits>",), ("number=2",)]


def test_whoever_waits_is_called_once_whatever_others_do(tmp_path: Path) -> None:
    called: list[int] = []

    def raises() -> None:
        raise RuntimeError("nobody is there")

    with journal_of(MemoryDatabase, tmp_path) as journal:
        journal.when_written(raises)
        journal.when_written(lambda: called.append(1))
        assert journal.flush(PATIENCE_SECONDS)
        assert called == [1]
    journal.when_written(lambda: called.append(2))
    assert called == [1, 2]
    assert journal.flush(0.0)


def test_no_one_waits_for_ever_whose_wait_meets_the_end(tmp_path: Path) -> None:
    for _ in range(20):
        journal = new_journal(MemoryDatabase, tmp_path)
        done: list[bool] = []

        def flush(journal: Journal = journal, done: list[bool] = done) -> None:
            done.extend(journal.flush(10) for _ in range(50))

        threads = [threading.Thread(target=flush) for _ in range(4)]
        for thread in threads:
            thread.start()
        journal.close()
        for thread in threads:
            thread.join(20)
        assert done == [True] * 200


def test_what_no_row_can_be_made_of_is_left_out_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    memory = MemoryDatabase()
    with journal_of(lambda: memory, tmp_path) as journal:
        journal.recorder.ended.append("no run at all")
        assert some() == 3
        journal.recorder.fed.append(("no run", "no item", None))
        assert some() == 3
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    assert count_rows(memory)["task_runs"] == 6


def test_a_row_that_the_database_refuses_is_left_out_and_the_others_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = MemoryDatabase()
    with journal_of(lambda: memory, tmp_path) as journal:
        for n in range(100):
            message = 2**100 if n == 42 else f"line {n}"
            journal.recorder.logs.append(("flow-run", None, n, 20, "test", message))
        assert some() == 3
        assert journal.flush(PATIENCE_SECONDS)
    lines = ask(memory, "SELECT count(*) FROM logs WHERE flow_run_id = 'flow-run'")
    assert lines == [(99,)]
    assert count_rows(memory)["task_runs"] == 3
    assert next(record.getMessage() for record in caplog.records if record.levelname == "ERROR").startswith(
        "The store memory refused 1 record(s)"
    )


# --- its end --------------------------------------------------------------------------------------------------


def test_it_may_be_closed_twice_at_once_and_before_it_is_open(tmp_path: Path) -> None:
    for _ in range(20):
        journal = new_journal(lambda: SqliteDatabase(tmp_path / "store.db"), tmp_path)
        closers = [threading.Thread(target=journal.close) for _ in range(3)]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join(30)
        journal.close()
        assert journal.closed
        assert journal.recorder.is_empty()


def test_what_is_asked_of_a_closed_journal_is_refused(tmp_path: Path) -> None:
    journal = new_journal(MemoryDatabase, tmp_path)
    journal.close()
    with pytest.raises(Exception, match="closed"):
        journal.ask(lambda store: store.state_of(journal.process)).result(30)


def test_after_its_end_whoever_still_records_in_it_goes_on_and_holds_nothing(home: Path) -> None:
    @flow
    def outlives() -> int:
        composition.close_journal()
        return sum(echo.map(range(1000)).result())

    assert outlives() == 499500
    assert some() == 3
    assert stored(home)["task_runs"] == 3


def test_another_store_is_another_journal_and_the_first_is_whole(home: Path) -> None:
    some()
    with temporary_settings(home=str(home / "other")):
        some()
        composition.close_journal()
    some()
    assert stored(home)["flow_runs"] == 2
    assert stored(home / "other")["flow_runs"] == 1


def test_settings_that_do_not_touch_it_keep_the_journal(home: Path) -> None:
    some()
    first = recorder()
    with temporary_settings(task_default_retries=1):
        some()
        assert recorder() is first


def test_off_records_nothing_and_memory_leaves_nothing(tmp_path: Path) -> None:
    with temporary_settings(journal="off", home=str(tmp_path)):
        assert some() == 3
        assert recorder() is None
    with temporary_settings(journal="memory", home=str(tmp_path)):
        assert some() == 3
        composition.close_journal()
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_was_declared_lost_says_so_and_begins_a_new_life(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    some()
    first = recorder()
    database = SqliteDatabase(home / "upwell.db")
    ask(database, "UPDATE processes SET state = 'lost'")
    some()  # finds out
    until = time.monotonic() + PATIENCE_SECONDS
    while first is recorder() and time.monotonic() < until:
        time.sleep(0.01)
    some()
    composition.close_journal()
    assert [record.levelname for record in caplog.records if "declared dead" in record.getMessage()] == ["ERROR"]
    assert ask(database, "SELECT state, count(*) FROM processes GROUP BY state ORDER BY state") == [
        ("ended", 1),
        ("lost", 1),
    ]
    assert stored(home)["flow_runs"] == 3, "what was done until then came in with the next life"


# --- other processes ------------------------------------------------------------------------------------------


def in_child(home: Path) -> None:
    assert some(5) == 10
    echo("at the end")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # forking with threads: what this is about
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_of_multiprocessing_keeps_a_journal_of_its_own(home: Path, method: str) -> None:
    some()
    os.environ.update(UPWELL_JOURNAL="on", UPWELL_HOME=str(home))
    try:
        context: Any = multiprocessing.get_context(method)
        child = context.Process(target=in_child, args=(home,))
        child.start()
        child.join(30)
    finally:
        os.environ["UPWELL_JOURNAL"] = "off"
    assert child.exitcode == 0
    some()
    composition.close_journal()
    assert stored(home)["flow_runs"] == 3
    assert stored(home)["task_runs"] == 3 + 6 + 3
    states = ask(SqliteDatabase(home / "upwell.db"), "SELECT state, count(*) FROM processes GROUP BY state")
    assert states == [("ended", 2)]
    assert spooled(home) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_flow_that_forks_ends_in_both(home: Path) -> None:
    read, write = os.pipe()

    @flow
    def forks() -> int:
        echo(1)
        return os.fork()

    pid = forks()
    if pid == 0:  # its end is recorded nowhere: the run is the parent's
        os.write(write, b"ended")
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "ended"
    assert os.waitpid(pid, 0)[1] == 0
    assert stored(home)["flow_runs"] == 1


def add_all(numbers: list[int]) -> int:
    return sum(add_one.map(numbers).result())


@task
def add_one(number: int) -> int:
    return number + 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_a_forked_child_begins_inside_of_a_flow_is_its_own(home: Path) -> None:
    @flow
    def forks() -> tuple[int, int]:
        assert add_one.submit(1).result() == 2  # so that there is a loop, which the child has not
        return os.fork(), flow(add_all)([1, 2]) if os.getpid() != parent else 0

    parent = os.getpid()
    pid, answer = forks()
    if pid == 0:
        composition.close_journal()
        os._exit(answer)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    assert stored(home)["flow_runs"] == 2
    assert stored(home)["task_runs"] == 3


@task(task_runner="processes")
def nested(x: int) -> int:
    return some(x)


@flow
def around() -> list[int]:
    return nested.map([2, 3]).result()


def test_what_runs_in_children_of_the_pool_is_in_the_file_when_the_flow_has_ended(home: Path) -> None:
    os.environ.update(UPWELL_JOURNAL="on", UPWELL_HOME=str(home))
    try:
        assert around() == [1, 3]
    finally:
        os.environ["UPWELL_JOURNAL"] = "off"
    rows = stored(home)
    assert rows["flow_runs"] == 3
    assert rows["task_runs"] == 2 + 5


# --- the end of the interpreter -------------------------------------------------------------------------------

SCRIPTS = {
    "a direct call": ("from upwell import task\n@task\ndef f(): pass\nf()", 1),
    "work in flight": (
        "import time\nfrom upwell import task\n@task\ndef f(x): time.sleep(0.01)\nf.map(range(3)); time.sleep(0.3)",
        3,
    ),
    "an exception": ("from upwell import task\n@task\ndef f(): pass\nf()\nraise SystemExit(0)", 1),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_at_the_end_of_the_interpreter_everything_is_written(script: str, tmp_path: Path) -> None:
    text, runs = SCRIPTS[script]
    environment = {
        **os.environ,
        "UPWELL_JOURNAL": "on",
        "UPWELL_HOME": str(tmp_path),
        "UPWELL_LOGGING_LEVEL": "WARNING",
    }
    done = subprocess.run([sys.executable, "-X", "dev", "-c", text], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    composition.close_journal()
    with temporary_settings(journal="on", home=str(tmp_path)):  # brings in what was spooled, if it ended that fast
        some()
        composition.close_journal()
    assert stored(tmp_path)["task_runs"] == runs + 3


def test_what_the_end_of_the_interpreter_cancels_is_recorded_as_that(tmp_path: Path) -> None:
    text = """
from time import sleep
from upwell import task
@task
def wait(x): sleep(0.01 if x else 60)
wait.map(range(20))
"""
    environment = {**os.environ, "UPWELL_JOURNAL": "on", "UPWELL_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", text], env=environment, check=True, capture_output=True)
    states = [state for (state,) in ask(SqliteDatabase(tmp_path / "upwell.db"), "SELECT state FROM task_runs")]
    assert set(states) <= {"COMPLETED", "CANCELLED"}
    assert len(states) == 20


def test_a_journal_that_is_closed_as_soon_as_it_was_opened_leaves_nothing_behind(home: Path) -> None:
    """What it begins when the store is open may not have begun by then. (What is left is found after each test.)"""
    for _ in range(20):
        assert composition.open_recorder() is not None
        composition.close_journal()


def test_a_service_records_while_it_runs(home: Path) -> None:
    async def main() -> None:
        async with Runtime() as runtime:
            await asyncio.gather(*(runtime.submit(echo, n) for n in range(10)))
            until = time.monotonic() + PATIENCE_SECONDS
            while stored_runs() < 10 and time.monotonic() < until:
                await asyncio.sleep(0.01)
            assert stored_runs() == 10

    def stored_runs() -> int:
        import sqlite3

        connection = sqlite3.connect(home / "upwell.db")
        try:
            return int(connection.execute("SELECT count(*) FROM task_runs").fetchone()[0])
        except sqlite3.OperationalError:
            return 0
        finally:
            connection.close()

    asyncio.run(main())
    gc.collect()
