"""What was recorded, asked through a server: the same answers as from the store, and the same complaints."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from tests.runtime.journal.remote import batch_of, elsewhere, flow_run_row, remote, uid

from upwell.core.errors import (
    AccessError,
    InternalError,
    InvalidRequestError,
    UnknownRunError,
    WrongAddressError,
)
from upwell.core.states import StateType
from upwell.history import History
from upwell.journal import remote_client
from upwell.journal.batch import Batch
from upwell.journal.database import StoreUnavailable
from upwell.journal.reader import FlowRunFilter, Reader
from upwell.journal.reader_task_runs import TaskRunFilter
from upwell.journal.remote_client import ApiClient
from upwell.journal.remote_reader import RemoteReader

NOW = dt.datetime(1970, 1, 2, tzinfo=dt.UTC)
LONG_AGO = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

Question = Callable[[Any], Awaitable[Any]]

QUESTIONS: dict[str, Question] = {
    "flow runs": lambda r: r.flow_runs(FlowRunFilter(), "newest", 2, None),
    "flow runs that": lambda r: r.flow_runs(
        FlowRunFilter(flow="a-flow", state=StateType.RUNNING, tags={"x", "y z"}, since=LONG_AGO, until=NOW, text="Ü&"),
        "oldest", 5, None,
    ),
    "children": lambda r: r.flow_runs(FlowRunFilter(parent=UUID(uid(1))), "oldest", 5, None),
    "flow runs by id": lambda r: r.flow_runs_by_id(uid(1)[:-2], 2),
    "flow run": lambda r: r.flow_run(uid(1)),
    "task runs": lambda r: r.task_runs(TaskRunFilter(flow_run_id=uid(1)), "oldest", 2, None),
    "task runs that": lambda r: r.task_runs(
        TaskRunFilter(task="a-task", flow="a-flow", state="COMPLETED", tags=[], since=LONG_AGO), "newest", 9, None
    ),
    "states": lambda r: r.states(uid(1)),
    "logs": lambda r: r.logs(uid(1), 10, 5, None),
    "edges": lambda r: r.edges(uid(1), 5, None),
    "tree": lambda r: r.tree(uid(1), 2),
    "timeline": lambda r: r.timeline(uid(1), 5, None),
    "counts": lambda r: r.counts("task_runs", 3600.0, LONG_AGO, NOW),
    "counts by day": lambda r: r.counts("flow_runs", "day", LONG_AGO, NOW),
}  # fmt: skip  # one line a question

COMPLAINTS: dict[str, Question] = {
    "unknown flow run": lambda r: r.flow_run(uid(99)),
    "unknown task run": lambda r: r.task_run(uid(99)),
    "unknown run's states": lambda r: r.states(uid(99)),
    "unknown run's logs": lambda r: r.logs(uid(99), 0, 5, None),
    "too few digits": lambda r: r.flow_runs_by_id("01234", 2),
    "no beginning": lambda r: r.flow_runs_by_id("../../api-keys", 2),
    "no id": lambda r: r.flow_run("../api-keys"),
    "no order": lambda r: r.flow_runs(FlowRunFilter(), "better", 2, None),
    "no page": lambda r: r.task_runs(TaskRunFilter(), "newest", 0, None),
    "no cursor": lambda r: r.flow_runs(FlowRunFilter(), "newest", 2, "x"),
    "no zone": lambda r: r.flow_runs(FlowRunFilter(since=dt.datetime(2020, 1, 1)), "newest", 2, None),
    "no tags": lambda r: r.flow_runs(FlowRunFilter(tags="x"), "newest", 2, None),
    "no kind": lambda r: r.counts("people", "day", LONG_AGO, NOW),
    "too few": lambda r: r.tree(uid(1), -1),
}


async def fill(store: Any) -> None:
    process = elsewhere()
    key = (await store.open(process)).key
    await store.write(batch_of(process, key, 1))
    rows = [
        flow_run_row(uid(7), process.id, "FAILED"),
        flow_run_row(uid(8), process.id, name="an Ü&r run", tags='["x","y z"]'),
    ]
    child = (*flow_run_row(uid(9), process.id)[:14], uid(1), None, uid(1), *flow_run_row(uid(9), process.id)[17:])
    series = batch_of(process, key, 1).series[0][0]
    await store.write(Batch(process.id, key, 2, flow_runs=[*rows, child], edges=[(series, 1, series, 0, "x")]))


def test_every_question_has_the_same_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with remote(tmp_path) as server:
            await fill(server.store())
            here, there = server.parts.reader, RemoteReader(server.client())
            for name, ask in QUESTIONS.items():
                assert _said(await ask(there)) == _said(await ask(here)), name
            page = await there.task_runs(TaskRunFilter(flow_run_id=uid(1)), "newest", 2, None)
            following = await there.task_runs(TaskRunFilter(flow_run_id=uid(1)), "newest", 2, page.next)
            assert [run.name for run in (*page, *following)] == ["a-task-2", "a-task-1", "a-task-0"]
            run = page.items[0]
            assert _said(await there.task_run(run.id)) == _said(run)
            assert [state.name for state in await there.states(run.id)] == ["Pending", "Running", "Completed"]
            assert len(await there.logs(run.id, 0, 5, None)) == 0

    asyncio.run(main())


def _said(answer: Any) -> bytes:
    """All that is in it; sets in one order, which must not come from hashes that differ from process to process."""
    return msgspec.json.encode(answer, order="deterministic")


def test_every_complaint_is_of_the_same_kind(tmp_path: Path) -> None:
    async def main() -> None:
        async with remote(tmp_path) as server:
            await fill(server.store())
            here, there = server.parts.reader, RemoteReader(server.client())
            for name, ask in COMPLAINTS.items():
                assert await _complaint(here, ask) is await _complaint(there, ask), name

    asyncio.run(main())


async def _complaint(reader: Reader | RemoteReader, ask: Question) -> type[Exception]:
    with pytest.raises((InvalidRequestError, UnknownRunError)) as raised:
        await ask(reader)
    return raised.type


def test_a_history_of_a_server_is_read_through_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from upwell import composition
    from upwell.settings import temporary_settings

    async def main() -> None:
        async with remote(tmp_path) as server:
            await fill(server.store())

            def client(_: Any, **__: Any) -> ApiClient:
                return server.client()

            monkeypatch.setattr(composition, "api_client", client)
            with temporary_settings(api_url="http://127.0.0.1:4200/api"):
                async with History() as history:
                    assert [run.name for run in await history.flow_runs(state="FAILED")] == ["a-run"]

    asyncio.run(main())


# --- the client -------------------------------------------------------------------------------------------------


class Answers:
    """A server that answers as it was told."""

    def __init__(self, *answers: Any) -> None:
        import httpx

        self.answers = list(answers)
        self.requests: list[Any] = []

        async def answer(request: Any) -> Any:
            self.requests.append(request)
            found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(found, Exception):
                raise found
            return found

        self.client = ApiClient("http://user:secret@127.0.0.1:1/api", "the key", transport=httpx.MockTransport(answer))

    def ask(self) -> bytes:
        async def main() -> bytes:
            try:
                return await self.client.ask("GET", "/x")
            finally:
                await self.client.close()

        return asyncio.run(main())


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://me:word@[zz]/api", "http://127.0.0.1:99999/api", "http://h:abc"]
)
def test_an_address_that_is_none_is_said_when_it_is_used(url: str) -> None:
    client = ApiClient(url, "a-key")
    with pytest.raises(WrongAddressError, match=r"UPWELL_API_URL is .* and cannot be used: ") as caught:
        asyncio.run(client.ask("GET", "/version"))
    assert "word" not in str(caught.value)


@pytest.mark.parametrize("key", ["upwell_secret\n", "upwell_secr\u00e9t"])
def test_a_key_that_is_none_is_said_and_not_shown(key: str) -> None:
    client = ApiClient("http://127.0.0.1:4200/api", key)
    with pytest.raises(AccessError, match="UPWELL_API_KEY holds") as caught:
        asyncio.run(client.ask("GET", "/version"))
    assert "secr" not in str(caught.value)


def _answer(status: int, content: bytes = b"", **headers: str) -> Any:
    import httpx

    return httpx.Response(status, content=content, headers=headers)


@pytest.mark.parametrize(
    ("status", "content", "headers", "kind", "why"),
    [
        (404, b'{"type":"urn:upwell:UnknownRunError","detail":"no run"}', {}, UnknownRunError, "no run"),
        (404, b'{"detail":"There is nothing at this address."}', {}, WrongAddressError, "end in /api"),
        (405, b'{"detail":"Method Not Allowed"}', {}, WrongAddressError, "end in /api"),
        (404, b"<html>", {}, WrongAddressError, "end in /api"),
        (
            302,
            b"",
            {"location": "https://user:pw@other/login?x=1"},
            WrongAddressError,
            "sends on to https://other/login:",
        ),
        (401, b'{"detail":"wrong key"}', {}, AccessError, "wrong key"),
        (
            400,
            b'{"detail":"Bad.","errors":[{"key":"n","message":"is small"}]}',
            {},
            InvalidRequestError,
            "Bad: n is small",
        ),
        (409, b'{"type":"urn:upwell:Nonsense","detail":"so"}', {}, Exception, "so"),
        (500, b"x" * 10, {}, InternalError, "answered 500"),
        (200, b"", {}, None, ""),
    ],
)
def test_what_a_server_answers_is_said_in_our_own_errors(
    status: int, content: bytes, headers: dict[str, str], kind: Any, why: str
) -> None:
    server = Answers(_answer(status, content, **headers))
    if kind is None:
        assert server.ask() == content
        return
    with pytest.raises(kind, match=why) as raised:
        server.ask()
    assert "secret" not in str(raised.value)
    assert len(server.requests) == 1
    assert server.requests[0].headers["authorization"] == "Bearer the key"


def test_what_may_be_sent_twice_is_sent_until_the_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    monkeypatch.setattr(remote_client, "FIRST_PAUSE_SECONDS", 0.001)
    server = Answers(httpx.ConnectError("away"), httpx.ReadError("cut"), _answer(503), _answer(200, b"well"))
    assert server.ask() == b"well"
    monkeypatch.setattr(remote_client, "PATIENCE_SECONDS", 0.01)
    with pytest.raises(StoreUnavailable, match=r"The server http://127.0.0.1:1/api cannot be reached: away"):
        Answers(httpx.ConnectError("away")).ask()


def test_a_server_of_this_machine_is_asked_without_a_proxy_and_others_are_not() -> None:
    from upwell.journal.remote_client import _is_here  # pyright: ignore[reportPrivateUsage]

    here = ["http://127.0.0.1:4200/api", "http://localhost/api", "http://[::1]:1/api"]
    assert [_is_here(url) for url in (*here, "http://10.0.0.1/api", "https://upwell.example/api")] == [
        True, True, True, False, False,
    ]  # fmt: skip
