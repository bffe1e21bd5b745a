"""`upwell.logging`: the logger of the run whose code asks for it."""

from __future__ import annotations

import logging

import pytest

from upwell.core.errors import MissingContextError
from upwell.engine.elsewhere import ELSEWHERE, RunElsewhere
from upwell.flows import flow
from upwell.logging import disable_run_logger, flow_run_logger, get_logger, get_run_logger, task_run_logger
from upwell.settings import temporary_settings
from upwell.tasks import task


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the code in this file logged, with the run in front."""
    return [
        f"{record.__dict__.get('run_kind')} {record.__dict__.get('run_name')}: {record.getMessage()}"
        for record in caplog.records
        if record.filename == "test_logging.py"
    ]


def test_caplog_sees_the_lines_of_runs_at_info(caplog: pytest.LogCaptureFixture) -> None:
    @flow(flow_run_name="morning")
    def speak() -> None:
        get_run_logger().info("hello")

    speak()
    assert lines(caplog) == ["Flow run morning: hello"]


def test_each_run_gets_its_own_logger(caplog: pytest.LogCaptureFixture) -> None:
    @task
    def fetch() -> None:
        get_run_logger().info("blocking")

    @task
    async def wait() -> None:
        get_run_logger().info("on the loop")

    @flow(flow_run_name="inner")
    def inner() -> None:
        get_run_logger().info("nested")

    @flow(flow_run_name="outer")
    def outer() -> None:
        fetch()
        fetch.submit().result()
        wait.submit().result()
        inner()
        get_run_logger().info("last")

    outer()
    assert lines(caplog) == [
        "Task run fetch-0: blocking",
        "Task run fetch-1: blocking",
        "Task run wait-0: on the loop",
        "Flow run inner: nested",
        "Flow run outer: last",
    ]


def test_records_carry_the_ids_and_names_of_task_and_flow(caplog: pytest.LogCaptureFixture) -> None:
    @task
    def fetch() -> None:
        get_run_logger(batch=7).info("hello", extra={"part": 1})

    @flow(name="crawl", flow_run_name="morning")
    def crawl() -> None:
        fetch()

    crawl()
    (record,) = (record for record in caplog.records if record.filename == "test_logging.py")
    facts = record.__dict__
    assert (facts["task_run_name"], facts["task_name"]) == ("fetch-0", "fetch")
    assert (facts["flow_run_name"], facts["flow_name"]) == ("morning", "crawl")
    assert (facts["batch"], facts["part"]) == (7, 1)
    assert len(facts["task_run_id"]) == len(facts["flow_run_id"]) == 36


def test_outside_of_runs_the_error_says_what_to_do() -> None:
    with pytest.raises(MissingContextError, match=r"inside of a flow or task; elsewhere use get_logger\(\)"):
        get_run_logger()


def test_a_run_of_another_process_logs_without_asking_who_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def ask(run: RunElsewhere) -> dict[str, object]:
        raise AssertionError("asked")

    token = ELSEWHERE.set(RunElsewhere(ask, 1, len, ((),), {}))
    try:
        with caplog.at_level(logging.INFO, "upwell"):
            get_run_logger().info("from afar")
    finally:
        ELSEWHERE.reset(token)
    assert [(record.name, record.getMessage()) for record in caplog.records] == [("upwell.task_runs", "from afar")]


def test_hooks_can_log_for_their_run(caplog: pytest.LogCaptureFixture) -> None:
    def flow_hook(flow: object, flow_run: object, state: object) -> None:
        flow_run_logger(flow_run).info("flow hook")

    def task_hook(task: object, task_run: object, state: object) -> None:
        task_run_logger(task_run).info("task hook")

    @task(on_completion=[task_hook])
    def fetch() -> None: ...

    @flow(flow_run_name="morning", on_completion=[flow_hook])
    def crawl() -> None:
        fetch()
        fetch.submit().result()

    crawl()
    assert lines(caplog) == [
        "Task run fetch-0: task hook",
        "Task run fetch-1: task hook",
        "Flow run morning: flow hook",
    ]


def test_a_disabled_run_logger_discards_inside_and_outside_of_runs(caplog: pytest.LogCaptureFixture) -> None:
    @task
    def fetch() -> None:
        get_run_logger().error("not shown")

    with disable_run_logger():
        fetch.fn()
        fetch()
        fetch.submit().result()
        assert not get_run_logger().isEnabledFor(logging.CRITICAL)
    fetch()
    assert lines(caplog) == ["Task run fetch-1: not shown"]


def test_other_libraries_lines_carry_the_run_they_were_made_in(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @task
    def fetch() -> None:
        logging.getLogger("library").info("connected")

    @flow(flow_run_name="morning")
    def crawl() -> None:
        fetch()
        fetch.submit().result()
        logging.getLogger("library.part").info("closed")

    monkeypatch.setattr(logging.root, "handlers", [])  # pytest's own, which would take the lines
    with temporary_settings(logging_extra_loggers=("library",)):
        crawl()
        logging.getLogger("library").info("idle")
    get_logger()  # the settings of before hold again
    shown = [line.partition(" | INFO    | ")[2] for line in capsys.readouterr().err.splitlines()]
    assert [line for line in shown if "egin" not in line and "Finished" not in line] == [
        "Task run 'fetch-0' - connected",
        "Task run 'fetch-1' - connected",
        "Flow run 'morning' - closed",
        "library - idle",
    ]


def test_get_logger_gives_loggers_below_upwell() -> None:
    assert get_logger().name == get_logger("upwell").name == "upwell"
    assert get_logger("reports").name == get_logger("upwell.reports").name == "upwell.reports"


def test_a_handler_that_raises_does_not_hurt_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("the disk is full")

    @task
    def fetch(fails: bool) -> str:
        get_run_logger().info("on the way")
        if fails:
            raise KeyError("the run's own")
        return "done"

    @flow
    def crawl() -> str:
        with pytest.raises(KeyError, match="the run's own"):
            fetch.submit(True).result()
        fetch(False)
        return fetch.submit(False).result()

    handler = Raising()
    logging.getLogger("upwell").addHandler(handler)
    try:
        assert crawl() == "done"
    finally:
        logging.getLogger("upwell").removeHandler(handler)
    assert "OSError: the disk is full" in capsys.readouterr().err
