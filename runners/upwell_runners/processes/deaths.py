"""How processes are killed, and how their deaths are told."""

from __future__ import annotations

import os
import signal


def kill_group(pid: int) -> None:
    """Kill a child that has not been waited for, and the processes that it has started."""
    for kill in (os.killpg, os.kill):  # the second, for it may have been killed before it had a group
        try:
            kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def how_it_died(status: int | None) -> str:
    """The exit status of a process in words; negative for signals, None where it is not known."""
    if status is None:
        return "has gone, and nobody knows how"
    if status >= 0:
        return f"exited with code {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
