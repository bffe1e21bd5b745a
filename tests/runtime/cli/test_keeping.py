"""Settings, profiles, the database, limits, and what is wrong: commands for who keeps an installation."""

from __future__ import annotations

import io
import sqlite3
import sys
from pathlib import Path

import pytest
from tests.runtime.cli.conftest import Upwell

from upwell.cli import bench

# --- settings -----------------------------------------------------------------------------------------------


def test_config_says_what_is_set_and_where(upwell: Upwell, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "upwell.toml").write_text("retention_days = 3")
    (folder / ".env").write_text("UPWELL_API_KEY=secret\nUPWELL_DATABASE_URL=postgresql://u:pass@host/name\n")
    monkeypatch.delenv("UPWELL_LOGGING_LEVEL")
    upwell("config", "set", "logging_level=error")
    shown = {it["setting"]: (it["value"], it["source"]) for it in upwell("config", "view", "-o", "json").json}
    assert shown["UPWELL_RETENTION_DAYS"] == (3, "upwell.toml")
    assert shown["UPWELL_LOGGING_LEVEL"] == ("error", "profile default")
    assert shown["UPWELL_API_KEY"] == ("********", ".env")
    assert shown["UPWELL_DATABASE_URL"] == ("postgresql://u:********@host/name", ".env")
    assert shown["UPWELL_HOME"][1] == "environment"
    assert "UPWELL_PROGRESS" not in shown
    everything = upwell("config", "view", "--show-defaults", "--show-secrets").out
    assert "secret" in everything
    assert "UPWELL_PROGRESS" in everything


