"""The limits of the store, as this process has them: known by name without I/O, taken and given back in groups.

Each limit that somebody here wants slots of has one worker, on the journal's loop. One turn of it gives back what came
free, puts new wishes in line and takes what has come free, all in one transaction. While others hold what is wanted
here it looks again, at first every few milliseconds, then less often: one look for all who wait here.

A store that is away is waited for; nobody is let through meanwhile. Who waits may withdraw at any time; what was
granted to it meanwhile is given back.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from upwell.engine.limits import NamedLimit
from upwell.engine.loggers import ENGINE
from upwell.journal.database import StoreUnavailable
from upwell.journal.limit_store import LimitChange, LimitInUse, LimitRow, LimitStore
from upwell.journal.processes import Process
from upwell.journal.shared_limit import NotThere, SharedLimit

REFRESH_SECONDS: Final = 5.0
"""How old what is known of the names may become before they are read again, if somebody asks."""

PATIENCE_SECONDS: Final = 0.25
"""How long a run that is submitted waits for the names, once: as long as it takes to open the store, usually."""

RETRY_SECONDS: Final = 0.2

LOOK_SECONDS: Final = 0.5
"""How often those who wait look whether those who hold the slots are alive, at most."""

_LEFT: Final = "The journal of this process has ended, and with it the limits that it shares with others."


class Host(Protocol):
    """What is needed of the journal. pid: of the process whose journal it is."""

    pid: int
    process: Process
    closed: bool

    def ask(self, work: Callable[[Any], Any]) -> Any:
        """Have this done with the store, on the journal's loop; it is cancelled when the journal ends."""
        ...


