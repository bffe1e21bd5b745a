"""What a process writes to the store: its batches, its signs of life. The seam, and the one over a database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from msgspec.json import encode

from upwell.engine.clock import clock
from upwell.engine.loggers import ENGINE
from upwell.journal.batch import KINDS, SERIES_BITS, Batch
from upwell.journal.cache_store import release_locks
from upwell.journal.database import Database, Session, StoreError, StoreUnavailable
from upwell.journal.migrations import migrate
from upwell.journal.processes import Process

_WRITES: Final = {
    "series": "put_series",
    "flow_runs": "put_flow_runs",
    "flow_run_states": "put_flow_run_states",
    "completed_runs": "put_completed_runs",
    "found_runs": "put_found_runs",
    "task_runs": "put_task_runs",
    "task_run_states": "put_task_run_states",
    "edges": "put_edges",
    "results": "put_results",
    "durable_calls": "put_durable_calls",
    "cache_records": "put_cache_records",
    "rolled_back_runs": "put_rolled_back_runs",
    "logs": "put_logs",
}
"""Which query writes which rows of a batch, in this order."""

_FLOW_RUN_OF_SERIES: Final = 3
_ENDED: Final = 9
"""Where a row of `series` names the flow run, and a row of `flow_runs` says when it ended."""

_OF_SERIES: Final = ("series", "completed_runs", "found_runs", "task_runs", "task_run_states", "edges", "results")
"""Rows that begin with the key of a series."""

Put: TypeAlias = Callable[[Session, Batch], Awaitable[None]]
"""Writes the rows of a batch in an open transaction."""


class ProcessLost(StoreError):
    """Others have declared this process dead, and may have taken over its runs: it may write no more."""


class Registered(NamedTuple):
    """What a store knows of a process: the key that its series' keys begin with, and its last batch."""

    key: int
    written: int


class Store(Protocol):
    """Where a process writes. Every method may raise StoreUnavailable, and can be tried again then."""

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        ...

    async def open(self, process: Process) -> Registered:
        """Connect, bring the schema up to date, register the process; may be called again, after a failure.

        Raises:
            ProcessLost: the process was declared dead.
        """
        ...

    async def write(self, batch: Batch) -> None:
        """Write all of a batch, or nothing; nothing either if this batch has been written before.

        A row that the database refuses is left out, and that is said.

        Raises:
            ProcessLost: the process was declared dead meanwhile.
        """
        ...

    async def take_over(self, process: Process, batch: Batch) -> None:
        """Write what was spooled by a process that may have ended, or have been declared dead.

        What it did is written all the same, but for its part in flow runs that another process has taken over.
        """
        ...

    async def state_of(self, process: Process) -> str | None:
        """What became of a process: `alive`, `ended`, `lost`; None if it was never here."""
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

    async def open(self, process: Process) -> Registered:
        await self.database.open()
        await migrate(self.database)
        async with self.database.transaction() as session:
            return await register(session, process)

    async def write(self, batch: Batch) -> None:
        async def put(session: Session, write_rows: Put) -> None:
            if await session.fetch("mark_written", id=batch.process_id, number=batch.number, ends=batch.safe_ends):
                await write_rows(session, await self.admitted(session, batch))
            else:
                await check_alive(session, batch.process_id)  # else it is here already

        await self._whatever_can_be(put)

    async def admitted(self, session: Session, batch: Batch) -> Batch:
        """What of a batch may be written, in the transaction in which it will be: of one's own, all of it."""
        return batch

    async def take_over(self, process: Process, batch: Batch) -> None:
        async def put(session: Session, write_rows: Put) -> None:
            await session.fetch("note_process", **described(process))
            marked = await session.fetch("mark_taken_over", id=process.id, number=batch.number, ends=batch.safe_ends)
            for key, state in marked:
                rows = batch.numbered_from(int(key))
                await leave_out_what_others_do_now(session, rows)
                await write_rows(session, await self.admitted(session, rows))
                if state != "alive":
                    await _end_what_goes_on_nowhere(session, process, int(key), rows)

        await self._whatever_can_be(put)

    async def _whatever_can_be(self, put: Callable[[Session, Put], Awaitable[None]]) -> None:
        """Do this in a transaction; if the database refuses something of it, again without those rows."""
        try:
            async with self.database.transaction() as session:
                await put(session, write_rows)
        except StoreError:
            raise
        except Exception:
            refused = Refused()
            async with self.database.transaction() as session:
                await put(session, refused.write_others)
            if refused.count:
                self.report(refused)

    def report(self, refused: Refused) -> None:
        """Say what was left out."""
        ENGINE.error(
            "The store %s refused %s record(s), which are left out; the first is of %s: %s",
            self.place, refused.count, refused.first, refused.why,
        )  # fmt: skip

    async def state_of(self, process: Process) -> str | None:
        rows = await self.database.fetch("process_state", id=process.id)
        return str(rows[0][0]) if rows else None

    async def renew(self, process: Process) -> None:
        now = clock().time()
        async with self.database.transaction() as session:
            renewed = await session.fetch(
                "renew_lease", id=process.id, seen=_micros(now), lease_until=_micros(now + process.lease_seconds)
            )
            if not renewed:
                await check_alive(session, process.id)

    async def close(self, process: Process) -> None:
        try:
            await self.end(process)
        finally:
            await self.database.close()

    async def end(self, process: Process) -> None:
        """The process ends as it should."""
        async with self.database.transaction() as session:
            await session.fetch("end_process", id=process.id, seen=_micros(clock().time()))


