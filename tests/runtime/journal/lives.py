"""Processes that the tests of liveness kill: each says in a line when it is where they want it to be."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.runtime.journal.hosts import Host


def running() -> None:
    """A flow whose task runs do not end."""
    from upwell import flow, task

    @task
    async def endless(number: int) -> None:
        if number == 2:
            print("ready", flush=True)
        await asyncio.sleep(600)

    @flow
    async def inner() -> None:
        await asyncio.gather(*(endless(number) for number in range(3)))

    @flow
    async def outer() -> None:
        await inner()

    asyncio.run(outer())


def busy() -> None:
    """A flow whose task keeps the interpreter busy for two leases of a second, in time of the processor."""
    from upwell import flow, task

    @task
    def count() -> int:
        print("ready", flush=True)
        until, number = time.thread_time() + 2, 0
        while time.thread_time() < until:
            number += 1
        return number

    @flow
    def busy_flow() -> int:
        return count()

    busy_flow()


def short() -> None:
    """A flow that is over at once."""
    from upwell import flow

    @flow
    def short_flow() -> None:
        pass

    short_flow()


def dies_while_it_renews() -> None:
    """A process that is killed after it has given a sign of life, and before that is committed."""
    from upwell.journal.sqlite import SqliteDatabase

    host = Host(lambda: SqliteDatabase(Path(sys.argv[2])))

    async def renew(store: Any) -> None:
        async with store.database.transaction() as session:
            await session.fetch("renew_lease", id=host.process.id, seen=1, lease_until=2)
            os.kill(os.getpid(), signal.SIGKILL)

    host.do(renew)


if __name__ == "__main__":
    {life.__name__: life for life in (running, busy, short, dies_while_it_renews)}[sys.argv[1]]()
