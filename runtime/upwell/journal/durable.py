"""Durable flow runs in the store: begun, claimed by exactly one process, and what they have finished."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import Any, Final, NoReturn

from upwell.core.errors import NotResumableError, UnknownRunError
from upwell.core.keys_kinds import DIGEST_BYTES
from upwell.engine.durable_records import WAITING, Child, Claim, FinishedRow, OldMap, OldSeries, waiting_of
from upwell.engine.flow_run import FlowRun
from upwell.journal.batch import Batch
from upwell.journal.database import Database, Session, StoreError, StoreUnavailable
from upwell.journal.liveness import Observer
from upwell.journal.rows import RowMaker
from upwell.journal.store import check_alive
from upwell.settings import current as settings

WATCH_SECONDS: Final = 0.2
"""How often somebody who waits for another process's run looks whether it has ended."""

PATIENCE_SECONDS: Final = 10.0
"""How long a flow run waits for a store that fails, before it cannot begin."""

MOST_COLLISIONS: Final = 5


class Beginnings:
    """Says which runs the flow runs are that begin in one process."""

    def __init__(self, database: Database, process_id: str, most_crashes: int | None = None) -> None:
        self._database = database
        self._process_id = process_id
        self._most_crashes = most_crashes or settings().durable_max_crashes
        self._ours: set[str] = set()  # the runs that we know we have

    async def begin_flow_run(self, maker: RowMaker, run: FlowRun) -> Claim:
        """Which run this is: a new one, whose row is in the store then, or one that the store knows; see `begin`."""
        batch = maker.new_batch()
        maker.add_flow_moves(batch, [(run, run.state)])
        return await self.begin(run, batch)

    async def begin(self, run: FlowRun, rows: Batch) -> Claim:
        """Which run this is; waits for one of the same idempotency key that is at work elsewhere.

        Whatever the store has done without our hearing of it is found, and not done twice.

        Raises:
            UnknownRunError, NotResumableError: about the run that is to be resumed.
            StoreUnavailable: the store has failed for some seconds. ProcessLost: this process was declared dead.
        """
        time = asyncio.get_running_loop().time
        observer = Observer(self._database, self._process_id, self._most_crashes)
        until, collisions = time() + PATIENCE_SECONDS, 0
        meant: list[str] = []  # the run that was found, so that another try means the same
        while True:
            try:
                await observer.look()  # those who have died leave runs that can be gone on with
                claim = await self._try(run, rows, meant)
                if claim is not None:
                    return claim
            except StoreUnavailable:
                if time() > until or run.is_given_up:
                    raise
            except StoreError:
                raise
            except Exception as error:  # another process has begun a run of the same key this moment
                collisions += 1
                if run.wish.idempotency_key is None or collisions > MOST_COLLISIONS or is_refusal(error):
                    raise
            if run.is_given_up:
                raise NotResumableError(f"Nobody waits for this run of flow {run.flow_name!r} any more.")
            await asyncio.sleep(WATCH_SECONDS * random.uniform(0.5, 1.5))

    async def _try(self, run: FlowRun, rows: Batch, meant: list[str]) -> Claim | None:
        """One try; None: the run is at work elsewhere."""
        async with self._database.transaction() as session:
            await check_alive(session, self._process_id)
            claim = await self._claim(session, run, rows, meant)
        if claim is None:
            return None
        if claim.resumed:
            await _load(self._database, claim, claim.flow_run_id)
        elif run.wish.fork_of is not None and claim.ended is None:
            await _load(self._database, claim, run.wish.fork_of)
            claim.inherited, claim.waiting = True, []
            if run.wish.fork_before is not None:
                await _forget_since(self._database, claim, run.wish.fork_before)
        if claim.ended is None:
            self._ours.add(claim.flow_run_id)
        return claim

    async def _claim(self, session: Session, run: FlowRun, rows: Batch, meant: list[str]) -> Claim | None:
        identity = str(run.id)
        known = meant[0] if meant else await _known(session, run)
        meant[:] = [] if known is None else [known]
        if known is None or known == identity:
            if run.wish.fork_of is not None and not await session.fetch("flow_run_as_it_is", id=run.wish.fork_of):
                raise UnknownRunError(f"There is no flow run {run.wish.fork_of} in this store.")
            found = await session.fetch("flow_run_as_it_is", id=identity)
            if not found or run.wish.assigned is not None:  # else we did not hear of it
                await session.insert("put_flow_runs", rows.flow_runs)
                await session.insert("put_flow_run_states", rows.flow_run_states)
            return Claim(identity, run.name, run.created)
        found = await session.fetch("flow_run_as_it_is", id=known)
        if not found:
            raise UnknownRunError(f"There is no flow run {known} in this store.")
        state, state_name, message, result, ended, name, created, owner = found[0]
        if ended is not None:
            if run.wish.resume is not None and run.parent_flow_run_id is None:
                raise NotResumableError(
                    f"The flow run '{name}' has ended {state_name or state.capitalize()}, so there is nothing to "
                    f"resume. `upwell.fork('{known}')` starts another run that takes over what this one finished."
                )
            return Claim(known, name, created / 1e6, ended=(state, state_name, message, result))
        claimed = await session.fetch("claim_flow_run", id=known, process_id=self._process_id)
        if not claimed and owner == self._process_id and known not in self._ours:
            claimed = await session.fetch("flow_run_claimed", id=known)
        if not claimed:
            meant.clear()
            return None if run.wish.resume is None else _refuse(name, f"process {owner} is at work on it")
        name, created, run_count, crashes, source_hash, due = claimed[0]
        begun = max(run_count, crashes)  # an attempt that died before its beginning was written was one, too
        claim = Claim(known, name, created / 1e6, begun, crashes, source_hash, resumed=True)
        claim.due = None if due is None else due / 1e6
        return claim


