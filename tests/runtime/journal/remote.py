"""A server in the test's own loop, asked without a network; and networks on which things get lost."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast
from unittest.mock import patch

import httpx
from msgspec.structs import replace
from tests.runtime.server.serving import maker, settings_of

from upwell.core.deployments import Scope
from upwell.journal.batch import SERIES_BITS, Batch
from upwell.journal.database import Database
from upwell.journal.limit_store import SqlLimits
from upwell.journal.login_sessions import LoginSessions
from upwell.journal.processes import Process, this_process
from upwell.journal.reader import Reader
from upwell.journal.remote_client import ApiClient
from upwell.journal.remote_control import RemoteControl
from upwell.journal.remote_store import RemoteStore
from upwell.journal.sql_control import SqlControl
from upwell.server.access import Access
from upwell.server.app import Server, create_app
from upwell.server.hub import Hub
from upwell.server.parts import Parts, open_parts
from upwell.settings import Settings

URL: Final = "http://127.0.0.1:4200/api"


class Loss(enum.Enum):
    """What happens to a request: it does not arrive, its answer does not, or the server says that it is busy."""

    REQUEST = "request"
    ANSWER = "answer"
    BUSY = "busy"


class Network(httpx.AsyncBaseTransport):
    """Carries requests, and loses some. losses: by their number, counted from 1."""

    def __init__(self, carrier: httpx.AsyncBaseTransport) -> None:
        self._carrier = carrier
        self.losses: dict[int, Loss] = {}
        self.requests = 0
        self.sent: list[httpx.Request] = []

    def lose(self, number: int, loss: Loss) -> None:
        """Of the requests from here on, this one."""
        self.losses[self.requests + number] = loss

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        self.sent.append(request)
        loss = self.losses.get(self.requests)
        if loss is Loss.REQUEST:
            raise httpx.ConnectError("no way")
        if loss is Loss.BUSY:
            return httpx.Response(503)
        answer = await self._carrier.handle_async_request(request)
        if loss is Loss.ANSWER:
            await answer.aread()
            raise httpx.ReadError("cut")
        return answer


class Remote:
    """A server, and who asks it."""

    def __init__(self, parts: Parts, app: Server) -> None:
        self.parts = parts
        self.app = app
        self._clients: list[ApiClient] = []

    def network(self) -> Network:
        """A way to it."""
        return Network(httpx.ASGITransport(self.app, raise_app_exceptions=False, client=("127.0.0.1", 50_000)))

    def client(self, key: str | None = None, network: Network | None = None) -> ApiClient:
        """Somebody who asks it."""
        self._clients.append(ApiClient(URL, key, transport=network or self.network()))
        return self._clients[-1]

    def store(self, key: str | None = None, network: Network | None = None) -> RemoteStore:
        """The store behind it."""
        return RemoteStore(self.client(key, network))

    async def key(self, name: str, scope: Scope = "run") -> str:
        """A new key to it."""
        _, secret = await self.parts.control.create_key(name, scope)
        self.parts.access.forget()
        return secret

    async def rows(self, text: str) -> list[tuple[Any, ...]]:
        """What is in its store."""
        return await self.parts.database.fetch_text(text)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


@asynccontextmanager
async def remote(folder: Path, **settings: Any) -> AsyncGenerator[Remote]:
    """A server over a new store."""
    wanted = settings_of(folder, **settings)
    async with open_parts(maker(wanted), wanted) as parts:
        made = Remote(parts, _app_over(parts))
        try:
            yield made
        finally:
            await made.close()


@asynccontextmanager
async def through_a_server(database: Database) -> AsyncGenerator[RemoteControl]:
    """The control over a database that is open, had through a server."""
    async with serving(database) as server:
        yield RemoteControl(server.client())


@asynccontextmanager
async def serving(database: Database) -> AsyncGenerator[Remote]:
    """A server over a database that is open."""
    control, session = SqlControl(database), cast(Any, database)
    settings = Settings(server_require_key=False)
    parts = Parts(
        control=control,
        database=database,
        session=session,
        reader=Reader(database, database.place),
        limits=SqlLimits(database),
        hub=Hub(lambda: database, session),
        access=Access(control, LoginSessions(database, session), settings),
        settings=settings,
    )
    made = Remote(parts, _app_over(parts))
    try:
        yield made
    finally:
        await made.close()


_apps: list[Server] = []


def _app_over(parts: Parts) -> Server:
    """The application over these parts, without pages; one for all tests, for to make one takes a while."""
    if not _apps:
        with patch("upwell.server.app.PAGES", "upwell.server.no_pages"):
            _apps.append(create_app(parts))
    _apps[0].state.parts = parts
    _apps[0].perimeter = None
    return _apps[0]


_NEXT: list[int] = [0]


def uid(number: int) -> str:
    """An id for tests."""
    return f"01a20000-0000-7000-8000-{number:012x}"


def elsewhere(number: int = 1) -> Process:
    """A process on another machine."""
    return replace(this_process(30.0), host=f"machine-{number}/boot/1", pid=number, pid_started=str(number))


def flow_run_row(run_id: str, process_id: str, state: str = "RUNNING", **others: Any) -> tuple[Any, ...]:
    """A row of `flow_runs`."""
    ended = 30 if state in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None
    said = {"tags": None, "parameters": None, "name": "a-run", "created": 10, **others}
    return (
        run_id, "a-flow", said["name"], None, state, None, None, said["created"], 20, ended, None, 1, said["tags"],
        said["parameters"], None, None, run_id, process_id, None, 0, None, None, None, None,
    )  # fmt: skip  # one line a few columns


def batch_of(process: Process, key: int, number: int, runs: int = 3, flow_run: int = 1) -> Batch:
    """A flow run with some task runs and a log line, as a process would write them."""
    run_id, series = uid(flow_run), (key << SERIES_BITS) + flow_run
    base = f"{(flow_run << 50) + (key << 60):019x}"
    return Batch(
        process.id,
        key,
        number,
        flow_runs=[flow_run_row(run_id, process.id)],
        flow_run_states=[(run_id, 20, "RUNNING", None, None)],
        series=[(series, base, "a-task", run_id, 15, None, None, runs, process.id)],
        completed_runs=[(series, n, 15, 16, 17, f"x={n}") for n in range(runs)],
        logs=[(run_id, None, 21, 20, "upwell.flow_runs", "a line")],
    )
