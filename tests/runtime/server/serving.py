"""A server in the test's own process, and one of its own process, over a store in a folder."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

import httpx

from upwell.composition import make_database
from upwell.core.deployments import Scope
from upwell.journal.database import Database
from upwell.server.app import Server, create_app
from upwell.server.parts import Parts, open_parts
from upwell.settings import Settings

PATIENCE_SECONDS: Final = 60.0


def settings_of(folder: Path, **others: Any) -> Settings:
    """Settings of a server whose store is in this folder."""
    return Settings(home=str(folder), **others)


def maker(settings: Settings) -> Any:
    """Makes databases of these settings."""

    def make(*, read_only: bool) -> Database:
        return make_database(settings, read_only=read_only, on_a_thread=True)

    return make


@asynccontextmanager
async def opened(settings: Settings) -> AsyncGenerator[tuple[Parts, Server]]:
    """The parts of a server, and its application."""
    async with open_parts(maker(settings), settings) as parts:
        yield parts, create_app(parts)


class Asked:
    """Somebody who asks an application, from this machine unless said."""

    def __init__(self, app: Server, parts: Parts, client: str = "127.0.0.1") -> None:
        self.app = app
        self.parts = parts
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(client, 50_000))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:4200")

    async def key(self, scope: Scope, **others: Any) -> dict[str, str]:
        """The header with a new key of this scope."""
        _, secret = await self.parts.control.create_key(f"{scope}-key", scope, **others)
        return {"Authorization": f"Bearer {secret}"}


@asynccontextmanager
async def asking(folder: Path, client: str = "127.0.0.1", **settings: Any) -> AsyncGenerator[Asked]:
    """Somebody who asks a server over a new store."""
    async with opened(settings_of(folder, **settings)) as (parts, app):
        asked = Asked(app, parts, client)
        async with asked.http:
            yield asked


class Process:
    """A server in a process of its own."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self.process = process
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> tuple[int, bytes]:
        """The answer to a GET."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """SIGTERM; how it ended."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)


@contextmanager
def server_process(folder: Path, port: int | None = None, **variables: str) -> Generator[Process]:
    """A server that answers; it is killed at the end if it is still there."""
    port = free_port() if port is None else port
    environment = {**os.environ, "UPWELL_HOME": str(folder), "UPWELL_SERVER_PORT": str(port), **variables}
    process = subprocess.Popen([sys.executable, "-m", "upwell.servers", '{"quiet": true}'], env=environment)
    server = Process(port, process)
    try:
        wait_for(server)
        yield server
    finally:
        if process.poll() is None:
            server.kill()


def wait_for(server: Process) -> None:
    """Until it answers."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if server.get("/api/health")[0] == 200:
                return
        except OSError:
            pass
        assert server.process.poll() is None, "the server has ended"
        assert time.monotonic() < until, "the server does not answer"
        time.sleep(0.02)


def free_port() -> int:
    """A port where nobody is now. It is none of those that the system gives to whoever wants any: it stays free."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as found:
            try:
                found.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


async def eventually(condition: Any) -> Any:
    """What it answers once that is true."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (answer := condition()):
            await asyncio.sleep(0.01)
    return answer
