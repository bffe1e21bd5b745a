"""What runs log is recorded with their ids; nothing about a line hurts anybody."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.journal.writing import ask, journal_of

from upwell import flow, get_run_logger, task
from upwell.engine.loggers import ENGINE
from upwell.engine.recorder import recorder
from upwell.journal import log_lines
from upwell.journal.log_lines import MOST_CHARACTERS, RunLines, text_of
from upwell.journal.sqlite import MemoryDatabase


@task
def talks(x: int) -> int:
    get_run_logger().warning("task %s", x)
    logging.getLogger("a.library").info("library %s", x)
    return x


@task(log_prints=True)
def prints(x: int) -> int:
    print("printed", x)
    return x


@flow
def around() -> None:
    get_run_logger().info("flow")
    talks.submit(1).result()
    prints.submit(2).result()


def lines_of(memory: MemoryDatabase, logger: str = "%") -> list[Any]:
    return ask(memory, f"SELECT message, level FROM logs WHERE logger LIKE '{logger}' ORDER BY key")


def test_lines_of_flows_tasks_and_prints_are_recorded_with_their_runs(tmp_path: Path) -> None:
    memory = MemoryDatabase()
    with journal_of(lambda: memory, tmp_path):
        around()
    by_task = lines_of(memory, "upwell.task_runs")
    assert ("task 1", logging.WARNING) in by_task
    assert ("printed 2", logging.INFO) in by_task
    assert ("flow", logging.INFO) in lines_of(memory, "upwell.flow_runs")
    assert lines_of(memory, "a.library") == []
    (flow_run_id,) = ask(memory, "SELECT id FROM flow_runs")
    assert ask(memory, "SELECT DISTINCT flow_run_id FROM logs") == [flow_run_id]
    ids = ask(memory, "SELECT DISTINCT task_run_id FROM logs WHERE task_run_id IS NOT NULL")
    assert len(ids) == 2


def test_lines_of_extra_loggers_are_recorded_in_runs_only(tmp_path: Path) -> None:
    memory = MemoryDatabase()
    logging.getLogger("a.library").setLevel(logging.INFO)
    try:
        with journal_of(lambda: memory, tmp_path) as journal:
            log_lines.record_in(journal.recorder, ("a.library", "a.library.part"))
            around()
            logging.getLogger("a.library").info("outside of any run")
            assert journal.flush(30)
    finally:
        logging.getLogger("a.library").setLevel(logging.NOTSET)
    assert lines_of(memory, "a.library") == [("library 1", logging.INFO)]


def test_an_exception_s_traceback_is_part_of_the_line(tmp_path: Path) -> None:
    @flow
    def fails() -> None:
        try:
            raise KeyError("deep")
        except KeyError:
            get_run_logger().exception("it failed")

    memory = MemoryDatabase()
    with journal_of(lambda: memory, tmp_path):
        fails()
    (line,) = [message for message, _ in lines_of(memory) if message.startswith("it failed")]
    assert "Traceback" in line
    assert "KeyError: 'deep'" in line


def record(message: object, *args: object) -> logging.LogRecord:
    made = logging.LogRecord("a", logging.INFO, "file", 1, message, args, None)
    made.__dict__.update(run_name="run", flow_run_id="flow-run")
    return made


class Unshowable:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_lines_are_bounded_and_always_text() -> None:
    long = text_of(record("x" * 10 + "y" * 10_000_000 + "the end"))
    assert len(long) < MOST_CHARACTERS + 100
    assert long.startswith("xxxxxxxxxx")
    assert long.endswith("the end")
    assert "TypeError" in text_of(record("one %s two %s", 1))
    assert "RuntimeError" in text_of(record("%s", Unshowable()))


def test_a_flood_is_counted_rather_than_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "ROOM", 10)
    with journal_of(MemoryDatabase, tmp_path) as journal:
        lines = RunLines(journal.recorder.discard())
        recorded = lines._recorder.logs  # pyright: ignore[reportPrivateUsage]
        for n in range(25):
            lines.handle(record("line %s", n))
        assert [row[-1] for row in recorded] == [f"line {n}" for n in range(10)]
        recorded.clear()
        lines.handle(record("after"))
        assert [row[-1] for row in recorded][1] == "after"
        assert "15 log lines were left out" in recorded[0][-1]


def test_what_the_journal_itself_says_is_not_recorded(tmp_path: Path) -> None:
    memory = MemoryDatabase()
    with journal_of(lambda: memory, tmp_path) as journal:
        ENGINE.warning("the journal is in trouble")
        assert journal.flush(30)
    assert lines_of(memory) == []


def test_a_level_that_is_not_shown_is_not_recorded(tmp_path: Path) -> None:
    @flow
    def whispers() -> None:
        get_run_logger().debug("quietly")

    memory = MemoryDatabase()
    with journal_of(lambda: memory, tmp_path):
        whispers()
    assert "quietly" not in [message for message, _ in lines_of(memory)]


@task(task_runner="processes")
def far_away() -> int:
    get_run_logger().info("from another process")
    return os.getpid()


@flow
def sends_away() -> int:
    return far_away.submit().result()


def test_lines_from_child_processes_arrive(tmp_path: Path) -> None:
    memory = MemoryDatabase()
    with journal_of(lambda: memory, tmp_path):
        assert sends_away() != os.getpid()
    assert ("from another process", logging.INFO) in lines_of(memory)


def test_beside_it_the_console_goes_on_even_at_the_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from upwell.engine.console import BesideConsole

    assert issubclass(RunLines, BesideConsole)
    assert recorder() is None
    asyncio.run(asyncio.sleep(0))
