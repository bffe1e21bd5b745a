"""`upwell explain`: why a run waits, was not run, ran again or failed; and the command that does something about it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

import pytest
from tests.runtime.cli.conftest import Upwell, process

from upwell.composition import open_control

EXPLAINED = """
import time
from pathlib import Path
from upwell import flow, task
from upwell.cache_policies import INPUTS

@task(tags=["database"])
def query(n: int) -> None:
    while not Path("go").exists():
        time.sleep(0.02)

@flow(flow_run_name="waits", task_runner="threads")
def waits() -> None:
    for future in [query.submit(n) for n in range(3)]:
        future.wait()

@task(cache_policy=INPUTS, persist_result=True)
def fetch(n: int) -> int:
    return n

@flow(flow_run_name="caches")
def caches() -> int:
    return fetch(1)

@task
def broken() -> int:
    raise ValueError("no such table")

@task
def after(x: int) -> int:
    return x

@flow(flow_run_name="unready", task_runner="threads")
def unready() -> int:
    return after.submit(after.submit(broken.submit())).result()
"""


@pytest.fixture
def explained(upwell: Upwell, folder: Path) -> Upwell:
    """The command line, where there are flows whose runs are not as one wishes."""
    (folder / "explained.py").write_text(EXPLAINED)
    return upwell


def test_a_run_that_waits_for_a_full_limit(explained: Upwell, folder: Path) -> None:
    explained("concurrency-limit", "create", "database", "1")
    running = process(folder, "run", "explained.py:waits")
    try:
        one_goes_on = "Of 3 task runs of query, 1 goes on and 2 have not begun."
        while [it["waiting"] for it in explained("gcl", "ls", "-o", "json").json] != [2] or (
            one_goes_on not in explained("explain", "waits").out
        ):  # the journal tells of what has begun a moment later, and of the flow run itself
            assert running.poll() is None
            time.sleep(0.05)
        full = (
            "The limit of the tag database is full: 1 of 1 slots are taken, 2 wait. "
            "`upwell concurrency-limit create database 2` has it let more through."
        )
        flow_run = explained("explain", "waits", "-o", "json").json
        assert flow_run["state"] == "Running"
        assert full in flow_run["reasons"]
        task_run = explained("explain", "query-2", "-o", "json").json
        assert (task_run["run"], task_run["state"], task_run["reasons"][-1]) == ("query-2", "Pending", full)
        assert explained("explain", "query-3").code == 1
    finally:
        (folder / "go").touch()
        running.communicate(timeout=20)
    assert "Waits for a slot of the limit 'tag:database'." in explained("explain", "query-2").out


def test_a_run_of_a_paused_deployment_that_is_late(deployed: Upwell) -> None:
    deployed("deployment", "run", "etl/etl", "--name", "mine")
    deployed("deployment", "pause", "etl/etl")

    async def time_passes() -> int:
        async with open_control() as asked:
            return await asked.mark_late(0)

    assert asyncio.run(time_passes()) == 1
    explained = deployed("explain", "mine").lines
    assert explained[0] == "mine is Late."
    assert any("nobody has taken it yet" in line for line in explained)
    assert any(line.startswith("  - It was due at ") and line.endswith(" ago.") for line in explained)
    assert "  - Its deployment etl/etl is paused: `upwell deployment resume etl/etl`." in explained
    assert "  - Nobody works for the pool default: `upwell worker start --pool default`." in explained


def test_a_cache_hit(explained: Upwell) -> None:
    for _ in range(2):
        assert explained("run", "explained.py:caches").code == 0
    said = explained("explain", "fetch-0").out
    assert "fetch-0 is Cached.\n" in said
    assert "Found in the cache under " in said
    assert "`refresh_cache=True` has it computed anew" in said
    assert "Not run, because their results were in the cache: fetch-0." in explained("explain", "caches").out


def test_a_run_that_was_not_ready_leads_to_what_failed(explained: Upwell) -> None:
    assert explained("run", "explained.py:unready").code == 1
    direct = explained("explain", "after-0").out
    assert "ValueError: no such table" in direct
    broken = explained("task-run", "inspect", "broken-0", "-o", "json").json["task_run"]["id"]
    assert f"broken-0 is Failed; `upwell task-run logs {broken}` shows what it said." in direct
    first = explained("task-run", "inspect", "after-0", "-o", "json").json["task_run"]["id"]
    assert f"after-0 is NotReady: `upwell explain {first}`." in explained("explain", "after-1").out
    flow_run = explained("explain", "unready").out
    assert "The task run broken-0 failed: " in flow_run
    assert "The task run after-0" not in flow_run  # what comes of it is not why
    assert "It never will begin" not in direct


def test_a_failed_run_is_explained_by_its_task_runs(ran: Upwell) -> None:
    name = ran("flow-run", "ls", "-o", "json").json[0]["name"]
    assert "The task run double-13 failed: " in ran("explain", name).out
    explained = ran("explain", "double-13", "-o", "json").json
    assert "It began 2 times, for the reasons above." in explained["reasons"]
    assert any("Attempt 1 of 2 failed: ValueError('unlucky')" in reason for reason in explained["reasons"])


def test_a_run_that_died_before_it_began_has_lost_nothing(deployed: Upwell, folder: Path) -> None:
    deployed("deployment", "run", "etl/etl", "--name", "early")
    store = sqlite3.connect(folder.parent / "home" / "upwell.db")
    with store:
        store.execute("UPDATE flow_runs SET state = 'CRASHED', ended = created WHERE name = 'early'")
    store.close()
    told = deployed("explain", "early").out
    assert "`upwell flow-run retry early` runs it again." in told
    assert "durable=True" not in told


def test_a_run_that_is_not_there(ran: Upwell) -> None:
    for name in ("nobody", "double-99", "-1"):
        said = ran("explain", name)
        assert (said.code, said.out) != (0, ""), said
        assert said.err.startswith(("Error: There is no flow run or task run", "╭─ Error")), said.err
