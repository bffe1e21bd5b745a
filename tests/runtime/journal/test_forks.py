"""A process that forks while its journal writes: its child can use the file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from upwell.journal import forks
from upwell.journal.forks import no_fork_while_held
from upwell.journal.sqlite import SqliteDatabase

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # forking with threads: what this is about


def until_a_fork_begins() -> None:
    while not forks._adding.locked():  # pyright: ignore[reportPrivateUsage]  # nothing else says so
        time.sleep(0.001)


def test_a_fork_waits_for_a_transaction_so_that_its_child_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "MOST_SECONDS", 60.0)
    file, writing = tmp_path / "upwell.db", threading.Event()

    async def write() -> None:
        database = SqliteDatabase(file, in_this_thread=True)
        await database.open()
        async with database.transaction() as session:
            await session.fetch_text("CREATE TABLE numbers (number INTEGER)")
            writing.set()
            until_a_fork_begins()
        await database.close()

    thread = threading.Thread(target=lambda: asyncio.run(write()))
    thread.start()
    writing.wait()
    child = os.fork()
    if child == 0:
        try:
            connection = sqlite3.connect(file, isolation_level=None, timeout=0)
            connection.execute("INSERT INTO numbers VALUES (1)")
        except BaseException:
            os._exit(1)
        os._exit(0)
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_fork_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "MOST_SECONDS", 0.01)
    with no_fork_while_held():
        child = os.fork()
        if child == 0:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with no_fork_while_held() as held:  # nothing is left behind
        assert held