class SharedLimits:
    """The limits of one store. Unless said otherwise, methods may be called from any thread.

    limits_of: the limits in the journal's store. look_who_died: see to processes that have died.
    """

    def __init__(
        self, host: Host, limits_of: Callable[[Any], LimitStore], look_who_died: Callable[[Any], Awaitable[object]]
    ) -> None:
        self.host = host
        self._limits_of = limits_of
        self._look_who_died = look_who_died
        self._limits: dict[str, SharedLimit] = {}
        self._known = False
        self._known_now = threading.Event()
        self._patience_is_over = False
        self._some = True
        self._left = False
        self._reading = False
        self._read_at = 0.0
        self._when_known: deque[Callable[[], object]] = deque()
        self._begun = threading.Lock()  # taken for good by whoever begins
        self._loop: asyncio.AbstractEventLoop | None = None  # the journal's, from when the store is open
        self._residing: Any = None
        self._before: deque[Callable[[], object]] = deque()  # what was to be called there before
        self._journal_store: Any = None
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._looked_at = 0.0

    @property
    def process_id(self) -> str:
        """Whose limits these are."""
        return self.host.process.id

    @property
    def store(self) -> LimitStore:
        """The limits of the store, once that is open."""
        return self._limits_of(self._journal_store)

    # --- what is known ------------------------------------------------------------------------------------

    def get(self, name: str) -> NamedLimit | None:
        """The limit of this name; where the names cannot be known soon, one that asks when slots are taken."""
        if not self._is_known_soon():
            return self._limits.setdefault(name, SharedLimit(name, self))
        limit = self._limits.get(name)
        return limit if limit is not None and limit.exists else None

    def are_known(self) -> bool:
        """Whether the names have been read."""
        return self._known

    def when_known(self, callback: Callable[[], object]) -> None:
        """Call this as soon as the names have been read."""
        self._when_known.append(callback)
        self._refresh()
        if self._known or self._left:
            self._tell_those_who_wait()

    def __bool__(self) -> bool:
        return not self._is_known_soon() or self._some

    def _is_known_soon(self) -> bool:
        """Whether the names are known, or are in a moment; that is waited for, once in the life of a process.

        To let everything through, but only once the names are known, would cost more if that is very much.
        """
        self._refresh()
        if not self._known and not self._patience_is_over:
            self._known_now.wait(PATIENCE_SECONDS)
            self._patience_is_over = True
        return self._known

    def _refresh(self) -> None:
        """Have the names read, if they never were, or it is long ago."""
        if self._reading or (self._known and time.monotonic() - self._read_at < REFRESH_SECONDS):
            return
        self._reading = True
        if not self.call(lambda: self.begin(self._read_until_known())):
            self._left = True
            self._tell_those_who_wait()

    async def _read_until_known(self) -> None:
        try:
            while True:
                try:
                    return await self._read(self.store)
                except StoreUnavailable:
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._reading = False

    async def _read(self, store: LimitStore) -> None:
        """Read which limits there are."""
        async with self._turn:
            rows = {row.name: row for row in await store.limits()}
            for name in rows:
                self._limits.setdefault(name, SharedLimit(name, self))
            for name, limit in list(self._limits.items()):
                limit.told(rows.get(name))
            self._some = bool(rows)
            self._known = True
            self._known_now.set()
            self._read_at = time.monotonic()
        self._tell_those_who_wait()

    def _tell_those_who_wait(self) -> None:
        while self._when_known:
            call_safely(self._when_known.popleft())

    # --- on the journal's loop ----------------------------------------------------------------------------

    def call(self, what: Callable[[], object]) -> bool:
        """Call this on the journal's loop, as soon as the store is open; False if that cannot be any more."""
        if self._left or self.host.closed or self.host.pid != os.getpid():
            return False
        self._before.append(what)
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._call_them)
            elif self._begun.acquire(blocking=False):
                self._begin()
        except RuntimeError:  # the loop has ended
            return False
        return True

    def _begin(self) -> None:
        self._residing = self.host.ask(self._reside)  # kept: a loop holds its tasks weakly
        self._residing.add_done_callback(self._begin_again)

    def _begin_again(self, asked: Any) -> None:
        """The journal could not open the store: it is asked again."""
        if self._loop is None and not self.host.closed and not asked.cancelled():
            self._begin()

    async def _reside(self, store: Any) -> None:
        """Be there for those who want slots, until the journal ends."""
        self._journal_store = store
        self._loop = asyncio.get_running_loop()
        self._call_them()
        try:
            await asyncio.Event().wait()
        finally:
            await self._leave()

    def _call_them(self) -> None:
        while self._before:
            self._before.popleft()()

    def begin(self, work: Any) -> asyncio.Task[Any]:
        """A task on the journal's loop, on which this is called; ended when the journal is."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            ENGINE.error("A limit of the store cannot be taken or given back any more", exc_info=task.exception())

    async def look_who_has_died(self) -> None:
        """Now and then: those who have died hold slots, or stand in line, until somebody says so."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            await self._look_who_died(self._journal_store)

    async def _leave(self) -> None:
        """The journal ends: nothing is held or wanted any more."""
        self._left = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        used = [limit for limit in self._limits.values() if limit.fail(NotThere(_LEFT))]
        self._tell_those_who_wait()
        if used:
            try:
                await self.store.leave(self.process_id)
            except StoreUnavailable:
                pass  # they are free when the lease has run out

    # --- making and changing them: each gives a future of `concurrent.futures` ------------------------------

    def create(self, limit: LimitRow) -> Any:
        """Make a limit; False if there is one of that name."""
        return self.host.ask(lambda store: self._change(store, lambda limits: limits.create(limit)))

    def update(self, change: LimitChange) -> Any:
        """Change a limit; False if there is none of that name."""
        return self.host.ask(lambda store: self._change(store, lambda limits: limits.update(change)))

    def delete(self, name: str) -> Any:
        """Remove a limit; False if there is none of that name."""
        return self.host.ask(lambda store: self._change(store, lambda limits: limits.delete(name)))

    def in_use(self) -> Any:
        """All limits of the store, and how they stand: a list of LimitInUse."""
        return self.host.ask(lambda store: self._limits_of(store).in_use())

    async def _change(self, store: Any, change: Callable[[LimitStore], Awaitable[bool]]) -> bool:
        changed = await change(self._limits_of(store))
        await self._read(self._limits_of(store))
        return changed


def call_safely(callback: Callable[[], object]) -> None:
    """Tell somebody who waits on a loop, which may have ended meanwhile."""
    try:
        callback()
    except RuntimeError:
        pass


__all__ = ["LimitChange", "LimitInUse", "LimitRow", "SharedLimits"]
