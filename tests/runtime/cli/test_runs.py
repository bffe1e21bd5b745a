"""`upwell run`, `flow-run` and `task-run`: flows run here, and everything that ran is found again."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest
from tests.runtime.cli.conftest import Upwell

# --- run ----------------------------------------------------------------------------------------------------


def test_a_flow_of_a_file_runs_with_its_parameters(upwell: Upwell) -> None:
    done = upwell("run", "flows.py:etl", "-p", "n=3", "--param", "day=2026-01-31", "--param", "name=5")
    assert (done.code, done.lines) == (0, ["etl: Completed"])
    logged = upwell("flow-run", "logs", upwell("flow-run", "ls", "-o", "json").json[0]["name"]).out
    assert "n=3 day=2026-01-31 name='5'" in logged


def test_parameters_come_from_json_and_from_a_file(upwell: Upwell, folder: Path) -> None:
    (folder / "parameters.json").write_text('{"n": 5, "name": "file"}')
    assert upwell("run", "flows.py:etl", "--params", '{"n": 1}', "-p", "n=0").code == 0
    assert upwell("run", "flows.py:etl", "--params", "@parameters.json").code == 0
    runs = upwell("flow-run", "ls", "-o", "json").json
    assert [(run["parameters"]["n"], run["parameters"]["name"]) for run in runs] == [("5", "'file'"), ("0", "'x'")]


def test_a_module_of_this_folder_is_found(upwell: Upwell, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "package_here").mkdir()
    (folder / "flows.py").rename(folder / "package_here/flows_here.py")
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    assert upwell("run", "package_here.flows_here:etl").code == 0


def test_tags_are_those_of_the_run(upwell: Upwell) -> None:
    assert upwell("run", "flows.py:later", "--tag", "a", "--tag", "b").code == 0
    assert upwell("flow-run", "ls", "--tag", "b", "-o", "json").json[0]["tags"] == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["flows.py:etl", "-p", "n=14"], 1, "etl: Failed: Flow run encountered an exception: ValueError: unlucky"),
        (["flows.py:later", "-p", "n=13"], 1, "later: Failed"),
        (["flows.py:numbers", "-p", "n=3"], 0, "numbers: Completed"),
        (["flows.py:etl", "-p", "n=many"], 2, "n: expected int, got str 'many'"),
        (["flows.py:etl", "-p", "m=1"], 2, "unexpected keyword argument 'm'"),
        (["flows.py:etl", "-p", "n"], 2, "must be NAME=VALUE"),
        (["flows.py:etl", "--params", "[1]"], 2, "must be a JSON object"),
        (["flows.py:etl", "--params", "{"], 2, "is no valid JSON"),
        (["flows.py:etl", "--params", "@no.json"], 2, "no.json cannot be read"),
        (["flows.py:nothing"], 1, "it has: etl, later, numbers"),
        (["absent.py:etl"], 1, "There is no file absent.py"),
        ([], 2, "requires an argument"),
    ],
)
def test_the_exit_code_says_how_it_went(upwell: Upwell, arguments: list[str], code: int, said: str) -> None:
    done = upwell("run", *arguments)
    assert done.code == code
    assert said in done.out + done.err


SLOW = """
from upwell import flow, task

@task(timeout_seconds=0.001)
async def waits() -> None:
    import asyncio
    await asyncio.sleep(60)

@flow
async def slow():
    return await waits(return_state=True)
