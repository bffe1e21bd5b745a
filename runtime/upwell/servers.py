"""Starts, finds and stops a server: what `upwell server start`, `status` and `stop` do."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from upwell import composition
from upwell.core.errors import ConfigurationError, MissingExtraError, UpwellError
from upwell.engine.clock import SystemClock, clock
from upwell.journal.processes import started_at
from upwell.settings import Settings, variable_of
from upwell.settings import current as settings

if TYPE_CHECKING:
    from upwell.journal.database import Database
    from upwell.journal.sweeping import Sweeper

START_SECONDS: Final = 30.0
"""For a server in the background to answer for the first time."""

STOP_SECONDS: Final = 15.0
"""For a server to end by itself; then it is killed."""

SWITCH_SECONDS: Final = 0.001
"""How long the threads that read the store wait for a busy loop to let them; Python's own 5 ms add up in an answer."""

LOG_TAIL_BYTES: Final = 2000


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A server of this home folder. pid_started: tells it from a later process with the same pid."""

    pid: int
    pid_started: str
    host: str
    port: int
    started: float

    @property
    def url(self) -> str:
        """Where its pages are; the API is below `/api`."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


class ServerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a server runs, and whether it answers. info: None if none runs."""

    info: ServerInfo | None
    answers: bool
    log: Path


def run_server(*, host: str | None = None, port: int | None = None, services: bool = True, quiet: bool = False) -> None:
    """Serve until SIGINT or SIGTERM; what is not given is as the settings say.

    Raises:
        ConfigurationError: it cannot be started like that, or one runs already.
        MissingExtraError: what it needs is not installed.
    """
    wanted = settings()
    if wanted.journal == "memory":
        raise ConfigurationError("A server needs a store that others can reach: unset UPWELL_JOURNAL=memory.")
    if wanted.api_url is not None:
        wanted = msgspec.structs.replace(wanted, api_url=None)  # this is that server
    serve = _serve()

    def say(host: str, port: int) -> None:
        info = ServerInfo(
            pid=os.getpid(), pid_started=started_at(os.getpid()) or "", host=host, port=port, started=clock().time()
        )
        _write_private(_file(), msgspec.json.encode(info))
        if not quiet:
            print(f"upwell serves {_place(wanted)} at {info.url} (Ctrl-C ends it)", flush=True)  # noqa: T201  # its user asked for it
        gc.freeze()  # what a server is made of stays: a collector that walks it all keeps the loop for 50 ms each time

    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            made = composition.make_sweeper(wanted) if services else None
            serving = serve(_maker(wanted), wanted, host=host, port=port, services=services, ready=say, sweeper=made)
            runner.run(serving)
    except KeyboardInterrupt:
        pass
    finally:
        gc.unfreeze()
        _forget(os.getpid())


def start_in_background(*, host: str | None = None, port: int | None = None, services: bool = True) -> ServerInfo:
    """Start a server that outlives this process, and wait until it answers. What it says goes to `server.log`.

    Raises:
        ConfigurationError: it cannot be started like that, or one runs already.
    """
    running = server_status()
    if running.info is not None:
        raise ConfigurationError(f"A server runs already, at {running.info.url} (pid {running.info.pid}).")
    _serve()  # whether it is installed is said here, not in a log
    asked = {"host": host, "port": port, "services": services, "quiet": True}
    log = running.log
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "upwell.servers", msgspec.json.encode(asked).decode()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, **_as_variables(settings())},
        )
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        status = server_status()
        if status.info is not None and status.info.pid == process.pid and status.answers:
            process.returncode = 0  # it goes on without us
            return status.info
        if process.poll() is not None:
            raise ConfigurationError(f"The server has ended at once: {_last_words(log)}")
        time.sleep(0.02)
    process.kill()
    process.wait()
    raise UpwellError(f"The server did not answer within {START_SECONDS:g} seconds; see {log}.")


def server_status() -> ServerStatus:
    """Whether a server of this home folder runs, and answers."""
    info = _running()
    log = composition.home() / "server.log"
    return ServerStatus(info=info, answers=info is not None and _answers(info), log=log)


def stop_server(seconds: float = STOP_SECONDS) -> ServerInfo | None:
    """End the server of this home folder, gently, then hard; which one it was, None if none runs."""
    info = _running()
    if info is None:
        return None
    until = time.monotonic() + seconds
    _signal(info, signal.SIGTERM)
    while _is_there(info):
        if time.monotonic() > until:
            _signal(info, signal.SIGKILL)
            until += seconds
        time.sleep(0.02)
    try:
        os.waitpid(info.pid, os.WNOHANG)  # where it was this process that started it
    except ChildProcessError:
        pass
    _forget(info.pid)
    return info


# --- parts --------------------------------------------------------------------------------------------------


class _Serve(Protocol):
    """What serves; see `upwell.server.serve`."""

    def __call__(
        self,
        make_database: Callable[..., Database],
        settings: Settings,
        *,
        host: str | None,
        port: int | None,
        services: bool,
        ready: Callable[[str, int], None] | None,
        sweeper: Sweeper | None,
    ) -> Coroutine[Any, Any, None]: ...


def _serve() -> _Serve:
    try:
        from upwell.server.serve import serve  # here: takes half a second, and needs the extra
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("upwell"):
            raise
        raise MissingExtraError(f"A server needs {error.name}: pip install 'upwell[server]'.") from error
    return serve


def _maker(wanted: Settings) -> Callable[..., Database]:
    def make(*, read_only: bool) -> Database:
        return composition.make_database(wanted, read_only=read_only, on_a_thread=True)

    return make


def _as_variables(wanted: Settings) -> dict[str, str]:
    """Where the store is and who may ask, as another process reads it: it may be set here in other ways."""
    given = {
        "home": str(composition.home(wanted)),
        "database_url": wanted.database_url or "",
        "server_hosts": ",".join(wanted.server_hosts),
        "server_require_key": "" if wanted.server_require_key is None else str(wanted.server_require_key).lower(),
    }
    return {variable_of(field): text for field, text in given.items()}


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed."""
    return SystemClock().new_loop()


def _place(wanted: Settings) -> str:
    return composition.make_database(wanted).place


# --- which one runs -----------------------------------------------------------------------------------------


def _file() -> Path:
    return composition.home() / "server.json"


def _write_private(path: Path, content: bytes) -> None:
    """All of it or nothing, for its owner only."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(beside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
    beside.replace(path)


def _running() -> ServerInfo | None:
    try:
        info = msgspec.json.decode(_file().read_bytes(), type=ServerInfo)
    except (OSError, msgspec.DecodeError):
        return None
    return info if _is_there(info) else None


def _is_there(info: ServerInfo) -> bool:
    found = started_at(info.pid)
    return found is not None and found == info.pid_started


def _signal(info: ServerInfo, number: signal.Signals) -> None:
    try:
        os.kill(info.pid, number)
    except ProcessLookupError:
        pass


def _forget(pid: int) -> None:
    """The server of this process is no more."""
    try:
        info = msgspec.json.decode(_file().read_bytes(), type=ServerInfo)
        if info.pid == pid:
            _file().unlink()
    except (OSError, msgspec.DecodeError):
        pass


def _answers(info: ServerInfo) -> bool:
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection(info.url.removeprefix("http://"), timeout=5)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _last_words(log: Path) -> str:
    text = log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
    return text.rpartition("\n")[2] or f"see {log}"


if __name__ == "__main__":
    try:
        run_server(**msgspec.json.decode(sys.argv[1]))
    except UpwellError as error:
        sys.exit(str(error))
