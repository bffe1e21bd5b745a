"""The connection beside the journal's: it answers at once or not at all, and only for the file that is there."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import perf_counter

import pytest

from upwell.journal import beside
from upwell.journal.beside import Beside
from upwell.journal.sqlite import file_at


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE numbers (number INTEGER)")
        connection.execute("INSERT INTO numbers VALUES (7)")
    return path


@pytest.fixture
def reads(file: Path) -> Iterator[Beside]:
    made = Beside(file, 0.1)
    yield made
    made.close()


NUMBERS = "SELECT number FROM numbers WHERE number > ?"
ENDLESS = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT count(*) FROM n"


def test_it_reads_rows_and_changes_none(reads: Beside) -> None:
    assert reads.ask(NUMBERS, [5]) == [(7,)]
    assert reads.ask("INSERT INTO numbers VALUES (?)", [8]) is None
    reads.close()
    assert reads.ask("SELECT 1", []) is None


def test_another_who_writes_is_not_waited_for(file: Path, reads: Beside) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert reads.ask(NUMBERS, [5]) == [(7,)]
        other.execute("ROLLBACK")


def test_what_takes_long_is_given_up_and_not_tried_again_for_a_while(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(beside, "perf_counter", lambda: now[0])
    reads = Beside(file, 0.001)
    for pause in (0.02, 0.04, 0.08):
        assert reads.ask(ENDLESS, []) is None
        now[0] += pause * 0.9
        assert reads.ask("SELECT 1", []) is None
        now[0] += pause * 0.2
    assert reads.ask("SELECT 1", []) == [(1,)]
    assert reads.ask(ENDLESS, []) is None
    now[0] += 0.03
    assert reads.ask("SELECT 1", []) == [(1,)]
    reads.close()


def test_a_file_that_is_not_there_yet_is_found_later(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = Beside(tmp_path / "late.db", 0.1)
    assert early.ask("SELECT 1", []) is None
    file.rename(tmp_path / "late.db")
    soon = perf_counter() + 1
    monkeypatch.setattr(beside, "perf_counter", lambda: soon)
    assert early.ask("SELECT count(*) FROM numbers", []) == [(1,)]
    early.close()


def test_a_file_that_is_made_as_it_is_looked_for_is_not_taken_for_another_one(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, abandoned = iter([None]), list[sqlite3.Connection]()

    def look(path: Path) -> tuple[int, int] | None:
        return next(seen, file_at(path))

    monkeypatch.setattr(beside, "file_at", look)
    monkeypatch.setattr(beside, "ABANDONED", abandoned)
    early = Beside(file, 0.1)
    early.ask(NUMBERS, [5])
    assert early.ask(NUMBERS, [5]) == [(7,)]
    early.close()
    assert abandoned == []


def test_a_file_that_was_replaced_is_let_go(file: Path, reads: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    abandoned: list[sqlite3.Connection] = []
    monkeypatch.setattr(beside, "LOOK_SECONDS", -1.0)
    monkeypatch.setattr(beside, "ABANDONED", abandoned)
    reads.ask(NUMBERS, [5])
    file.rename(file.with_name("away.db"))
    assert reads.ask(NUMBERS, [5]) is None
    assert len(abandoned) == 1
    abandoned[0].close()


def test_it_is_not_for_the_child_of_a_fork(reads: Beside) -> None:
    reads.ask(NUMBERS, [5])
    child = os.fork()
    if not child:
        answer = reads.ask(NUMBERS, [5])
        reads.close()
        os._exit(answer is not None)
    assert os.waitpid(child, 0)[1] == 0
    assert reads.ask(NUMBERS, [5]) == [(7,)]
