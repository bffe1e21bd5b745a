"""`upwell flow-run resume` and `fork`: durable runs of killed processes go on, or anew from a task run on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.runtime.cli.conftest import Upwell, process

DURABLE = """
import os
import time
from pathlib import Path
from upwell import flow, task

@task
def step(n: int) -> int:
    Path("pid").write_text(str(os.getpid()))
    with open("ran.txt", "a") as ran:
        ran.write(str(n))
    if n == 3 and not Path("repaired").exists():
        if Path("fail").exists():
            raise RuntimeError("no more paper")
        time.sleep(60)
    return n

@flow(durable=True, flow_run_name="crawl")
def crawl(steps: int = 5) -> int:
    return sum(step(n) for n in range(steps))
"""


@pytest.fixture
def durable(upwell: Upwell, folder: Path) -> Generator[Upwell]:
    """The command line, where the flow `crawl` is, whose fourth task run does not end."""
    (folder / "durable.py").write_text(DURABLE)
    yield upwell
    sys.modules.pop("durable", None)  # another test's is another file


def ran(folder: Path) -> str:
    """The task runs that were begun, in their order."""
    return (folder / "ran.txt").read_text()


def is_at_the_fourth(folder: Path, upwell: Upwell) -> bool:
    """Whether three task runs are recorded as completed, and the next has begun."""
    completed = upwell("task-run", "ls", "--state", "COMPLETED", "-o", "json").json
    return len(completed) == 3 and ran(folder) == "0123"


def is_killed_within(folder: Path, upwell: Upwell) -> None:
    """Have the flow run in a process that is killed while its fourth task run goes on."""
    running = process(folder, "run", "durable.py:crawl")
    while not is_at_the_fourth(folder, upwell):
        assert running.poll() is None
        time.sleep(0.05)
    running.kill()
    running.communicate(timeout=20)


def test_a_killed_run_goes_on_where_it_was(durable: Upwell, folder: Path) -> None:
    is_killed_within(folder, durable)
    (folder / "repaired").touch()
    assert "`upwell flow-run resume crawl`" in durable("explain", "crawl").out
    resumed = durable("flow-run", "resume", "crawl")
    assert (resumed.code, resumed.lines) == (0, ["crawl: Completed"])
    assert ran(folder) == "0123" + "34"
    assert durable("flow-run", "inspect", "crawl", "-o", "json").json["flow_run"]["crashes"] == 1
    assert "process died" in durable("explain", "crawl").out
    again = durable("flow-run", "resume", "crawl")
    assert (again.code, again.out) == (1, "")
    assert again.err == (
        "Error: The flow run 'crawl' is Completed, so there is nothing to resume; "
        "`upwell flow-run fork crawl` runs it again.\n"
    )


def test_runs_that_are_resumed_by_a_filter_may_fail_again(durable: Upwell, folder: Path) -> None:
    is_killed_within(folder, durable)
    (folder / "fail").touch()
    resumed = durable("flow-run", "resume", "--flow", "crawl", "--yes")
    assert (resumed.code, "crawl: Failed: " in resumed.out, "no more paper" in resumed.out) == (1, True, True)


def test_what_became_of_resumed_runs_is_told_to_programs_too(durable: Upwell, folder: Path) -> None:
    is_killed_within(folder, durable)
    (folder / "repaired").touch()
    dry = durable("flow-run", "resume", "crawl", "--dry-run", "-o", "json").json
    assert (dry["done"], [item["name"] for item in dry["items"]]) == (0, ["crawl"])
    resumed = durable("flow-run", "resume", "crawl", "-o", "json").json
    assert (resumed["done"], resumed["items"][0]["run"]["state"]["type"]) == (1, "COMPLETED")
    again = durable("flow-run", "resume", "crawl", "-o", "json")
    assert (again.code, again.json["refused"], "nothing to resume" in again.json["items"][0]["refused"]) == (1, 1, True)


def test_the_flow_of_a_run_may_be_elsewhere_now(durable: Upwell, folder: Path) -> None:
    is_killed_within(folder, durable)
    (folder / "repaired").touch()
    (folder / "moved").mkdir()
    (folder / "durable.py").rename(folder / "moved/durable.py")
    lost = durable("flow-run", "resume", "crawl")
    assert (lost.code, "--entrypoint FILE.py:FLOW" in lost.err) == (1, True)
    found = durable("flow-run", "resume", "crawl", "--entrypoint", "moved/durable.py:crawl")
    assert (found.code, found.lines, ran(folder)) == (0, ["crawl: Completed"], "0123" + "34")


def test_a_fork_takes_over_what_was_finished(durable: Upwell, folder: Path) -> None:
    (folder / "fail").touch()
    assert durable("run", "durable.py:crawl").code == 1
    assert "`upwell flow-run fork crawl`" in durable("explain", "crawl").out
    (folder / "repaired").touch()
    forked = durable("flow-run", "fork", "crawl")
    assert (forked.code, forked.lines) == (0, ["fork of crawl: Completed"])
    assert ran(folder) == "0123" + "34"
    assert [it["state"]["name"] for it in durable("flow-run", "ls", "-o", "json").json] == ["Completed", "Failed"]


def test_a_fork_runs_anew_from_a_chosen_task_run_on(durable: Upwell, folder: Path) -> None:
    (folder / "repaired").touch()
    assert durable("run", "durable.py:crawl").code == 0
    assert durable("flow-run", "fork", "crawl", "--before", "step-2").code == 0
    assert ran(folder) == "01234" + "234"
    oldest = durable("flow-run", "ls", "--order", "oldest", "-o", "json").json[0]["id"]
    chosen = durable("task-run", "ls", "--flow-run", oldest, "--text", "step-4", "-o", "json").json[0]["id"]
    assert durable("flow-run", "fork", oldest, "--before", chosen).code == 0
    assert ran(folder) == "01234" + "234" + "4"


def test_a_fork_that_cannot_be_is_refused(durable: Upwell, folder: Path) -> None:
    (folder / "repaired").touch()
    assert durable("run", "durable.py:crawl").code == 0
    for words, said in (
        (["nobody"], "There is no flow run of the name or id 'nobody'."),
        (["crawl", "--before", "step-99"], "There is no task run of the name or id 'step-99'."),
    ):
        refused = durable("flow-run", "fork", *words)
        assert (refused.code, said in refused.err) == (1, True)
    assert ran(folder) == "01234"


# --- by a worker --------------------------------------------------------------------------------------------


@contextmanager
def worker(folder: Path) -> Generator[subprocess.Popen[str]]:
    """A worker of the pool `default`, in a process of its own."""
    working = process(folder, "worker", "start", "--pool", "default")
    try:
        yield working
    finally:
        working.terminate()
        working.communicate(timeout=30)


def test_a_worker_goes_on_with_a_killed_run_of_a_deployment_and_carries_out_its_fork(
    durable: Upwell, folder: Path
) -> None:
    (folder / "flows.py").unlink()
    assert durable("init").code == durable("deploy").code == 0
    assert durable("deployment", "run", "crawl/crawl").code == 0
    with worker(folder) as first:
        while not is_at_the_fourth(folder, durable):
            assert first.poll() is None
            time.sleep(0.1)
        first.kill()
        os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
    (folder / "repaired").touch()
    resumed = durable("flow-run", "resume", "crawl")
    assert (resumed.code, resumed.lines) == (0, ["crawl: AwaitingResume, until a worker takes it"])
    with worker(folder):
        assert durable("flow-run", "watch", "crawl").code == 0
        assert ran(folder) == "0123" + "34"
        forked = durable("flow-run", "fork", "crawl", "--before", "step-2", "--by-worker")
        assert (forked.code, forked.lines[0].startswith("crawl: a worker is to run it again as ")) == (0, True)
        newest = durable("flow-run", "ls", "-o", "json").json[0]["id"]
        assert durable("flow-run", "watch", newest).code == 0
    assert ran(folder) == "0123" + "34" + "234"