async def begin_flow_run(journal: Any, store: Any, maker: RowMaker, run: FlowRun) -> Claim:
    """The same in the process that keeps this journal."""
    if journal.beginnings is None:
        journal.beginnings = Beginnings(store.database, journal.process.id)
    beginnings: Beginnings = journal.beginnings
    return await beginnings.begin_flow_run(maker, run)


def is_refusal(error: Exception) -> bool:
    """Whether this is our answer, not the database's."""
    return isinstance(error, NotResumableError | UnknownRunError)


def _refuse(name: str, reason: str) -> NoReturn:
    raise NotResumableError(f"The flow run '{name}' cannot be resumed: {reason}.")


async def _known(session: Session, run: FlowRun) -> str | None:
    """The id of the run that this call means, if the store knows it."""
    wish = run.wish
    if wish.fork_of is not None:
        return None
    if wish.resume is not None:
        return wish.resume
    if wish.assigned is not None:
        return None
    around = run.scope.parent.durable if run.scope.parent is not None else None
    if wish.idempotency_key is not None:
        rows = await session.fetch("flow_run_of_key", flow=run.flow_name, key=wish.idempotency_key)
    elif run.durable and around is None and settings().durable_resume:
        assert run.arguments is not None
        known_by = run.arguments[:DIGEST_BYTES]
        rows = await session.fetch(
            "flow_run_to_resume", flow=run.flow_name, entrypoint=run.entrypoint, arguments=known_by
        )
    else:
        return None
    return str(rows[0][0]) if rows else None


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
    claim.finished = [row for row in map(FinishedRow._make, claim.finished) if row.ended <= began]
    claim.children = [child for child in claim.children if child.ended is not None and child.ended <= began]


async def started_at(database: Database, claim: Claim, task_run_id: str) -> int:
    """When a task run of these series began, in microseconds.

    Raises:
        UnknownRunError: it belongs to another flow run, or never began.
    """
    random_part = _random_part(task_run_id)
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


async def call_of(store: Any, flow_run_id: str) -> tuple[str, str, bytes]:
    """The flow of a durable run, where it is found again, and its packed arguments.

    Raises:
        UnknownRunError: there is no such run. NotResumableError: it is not durable.
    """
    rows = await store.database.fetch("flow_run_to_call_again", id=flow_run_id)
    if not rows:
        raise UnknownRunError(f"There is no flow run {flow_run_id} in this store.")
    flow, entrypoint, arguments = rows[0]
    if arguments is None:
        _refuse(flow_run_id, "it is not durable, so its arguments were not kept")
    return flow, entrypoint, arguments


async def runs_to_resume(store: Any) -> list[tuple[str, str]]:
    """The durable runs whose processes have died, in the order in which they began: id and flow."""
    await Observer(store.database, None, settings().durable_max_crashes).look()
    return [(identity, flow) for identity, flow in await store.database.fetch("runs_to_resume")]
