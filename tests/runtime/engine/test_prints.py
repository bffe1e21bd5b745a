"""`log_prints`: which prints become lines of a run's log, and which stay prints."""

from __future__ import annotations

import io
import logging
import sys
from contextvars import copy_context

import pytest

from upwell.engine.loggers import prints_are_logged
from upwell.engine.prints import printing_to_log
from upwell.flows import flow
from upwell.settings import temporary_settings
from upwell.tasks import task


@pytest.fixture(autouse=True)
def all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "upwell")


def printed(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Kind of run and text of each record made by a print in this file."""
    return [
        (record.__dict__["run_kind"], record.getMessage())
        for record in caplog.records
        if record.filename == "test_prints.py"
    ]


def test_a_print_is_one_record_with_its_lines_separator_and_end(caplog: pytest.LogCaptureFixture) -> None:
    @flow(log_prints=True)
    def speak() -> None:
        print("two\nlines")
        print(1, 2, sep="-")
        print("no end", end="")
        print("odd end", end="!\n")
        print("two ends\n")
        print()
        print("flushed", flush=True)

    speak()
    texts = [text for _, text in printed(caplog)]
    assert texts == ["two\nlines", "1-2", "no end", "odd end!", "two ends\n", "", "flushed"]


def test_only_what_goes_to_stdout_is_captured(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    buffer = io.StringIO()

    @flow(log_prints=True)
    def speak() -> None:
        print("to a buffer", file=buffer)
        print("to stderr", file=sys.stderr)
        print("to stdout", file=sys.stdout)

    speak()
    assert printed(caplog) == [("Flow run", "to stdout")]
    assert buffer.getvalue() == "to a buffer\n"
    assert capsys.readouterr().err.count("to stderr") == 1


def test_prints_of_runs_that_did_not_ask_and_outside_of_runs_are_untouched(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    @flow
    def speak() -> None:
        print("in a run")

    speak()
    with printing_to_log(True):
        print("outside")
    assert printed(caplog) == []
    assert capsys.readouterr().out == "in a run\noutside\n"


def test_a_task_inherits_from_the_flow_around_wherever_it_runs(caplog: pytest.LogCaptureFixture) -> None:
    @task
    def blocking(where: str) -> None:
        print(where)

    @task
    async def on_the_loop() -> None:
        print("loop")

    @flow(log_prints=True)
    def speak() -> None:
        blocking("inline")
        blocking.submit("thread").result()
        on_the_loop.submit().result()

    speak()
    assert printed(caplog) == [("Task run", "inline"), ("Task run", "thread"), ("Task run", "loop")]


def test_the_innermost_that_says_decides() -> None:
    with printing_to_log(True):
        with printing_to_log(False):
            assert not prints_are_logged()
            with printing_to_log(None):
                assert not prints_are_logged()
        assert prints_are_logged()
    assert not prints_are_logged()


def test_another_context_can_be_told_without_touching_this_one() -> None:
    context = copy_context()
    with printing_to_log(True, context):
        assert not prints_are_logged()
    assert context.run(prints_are_logged)
    assert prints_are_logged(None, context)
    assert not prints_are_logged(False, context)


def test_the_setting_is_for_those_who_do_not_say(caplog: pytest.LogCaptureFixture) -> None:
    @flow
    def silent() -> None:
        print("by setting")

    @flow(log_prints=False)
    def firm() -> None:
        print("never")

    with temporary_settings(logging_log_prints=True):
        silent()
        firm()
    assert printed(caplog) == [("Flow run", "by setting")]


def test_a_handler_that_prints_does_not_log_what_it_prints(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    class Printing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print("seen:", record.getMessage())

    @flow(log_prints=True)
    def speak() -> None:
        print("once")

    handler = Printing()
    logging.getLogger("upwell.flow_runs").addHandler(handler)
    try:
        speak()
    finally:
        logging.getLogger("upwell.flow_runs").removeHandler(handler)
    assert printed(caplog) == [("Flow run", "once")]
    assert "seen: once\n" in capsys.readouterr().out


def test_a_wrong_option_of_print_is_an_error_as_ever() -> None:
    @flow(log_prints=True)
    def speak() -> None:
        print("x", sep=3)  # type: ignore[call-overload]  # pyright: ignore  # what the test is about

    with pytest.raises(TypeError, match="sep must be None or a string"):
        speak()
