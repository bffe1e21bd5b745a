"""RELIABILITY T6: many processes write one new SQLite file at once; no error is seen, and no row is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.runtime.journal.writing import ask, spooled

from upwell.journal.sqlite import SqliteDatabase

WRITERS = 32
ROUNDS = 5
RUNS = 20

WRITERS_AT_ONCE = f"""
import asyncio, os, sys
from upwell import flow, task
from upwell.journal import journal

journal.SLOW_SECONDS = journal.CLOSE_SECONDS = journal.GOODBYE_SECONDS = 100.0  # nobody puts away what is not lost

@task(retries=1)
async def echo(x):
    return x

@flow
async def some():
    return sum([await future for future in echo.map(range({RUNS}))])

def write():
    for _ in range({ROUNDS}):
        assert asyncio.run(some()) == {RUNS * (RUNS - 1) // 2}

all_are_there, go = os.pipe()
writers = []
for _ in range({WRITERS}):
    writer = os.fork()  # each has its own journal, for none is open yet
    if writer == 0:
        os.close(go)
        os.read(all_are_there, 1)
        write()
        sys.exit(0)
    writers.append(writer)
os.close(go)  # all at once
print([os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]) for writer in writers])
"""


@pytest.mark.timeout(180)
def test_many_processes_write_one_new_file_and_no_error_is_seen_and_no_row_lost(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "UPWELL_JOURNAL": "on",
        "UPWELL_HOME": str(tmp_path / "home"),
        "UPWELL_LOGGING_LEVEL": "WARNING",
    }
    done = subprocess.run(
        [sys.executable, "-c", WRITERS_AT_ONCE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == f"{[0] * WRITERS}\n"
    database = SqliteDatabase(tmp_path / "home" / "upwell.db")
    assert ask(database, "PRAGMA integrity_check") == [("ok",)]
    assert ask(database, "SELECT state, count(*) FROM flow_runs GROUP BY state") == [("COMPLETED", WRITERS * ROUNDS)]
    runs = ask(database, "SELECT series, count(*), min(number), max(number) FROM task_runs GROUP BY series")
    assert [row[1:] for row in runs] == [(RUNS, 0, RUNS - 1)] * (WRITERS * ROUNDS)
    assert ask(database, "SELECT state, count(*) FROM processes GROUP BY state") == [("ended", WRITERS)]
    assert spooled(tmp_path / "home") == []
