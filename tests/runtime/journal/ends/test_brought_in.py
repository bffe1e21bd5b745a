"""Ends that a process wrote at once, and not into the tables: whoever declares it dead brings them in, each once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.noted_ends import noted_ends
from tests.runtime.journal.ends.given import (
    FINISHED,
    ask,
    brought_in,
    calls,
    double,
    logs,
)
from tests.runtime.journal.hosts import look_once

from upwell import flow
from upwell.composition import close_journal, flush_journal
from upwell.journal import end_log
from upwell.journal.database import StoreUnavailable
from upwell.journal.end_log import log_beside, logs_beside
from upwell.journal.processes import this_host
from upwell.journal.retention import Limits, tidy
from upwell.journal.sqlite import SqliteDatabase
from upwell.transactions import transaction


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

    with pytest.raises(StoreUnavailable, match="cannot be read"):
        look_once(home)
    assert ask(home, "SELECT state FROM processes") == [("alive",)]
    path.rmdir()
    assert len(look_once(home)) == 1


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