async def register(session: Session, process: Process) -> Registered:
    """Say that a process is at work here.

    Raises:
        ProcessLost: it was, and was declared dead.
    """
    rows = await session.fetch("register_process", **described(process))
    if not rows:
        raise ProcessLost(_lost(process.id))
    key, written = rows[0]
    return Registered(int(key), int(written))


async def check_alive(session: Session, process_id: str) -> None:
    """Let nobody write who was declared dead: its runs may have been taken over.

    Raises:
        ProcessLost: it was.
        StoreUnavailable: it is not known here, so this is another store than the one it began with.
    """
    rows = await session.fetch("process_state", id=process_id)
    if not rows:
        raise StoreUnavailable("The store does not know this process any more: it is a new one, or was restored.")
    if rows[0][0] == "lost":
        raise ProcessLost(_lost(process_id))


async def write_rows(session: Session, batch: Batch) -> None:
    """All rows of a batch, in an open transaction."""
    for kind, query in _WRITES.items():
        rows: list[tuple[Any, ...]] = getattr(batch, kind)
        if rows:
            await session.insert(query, rows)
        for block in batch.blocks:
            if block.kind == kind:
                await session.insert(query, block.rows())
    if batch.released_locks:
        await release_locks(session, batch.process_id, batch.released_locks)


class Refused:
    """Finds the rows that a database refuses, by halves, and writes the others."""

    def __init__(self) -> None:
        self.count = 0
        self.why: Exception | None = None
        self.first = ""

    async def write_others(self, session: Session, batch: Batch) -> None:
        """All rows but those, in an open transaction."""
        await session.fetch_text("SAVEPOINT part")
        try:
            await write_rows(session, batch)
        except StoreError:
            raise
        except Exception as error:
            await session.fetch_text("ROLLBACK TO SAVEPOINT part")
            await session.fetch_text("RELEASE SAVEPOINT part")
            parts = batch.parts()
            if not parts:
                self._note(batch, error)
            for part in parts:
                await self.write_others(session, part)
        else:
            await session.fetch_text("RELEASE SAVEPOINT part")

    def _note(self, batch: Batch, error: Exception) -> None:
        self.count += 1
        if self.why is None:
            self.why = error
            self.first = next(kind for kind in KINDS if getattr(batch, kind))


async def leave_out_what_others_do_now(session: Session, batch: Batch) -> None:
    """Take out of a dead process's batch what would stand in the way of those who have taken over its flow runs."""
    ids = {row[0] for row in (*batch.flow_runs, *batch.flow_run_states, *batch.durable_calls)}
    ids |= {row[_FLOW_RUN_OF_SERIES] for row in batch.series} - {None}
    rows = await session.fetch("of_others_now", ids=encode(sorted(ids)).decode(), process_id=batch.process_id)
    taken_over = {row[0] for row in rows if row[1] is not None}
    nobodys = {row[0] for row in rows if row[1] is None}  # they wait to be resumed, unless this process has ended them
    ended = {row[0] for row in batch.flow_runs if row[_ENDED] is not None}
    for kind in ("flow_runs", "flow_run_states", "durable_calls"):
        left_out = taken_over if kind == "durable_calls" else taken_over | (nobodys - ended)
        setattr(batch, kind, [row for row in getattr(batch, kind) if row[0] not in left_out])
    keys = _keys_json(_series_in(batch))
    rows = await session.fetch("series_of_others_now", keys=keys, process_id=batch.process_id)
    of_others = {row[0] for row in rows} | {row[0] for row in batch.series if row[_FLOW_RUN_OF_SERIES] in taken_over}
    if of_others:
        for kind in _OF_SERIES:
            setattr(batch, kind, [row for row in getattr(batch, kind) if row[0] not in of_others])


async def _end_what_goes_on_nowhere(session: Session, process: Process, key: int, batch: Batch) -> None:
    """Task runs that a process had begun: it was found dead before this was known, so nobody looks for them again."""
    said = {"now": _micros(clock().time()), "message": f"The process {process.pid} died before this had ended."}
    first, after = key << SERIES_BITS, (key + 1) << SERIES_BITS
    await session.fetch("crash_task_runs", first=first, after=after, process_id=process.id, **said)
    if of_before := {key for key in _series_in(batch) if not first <= key < after}:
        await session.fetch("crash_task_runs_of_series", keys=_keys_json(of_before), **said)


def _series_in(batch: Batch) -> set[int]:
    """The keys of those that the rows of a batch are of."""
    return {row[0] for kind in _OF_SERIES for row in getattr(batch, kind)}


def _keys_json(keys: set[int]) -> str:
    return encode(sorted(map(str, keys))).decode()


def described(process: Process) -> dict[str, Any]:
    """What is noted of a process, as of now."""
    now = clock().time()
    return {
        "id": process.id,
        "host": process.host,
        "pid": process.pid,
        "pid_started": process.pid_started,
        "seen": _micros(now),
        "lease_until": _micros(now + process.lease_seconds),
    }


def _micros(seconds: float) -> int:
    return int(seconds * 1e6)


def _lost(process_id: str) -> str:
    return (
        f"This process ({process_id}) gave no sign of life for longer than its lease, and was declared dead: others "
        "may have taken over its runs, so what they do now is recorded no more. Was it stopped, or the machine asleep?"
    )


__all__ = [
    "ProcessLost",
    "Refused",
    "Registered",
    "SqlStore",
    "Store",
    "check_alive",
    "described",
    "leave_out_what_others_do_now",
    "register",
    "write_rows",
]
