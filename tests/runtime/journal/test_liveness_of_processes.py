"""Real processes that are killed, stopped, or too busy to say that they live, and what becomes of their runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.journal.hosts import look_once

from upwell.journal import liveness
from upwell.journal.liveness import Observer
from upwell.journal.sqlite import SqliteDatabase

ROOT = Path(__file__).parents[3]


@contextmanager
def life(kind: str, home: Path, *args: str, **settings: str) -> Generator[subprocess.Popen[str]]:
    """A child that lives this life, until it is where it wants to be; killed at the end if it is still there."""
    environment = {
        **os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'runtime'}", "UPWELL_JOURNAL": "on", "UPWELL_HOME": str(home),
        **settings,
    }  # fmt: skip
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.runtime.journal.lives", kind, *args],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    try:
        assert child.stdout.readline() in ("ready\n", "")
        yield child
    finally:
        child.kill()
        child.communicate()


def states(home: Path, text: str = "SELECT state, count(*) FROM {} GROUP BY state ORDER BY state") -> list[Any]:
    connection = sqlite3.connect(home / "upwell.db")
    try:
        return [connection.execute(text.format(table)).fetchall() for table in ("flow_runs", "task_runs")]
    finally:
        connection.close()


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


def are(home: Path, *expected: list[Any]) -> bool:
    try:
        return states(home) == list(expected)
    except sqlite3.OperationalError:  # the file, or its tables, are not there yet
        return False


def all_run(home: Path) -> bool:
    return are(home, [("RUNNING", 2)], [("RUNNING", 3)])


def stop_between_writes(child: subprocess.Popen[str], home: Path) -> None:
    """Stop it while it does not hold the store's lock."""
    connection = sqlite3.connect(home / "upwell.db", timeout=0, isolation_level=None)
    try:
        while True:
            os.kill(child.pid, signal.SIGSTOP)
            os.waitpid(child.pid, os.WUNTRACED)
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                os.kill(child.pid, signal.SIGCONT)
            else:
                connection.execute("ROLLBACK")
                return
    finally:
        connection.close()


async def beats(database: SqliteDatabase) -> int:
    """The signs of life of the only process."""
    ((beat,),) = await database.fetch_text("SELECT beat FROM processes")
    return int(beat)


def cannot_be_seen(host: str, pid: int, pid_started: str) -> bool | None:
    return None


def test_when_a_process_was_killed_whoever_comes_next_sees_to_its_runs(tmp_path: Path) -> None:
    with life("running", tmp_path) as child:
        until(lambda: all_run(tmp_path))
        child.kill()
        child.wait()
        with life("short", tmp_path) as next_one:
            assert next_one.wait(30) == 0
    assert states(tmp_path) == [[("COMPLETED", 1), ("CRASHED", 2)], [("CRASHED", 3)]]


def test_a_process_that_is_stopped_is_not_dead(tmp_path: Path) -> None:
    with life("running", tmp_path, UPWELL_LEASE_SECONDS="1") as child:
        until(lambda: all_run(tmp_path))
        stop_between_writes(child, tmp_path)
        time.sleep(1.3)
        assert look_once(tmp_path) == []
        assert all_run(tmp_path)


def test_a_stopped_process_that_was_declared_dead_writes_nothing_when_it_goes_on(tmp_path: Path) -> None:
    with life("running", tmp_path, UPWELL_LEASE_SECONDS="1") as child:
        until(lambda: all_run(tmp_path))
        stop_between_writes(child, tmp_path)
        connection = sqlite3.connect(tmp_path / "upwell.db")
        connection.execute("UPDATE processes SET state = 'lost'")
        connection.commit()
        connection.close()
        look_once(tmp_path)
        after = states(tmp_path)
        assert after == [[("CRASHED", 2)], [("CRASHED", 3)]]
        os.kill(child.pid, signal.SIGCONT)
        time.sleep(0.6)  # it renews every quarter of a second
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=30)
        assert said.count("declared dead") == 1
        assert states(tmp_path) == after


def test_a_task_that_keeps_the_interpreter_busy_for_longer_than_the_lease_kills_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with life("busy", tmp_path, UPWELL_LEASE_SECONDS="1") as child:
        until(lambda: are(tmp_path, [("RUNNING", 1)], [("RUNNING", 1)]))
        monkeypatch.setattr(liveness, "is_gone", cannot_be_seen)  # as if it were seen from elsewhere

        async def main() -> int:
            database = SqliteDatabase(tmp_path / "upwell.db")
            await database.open()
            observer, last = Observer(database), -1
            while child.poll() is None:
                beat = await beats(database)
                if beat != last:  # else it may have had no processor
                    last = beat
                    assert await observer.look() == []
                await asyncio.sleep(0.02)
            last = await beats(database)
            await database.close()
            return last

        assert asyncio.run(main()) > 2, "one in each of its leases, at least"
        assert child.returncode == 0
    assert states(tmp_path) == [[("COMPLETED", 1)], [("COMPLETED", 1)]]


def test_a_process_that_dies_while_it_renews_has_not_renewed(tmp_path: Path) -> None:
    with life("dies_while_it_renews", tmp_path, str(tmp_path / "upwell.db")) as child:
        assert child.wait(30) == -signal.SIGKILL
    assert len(look_once(tmp_path)) == 1
    connection = sqlite3.connect(tmp_path / "upwell.db")
    assert connection.execute("SELECT state, beat FROM processes").fetchall() == [("lost", 0)]
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
