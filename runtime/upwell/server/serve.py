"""Serves the application by uvicorn, with the services beside it, until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import uvicorn

from upwell.core.errors import ConfigurationError
from upwell.core.ids import RANDOM_BITS, uuid7
from upwell.engine.clock import clock
from upwell.journal.sweeping import Sweeper
from upwell.server.app import create_app
from upwell.server.http import HttpProtocol
from upwell.server.parts import MakeDatabase, Parts, open_parts
from upwell.server.services.standard import run_services
from upwell.settings import Settings

GRACE_SECONDS: Final = 5
"""For requests that are being answered, once the server is told to end."""

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
RETURN_SECONDS: Final = 10.0
"""After a server has begun: it may have been away, and programs bring in what they have spooled meanwhile."""

KEEP_ALIVE_SECONDS: Final = 15
MOST_CONNECTIONS: Final = 1000


async def serve(
    make_database: MakeDatabase,
    settings: Settings,
    *,
    host: str | None = None,
    port: int | None = None,
    services: bool = True,
    ready: Callable[[str, int], None] | None = None,
    sweeper: Sweeper | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM.

    services: whether the scheduler and the others run here, too.
    sweeper: for the folders of results, if they can be reached.
    ready: called with the address and port once it answers.

    Raises:
        ConfigurationError: others can reach the address, and there is no key; or it cannot be had.
    """
    host = settings.server_host if host is None else host
    port = settings.server_port if port is None else port
    async with open_parts(make_database, settings) as parts:
        await parts.access.check_address(host)
        with _listening(host, port) as listening:
            app = create_app(parts)
            server = _Server(app, parts, host)
            server.when_ready = lambda: ready(host, listening.getsockname()[1]) if ready else None
            beside = _services(parts, settings, sweeper) if services else asyncio.sleep(0)
            with _told_by_signals(server):
                async with _beside(app.state.metrics.watch_the_loop()), _beside(beside):
                    await server.serve(sockets=[listening])


class _Server(uvicorn.Server):
    """Ends listeners' streams before it waits for what is being answered."""

    when_ready: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, app: Any, parts: Parts, host: str) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                http=HttpProtocol,
                loop="none",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,  # who says that he is somebody else is not believed
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
                limit_concurrency=MOST_CONNECTIONS,
            )
        )
        self._parts = parts

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Not here: uvicorn would raise them again at its end, before what is around it has ended."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.when_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._parts.hub.close()
        await super().shutdown(sockets)


@contextmanager
def _told_by_signals(server: _Server) -> Generator[None]:
    """SIGINT and SIGTERM end the server; a second one does not wait for what is being answered."""
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    for number in SIGNALS:
        loop.add_signal_handler(number, server.handle_exit, number, None)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


@contextmanager
def _listening(host: str, port: int) -> Generator[socket.socket]:
    """A socket at this address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # else asyncio sets no TCP_NODELAY
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except (OSError, OverflowError) as error:
            said = str(getattr(error, "strerror", None) or error).removesuffix(".")
            raise ConfigurationError(
                f"The server cannot answer on {host}:{port}: {said}. Is another one running there "
                "(`upwell server status`)? `--port` or UPWELL_SERVER_PORT says another port."
            ) from error
        yield listening
    finally:
        listening.close()


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    """Do this for as long as the code inside runs."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _services(parts: Parts, settings: Settings, sweeper: Sweeper | None) -> None:
    process_id = str(uuid7(clock().time(), random.SystemRandom().getrandbits(RANDOM_BITS)))
    await run_services(parts.control, settings, parts.database, process_id, sweeper, RETURN_SECONDS)
