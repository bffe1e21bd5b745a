"""Starts child processes, and says how they ended. No use is made of `fork` in the parent's process."""

from __future__ import annotations

import marshal
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, Literal, Protocol, cast

from upwell_runners.processes.deaths import kill_group
from upwell_runners.processes.wire import FrameReader, Kind, frame

StartMethod = Literal["spawn", "forkserver"]

_BOOT: Final = Path(__file__).with_name("boot.py")

SERVER_SECONDS: Final = 5.0
"""How long the fork server may take to answer before it is taken for lost."""


class Launcher(Protocol):
    """A way to start children."""

    def launch(self, theirs: socket.socket) -> int | None:
        """Start a child on this end of a socket pair, which is closed here; returns before the child runs.

        Its process id, where it is known already; else the child will tell.
        """

    def end(self, pid: int) -> int | None:
        """Kill a child, if it lives still; its exit status, negative for a signal, None if nobody knows."""

    def close(self) -> None:
        """Called when all children have ended."""


class SpawnLauncher:
    """Starts a new interpreter for each child."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    def launch(self, theirs: socket.socket) -> int | None:
        process = _start_interpreter("child", theirs)
        self._processes.append(process)
        return process.pid

    def end(self, pid: int) -> int | None:
        process = next((process for process in self._processes if process.pid == pid), None)
        if process is None:
            return None
        self._processes.remove(process)
        kill_group(pid)
        return process.wait()

    def close(self) -> None:
        """Nothing is left to do: every child was ended."""


class ForkServerLauncher:
    """Starts one interpreter, which forks itself for each child."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None

    def launch(self, theirs: socket.socket) -> int | None:
        if self._server is None or self._server.poll() is not None:
            self.close()
            self._start()
        with theirs:
            try:
                socket.send_fds(self._control, [frame(Kind.FORK, None)], [theirs.fileno()])
            except OSError:  # it has just died: the child's socket tells, for its other end is closed
                self.close()
        return None

    def end(self, pid: int) -> int | None:
        if self._server is None:
            return None
        try:
            self._control.sendall(frame(Kind.END, pid))
            while not (frames := self._reader.receive()):
                if frames is None:
                    self.close()
                    return None
        except OSError:  # a timeout too: a server that does not answer is none
            self.close()
            return None
        return int(frames[0][1])

    def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            self._control.close()
            self._reader.close()
            try:
                server.wait(SERVER_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        self._control.settimeout(SERVER_SECONDS)
        self._reader = FrameReader(self._control)
        self._server = _start_interpreter("fork server", theirs)


def launcher_for(method: StartMethod) -> Launcher:
    return ForkServerLauncher() if method == "forkserver" else SpawnLauncher()


def _start_interpreter(role: str, theirs: socket.socket) -> subprocess.Popen[bytes]:
    """A new process, in a group of its own, that runs `boot` on this end of a socket pair."""
    flags: list[str] = cast("Any", subprocess)._args_from_interpreter_flags()  # as multiprocessing does
    with theirs:
        descriptor = theirs.fileno()
        process = subprocess.Popen(
            [sys.executable, *flags, str(_BOOT), str(descriptor)],
            stdin=subprocess.PIPE,
            pass_fds=[descriptor],
            process_group=0,
        )
    assert process.stdin is not None
    try:
        with process.stdin as stdin:
            stdin.write(marshal.dumps((role, [path or os.getcwd() for path in sys.path])))
    except BrokenPipeError:
        pass  # it died at once; its socket tells
    return process
