"""What a process writes to the store: its batches, its signs of life. The seam, and the one over a database."""

from __future__ import annotations

from typing import Any, Final, Protocol

from upwell.engine.clock import clock
from upwell.journal.batch import Batch
from upwell.journal.database import Database, Session, StoreError
from upwell.journal.migrations import migrate
from upwell.journal.processes import Process

_WRITES: Final = {
    "series": "put_series",
    "flow_runs": "put_flow_runs",
    "flow_run_states": "put_flow_run_states",
    "completed_runs": "put_completed_runs",
    "task_runs": "put_task_runs",
    "task_run_states": "put_task_run_states",
    "edges": "put_edges",
    "results": "put_results",
    "durable_calls": "put_durable_calls",
    "logs": "put_logs",
}
"""Which query writes which rows of a batch, in this order."""


class ProcessLost(StoreError):
    """Others have declared this process dead, and may have taken over its runs: it may write no more."""


class Store(Protocol):
    """Where a process writes. Every method may raise StoreUnavailable, and can be tried again then."""

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        ...

    async def open(self, process: Process) -> int:
        """Connect, bring the schema up to date, register the process; answers with the process's key."""
        ...

    async def write(self, batch: Batch) -> None:
        """Write all of a batch, or nothing.

        Raises:
            ProcessLost: the process was declared dead meanwhile.
        """
        ...

    async def take_over(self, process: Process, batch: Batch) -> None:
        """Write what was spooled."""
        ...

    async def renew(self, process: Process) -> None:
        """A sign of life.

        Raises:
            ProcessLost: the process was declared dead meanwhile.
        """
        ...

    async def close(self, process: Process) -> None:
        """The process ends as it should; let go of the store."""
        ...


class SqlStore:
    """The store in a SQL database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.place = database.place

    async def open(self, process: Process) -> int:
        await self.database.open()
        await migrate(self.database)
        async with self.database.transaction() as session:
            return await register(session, process)

    async def write(self, batch: Batch) -> None:
        async with self.database.transaction() as session:
            await check_alive(session, batch.process_id)
            await write_rows(session, batch)

    async def take_over(self, process: Process, batch: Batch) -> None:
        """Write what another process has spooled before it ended, or this one while the store was away."""
        async with self.database.transaction() as session:
            key = await register(session, process)
            await write_rows(session, batch.numbered_from(key))

    async def renew(self, process: Process) -> None:
        now = clock().time()
        async with self.database.transaction() as session:
            renewed = await session.fetch(
                "renew_lease", id=process.id, seen=_micros(now), lease_until=_micros(now + process.lease_seconds)
            )
        if not renewed:
            raise ProcessLost(_lost(process.id))

    async def close(self, process: Process) -> None:
        try:
            async with self.database.transaction() as session:
                await session.fetch("end_process", id=process.id, seen=_micros(clock().time()))
        finally:
            await self.database.close()


async def register(session: Session, process: Process) -> int:
    """Say that a process is at work here; answers with its key.

    Raises:
        ProcessLost: it was, and was declared dead.
    """
    now = clock().time()
    rows = await session.fetch(
        "register_process",
        id=process.id,
        host=process.host,
        pid=process.pid,
        pid_started=process.pid_started,
        seen=_micros(now),
        lease_until=_micros(now + process.lease_seconds),
    )
    key, state = rows[0]
    if state == "lost":
        raise ProcessLost(_lost(process.id))
    return int(key)


async def check_alive(session: Session, process_id: str) -> None:
    """Let nobody write who was declared dead: its runs may have been taken over."""
    rows = await session.fetch("process_state", id=process_id)
    if rows and rows[0][0] == "lost":
        raise ProcessLost(_lost(process_id))


async def write_rows(session: Session, batch: Batch) -> None:
    """All rows of a batch, in an open transaction."""
    for kind, query in _WRITES.items():
        rows: list[tuple[Any, ...]] = getattr(batch, kind)
        if rows:
            await session.insert(query, rows)


def _micros(seconds: float) -> int:
    return int(seconds * 1e6)


def _lost(process_id: str) -> str:
    return (
        f"This process ({process_id}) gave no sign of life for longer than its lease, and was declared dead: others may "
        "have taken over its runs, so what it does now is recorded no more. Was it stopped, or the machine asleep?"
    )


__all__ = ["ProcessLost", "SqlStore", "Store", "check_alive", "register", "write_rows"]