"""

# --- listings -----------------------------------------------------------------------------------------------


def test_runs_are_listed_for_people_and_for_programs(ran: Upwell) -> None:
    table = ran("flow-run", "ls")
    assert table.lines[0].split() == ["ID", "FLOW", "NAME", "STATE", "WHEN", "TOOK"]
    assert [line.split()[3] for line in table.lines[1:]] == ["Failed", "Completed"]
    assert [run["state"]["type"] for run in ran("flow-run", "ls", "-o", "json").json] == ["FAILED", "COMPLETED"]


def test_filters_leave_out_runs(ran: Upwell) -> None:
    assert len(ran("flow-run", "ls", "--state", "FAILED", "--flow", "etl", "--since", "1h", "-o", "json").json) == 1
    assert ran("flow-run", "ls", "--until", "2020-01-01", "-o", "json").json == []
    assert ran("flow-run", "ls", "--text", "nothing").err == "No flow run fits; or none is recorded here yet.\n"
    assert len(ran("task-run", "ls", "--task", "double", "--state", "FAILED", "-o", "json").json) == 1


def test_states_are_known_in_any_case(upwell: Upwell, folder: Path) -> None:
    (folder / "slow.py").write_text(SLOW)
    upwell("run", "slow.py:slow")
    for state in ("TimedOut", "timedout", "TIMEDOUT", "failed", "Failed"):
        assert len(upwell("task-run", "ls", "--state", state, "-o", "json").json) == 1, state


def test_a_listing_says_that_there_are_more_and_zero_is_all(ran: Upwell) -> None:
    first = ran("task-run", "ls", "--limit", "3", "-o", "json")
    assert (len(first.json), "there are more" in first.err) == (3, True)
    everything = ran("task-run", "ls", "--limit", "0", "-o", "json")
    assert (len(everything.json), everything.err) == (16, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--limit", "-1"], "must be 0 or more"),
        (["--since", "soon"], "'soon' is no date or time"),
        (["--since", "12"], "'12' is no date or time"),
        (["--state", "Nonsense State!"], ""),
        (["-o", "yaml"], 'Invalid value "yaml"'),
        (["--nonsense"], "Unknown option"),
    ],
)
def test_a_mistake_in_a_listing_is_misuse(upwell: Upwell, arguments: list[str], said: str) -> None:
    done = upwell("flow-run", "ls", *arguments)
    assert done.code == (2 if said else 0)
    assert said in done.err


def test_flows_are_listed_with_their_newest_run(ran: Upwell) -> None:
    [flow] = ran("flow", "ls", "-o", "json").json
    assert (flow["name"], flow["last_state_name"], flow["deployments"]) == ("etl", "Failed", 0)


# --- one run ------------------------------------------------------------------------------------------------


def test_a_run_is_found_by_its_id_and_by_its_name(ran: Upwell) -> None:
    newest = ran("flow-run", "ls", "-o", "json").json[0]
    for wanted in (newest["id"], newest["name"]):
        found = ran("flow-run", "inspect", wanted, "-o", "json").json
        assert found["flow_run"]["id"] == newest["id"]
        assert found["states"][-1]["message"].endswith("ValueError: unlucky")
        assert found["task_runs"] == {"double": {"COMPLETED": 13, "FAILED": 1}}
    shown = ran("flow-run", "inspect", newest["name"]).out
    assert "double  14    1 FAILED, 13 COMPLETED" in shown


@pytest.mark.parametrize("kind", ["flow-run", "task-run"])
def test_a_run_is_found_by_the_beginning_of_its_id(ran: Upwell, kind: str) -> None:
    assert ran("run", "flows.py:later").code == 0
    newest, *others = [run["id"] for run in ran(kind, "ls", "--limit", "0", "-o", "json").json]
    shared = next(newest[:n] for n in range(36, 0, -1) if any(one.startswith(newest[:n]) for one in others))
    mine = newest[: len(shared) + 1]
    for wanted in (mine, mine.upper(), mine.replace("-", ""), newest[:-1]):
        found = ran(kind, "inspect", wanted, "-o", "json").json
        assert found[kind.replace("-", "_")]["id"] == newest
    several = ran(kind, "inspect", shared)
    assert (several.code, several.out) == (2, "")
    assert f"The ids of several {kind.replace('-', ' ')}s begin with" in several.err
    begin_so = sum(one.startswith(shared) for one in (newest, *others))
    assert sum(one in several.err for one in (newest, *others)) == min(5, begin_so)
    assert ("and more" in several.err) == (begin_so > 5)
    for no_beginning in (mine[:5], "f" * 12, "20260131", "g" + mine):
        assert f"There is no {kind.replace('-', ' ')} of" in ran(kind, "inspect", no_beginning).err


def test_what_is_not_there_is_said(ran: Upwell) -> None:
    for command in ("inspect", "logs", "watch"):
        done = ran("flow-run", command, "nobody")
        assert (done.code, done.err) == (
            1,
            "Error: There is no flow run of the name or id 'nobody'. `upwell flow-run ls` lists them.\n",
        )
    assert ran("flow-run", "inspect", "01a200d6-3c1c-7ede-aaf4-748f97175773").code == 1
    assert ran("task-run", "inspect", "nobody").code == 1


def test_a_task_run_shows_its_attempts(ran: Upwell) -> None:
    found = ran("task-run", "inspect", "double-13", "-o", "json").json
    assert [state["name"] for state in found["states"]] == ["Pending", "Running", "AwaitingRetry", "Retrying", "Failed"]
    assert "attempts" in ran("task-run", "inspect", "double-13").out
    assert "unlucky" in ran("task-run", "logs", "double-13").out


def test_logs_are_chosen_by_level_and_from_the_end(ran: Upwell) -> None:
    name = ran("flow-run", "ls", "--state", "COMPLETED", "-o", "json").json[0]["name"]
    everything = ran("flow-run", "logs", name).lines
    assert len(ran("flow-run", "logs", name, "--level", "error").lines) == 1
    assert ran("flow-run", "logs", name, "--tail", "2").lines == everything[-2:]
    assert ran("flow-run", "logs", name, "--tail", "0").lines == []
    assert len(ran("flow-run", "logs", name, "-o", "json").json) == len(everything)
    assert ran("flow-run", "logs", name, "--level", "loud").code == 2
    failed = ran("flow-run", "ls", "--state", "FAILED", "-o", "json").json[0]["name"]
    assert "| Task run 'double-13' - Finished in state Failed" in ran("flow-run", "logs", failed).out


def test_followed_logs_go_on_until_the_run_has_ended(upwell: Upwell, folder: Path) -> None:
    (folder / "slow.py").write_text(
        "import time\nfrom upwell import flow, get_run_logger\n\n"
        "@flow(flow_run_name='slow-one')\ndef slow():\n"
        "    for number in range(3):\n        get_run_logger().warning('line %d', number)\n        time.sleep(0.3)\n"
    )
    from upwell.entrypoints import load_flow

    thread = threading.Thread(target=load_flow(str(folder / "slow.py") + ":slow"))
    thread.start()
    while upwell("flow-run", "inspect", "slow-one").code:
        time.sleep(0.05)
    followed = upwell("flow-run", "logs", "slow-one", "--follow", "--level", "WARNING")
    thread.join()
    assert [line.rpartition("| ")[2] for line in followed.lines] == ["line 0", "line 1", "line 2"]
    watched = upwell("flow-run", "watch", "slow-one")
    assert (watched.code, [line.split()[2] for line in watched.lines]) == (0, ["Pending:", "Running", "Completed"])


def test_a_terminal_is_not_steered_by_what_a_run_logs(upwell: Upwell, folder: Path) -> None:
    (folder / "rude.py").write_text(
        "from upwell import flow, get_run_logger\n\n@flow(flow_run_name='rude')\ndef rude():\n"
        "    get_run_logger().warning('\\x1b]0;owned\\x07 [red]text')\n"
    )
    assert upwell("run", "rude.py:rude").code == 0
    logged = upwell("flow-run", "logs", "rude", "--level", "WARNING").out
    assert "\x1b" not in logged
    assert "\N{REPLACEMENT CHARACTER}]0;owned\N{REPLACEMENT CHARACTER} [red]text" in logged
