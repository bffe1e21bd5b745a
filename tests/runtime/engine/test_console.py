"""The console: which lines appear, what they look like, and that nobody's logging is disturbed."""

from __future__ import annotations

import io
import logging
import os
import pty
import re
import sys
from collections.abc import Generator

import pytest

from upwell.engine.console import ConsoleFormatter, ensure_configured
from upwell.engine.loggers import ENGINE, RunLogger
from upwell.engine.logs import TASK_RUNS
from upwell.settings import temporary_settings

LINE = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} \| ")


class Named:
    id, name, task_name, flow_run_id = 1, "fetch-3", "fetch", None


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Generator[None]:
    handlers = list(logging.root.handlers)
    with temporary_settings(logging_level="INFO", logging_extra_loggers=(), logging_colors=None):
        yield
    ensure_configured()
    for handler in handlers:
        if handler not in logging.root.handlers:
            logging.root.addHandler(handler)


def configure_fresh_process() -> None:
    """As in a program that has configured nothing: pytest's own handlers on the root logger are away."""
    logging.root.handlers.clear()
    ensure_configured()


def task_log() -> RunLogger:
    return RunLogger(TASK_RUNS, lambda run: {"run_kind": "Task run", "run_name": run.name}, Named())


def test_a_line_has_its_time_level_run_and_message(capsys: pytest.CaptureFixture[str]) -> None:
    configure_fresh_process()
    task_log().info("got %d bytes", 12)
    line = capsys.readouterr().err
    assert LINE.match(line)
    assert line.endswith(" | INFO    | Task run 'fetch-3' - got 12 bytes\n")


def test_the_time_is_the_local_time_of_the_record() -> None:
    record = logging.makeLogRecord({"created": 3.25, "msecs": 250.0, "name": "x", "msg": "hi", "levelname": "INFO"})
    again = logging.makeLogRecord({"created": 4.5, "msecs": 500.0, "name": "x", "msg": "hi", "levelname": "INFO"})
    formatter = ConsoleFormatter()
    assert formatter.format(record)[5:12] == ":03.250"
    assert formatter.format(again)[5:12] == ":04.500"


def test_a_line_of_no_run_names_its_logger(capsys: pytest.CaptureFixture[str]) -> None:
    configure_fresh_process()
    logging.getLogger("upwell.x").warning("careful")
    assert capsys.readouterr().err.endswith(" | WARNING | upwell.x - careful\n")


def test_a_traceback_follows_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_fresh_process()
    try:
        raise KeyError("nowhere")
    except KeyError:
        task_log().exception("lost")
    first, second, *_, last = capsys.readouterr().err.splitlines()
    assert first.endswith(" | ERROR   | Task run 'fetch-3' - lost")
    assert second.startswith("Traceback")
    assert last == "KeyError: 'nowhere'"


def test_the_level_is_the_setting_s(capsys: pytest.CaptureFixture[str]) -> None:
    configure_fresh_process()
    task_log().debug("quiet")
    with temporary_settings(logging_level="DEBUG"):
        ensure_configured()
        task_log().debug("loud")
    ensure_configured()
    task_log().debug("quiet again")
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(" - ")[2] for line in lines] == ["loud"]


def test_a_level_that_the_application_has_set_stays() -> None:
    logger = logging.getLogger("upwell")
    logger.setLevel(logging.ERROR)
    try:
        configure_fresh_process()
        assert logger.level == logging.ERROR
    finally:
        logger.setLevel(logging.NOTSET)


