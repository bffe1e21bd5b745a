"""Settings: read once, lazily, from the environment; mistakes are named with what is allowed."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest

from upwell import settings
from upwell.core.errors import ConfigurationError
from upwell.settings import Settings, current, get_current_settings, temporary_settings, variable_of
from upwell.settings_sources import Given, environment


@pytest.fixture(autouse=True)
def not_read_yet(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    for field in Settings.__struct_fields__:
        monkeypatch.delenv(variable_of(field), raising=False)
    monkeypatch.setattr(settings, "_current", None)
    yield
    monkeypatch.undo()


def test_nothing_set_gives_the_defaults() -> None:
    assert current() == Settings()


def test_settings_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = current()
    monkeypatch.setenv("UPWELL_LOGGING_LEVEL", "DEBUG")
    assert current() is before
    assert get_current_settings() is before


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("UPWELL_LOGGING_LEVEL", "debug", "DEBUG"),
        ("UPWELL_LOGGING_EXTRA_LOGGERS", "httpx, my.library,", ("httpx", "my.library")),
        ("UPWELL_LOGGING_COLORS", "off", False),
        ("UPWELL_LOGGING_COLORS", "none", None),
        ("UPWELL_LOGGING_LOG_PRINTS", "True", True),
        ("UPWELL_TASK_DEFAULT_RETRIES", "3", 3),
        ("UPWELL_TASK_DEFAULT_RETRY_DELAY_SECONDS", "1.5", 1.5),
        ("UPWELL_TASK_DEFAULT_RETRY_DELAY_SECONDS", "1, 5, 30", (1.0, 5.0, 30.0)),
        ("UPWELL_TASK_DEFAULT_RETRY_DELAY_SECONDS", "[1, 5]", (1.0, 5.0)),
        ("UPWELL_FLOW_DEFAULT_RETRIES", "2", 2),
        ("UPWELL_FLOW_DEFAULT_RETRY_DELAY_SECONDS", "10", 10.0),
        ("UPWELL_TASK_DEFAULT_TASK_RUNNER", "threads", "threads"),
        ("UPWELL_TASKS_RUNNER_THREAD_POOL_MAX_WORKERS", "8", 8),
        ("UPWELL_TASKS_RUNNER_PROCESS_POOL_MAX_WORKERS", "2", 2),
        ("UPWELL_PROGRESS", "yes", True),
        ("UPWELL_PROGRESS", " ", None),
        ("UPWELL_GC_THRESHOLD", "50000", 50_000),
    ],
)
def test_a_variable_sets_its_field(monkeypatch: pytest.MonkeyPatch, variable: str, text: str, value: object) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(current(), variable.removeprefix("UPWELL_").lower()) == value


@pytest.mark.parametrize(
    ("variable", "text", "allowed"),
    [
        ("UPWELL_LOGGING_LEVEL", "loud", "DEBUG, INFO, WARNING, ERROR or CRITICAL"),
        ("UPWELL_LOGGING_COLORS", "blue", "true or false"),
        ("UPWELL_TASK_DEFAULT_RETRIES", "-1", "a whole number, 0 or more"),
        ("UPWELL_TASK_DEFAULT_RETRY_DELAY_SECONDS", "1,soon", "several with commas"),
        ("UPWELL_FLOW_DEFAULT_RETRY_DELAY_SECONDS", "nan", "a number of seconds"),
        ("UPWELL_TASKS_RUNNER_THREAD_POOL_MAX_WORKERS", "0", "1 or more"),
    ],
)
def test_a_wrong_value_names_the_variable_the_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, allowed: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigurationError) as caught:
        current()
    message = str(caught.value)
    assert variable in message
    assert repr(text) in message
    assert allowed in message


def test_all_wrong_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPWELL_LOGGING_LEVEL", "loud")
    monkeypatch.setenv("UPWELL_PROGRESS", "maybe")
    with pytest.raises(ConfigurationError, match=r"(?s)UPWELL_LOGGING_LEVEL.*UPWELL_PROGRESS|UPWELL_PROGRESS.*LEVEL"):
        current()


def test_an_unknown_variable_is_reported_once_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("UPWELL_LOGING_LEVEL", "DEBUG")
    current()
    current()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.messages[0].startswith("UPWELL_LOGING_LEVEL is not a setting")
    assert caplog.messages[0].endswith("Did you mean UPWELL_LOGGING_LEVEL?")


def test_temporary_settings_hold_inside_and_are_put_back_after_an_error() -> None:
    before = current()
    with temporary_settings(progress=True, logging_level="ERROR") as inside:
        assert current() is inside
        assert (inside.progress, inside.logging_level) == (True, "ERROR")
        with pytest.raises(KeyError), temporary_settings(progress=None):
            raise KeyError((current().progress, current().logging_level) == (None, "ERROR"))
        assert current() is inside
    assert current() is before


def test_a_temporary_setting_that_is_unknown_or_wrong_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean progress"), temporary_settings(progres=True):
        pass
    with (
        pytest.raises(ConfigurationError, match="gc_threshold is 'many'"),
        temporary_settings(gc_threshold="many"),
    ):
        pass
    assert current() == Settings()


def test_an_earlier_source_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    def file(_: Mapping[str, Given]) -> list[Given]:
        return [Given("logging_level", "ERROR", "a file"), Given("progress", True, "a file")]

    monkeypatch.setattr(settings, "SOURCES", [environment, file])
    monkeypatch.setenv("UPWELL_LOGGING_LEVEL", "DEBUG")
    assert (current().logging_level, current().progress) == ("DEBUG", True)


def test_every_setting_says_what_it_accepts() -> None:
    for field, kind in Settings.__annotations__.items():
        assert kind.__metadata__[-1].description, field


def test_importing_reads_nothing_and_loads_little() -> None:
    code = """if True:
        import sys, msgspec
        before = set(sys.modules)
        import upwell.settings
        assert upwell.settings._current is None
        unwanted = {'asyncio', 'rich', 'difflib', 'multiprocessing', 'inspect'}
        print(sorted(unwanted & (set(sys.modules) - before)))
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"UPWELL_PROGRESS": "maybe"},
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("field", "given", "meant"),
    [
        ("home", "here", "{}/here"),
        ("results_local_storage_path", "results", "{}/results"),
        ("database_url", "sqlite:///my.db", "sqlite:///{}/my.db"),
        ("database_url", "my.db", "{}/my.db"),
        ("database_url", "sqlite:////var/my.db", "sqlite:////var/my.db"),
        ("database_url", "postgresql://user@host/name", "postgresql://user@host/name"),
    ],
)
def test_a_relative_path_means_the_folder_that_it_was_read_in(
    field: str, given: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with temporary_settings(**{field: given}) as settings:
        assert getattr(settings, field) == meant.format(tmp_path)
