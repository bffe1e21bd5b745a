"""Places where a process is killed when a test says so: to see that what it had begun is gone on with.

    install_crash_points()          # in the program under test, before anything runs
    ...
    crash_point("after payment")    # wherever it may die

    UPWELL_CRASH_AT="after payment:2" python program.py

kills the program, as `kill -9` does, the second time that it comes there. `CRASH_POINTS` are those in upwell itself.
Without the variable nothing is installed, and `crash_point` does nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any, Final

VARIABLE: Final = "UPWELL_CRASH_AT"

CRASH_POINTS: Final = (
    "before claim",
    "mid claim",
    "after claim",
    "before flush",
    "mid flush",
    "before commit",
    "after commit",
    "mid renewal",
    "before rename",
    "after rename",
)
"""In upwell: where a durable flow run is claimed, what has happened is written, the lease renewed, a large result
stored."""

_lock = threading.Lock()
_place: str | None = None
_left = 0


def crash_point(name: str) -> None:
    """Die here, if the test says so."""
    global _left
    if name != _place:
        return
    with _lock:
        _left -= 1
        if not _left:
            die()


def die() -> None:
    """Kill this process at once, as `kill -9` does."""
    sys.stdout.flush()
    if hasattr(signal, "SIGKILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(137)  # where there are no signals


def install_crash_points() -> None:
    """Let this process die where `UPWELL_CRASH_AT` says: `name`, or `name:times`.

    Raises:
        ValueError: the variable says something else.
    """
    global _place, _left
    said = os.environ.get(VARIABLE)
    if not said:
        return
    name, _, times = said.partition(":")
    if times and not (times.isdecimal() and int(times)):
        raise ValueError(f"{VARIABLE} is {said!r}, and must be a name, or a name and how many times: 'mid flush:2'.")
    _place, _left = name, int(times or 1)
    if name in CRASH_POINTS:
        _reach_into_upwell()


def _reach_into_upwell() -> None:
    """Put those points where they belong; here, so that they cost nothing where nobody dies."""
    from upwell import filesystems
    from upwell.journal import store
    from upwell.journal.durable import Beginnings
    from upwell.journal.durable_store import SqlDurable

    write, write_rows, renew = store.SqlStore.write, store.write_rows, store.SqlStore.renew
    claim, begin = SqlDurable._claim, Beginnings.begin  # pyright: ignore[reportPrivateUsage]  # from the inside
    replace = os.replace

    async def flush(self: Any, batch: Any) -> None:
        crash_point("before flush")
        await write(self, batch)
        crash_point("after commit")

    async def flush_rows(session: Any, batch: Any) -> None:
        watched: Any = _Watched(session)
        await write_rows(watched, batch)
        crash_point("before commit")

    async def renew_and_die(self: Any, process: Any) -> None:
        async with self.database.transaction() as session:
            await session.fetch("renew_lease", id=process.id, seen=0, lease_until=0)
            crash_point("mid renewal")
        await renew(self, process)

    async def claim_and_die(self: Any, *args: Any) -> Any:
        crash_point("before claim")
        found = await claim(self, *args)
        crash_point("mid claim")
        return found

    async def begin_and_die(self: Any, *args: Any) -> Any:
        found = await begin(self, *args)
        crash_point("after claim")
        return found

    class Os:
        """The module as `filesystems` sees it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def replace(self, *args: Any) -> None:
            crash_point("before rename")
            replace(*args)
            crash_point("after rename")

    patches: Sequence[tuple[Any, str, Any]] = (
        (store.SqlStore, "write", flush),
        (store, "write_rows", flush_rows),
        (store.SqlStore, "renew", renew_and_die),
        (SqlDurable, "_claim", claim_and_die),
        (Beginnings, "begin", begin_and_die),
        (filesystems, "os", Os()),
    )
    for where, name, replacement in patches:
        setattr(where, name, replacement)


class _Watched:
    """A session in which the first insert of a flush is a crash point."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def insert(self, *args: Any) -> None:
        await self._session.insert(*args)
        crash_point("mid flush")


__all__ = ["CRASH_POINTS", "crash_point", "die", "install_crash_points"]