def test_configuring_twice_writes_lines_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure_fresh_process()
    ensure_configured()
    task_log().info("once")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_lines_are_not_doubled_when_the_application_configures_logging_before_or_after(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_fresh_process()
    own = logging.StreamHandler(io.StringIO())
    logging.root.addHandler(own)
    task_log().info("to the application")
    assert capsys.readouterr().err == ""
    assert own.stream.getvalue() == "to the application\n"
    logging.root.removeHandler(own)
    task_log().info("to the console")
    assert "to the console" in capsys.readouterr().err


def test_extra_loggers_are_shown_once_even_when_one_is_below_another(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with temporary_settings(logging_extra_loggers=("library.part", "library", "upwell.own")):
        configure_fresh_process()
        for name in ("library", "library.part", "library.other", "upwell.own", "unasked"):
            logging.getLogger(name).info("hello")
    names = [line.split(" | ")[2].split(" - ")[0] for line in capsys.readouterr().err.splitlines()]
    assert names == ["library", "library.part", "library.other", "upwell.own"]
    ensure_configured()
    assert logging.getLogger("library").handlers == []
    assert logging.getLogger("library").level == logging.NOTSET


def test_the_root_logger_can_be_an_extra_logger(capsys: pytest.CaptureFixture[str]) -> None:
    with temporary_settings(logging_extra_loggers=("root",)):
        configure_fresh_process()
        logging.getLogger("anybody").info("hello")
        task_log().info("hello")
    ensure_configured()
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert logging.root.level == logging.WARNING


@pytest.mark.parametrize(
    ("option", "terminal", "environment", "colored"),
    [
        (None, True, {}, True),
        (None, True, {"NO_COLOR": "1"}, False),
        (None, True, {"TERM": "dumb"}, False),
        (None, False, {}, False),
        (True, False, {}, True),
        (False, True, {}, False),
    ],
)
def test_colours_are_for_terminals_unless_told(
    monkeypatch: pytest.MonkeyPatch,
    option: bool | None,
    terminal: bool,
    environment: dict[str, str],
    colored: bool,
) -> None:
    ours, theirs = pty.openpty() if terminal else os.pipe()[::1]
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with temporary_settings(logging_colors=option), open(theirs, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        configure_fresh_process()
        task_log().error("red")
        text = b""
        while b"red" not in text:
            text += os.read(ours, 4096)
    os.close(ours)
    assert (b"\x1b[31mERROR" in text) is colored
    assert b"red" in text


def test_a_process_without_stderr_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    configure_fresh_process()
    monkeypatch.setattr(sys, "stderr", None)
    task_log().error("into the void")


def test_a_line_that_cannot_be_formatted_hurts_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    configure_fresh_process()
    task_log().info("%d", "not a number")
    assert "Logging error" in capsys.readouterr().err


class Raising(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the disk is full")


def test_a_handler_that_raises_is_reported_and_hurts_nobody(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_fresh_process()
    handler = Raising()
    TASK_RUNS.addHandler(handler)
    try:
        task_log().info("first")
        ENGINE.info("unharmed")
        task_log().forward(logging.INFO, "from a process")
        said = capsys.readouterr().err
        monkeypatch.setattr(logging, "raiseExceptions", False)
        task_log().info("second")
    finally:
        TASK_RUNS.removeHandler(handler)
    assert said.count("OSError: the disk is full") == 2
    assert "unharmed" in said
    assert capsys.readouterr().err == ""


def test_a_forwarded_record_keeps_its_time_logger_and_run(caplog: pytest.LogCaptureFixture) -> None:
    configure_fresh_process()
    logging.root.addHandler(caplog.handler)
    task_log().forward(logging.WARNING, "100% from afar", "upwell.child", 12.5)
    task_log().forward(logging.DEBUG, "not wanted")
    (record,) = caplog.records
    assert (record.name, record.getMessage(), record.created) == ("upwell.child", "100% from afar", 12.5)
    assert record.__dict__["run_name"] == "fetch-3"


def test_a_record_names_the_line_of_code_that_made_it(caplog: pytest.LogCaptureFixture) -> None:
    configure_fresh_process()
    logging.root.addHandler(caplog.handler)
    log = task_log()
    log.info("by name")
    log.log(logging.INFO, "by level")
    log.getChild("part").info("by child")
    assert [record.filename for record in caplog.records] == ["test_console.py"] * 3
    assert caplog.records[-1].name == "upwell.task_runs.part"


def test_nothing_is_computed_for_a_line_that_nobody_wants() -> None:
    configure_fresh_process()

    def facts(run: object) -> dict[str, object]:
        raise AssertionError("asked for the run's name")

    RunLogger(TASK_RUNS, facts, Named()).debug("quiet")
