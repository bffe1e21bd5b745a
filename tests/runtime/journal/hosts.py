"""A process's access to the store without an engine: a thread with an event loop, a registered process, its limits."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from upwell.engine.limits import Ticket
from upwell.engine.steps import TakeSlots
from upwell.journal.database import Database, StoreError
from upwell.journal.limit_store import LimitRow, SqlLimits
from upwell.journal.liveness import Observer
from upwell.journal.processes import Process, this_process
from upwell.journal.shared_limits import SharedLimits
from upwell.journal.sqlite import SqliteDatabase
from upwell.journal.store import SqlStore


class Host:
    """What the journal is to the limits, and no more. limits: those of the store, for this process."""

    def __init__(self, make_database: Callable[[], Database], process: Process | None = None) -> None:
        self.pid = os.getpid()
        self.process = process or this_process(30.0)
        self.closed = False
        self.store = SqlStore(make_database())
        self.limits = SharedLimits(self, lambda store: SqlLimits(store.database), self._look)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._observer = Observer(self.store.database, self.process.id)
        self.do(lambda store: store.open(self.process))

    async def _look(self, _: Any) -> None:
        await self._observer.look()

    def ask(self, work: Callable[[Any], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work(self.store), self._loop)

    def do(self, work: Callable[[SqlStore], Any]) -> Any:
        """The same, and wait for it."""
        return self.ask(work).result(30)

    def fetch(self, text: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """What a query answers."""
        rows: list[tuple[Any, ...]] = self.do(lambda store: store.database.fetch_text(text, **parameters))
        return rows

    def leases(self) -> list[tuple[Any, ...]]:
        """All rows of leases, in order: of which limit, how many slots, held or waiting."""
        return self.fetch("SELECT limit_name, slots, state FROM leases ORDER BY limit_name, state, place, id")

    async def take(self, name: str, slots: int = 1, timeout: float | None = None) -> Ticket:
        """Wait for slots."""
        known = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.limits.when_known(lambda: loop.call_soon_threadsafe(known.set))
        await known.wait()
        limit = self.limits.get(name)
        assert limit is not None
        return await TakeSlots(limit, slots, timeout).wait()

    def give_back(self, name: str, ticket: Ticket) -> None:
        """Give slots back."""
        limit = self.limits.get(name)
        if limit is not None:
            limit.give_back(ticket)

    def close(self) -> None:
        """As a journal ends: what goes on is cancelled, then the process says goodbye."""
        if self.closed:
            return
        self.closed = True
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)
        try:
            await self.store.close(self.process)
        except StoreError:
            pass


@contextmanager
def hosts(make_database: Callable[[], Database], many: int) -> Generator[list[Host]]:
    """So many of them, as if each were a process of its own."""
    made: list[Host] = []
    try:
        made += [Host(make_database) for _ in range(many)]
        yield made
    finally:
        for host in made:
            host.close()


def make_limit(host: Host, name: str, slots: int, decay: float = 0.0) -> None:
    assert host.limits.create(LimitRow(name, slots, decay, True)).result(10)


def settled(host: Host, expected: list[tuple[Any, ...]]) -> None:
    """What is given back is so within a moment."""
    until = time.monotonic() + 10
    while (found := host.leases()) != expected and time.monotonic() < until:
        time.sleep(0.005)
    assert found == expected


async def is_waiting(taking: asyncio.Task[Ticket], seconds: float = 0.05) -> bool:
    await asyncio.sleep(seconds)
    return not taking.done()


async def in_line(host: Host, many: int) -> None:
    """Until so many wait in the store."""
    while sum(1 for _, _, state in host.leases() if state == "waiting") != many:
        await asyncio.sleep(0.005)


def soon(main: Coroutine[Any, Any, None]) -> None:
    """Run this, which ends soon or never will."""

    async def body() -> None:
        async with asyncio.timeout(30):
            await main

    asyncio.run(body())


def look_once(home: Path) -> list[str]:
    """As any process does now and then: the ids of those that it has declared dead."""

    async def main() -> list[str]:
        database = SqliteDatabase(home / "upwell.db")
        await database.open()
        try:
            return await Observer(database).look()
        finally:
            await database.close()

    return asyncio.run(main())
