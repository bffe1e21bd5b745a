"""Durable flow runs in the store: begun, claimed by exactly one process, and what they have finished."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import Any, Final

from upwell.core.errors import UpwellError
from upwell.engine.durable_records import WAITING, Claim, FinishedRow, OldMap, OldSeries, waiting_of
from upwell.engine.flow_run import FlowRun
from upwell.journal.batch import Batch
from upwell.journal.database import Database, Session
from upwell.journal.liveness import Observer
from upwell.journal.rows import RowMaker
from upwell.settings import current as settings

WATCH_SECONDS: Final = 0.2
"""How often somebody who waits for another process's run looks whether it has ended."""


class UnknownRunError(UpwellError, KeyError):
    """There is no run of this id in the store."""

    def __str__(self) -> str:
        return str(self.args[0])


class NotResumableError(UpwellError):
    """This run cannot be resumed: it is not durable, has ended, or is at work."""


async def begin_flow_run(store: Any, maker: RowMaker, run: FlowRun) -> Claim:
    """Which run this is: a new one, whose row is in the store then, or one that the store knows; see `begin`."""
    batch = maker.new_batch()
    maker.add_flow_moves(batch, [(run, run.state)])
    return await begin(store.database, run, batch)


async def begin(database: Database, run: FlowRun, rows: Batch) -> Claim:
    """Which run this is; waits for one of the same idempotency key that is at work elsewhere.

    Raises:
        UnknownRunError, NotResumableError: about the run that is to be resumed.
    """
    observer = Observer(database, rows.process_id)
    while True:
        await observer.look()  # those who have died leave runs that can be gone on with
        async with database.transaction() as session:
            claim = await _begin(session, run, rows)
        if claim is None:
            await asyncio.sleep(WATCH_SECONDS * random.uniform(0.5, 1.5))
            continue
        if claim.resumed:
            await _load(database, claim, claim.flow_run_id)
        elif run.wish.fork_of is not None:
            await _load(database, claim, run.wish.fork_of)
            claim.inherited, claim.children = True, []
            if run.wish.fork_before is not None:
                await _forget_since(database, claim, run.wish.fork_before)
        return claim


async def _begin(session: Session, run: FlowRun, rows: Batch) -> Claim | None:
    """One try; None: the run is at work elsewhere."""
    known = await _known(session, run)
    if known is None:
        await session.insert("put_flow_runs", rows.flow_runs)
        await session.insert("put_flow_run_states", rows.flow_run_states)
        return Claim(str(run.id), run.name, run.created)
    found = await session.fetch("flow_run_as_it_is", id=known)
    if not found:
        raise UnknownRunError(f"There is no flow run {known} in this store.")
    state, state_name, message, result, durable, ended, name, created, owner = found[0]
    if ended is not None:
        if run.wish.resume is not None and run.parent_flow_run_id is None:
            raise NotResumableError(
                f"The flow run '{name}' has ended {state_name or state.capitalize()}, so there is nothing to resume. "
                f"`upwell.fork('{known}')` starts another run that takes over what this one finished."
            )
        return Claim(known, name, created / 1e6, ended=(state, state_name, message, result))
    if not durable:
        return None if run.wish.resume is None else _refuse(name, "it is not durable")
    claimed = await session.fetch("claim_flow_run", id=known, process_id=rows.process_id)
    if not claimed:
        return None if run.wish.resume is None else _refuse(name, f"process {owner} is at work on it")
    name, created, run_count, crashes, source_hash = claimed[0]
    return Claim(known, name, created / 1e6, run_count, crashes, source_hash, resumed=True)


def _refuse(name: str, reason: str) -> Claim:
    raise NotResumableError(f"The flow run '{name}' cannot be resumed: {reason}.")


async def _known(session: Session, run: FlowRun) -> str | None:
    """The id of the run that this call means, if the store knows it."""
    wish = run.wish
    if wish.fork_of is not None:
        return None
    if wish.resume is not None:
        return wish.resume
    if wish.idempotency_key is not None:
        rows = await session.fetch("flow_run_of_key", flow=run.flow_name, key=wish.idempotency_key)
    elif run.durable and run.parent_flow_run_id is None and settings().durable_resume:
        rows = await session.fetch(
            "flow_run_to_resume", flow=run.flow_name, entrypoint=run.entrypoint, arguments=run.arguments
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
    claim.children = [
        (identity, flow, arguments) for identity, flow, arguments in await database.fetch("children", id=flow_run_id)
    ]


async def _forget_since(database: Database, claim: Claim, task_run_id: str) -> None:
    """Let a fork begin again from a task run: what had not ended when that one began is not taken over."""
    began = await started_at(database, claim, task_run_id)
    claim.finished = [FinishedRow(*row) for row in claim.finished if row[5] <= began]


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
    await Observer(store.database).look()
    return [(identity, flow) for identity, flow in await store.database.fetch("runs_to_resume")]
