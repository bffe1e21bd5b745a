"""Ends that are written at once: safe before the next call, in their tables soon, and none by who was declared dead."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.noted_ends import noted_ends
from tests.runtime.journal.ends.given import (
    FINISHED,
    ask,
    calls,
    double,
    fail,
    given_up,
    log,
    logs,
    strict,
    writer,
)
from tests.runtime.journal.test_liveness_of_processes import stop_between_writes, until

from upwell import flow, task
from upwell.composition import close_journal
from upwell.journal import end_log
from upwell.journal.end_log import fence, log_beside
from upwell.settings import temporary_settings
from upwell.transactions import transaction


def test_each_end_is_noted_before_the_next_call_begins(home: Path) -> None:
    assert calls(str(home)) == [1, 2, 3]
    assert ask(home, FINISHED) == [(0, "x=0", 2), (1, "x=1", 2), (2, "x=2", 2)]
    assert ask(home, "SELECT ends FROM processes") == [(3,)]


def test_every_end_of_very_many_is_in_the_file_and_those_of_others_are_not_in_its_place(home: Path) -> None:
    @flow(durable="strict")
    def many() -> None:
        for x in range(3000):
            double(x)

    many()
    close_journal()
    rows = ask(home, f"{FINISHED} ORDER BY 1")
    assert rows == [(x, f"x={x}", length) for x, (*_, length) in enumerate(rows)]
    assert len(rows) == 3000


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
