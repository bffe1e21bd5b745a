"""Durable flow runs in the store: claimed by exactly one process, and what they have finished.

The seam, and the one over a database. What a run is known by is data, so that a server can be asked as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Container
from typing import NoReturn, Protocol

from msgspec import Struct

from upwell.core.errors import NotResumableError, UnknownRunError
from upwell.engine.durable_records import WAITING, Child, Claim, FinishedRow, OldMap, OldSeries, waiting_of
from upwell.journal.batch import Batch
from upwell.journal.database import Database, Session
from upwell.journal.liveness import Observer
from upwell.journal.processes import machine_of
from upwell.journal.store import check_alive


class Beginning(Struct):
    """A flow run that is about to begin, and which run it may be instead.

    known_by: the digest of its arguments, where a run of the very same call may be meant.
    idempotency_key, resume, fork_of, fork_before, is_assigned: see `Wish`. is_child: another flow run has started it.
    """

    id: str
    name: str
    created: float
    flow_name: str
    entrypoint: str | None
    is_child: bool
    known_by: bytes | None = None
    idempotency_key: str | None = None
    resume: str | None = None
    fork_of: str | None = None
    fork_before: str | None = None
    is_assigned: bool = False


class DurableStore(Protocol):
    """What a process asks of durable flow runs. Every method may raise StoreUnavailable."""

    def watch(self) -> Callable[[], Awaitable[object]]:
        """Sees, each time it is called, to those who have died: they leave runs that can be gone on with."""
        ...

    async def attempt(self, beginning: Beginning, rows: Batch, meant: list[str], ours: Container[str]) -> Claim | None:
        """Which run this is; None: it is at work elsewhere.

        rows: of the flow run, should it be a new one.
        meant: the run that was found, so that another try, after a failure, means the same.
        ours: runs that this process knows it has.

        Raises:
            UnknownRunError, NotResumableError: about the run that is to be resumed. ProcessLost: this process was
                declared dead. Another one: somebody has begun a run of the same key this moment.
        """
        ...

    async def call_of(self, flow_run_id: str) -> tuple[str, str, bytes]:
        """The flow of a durable run, where it is found again, and its packed arguments.

        Raises:
            UnknownRunError: there is no such run. NotResumableError: it is not durable.
        """
        ...

    async def runs_to_resume(self) -> list[tuple[str, str]]:
        """The durable runs whose processes have died, in the order in which they began: id and flow."""
        ...


class SqlDurable:
    """Durable flow runs in a SQL database, for one process."""

    def __init__(self, database: Database, process_id: str, most_crashes: int) -> None:
        self._database = database
        self._process_id = process_id
        self._most_crashes = most_crashes

    def watch(self) -> Callable[[], Awaitable[object]]:
        return Observer(self._database, self._process_id, self._most_crashes).look

    async def attempt(self, beginning: Beginning, rows: Batch, meant: list[str], ours: Container[str]) -> Claim | None:
        async with self._database.transaction() as session:
            await check_alive(session, self._process_id)
            known = meant[0] if meant else await run_meant(session, beginning)
            meant[:] = [] if known is None else [known]
            claim = await self._claim(session, beginning, rows, known, ours)
        if claim is None:
            meant.clear()
            return None
        return await self._loaded(claim, beginning)

    async def claim(self, beginning: Beginning, rows: Batch, known: str | None) -> Claim | None:
        """The same where it is known already which run is meant, if any, and nothing of what the process knows."""
        async with self._database.transaction() as session:
            await check_alive(session, self._process_id)
            claim = await self._claim(session, beginning, rows, known, ())
        return None if claim is None else await self._loaded(claim, beginning)

    async def run_meant(self, beginning: Beginning) -> str | None:
        """The id of the run that is meant, if the store knows it."""
        return await run_meant(self._database, beginning)

    async def call_of(self, flow_run_id: str) -> tuple[str, str, bytes]:
        rows = await self._database.fetch("flow_run_to_call_again", id=flow_run_id)
        if not rows:
            raise UnknownRunError(f"There is no flow run {flow_run_id} in this store.")
        flow, entrypoint, arguments = rows[0]
        if arguments is None:
            refuse(flow_run_id, "it is not durable, so its arguments were not kept")
        return flow, entrypoint, arguments

    async def runs_to_resume(self) -> list[tuple[str, str]]:
        await Observer(self._database, None, self._most_crashes).look()
        return [(identity, flow) for identity, flow in await self._database.fetch("runs_to_resume")]

    async def _claim(
        self, session: Session, beginning: Beginning, rows: Batch, known: str | None, ours: Container[str]
    ) -> Claim | None:
        identity, resume = beginning.id, beginning.resume
        if known is None or (known == identity and resume is None):
            if beginning.fork_of is not None and not await session.fetch("flow_run_as_it_is", id=beginning.fork_of):
                raise UnknownRunError(f"There is no flow run {beginning.fork_of} in this store.")
            found = await session.fetch("flow_run_as_it_is", id=identity)
            if not found or beginning.is_assigned:  # else we did not hear of it
                await session.insert("put_flow_runs", rows.flow_runs)
                await session.insert("put_flow_run_states", rows.flow_run_states)
            return Claim(identity, beginning.name, beginning.created)
        found = await session.fetch("flow_run_as_it_is", id=known)
        if not found:
            raise UnknownRunError(f"There is no flow run {known} in this store.")
        state, state_name, message, result, ended, name, created, owner, host, pid = found[0]
        if ended is not None:
            if resume is not None and not beginning.is_child:
                raise NotResumableError(
                    f"The flow run '{name}' has ended {state_name or state.capitalize()}, so there is nothing to "
                    f"resume. `upwell.fork('{known}')` starts another run that takes over what this one finished."
                )
            return Claim(known, name, created / 1e6, ended=(state, state_name, message, result))
        claimed = await session.fetch("claim_flow_run", id=known, process_id=self._process_id)
        again = not claimed and owner == self._process_id and known not in ours
        if again:
            claimed = await session.fetch("flow_run_claimed", id=known)
        if not claimed:
            if resume is None:
                return None
            other = f"process {pid} on {machine_of(host)}" if host else "another process"
            refuse(name, at_work() if owner == self._process_id else at_work(other))
        name, created, run_count, crashes, source_hash, due = claimed[0]
        begun = max(run_count, crashes)  # an attempt that died before its beginning was written was one, too
        claim = Claim(known, name, created / 1e6, begun, crashes, source_hash, resumed=True, again=again)
        claim.due = None if due is None else due / 1e6
        return claim

    async def _loaded(self, claim: Claim, beginning: Beginning) -> Claim:
        """With what the run has finished, or that one which it is a fork of."""
        if claim.resumed:
            await _load(self._database, claim, claim.flow_run_id)
        elif beginning.fork_of is not None and claim.ended is None:
            await _load(self._database, claim, beginning.fork_of)
            claim.inherited, claim.waiting = True, []
            if beginning.fork_before is not None:
                await _forget_since(self._database, claim, beginning.fork_before)
        return claim


async def run_meant(session: Session, beginning: Beginning) -> str | None:
    """The id of the run that a call means, if the store knows it."""
    if beginning.fork_of is not None:
        return None
    if beginning.resume is not None:
        return beginning.resume
    flow = beginning.flow_name
    if beginning.idempotency_key is not None:
        rows = await session.fetch("flow_run_of_key", flow=flow, key=beginning.idempotency_key)
    elif beginning.known_by is not None:
        rows = await session.fetch(
            "flow_run_to_resume", flow=flow, entrypoint=beginning.entrypoint, arguments=beginning.known_by
        )
    else:
        return None
    return str(rows[0][0]) if rows else None


def at_work(process: str = "this process") -> str:
    """Why a run cannot be resumed that goes on."""
    return f"{process} is at work on it"


def refuse(name: str, reason: str) -> NoReturn:
    """Raises NotResumableError."""
    raise NotResumableError(f"The flow run '{name}' cannot be resumed: {reason}.")


async def _load(database: Database, claim: Claim, flow_run_id: str) -> None:
    """What the run has finished, and the series that its runs belong to."""
    begun: dict[int, set[int]] = defaultdict(set)
    for series, number in await database.fetch("begun_runs", id=flow_run_id):
        begun[series].add(number)
    claim.series = [
        OldSeries(key, int(base, 16), task, created / 1e6, submitted, source, frozenset(begun[key]))
        for key, base, task, created, submitted, source in await database.fetch("durable_series", id=flow_run_id)
    ]
    claim.finished = await database.fetch("finished_runs", id=flow_run_id)  # type: ignore[assignment]  # as FinishedRow says
    claim.maps = [OldMap(*row) for row in await database.fetch("large_maps", id=flow_run_id)]
    claim.waiting = [waiting_of(*row) for row in await database.fetch("waiting_runs", id=flow_run_id, mark=WAITING)]
    claim.children = [Child._make([*row[:7], bool(row[7])]) for row in await database.fetch("children", id=flow_run_id)]


async def _forget_since(database: Database, claim: Claim, task_run_id: str) -> None:
    """Let a fork begin again from a task run: what had not ended when that one began is not taken over."""
    began = await started_at(database, claim, task_run_id)
    claim.finished = [row for row in map(FinishedRow._make, claim.finished) if row.ended <= began / 1e6]
    claim.children = [child for child in claim.children if child.ended is not None and child.ended <= began]


async def started_at(database: Database, claim: Claim, task_run_id: str) -> int:
    """When a task run of these series began, in microseconds.

    Raises:
        UnknownRunError: it belongs to another flow run, or never began; or this is no id.
    """
    try:
        random_part = _random_part(task_run_id)
    except ValueError:
        raise UnknownRunError(f"{task_run_id!r} is not the id of a task run: it must be a UUID.") from None
    for series in claim.series:
        number = random_part - series.base
        if 0 <= number < series.submitted:
            rows = await database.fetch("task_run_started", series=series.key, number=number)
            if rows and rows[0][0] is not None:
                return int(rows[0][0])
    raise UnknownRunError(f"The task run {task_run_id} is none of this flow run's, or never began.")


def _random_part(identity: str) -> int:
    """The 74 bits of a UUIDv7 that are not its time; see `core.ids`."""
    number = int(identity.replace("-", ""), 16)
    return (((number >> 64) & 0xFFF) << 62) | (number & ((1 << 62) - 1))
