"""A process with everything imported that forks itself for each child: a new child takes milliseconds."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import signal
import socket
import sys

from upwell_runners.processes import child
from upwell_runners.processes.deaths import kill_group
from upwell_runners.processes.wire import FrameReader, Kind, frame

_PR_SET_PDEATHSIG = 1


def serve(descriptor: int) -> None:
    """Fork, and tell how children ended, as the parent asks; until its end of the socket closes.

    It has one thread and does one thing at a time, so that forking is safe.
    """
    importlib.import_module("ctypes")  # for `_die_with` and for shared memory: once, not in each child
    with socket.socket(fileno=descriptor) as control:
        reader = FrameReader(control)
        gc.freeze()  # the children share these pages as long as no collector touches them
        while (frames := reader.receive()) is not None:
            for kind, body in frames:
                if kind == Kind.FORK:
                    _fork(control, reader.descriptors.popleft())
                elif kind == Kind.END:
                    control.sendall(frame(Kind.ENDED, _end(body)))


def _fork(control: socket.socket, descriptor: int) -> None:
    server = os.getpid()
    if os.fork():
        os.close(descriptor)
        return
    control.close()
    os.setpgid(0, 0)
    _die_with(server)
    try:
        child.serve(descriptor)
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]  # what multiprocessing's children call too
        _flush()
    finally:
        os._exit(0)


def _end(pid: int) -> int:
    """Kill a child, if it lives, with all it has started; how it ended."""
    kill_group(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _die_with(server: int) -> None:
    if sys.platform == "linux":
        ctypes = importlib.import_module("ctypes")
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:
            os._exit(0)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
