"""Where settings come from: five sources in order, files in the current folder, profiles."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from upwell import settings
from upwell.core.errors import ConfigurationError
from upwell.settings import Settings, current, said_by_sources, variable_of
from upwell.settings_sources import Profiles, profiles_file


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[Path]:
    """A current folder and a home of the test's own, and no settings read yet."""
    for field in Settings.__struct_fields__:
        monkeypatch.delenv(variable_of(field), raising=False)
    monkeypatch.setattr(settings, "_current", None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UPWELL_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    yield tmp_path
    monkeypatch.undo()


PROFILES = """
active = "local"
[profiles.local]
UPWELL_LOGGING_LEVEL = "CRITICAL"
[profiles.far]
UPWELL_API_URL = "http://far.example/api"
"""


def test_the_first_source_that_says_something_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("environment", ".env", "upwell.toml", "pyproject.toml", "profile local")
    (folder / "home/profiles.toml").write_text(PROFILES)
    (folder / "pyproject.toml").write_text('[tool.upwell]\nlogging_level = "ERROR"')
    (folder / "upwell.toml").write_text('logging_level = "WARNING"')
    (folder / ".env").write_text("UPWELL_LOGGING_LEVEL=INFO")
    monkeypatch.setenv("UPWELL_LOGGING_LEVEL", "DEBUG")
    seen = [(said_by_sources()["logging_level"].source, said_by_sources()["logging_level"].value)]
    monkeypatch.delenv("UPWELL_LOGGING_LEVEL")
    for file in (".env", "upwell.toml", "pyproject.toml"):
        seen.append((said_by_sources()["logging_level"].source, said_by_sources()["logging_level"].value))
        (folder / file).unlink()
    seen.append((said_by_sources()["logging_level"].source, said_by_sources()["logging_level"].value))
    assert seen == list(zip(names, ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), strict=True))


@pytest.mark.parametrize(
    "text",
    [
        'logging_level = "DEBUG"',
        'UPWELL_LOGGING_LEVEL = "debug"',
        '[logging]\nlevel = "DEBUG"',
        'logging = { level = "DEBUG" }',
    ],
)
def test_a_setting_in_toml_goes_by_its_name_in_tables_or_without(folder: Path, text: str) -> None:
    (folder / "upwell.toml").write_text(text)
    assert current().logging_level == "DEBUG"


def test_values_in_toml_keep_their_types(folder: Path) -> None:
    (folder / "upwell.toml").write_text("progress = true\nretention_days = 3\nserver_hosts = ['a', 'b']")
    assert (current().progress, current().retention_days, current().server_hosts) == (True, 3, ("a", "b"))


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("UPWELL_API_KEY=abc", "abc"),
        ("export UPWELL_API_KEY = abc", "abc"),
        ("UPWELL_API_KEY='a # b'  # a comment", "a # b"),
        ('UPWELL_API_KEY="a=b"', "a=b"),
        ("UPWELL_API_KEY=abc # a comment", "abc"),
        ("# UPWELL_API_KEY=abc", None),
        ("OTHER=1\nUPWELL_API_KEY=", None),
        ("AN=\xe9\nnonsense\nUPWELL_API_KEY=abc", "abc"),
    ],
)
def test_a_line_of_an_env_file_is_read_as_shells_do(folder: Path, line: str, value: str | None) -> None:
    (folder / ".env").write_bytes(line.encode("latin-1"))
    assert current().api_key == value


def test_an_env_that_is_a_folder_is_no_file(folder: Path) -> None:
    (folder / ".env").mkdir()
    assert current().api_key is None


def test_the_wanted_profile_is_used_and_else_the_active_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "home/profiles.toml").write_text(PROFILES)
    assert (said_by_sources()["logging_level"].value, "api_url" in said_by_sources()) == ("CRITICAL", False)
    monkeypatch.setenv("UPWELL_PROFILE", "far")
    assert current().api_url == "http://far.example/api"


def test_a_profile_that_is_not_there_is_an_error_with_those_that_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "home/profiles.toml").write_text(PROFILES)
    monkeypatch.setenv("UPWELL_PROFILE", "near")
    with pytest.raises(ConfigurationError, match=r"UPWELL_PROFILE is 'near'.*far, local.*profile create near"):
        current()


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("upwell.toml", "logging_level = ", "upwell.toml is no valid TOML"),
        ("upwell.toml", 'logging_level = "loud"', "logging_level in upwell.toml is 'loud', and must be DEBUG"),
        ("pyproject.toml", "[tool.upwell]\nretention_days = -1", "retention_days in pyproject.toml is -1"),
        (".env", "UPWELL_PROGRESS=maybe", "UPWELL_PROGRESS in .env is 'maybe'"),
        ("home/profiles.toml", "[profiles]\ndefault = 1", "a table for each profile"),
        ("home/profiles.toml", "[profiles.default]\nprogress = 7", r"profile default \(profiles.toml\) is 7"),
    ],
)
def test_a_mistake_says_where_it_stands(folder: Path, file: str, text: str, message: str) -> None:
    (folder / file).write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        current()


def test_what_is_no_setting_is_reported_with_its_file(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "upwell.toml").write_text("[retention]\nday = 3")
    current()
    assert "retention_day in upwell.toml is not a setting of upwell" in caplog.text
    assert "UPWELL_RETENTION_DAYS" in caplog.text


def test_without_profiles_there_is_a_default_one(folder: Path) -> None:
    assert Profiles.read(profiles_file(str(folder / "home"))) == ("default", {})
