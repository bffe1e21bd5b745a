"""Deployments, schedules, work pools and keys: made, shown, changed and taken away by commands."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.runtime.cli.conftest import Upwell, process
from tests.runtime.server.serving import PATIENCE_SECONDS, free_port, server_process

# --- init and deploy ----------------------------------------------------------------------------------------


def test_init_and_deploy_make_a_deployment_of_each_flow(upwell: Upwell, folder: Path) -> None:
    assert upwell("init", "--name", "weather").code == 0
    assert "weather" in (folder / "upwell.yaml").read_text()
    assert (upwell("init").code, upwell("deploy", "nobody").code) == (1, 1)
    made = upwell("deploy")
    assert made.lines[:3] == ["etl/etl: created", "later/later: created", "numbers/numbers: created"]
    assert made.lines[-1].endswith("upwell worker start --pool default")
    assert [change["what"] for change in upwell("deploy", "etl", "-o", "json").json] == ["unchanged"]
    listed = upwell("deployment", "ls", "-o", "json").json
    assert [it["name"] for it in listed] == ["etl", "later", "numbers"]
    assert "etl/etl" in upwell("deployment", "ls", "--flow", "etl").out


def test_what_is_asked_for_by_name_may_not_be_there(deployed: Upwell) -> None:
    assert deployed("deployment", "inspect", "etl/none").code == 1
    assert deployed("deployment", "inspect", "etl").code == 2
    assert deployed("deployment", "pause", "etl/etl", "etl/none").code == 1
    assert deployed("deployment", "inspect", "etl/etl", "-o", "json").json["paused"] is True


# --- runs of deployments ------------------------------------------------------------------------------------


def test_who_follows_a_run_outlasts_a_restart_of_the_server(
    deployed: Upwell, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert deployed("deployment", "run", "etl/etl", "--name", "mine").code == 0
    impatient = "from upwell.cli import asking; asking.PATIENCE_SECONDS = 0.1"
    code = f"{impatient}; from upwell.cli.main import main; import sys; sys.exit(main(['flow-run', 'watch', 'mine']))"
    home, port = folder.parent / "home", free_port()
    monkeypatch.setenv("UPWELL_API_URL", f"http://127.0.0.1:{port}/api")
    with server_process(home, port):
        watching = process(folder, code=code)
        assert watching.stdout is not None
        assert "Scheduled" in watching.stdout.readline()
    monkeypatch.delenv("UPWELL_API_URL")
    assert deployed("flow-run", "cancel", "mine", "--yes").code == 0
    with server_process(home, port):
        said, complaint = watching.communicate(timeout=PATIENCE_SECONDS)
    assert ("Cancelled" in said, complaint, watching.returncode) == (True, "", 1)


def test_a_run_of_a_deployment_waits_for_a_worker_and_says_why(deployed: Upwell) -> None:
    assert deployed("deployment", "run", "etl/etl", "-p", "n=3", "-p", "name=7", "--name", "mine").code == 0
    run = deployed("flow-run", "inspect", "mine", "-o", "json").json["flow_run"]
    assert (run["state"]["type"], run["parameters"]) == ("SCHEDULED", {"n": "3", "name": "'7'"})
    assert "Nobody works for the pool default" in deployed("explain", "mine").out
    deployed("deployment", "pause", "etl/etl")
    deployed("work-pool", "pause", "default")
    explained = deployed("explain", "mine").out
    assert "`upwell deployment resume etl/etl`" in explained
    assert "`upwell work-pool resume default`" in explained
    assert "is paused" in deployed("deployment", "run", "etl/etl").err


def test_a_run_may_begin_later_and_is_explained_so(deployed: Upwell) -> None:
    deployed("deployment", "run", "etl/etl", "--start-in", "1h30m", "--name", "in-time")
    assert "It is due at " in deployed("explain", "in-time").out
    assert deployed("flow-run", "ls", "-o", "json").json == []
    assert len(deployed("flow-run", "ls", "--ahead", "-o", "json").json) == 1
    assert len(deployed("flow-run", "ls", "--state", "SCHEDULED", "-o", "json").json) == 1
    made = deployed("deployment", "run", "etl/etl", "--start-at", "2040-01-31T08:00+00:00", "-o", "json").json
    assert made["due"].startswith("2040-01-31T08:00:00")


def test_what_is_ahead_is_listed_by_when_it_is_due(deployed: Upwell) -> None:
    for name, hours in (("third", "3h"), ("first", "1h"), ("second", "2h")):
        deployed("deployment", "run", "etl/etl", "--start-in", hours, "--name", name)
    deployed("deployment", "run", "etl/etl", "--name", "due")
    ahead = deployed("flow-run", "ls", "--ahead", "-o", "json")
    assert ([it["name"] for it in ahead.json], ahead.err) == (["first", "second", "third"], "")
    ahead = deployed("flow-run", "ls", "--ahead", "--limit", "2", "--deployment", "etl/etl", "-o", "json")
    assert ([it["name"] for it in ahead.json], "there are more" in ahead.err) == (["first", "second"], True)
    assert deployed("flow-run", "ls", "--ahead", "--text", "nothing", "-o", "json").json == []
    assert deployed("flow-run", "ls", "--ahead", "--limit", "-1").code == 2
    cancelled = deployed("flow-run", "cancel", "--text", "first", "--yes")
    assert cancelled.lines == ["first: Cancelled"]  # what `ls` lists by a filter can be changed by it


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["-p", "n=many"], 1, "n: 'many' is not of type 'integer'"),
        (["-p", "m=1"], 1, "'m' was unexpected"),
        (["--start-in", "1h", "--start-at", "2040-01-01"], 2, "not both"),
        (["--start-in", "soon"], 2, "is no span of time"),
        (["--start-at", "soon"], 2, "is no date or time"),
        (["--start-in", "999999999999d"], 2, "is too long"),
        (["--job-variable", "x"], 2, "must be NAME=VALUE"),
    ],
)
def test_a_run_that_cannot_be_is_refused(deployed: Upwell, arguments: list[str], code: int, said: str) -> None:
    done = deployed("deployment", "run", "etl/etl", *arguments)
    assert (done.code, said in done.err) == (code, True), done
    assert deployed("flow-run", "ls", "-o", "json").json == []


def test_runs_are_cancelled_retried_and_deleted_by_name_or_by_filter(deployed: Upwell) -> None:
    for name in ("one", "two", "three"):
        deployed("deployment", "run", "etl/etl", "--name", name)
    cancelled = deployed("flow-run", "cancel", "one", "--reason", "wrong day")
    assert (cancelled.code, cancelled.lines) == (0, ["one: Cancelled"])
    assert "wrong day" in deployed("explain", "one").out
    asked = deployed("flow-run", "cancel", "--deployment", "etl/etl")
    assert (asked.code, "Nobody is there to be asked: say --yes" in asked.err) == (2, True)
    assert sorted(deployed("flow-run", "cancel", "--deployment", "etl/etl", "--yes").lines) == [
        "three: Cancelled",
        "two: Cancelled",
    ]
    assert deployed("flow-run", "retry", "one").lines[0].startswith("one: runs again as ")
    assert deployed("flow-run", "delete", "one", "two", "--yes").lines == ["one: deleted", "two: deleted"]
    assert deployed("flow-run", "inspect", "one").code == 1
    assert deployed("flow-run", "delete", "three").code == 2  # nobody said yes


def test_which_runs_are_meant_must_be_said_in_one_way(deployed: Upwell) -> None:
    for command in ("cancel", "retry", "resume", "delete"):
        assert deployed("flow-run", command, "--yes").code == 2
        assert deployed("flow-run", command, "one", "--state", "FAILED", "--yes").code == 2


def test_a_run_of_no_deployment_is_refused_by_retry_and_resume(ran: Upwell) -> None:
    name = ran("flow-run", "ls", "-o", "json").json[0]["name"]
    for command in ("retry", "resume"):
        done = ran("flow-run", command, name)
        assert (done.code, done.err.startswith("Error: ")) == (1, True)


# --- schedules ----------------------------------------------------------------------------------------------


def test_schedules_are_made_paused_and_deleted(deployed: Upwell) -> None:
    made = deployed(
        "deployment", "schedule", "create", "etl/etl", "--cron", "0 3 * * *", "--timezone", "Europe/Berlin",
        "--slug", "nightly", "--param", "n=5", "--catchup", "all", "--max-late", "30m",
    )  # fmt: skip
    assert (made.code, "next at" in made.out) == (0, True)
    assert deployed("deployment", "schedule", "create", "etl/etl", "--interval", "10m", "--slug", "often").code == 0
    [nightly, often] = deployed("deployment", "schedule", "ls", "etl/etl", "-o", "json").json
    assert (nightly["timezone"], nightly["catchup"], nightly["max_late_seconds"]) == ("Europe/Berlin", "all", 1800)
    assert (nightly["parameters"], often["expression"]) == ({"n": 5}, "600")
    assert "Which schedule" in deployed("deployment", "schedule", "pause", "etl/etl").err
    deployed("deployment", "schedule", "pause", "etl/etl", "often")
    assert "every 10 min (paused)" in deployed("deployment", "ls").out
    deployed("deployment", "schedule", "resume", "etl/etl", "often")
    deployed("deployment", "schedule", "delete", "etl/etl", "often", "--yes")
    assert [it["slug"] for it in deployed("deployment", "inspect", "etl/etl", "-o", "json").json["schedules"]] == [
        "nightly"
    ]
    deployed("deployment", "schedule", "create", "etl/etl", "--rrule", "FREQ=DAILY", "--replace")
    assert len(deployed("deployment", "schedule", "ls", "etl/etl", "-o", "json").json) == 1
    deployed("deployment", "schedule", "clear", "etl/etl", "--yes")
    assert deployed("deployment", "schedule", "ls", "etl/etl").err == "etl/etl has no schedules.\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--cron", "0 3 * * *", "--interval", "10m"], 2),
        ([], 2),
        (["--interval", "often"], 2),
        (["--cron", "nonsense"], 1),
        (["--cron", "0 3 * * *", "--timezone", "Mars/North"], 1),
        (["--cron", "0 3 * * *", "-p", "n=many"], 1),
        (["--rrule", "FREQ=NEVER"], 1),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(deployed: Upwell, arguments: list[str], code: int) -> None:
    done = deployed("deployment", "schedule", "create", "etl/etl", *arguments)
    assert (done.code, done.err.startswith("Error: ")) == (code, True), done


def test_a_schedule_does_not_take_the_place_of_another_unasked(deployed: Upwell) -> None:
    create = ("deployment", "schedule", "create", "etl/etl", "--cron", "0 3 * * *")
    assert deployed(*create, "--param", "n=5", "--catchup", "all").code == 0
    deployed("deployment", "schedule", "pause", "etl/etl")
    before = deployed("deployment", "schedule", "ls", "etl/etl", "-o", "json").json
    refused = deployed(*create, "--param", "n=6")
    assert (refused.code, "--slug" in refused.err) == (1, True)
    assert deployed("deployment", "schedule", "ls", "etl/etl", "-o", "json").json == before
    assert deployed(*create, "--param", "n=5", "--catchup", "all", "--paused").code == 0  # it is the same in all
    assert deployed(*create, "--param", "n=6", "--slug", "other").code == 0
    assert deployed(*create, "--param", "n=6", "--replace").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("flow-run", "ls", "--since", "0001-01-01"),
        ("flow-run", "ls", "--until", "9999-12-31T23:59-05:00"),
        ("deployment", "run", "etl/etl", "--start-at", "0001-01-01T00:00+05:00"),
        ("deployment", "schedule", "create", "etl/etl", "--interval", "1d", "--anchor", "0001-01-01T00:00+05:00"),
    ],
    ids=lambda words: words[-1],
)
def test_a_date_at_the_edge_of_time_is_refused(
    deployed: Upwell, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        done = deployed(*words)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert (done.code, "is no date or time" in done.err) == (2, True)


def test_nothing_is_made_that_would_not_outlast_the_command(upwell: Upwell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPWELL_JOURNAL", "memory")
    for words in (("work-pool", "create", "p"), ("api-key", "create", "k"), ("gcl", "create", "db", "--limit", "1")):
        refused = upwell(*words)
        assert (refused.code, "UPWELL_JOURNAL=memory" in refused.err) == (1, True), refused


def test_a_backfill_is_shown_before_it_is_made(deployed: Upwell) -> None:
    deployed("deployment", "schedule", "create", "etl/etl", "--cron", "0 0 * * *")
    span = ("--since", "2026-01-01T00:00+00:00", "--until", "2026-01-03T12:00+00:00")
    shown = deployed("deployment", "schedule", "backfill", "etl/etl", *span, "--dry-run", "-o", "json").json
    assert [tick[:10] for tick in shown] == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert deployed("flow-run", "ls", "--deployment", "etl/etl", "-o", "json").json == []
    assert deployed("deployment", "schedule", "backfill", "etl/etl", *span).lines[-1] == "3 runs are made."
    assert len(deployed("flow-run", "ls", "--deployment", "etl/etl", "-o", "json").json) == 3
    assert deployed("deployment", "schedule", "backfill", "etl/etl", *span).lines[-1] == "0 runs are made."


def test_a_limit_of_a_deployment_is_set_and_taken_away(deployed: Upwell) -> None:
    deployed("deployment", "schedule", "create", "etl/etl", "--cron", "0 0 * * *")
    deployed("deployment", "set-limit", "etl/etl", "2", "--when-full", "cancel_new")
    found = deployed("deployment", "inspect", "etl/etl", "-o", "json").json
    assert (found["concurrency_limit"], found["when_full"], len(found["schedules"])) == (2, "cancel_new", 1)
    deployed("deployment", "set-limit", "etl/etl")
    assert deployed("deployment", "inspect", "etl/etl", "-o", "json").json["concurrency_limit"] is None
    assert deployed("deployment", "set-limit", "etl/etl", "2", "--when-full", "explode").code == 2
    assert deployed("deployment", "delete", "etl/etl", "--yes").code == 0
    assert deployed("deployment", "inspect", "etl/etl").code == 1


# --- work pools and workers ---------------------------------------------------------------------------------


def test_work_pools_and_their_queues(upwell: Upwell) -> None:
    assert upwell("work-pool", "create", "p", "--limit", "4", "--description", "ours").code == 0
    assert upwell("work-pool", "create", "p").code == 1
    assert upwell("work-pool", "create", "p", "--exist-ok").code == 0
    assert upwell("work-pool", "create", "q", "--type", "balloon").code == 2
    upwell("work-pool", "queue", "create", "p", "urgent", "--priority", "1", "--limit", "2")
    upwell("work-pool", "queue", "pause", "p", "urgent")
    upwell("work-pool", "pause", "p")
    found = upwell("work-pool", "inspect", "p", "-o", "json").json
    assert (found["paused"], found["concurrency_limit"], found["description"]) == (True, 4, "ours")
    queues = {it["name"]: (it["priority"], it["paused"], it["concurrency_limit"]) for it in found["queues"]}
    assert queues["urgent"] == (1, True, 2)
    upwell("work-pool", "resume", "p")
    upwell("work-pool", "update", "p", "--no-limit")
    upwell("work-pool", "queue", "delete", "p", "urgent", "--yes")
    found = upwell("work-pool", "inspect", "p", "-o", "json").json
    assert (found["paused"], found["concurrency_limit"], "urgent" in str(found["queues"])) == (False, None, False)
    assert upwell("work-pool", "queue", "pause", "p", "urgent").code == 1
    assert upwell("work-pool", "pause", "nowhere").code == 1
    assert upwell("work-pool", "delete", "p", "--yes").code == 0
    assert upwell("work-pool", "ls", "-o", "json").json == []
    assert upwell("worker", "ls", "-o", "json").json == []


# --- keys ---------------------------------------------------------------------------------------------------


def test_what_is_changed_without_a_server_is_recorded_too(deployed: Upwell) -> None:
    deployed("gcl", "create", "db", "--limit", "3")
    deployed("gcl", "update", "db", "--limit", "4")
    deployed("gcl", "delete", "db", "--yes")
    deployed("work-pool", "create", "other")
    deployed("work-pool", "queue", "create", "other", "urgent")
    deployed("work-pool", "queue", "delete", "other", "urgent", "--yes")
    deployed("work-pool", "delete", "other", "--yes")
    deployed("deployment", "schedule", "create", "etl/etl", "--interval", "10m", "--slug", "often")
    deployed("deployment", "schedule", "backfill", "etl/etl", "--since", "2026-01-01", "--until", "2026-01-01T00:15")
    deployed("deployment", "schedule", "pause", "etl/etl", "often")
    deployed("deployment", "schedule", "delete", "etl/etl", "often", "--yes")
    for _ in range(2):
        deployed("deployment", "run", "etl/etl", "--idempotency-key", "once", "--name", "one")
    deployed("flow-run", "cancel", "one", "--reason", "wrong day", "--dry-run")
    deployed("flow-run", "cancel", "one", "--reason", "wrong day")
    deployed("deployment", "pause", "etl/etl")
    deployed("deployment", "delete", "etl/etl", "--yes")
    records = deployed("api-key", "audit", "-o", "json", "--limit", "0").json
    assert {it["actor"] for it in records} == {"the command line"}
    assert [it["action"] for it in reversed(records)] == [
        "put work pool", *["apply deployment"] * 3, "put limit", "put limit", "delete limit", "put work pool",
        "put work queue", "delete work queue", "delete work pool", "put schedule", "backfill", "pause schedule",
        "delete schedule", "run deployment", "cancel flow run", "pause deployment", "delete deployment",
    ]  # fmt: skip  # a list of words
    assert (records[2]["detail"], records[0]["target"]) == ("wrong day", "etl/etl")


def test_a_key_is_shown_once_and_can_be_revoked(upwell: Upwell) -> None:
    made = upwell("api-key", "create", "laptop", "--scope", "admin", "--expires", "90d")
    secret = made.out.strip()
    assert (made.code, len(secret) > 30) == (0, True)
    listed = upwell("api-key", "ls")
    assert "in use" in listed.out
    assert secret not in listed.out + upwell("api-key", "ls", "-o", "json").out + upwell("api-key", "audit").out
    assert upwell("api-key", "revoke", "laptop", "--yes").code == 0
    assert "revoked" in upwell("api-key", "ls").out
    assert [it["action"] for it in upwell("api-key", "audit", "-o", "json").json] == ["revoke key", "create key"]
    assert upwell("api-key", "revoke", "nobody", "--yes").code == 1
    assert upwell("api-key", "create", "x", "--scope", "god").code == 2