def test_settings_are_set_in_a_profile_that_may_be_used(upwell: Upwell, folder: Path) -> None:
    assert upwell("profile", "create", "far").code == 0
    assert (
        upwell("config", "set", "--profile", "far", "UPWELL_API_URL=http://far.example/api", "progress=yes").code == 0
    )
    assert upwell("profile", "inspect", "far", "-o", "json").json["settings"] == {
        "UPWELL_API_URL": "http://far.example/api",
        "UPWELL_PROGRESS": "yes",
    }
    assert "http://far" in upwell("--profile", "far", "config", "view").out
    assert upwell("--profile=far", "config", "unset", "progress", "nonsense").lines == [
        "UPWELL_PROGRESS is no longer set in the profile far.",
        "UPWELL_NONSENSE was not set in the profile far.",
    ]
    assert (folder.parent / "home/profiles.toml").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("item", "code", "said"),
    [
        ("loging_level=DEBUG", 1, "Did you mean UPWELL_LOGGING_LEVEL?"),
        ("logging_level=loud", 1, "must be DEBUG, INFO"),
        ("logging_level", 2, "must be NAME=VALUE"),
        ("logging_level=", 2, "config unset logging_level"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(upwell: Upwell, item: str, code: int, said: str) -> None:
    done = upwell("config", "set", "api_key=x", item)
    assert (done.code, said in done.err) == (code, True)
    assert upwell("profile", "inspect").err == "The profile default sets nothing.\n"  # not a part of it either


def test_a_key_is_asked_for_and_not_said(upwell: Upwell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("secret\n"))
    assert upwell("config", "set", "api_key=-") == (0, "UPWELL_API_KEY is set in the profile default.\n", "")
    assert "secret" in upwell("config", "view", "--show-secrets").out
    assert upwell("config", "set", "api_key=-").code == 2  # there is no more to be read
    assert "may see a command's words" in upwell("config", "set", "api_key=other").err


def test_a_setting_that_has_no_effect_says_so(upwell: Upwell) -> None:
    assert "UPWELL_LOGGING_LEVEL comes before the profile default" in upwell("config", "set", "logging_level=DEBUG").err


def test_broken_settings_can_be_seen_and_repaired(upwell: Upwell, folder: Path) -> None:
    (folder.parent / "home").mkdir()
    (folder.parent / "home/profiles.toml").write_text("# mine\n[profiles.default]\nprogress = 7\nlog = 1\n")
    assert upwell("flow-run", "ls").code == 1
    assert upwell("config", "validate").code == 1
    assert "7" in upwell("config", "view").out
    upwell("config", "unset", "progress", "log")
    assert upwell("config", "validate").code == 0
    assert (folder.parent / "home/profiles.toml").read_text().startswith("# mine\n")


def test_profiles_are_made_copied_renamed_used_and_deleted(upwell: Upwell) -> None:
    assert upwell("profile", "ls", "-o", "json").json == [{"name": "default", "active": True, "settings": {}}]
    upwell("config", "set", "api_key=secret")
    upwell("profile", "create", "copy", "--from", "default")
    assert upwell("profile", "create", "copy").code == 1
    assert upwell("profile", "create", "a b").code == 1
    upwell("profile", "use", "copy")
    upwell("profile", "rename", "copy", "mine")
    listed = upwell("profile", "ls", "-o", "json").json
    assert [(it["name"], it["active"], it["settings"]) for it in listed] == [
        ("default", False, {"UPWELL_API_KEY": "********"}),
        ("mine", True, {"UPWELL_API_KEY": "********"}),
    ]
    assert upwell("profile", "delete", "mine", "--yes").code == 1  # it is in use
    upwell("profile", "use", "default")
    assert upwell("profile", "delete", "mine").code == 2  # nobody said yes
    assert upwell("profile", "delete", "mine", "--yes").code == 0
    assert upwell("profile", "use", "mine").code == 1
    assert "profile create nobody" in upwell("--profile", "nobody", "flow-run", "ls").err


# --- the database -------------------------------------------------------------------------------------------


def test_the_database_is_measured_copied_and_made_small(ran: Upwell, folder: Path) -> None:
    size = ran("database", "size", "--tables", "-o", "json").json
    assert (size["flow_runs"], size["task_runs"]) == (2, 16)
    assert {table["name"]: table["rows"] for table in size["tables"]}["task_runs"] == 16
    assert ran("database", "backup", "copies/one.db").code == 0
    copy = folder / "copies/one.db"
    assert copy.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(copy) as connection:
        assert connection.execute("SELECT count(*) FROM flow_runs").fetchone() == (2,)
    connection.close()
    assert "never writes over one" in ran("database", "backup", "copies/one.db").err
    assert ran("database", "backup", "/proc/nowhere/one.db").code == 1
    assert ran("database", "upgrade").out.endswith("is up to date.\n")
    assert ran("database", "vacuum").code == 2
    assert " -> " in ran("database", "vacuum", "--yes").out


def test_a_database_that_is_none_is_an_error(upwell: Upwell, folder: Path) -> None:
    (folder.parent / "home").mkdir()
    (folder.parent / "home/upwell.db").write_text("not a database, but long enough to be looked at")
    for command in (["database", "size"], ["flow-run", "ls"], ["deployment", "ls"]):
        done = upwell(*command)
        assert (done.code, "is damaged, or is no SQLite file" in done.err) == (1, True)
    assert "WRONG" in upwell("doctor").out


def test_memory_is_no_database(upwell: Upwell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPWELL_JOURNAL", "memory")
    assert upwell("database", "size").code == 1


# --- limits -------------------------------------------------------------------------------------------------


def test_limits_by_name(upwell: Upwell) -> None:
    assert upwell("gcl", "create", "db", "--limit", "5", "--slot-decay-per-second", "0.5", "--disable").code == 0
    assert upwell("gcl", "create", "db", "--limit", "5").code == 1
    assert upwell("gcl", "create", "none").code == 2
    [found] = upwell("gcl", "ls", "-o", "json").json
    assert (found["name"], found["limit"], found["slot_decay_per_second"], found["active"]) == ("db", 5, 0.5, False)
    upwell("gcl", "enable", "db")
    upwell("gcl", "update", "db", "--limit", "7")
    found = upwell("global-concurrency-limit", "inspect", "db", "-o", "json").json
    assert (found["limit"], found["active"], found["slot_decay_per_second"]) == (7, True, 0.5)
    assert upwell("gcl", "delete", "db", "--yes").code == 0
    assert upwell("gcl", "delete", "db", "--yes").code == 1
    assert upwell("gcl", "inspect", "db").code == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("gcl create db --limit 7", 1, "There is a limit 'db' already: `upwell gcl update db --limit 7` changes it."),
        ("gcl create bad --limit -1", 2, "The limit is -1, and must be 0 or more."),
        ("gcl update db --slot-decay-per-second -1", 2, "--slot-decay-per-second is -1, and must be 0 or more."),
        ("gcl update db", 2, "Say what to change: --limit, --slot-decay-per-second, --enable or --disable."),
        ("gcl update absent --limit 1", 1, "There is no limit 'absent'. `upwell gcl ls` lists them."),
        ("gcl enable absent", 1, "There is no limit 'absent'. `upwell gcl ls` lists them."),
        ("gcl delete absent --yes", 1, "There is no limit 'absent'. `upwell gcl ls` lists them."),
        ("concurrency-limit create web -2", 2, ""),
        (
            "concurrency-limit delete web --yes",
            1,
            "The tag 'web' has no limit. `upwell concurrency-limit ls` lists those that have one.",
        ),
    ],
)
def test_what_cannot_be_done_with_a_limit_is_said_in_words_of_the_command_line(
    upwell: Upwell, words: str, code: int, said: str
) -> None:
    assert upwell("gcl", "create", "db", "--limit", "5").code == 0
    done = upwell(*words.split())
    assert done.code == code
    assert not said or done.err == f"Error: {said}\n"


def test_limits_need_a_store(upwell: Upwell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPWELL_JOURNAL", "off")
    done = upwell("gcl", "ls")
    assert (done.code, "UPWELL_JOURNAL=off goes without one: unset it" in done.err) == (1, True)


def test_limits_of_tags(upwell: Upwell) -> None:
    upwell("concurrency-limit", "create", "web", "3")
    upwell("concurrency-limit", "create", "web", "4")
    assert upwell("concurrency-limit", "inspect", "web", "-o", "json").json["limit"] == 4
    assert [it["name"] for it in upwell("gcl", "ls", "-o", "json").json] == ["tag:web"]
    assert upwell("concurrency-limit", "delete", "web", "--yes").code == 0
    assert upwell("concurrency-limit", "ls", "-o", "json").json == []


# --- what is wrong ------------------------------------------------------------------------------------------


def test_doctor_finds_nothing_where_all_is_well(ran: Upwell) -> None:
    done = ran("doctor")
    assert (done.code, done.lines[-1]) == (0, "All is well.")
    assert "2 flow runs, 16 task runs" in done.out
    assert {it["verdict"] for it in ran("doctor", "-o", "json").json} == {"well"}


def test_doctor_finds_what_is_wrong(upwell: Upwell, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = folder.parent / "home"
    assert "not made yet" in upwell("doctor").out
    home.mkdir(mode=0o755)
    (home / "spool").mkdir()
    (home / "spool/one").write_text("something")
    monkeypatch.setenv("UPWELL_NONSENSE", "1")
    monkeypatch.setenv("UPWELL_API_URL", "http://127.0.0.1:9/api")
    found = {it["what"]: it["verdict"] for it in upwell("doctor", "-o", "json").json}
    assert (found["settings"], found["home"], found["spool"], found["API"]) == ("mind", "mind", "mind", "wrong")
    assert upwell("doctor").code == 1
    monkeypatch.setenv("UPWELL_LOGGING_LEVEL", "loud")
    assert "must be DEBUG" in upwell("doctor").out


def test_bench_measures_both_sides(upwell: Upwell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "RUNS", 200)
    monkeypatch.setattr(bench, "POOLED_RUNS", 50)
    rows = upwell("bench", "--seconds", "0.1", "-o", "json").json
    assert len(rows) == 4
    assert all(row["ratio"] > 0 and row["runs_per_second"] > 0 for row in rows)


# --- the server ---------------------------------------------------------------------------------------------


def test_a_server_is_started_found_and_stopped(upwell: Upwell) -> None:
    assert (upwell("server", "status").code, upwell("server", "stop").out) == (1, "No server runs.\n")
    started = upwell("server", "start", "--background", "--port", "0")
    try:
        assert started.code == 0, started
        status = upwell("server", "status", "-o", "json")
        assert (status.code, status.json["answers"]) == (0, True)
        assert upwell("server", "start", "--background", "--port", "0").code == 1
        assert "answers" in upwell("doctor").out
    finally:
        assert upwell("server", "stop").code == 0
    assert upwell("server", "status").code == 1
