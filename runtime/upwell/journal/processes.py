"""Who a process is, so that others can tell whether it is still there."""

from __future__ import annotations

import os
import platform
import random
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from upwell.core.ids import RANDOM_BITS, uuid7
from upwell.engine.clock import clock

if TYPE_CHECKING:
    from upwell.journal.database import Session


class Process(Struct, frozen=True):
    """One process that keeps a journal.

    id: of the process as a writer; a fork is another.
    host: the machine since it was started, and the namespace in which `pid` means something.
    pid_started: tells it from a later process with the same pid; empty where that could not be seen.
    lease_seconds: without a sign of life for so long, others may declare it dead.
    """

    id: str
    host: str
    pid: int
    pid_started: str
    lease_seconds: float


def this_process(lease_seconds: float) -> Process:
    """The process whose code this is, as a new writer."""
    pid = os.getpid()
    identity = str(uuid7(clock().time(), random.SystemRandom().getrandbits(RANDOM_BITS)))
    try:
        began = started_at(pid) or ""
    except OSError:
        began = ""
    return Process(identity, this_host(), pid, began, lease_seconds)


def is_gone(host: str, pid: int, pid_started: str) -> bool | None:
    """Whether a process has ended for certain (True), is there for certain (False), or cannot be seen (None)."""
    if host != this_host():
        return None
    try:
        found = started_at(pid)
    except OSError:  # such as: this process has too many files open
        return None
    if found is None:
        return None if _is_hidden(pid) else True
    return found != pid_started if pid_started else None


async def has_dead(session: Session, *, perhaps: bool = True) -> bool:
    """Whether anybody has died who is not declared so, or has left runs behind; perhaps: or cannot be seen here."""
    alive = await session.fetch("processes_alive")
    gone = {is_gone(host, pid, started) for _, host, pid, started, *_ in alive}
    if True in gone or (perhaps and None in gone):
        return True
    return bool(await session.fetch("processes_that_left_runs"))


@cache
def this_host() -> str:
    """The machine since it was started, and the process namespace: only where both are equal a pid means the same."""
    return "/".join((platform.node(), _boot(), _namespace()))


def machine_of(host: str) -> str:
    """The machine's name alone, as people know it."""
    return host.rsplit("/", 2)[0]


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""  # elsewhere the host's name must do: a pid that lived before the start has another time


def _namespace() -> str:
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return ""


def started_at(pid: int) -> str | None:
    """When the process of this pid was started, in whatever words the system has; None: there is none.

    Raises:
        OSError: that cannot be seen now.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except ProcessLookupError:  # it ends at this moment
        return None
    except FileNotFoundError:
        return _started_at_without_proc(pid) if not Path("/proc/self").exists() else None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else fields[19]  # a zombie has ended; field 22 is its start, in ticks


def _is_hidden(pid: int) -> bool:
    """Whether it is there, but another user's, and /proc hides those."""
    if not Path("/proc/self").exists():
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        pass
    return False


def _started_at_without_proc(pid: int) -> str | None:
    """The same on systems such as macOS."""
    import subprocess

    asked = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or None
