"""`upwell flow-run cancel`, `retry`, `resume` and `delete` of many runs: by one request, and each is told of."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from tests.runtime.cli.conftest import Upwell

from upwell.core.bulk import BulkSpec
from upwell.journal import bulk


@pytest.fixture
def three(deployed: Upwell) -> Upwell:
    """The command line, with three runs of a deployment that have not begun."""
    for name in ("one", "two", "three"):
        assert deployed("deployment", "run", "etl/etl", "--name", name).code == 0
    return deployed


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[BulkSpec]:
    """What the store is asked to change."""
    asked: list[BulkSpec] = []
    change = bulk.SqlBulk.change_flow_runs

    async def noted(self: bulk.SqlBulk, wanted: BulkSpec, *, by: str) -> Any:
        asked.append(wanted)
        return await change(self, wanted, by=by)

    monkeypatch.setattr(bulk.SqlBulk, "change_flow_runs", noted)
    return asked


def states(upwell: Upwell) -> dict[str, str]:
    runs = upwell("flow-run", "ls", "--limit", "0", "-o", "json").json
    return {run["name"]: run["state"]["name"] for run in runs}


def test_several_are_changed_by_one_request(three: Upwell, requests: list[BulkSpec]) -> None:
    done = three("flow-run", "cancel", "one", "three", "--reason", "moved", "-o", "json")
    assert (done.code, done.json["done"], done.json["refused"]) == (0, 2, 0)
    assert [(it["name"], it["refused"], it["run"]["state"]["name"]) for it in done.json["items"]] == [
        ("one", None, "Cancelled"),
        ("three", None, "Cancelled"),
    ]
    assert [(len(spec.ids), spec.reason) for spec in requests] == [(2, "moved")]


def test_by_a_filter_it_goes_on_until_all_are_changed(
    three: Upwell, requests: list[BulkSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "MOST_SECONDS", -1)  # each request has taken too long after its first page
    monkeypatch.setattr(bulk, "PAGE_RUNS", 2)
    done = three("flow-run", "cancel", "--deployment", "etl/etl", "--yes")
    assert (done.code, done.lines) == (0, ["one: Cancelled", "two: Cancelled", "three: Cancelled"])
    assert [spec.after is None for spec in requests] == [True, False]


@pytest.mark.parametrize("which", [("one", "two"), ("--text", "o")])
def test_a_dry_run_says_what_would_be_done_and_does_nothing(three: Upwell, which: tuple[str, ...]) -> None:
    for command, would_be in (("cancel", "cancelled"), ("delete", "deleted")):
        done = three("flow-run", command, *which, "--dry-run")
        assert (done.code, done.lines, done.err) == (0, [f"{name}: would be {would_be}" for name in ("one", "two")], "")
    told = three("flow-run", "retry", "one", "--dry-run", "-o", "json")
    assert (told.code, told.json["done"], told.json["refused"]) == (1, 0, 1)
    assert told.json["items"][0]["refused"] == "The flow run 'one' has not ended, but is Scheduled."
    assert set(states(three).values()) == {"Scheduled"}


def test_what_is_refused_is_said_and_keeps_no_other_from_being_done(three: Upwell) -> None:
    nobody = "01a200d6-3c1c-7ede-aaf4-748f97175773"
    assert three("flow-run", "cancel", "two").code == 0
    done = three("flow-run", "cancel", "one", "two", nobody)
    assert (done.code, done.lines) == (1, ["one: Cancelled"])
    assert "The flow run 'two' has ended Cancelled already" in done.err
    assert f"There is no flow run {nobody}" in done.err
    assert three("flow-run", "cancel", "three", "nobody").code == 1
    assert states(three)["three"] == "Scheduled"  # a name that nobody has may be a slip: nothing is done


def test_a_run_that_is_named_twice_is_meant_once(three: Upwell) -> None:
    assert three("flow-run", "cancel", "one").code == 0
    identity = three("flow-run", "inspect", "one", "-o", "json").json["flow_run"]["id"]
    assert len(three("flow-run", "retry", "one", identity).lines) == 1
    assert three("flow-run", "delete", "one", identity, "--yes").lines == ["one: deleted"]


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ((), "Cancel which runs?"),
        (("--state", ""), "Cancel which runs?"),
        (("one", "--flow", "etl"), "not both"),
        (("--deployment", "nightly"), "'nightly' is no deployment: it must be flow/name, or an id."),
        (("--since", "yesterday"), "'yesterday' is no date or time"),
    ],
)
def test_what_does_not_say_which_runs_is_misuse(three: Upwell, which: tuple[str, ...], said: str) -> None:
    done = three("flow-run", "cancel", *which, "--yes")
    assert (done.code, done.out, said in done.err) == (2, "", True)
    assert set(states(three).values()) == {"Scheduled"}


def test_who_is_asked_is_told_how_many(three: Upwell, monkeypatch: pytest.MonkeyPatch) -> None:
    questions: list[str] = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)

    def ask(question: str) -> str:
        questions.append(question)
        return "n"

    monkeypatch.setattr("builtins.input", ask)
    assert three("flow-run", "cancel", "--flow", "etl").code == 2
    assert three("flow-run", "delete", "one").code == 2
    assert questions == ["Cancel 3 flow runs? [y/N] ", "Delete one? [y/N] "]
    assert set(states(three).values()) == {"Scheduled"}
    none = three("flow-run", "retry", "--flow", "etl")
    assert (none.code, none.out, none.err) == (0, "", "No flow run fits.\n")  # and nobody is asked


def test_what_is_resumed_by_a_filter_waits_to_be(three: Upwell) -> None:
    none = three("flow-run", "resume", "--flow", "etl", "--yes")
    assert (none.code, none.out, none.err) == (0, "", "No flow run fits.\n")
    refused = three("flow-run", "resume", "one")
    assert (refused.code, refused.err) == (
        1,
        "Error: The flow run 'one' is Scheduled, so there is nothing to resume.\n",
    )
