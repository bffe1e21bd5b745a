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

WRITER = f"""
import asyncio, sys
from upwell import flow, task

@task(retries=1)
async def echo(x):
    return x

@flow
async def some():
    return sum([await future for future in echo.map(range({RUNS}))])

sys.stdin.readline()  # all at once
for _ in range({ROUNDS}):
    assert asyncio.run(some()) == {RUNS * (RUNS - 1) // 2}
"""


@pytest.mark.timeout(180)
def test_many_processes_write_one_new_file_and_no_error_is_seen_and_no_row_lost(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "UPWELL_JOURNAL": "on",
        "UPWELL_HOME": str(tmp_path / "home"),
        "UPWELL_LOGGING_LEVEL": "WARNING",
    }
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(WRITERS)
    ]
    try:
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        said = [writer.communicate(timeout=150)[0] for writer in writers]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    assert set(said) == {""}
    assert [writer.returncode for writer in writers] == [0] * WRITERS
    database = SqliteDatabase(tmp_path / "home" / "upwell.db")
    assert ask(database, "PRAGMA integrity_check") == [("ok",)]
    assert ask(database, "SELECT state, count(*) FROM flow_runs GROUP BY state") == [("COMPLETED", WRITERS * ROUNDS)]
    runs = ask(database, "SELECT series, count(*), min(number), max(number) FROM task_runs GROUP BY series")
    assert [row[1:] for row in runs] == [(RUNS, 0, RUNS - 1)] * (WRITERS * ROUNDS)
    assert ask(database, "SELECT state, count(*) FROM processes GROUP BY state") == [("ended", WRITERS)]
    assert spooled(tmp_path / "home") == []
