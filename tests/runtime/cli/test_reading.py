"""Commands that only read go without an event loop, and begin anew on one where something else is to be done first."""

from __future__ import annotations

import asyncio
import gzip
import sqlite3
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.cli.conftest import Upwell

from upwell import flow
from upwell.cli import asking
from upwell.composition import close_journal
from upwell.journal.database import Session
from upwell.journal.processes import has_dead
from upwell.journal.remote_client import ApiClient

STORES = Path(__file__).parents[1] / "journal" / "stores"
READING = (("flow-run", "ls"), ("deployment", "ls"), ("gcl", "ls"), ("task-run", "inspect", "nobody"))


@pytest.mark.parametrize("command", READING)
def test_a_server_that_is_away_is_not_tried_for_long(
    upwell: Upwell, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("UPWELL_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setattr(asking, "PATIENCE_SECONDS", 0.0)
    tries: list[str] = []
    request = ApiClient.request

    async def noted(self: ApiClient, method: str, path: str, **given: Any) -> bytes:
        tries.append(path)
        return await request(self, method, path, **given)

    monkeypatch.setattr(ApiClient, "request", noted)
    done = upwell(*command)
    assert (done.code, done.out, len(tries)) == (1, "", 1)
    assert "The server http://127.0.0.1:9/api cannot be reached" in done.err


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was run on an event loop."""
    ran: list[str] = []
    run = asyncio.run

    def noted(work: Coroutine[Any, Any, Any]) -> Any:
        ran.append(getattr(work, "__qualname__", ""))
        return run(work)

    monkeypatch.setattr(asyncio, "run", noted)
    return ran


def store(folder: Path) -> Path:
    """Where the store is, or would be."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    return home / "upwell.db"


def test_a_file_is_read_without_a_loop(ran: Upwell, loops: list[str]) -> None:
    close_journal()  # this process would be asked first what it has not written yet
    for command in READING:
        assert ran(*command).code == (command[-1] == "nobody")
    assert loops == []


def test_a_flow_that_begins_in_this_process_meanwhile_is_read_too(
    ran: Upwell, loops: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    close_journal()

    @flow
    def meanwhile() -> None: ...

    async def with_a_run(session: Session) -> bool:
        flow_is_run = threading.Thread(target=meanwhile)
        flow_is_run.start()
        flow_is_run.join()
        return await has_dead(session)

    monkeypatch.setattr("upwell.journal.processes.has_dead", with_a_run)
    listed = ran("flow-run", "ls", "-o", "json").json
    assert (listed[0]["flow_name"], loops) == ("meanwhile", [])


def test_a_store_of_an_older_version_is_brought_up_to_date_first(
    upwell: Upwell, folder: Path, loops: list[str]
) -> None:
    store(folder).write_bytes(gzip.decompress((STORES / "0003.db.gz").read_bytes()))
    listed = upwell("work-pool", "ls", "-o", "json")
    assert (listed.code, loops) == (0, ["ls"])
    assert upwell("work-pool", "ls", "-o", "json") == listed
    assert loops == ["ls"]


def test_a_store_of_a_newer_version_and_what_is_no_store_are_refused(ran: Upwell, folder: Path) -> None:
    close_journal()
    with sqlite3.connect(store(folder)) as newer:
        newer.execute("INSERT INTO schema_migrations VALUES (999, 'later', 0)")
    newer.close()
    for command in READING:
        done = ran(*command)
        assert (done.code, done.out, "was written by a newer upwell" in done.err) == (1, "", True)
    store(folder).write_text("no store" * 1000)
    for command in READING:
        done = ran(*command)
        assert (done.code, done.out, "is damaged, or is no SQLite file" in done.err) == (1, "", True)
