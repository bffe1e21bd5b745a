"""Durable flow runs as they begin in a process: which run each is, asked of the store until it says so."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any, Final

from upwell.core.errors import NotResumableError, UnknownRunError
from upwell.core.keys_kinds import DIGEST_BYTES
from upwell.engine.durable_records import Claim
from upwell.engine.flow_run import FlowRun
from upwell.journal.batch import Batch
from upwell.journal.database import Row, StoreError, StoreUnavailable
from upwell.journal.durable_store import Beginning, DurableStore
from upwell.journal.rows import RowMaker
from upwell.journal.sql import Dialect, bulk_inserts
from upwell.journal.store_parts import durable_of
from upwell.settings import current as settings

WATCH_SECONDS: Final = 0.2
"""How often somebody who waits for another process's run looks whether it has ended."""

PATIENCE_SECONDS: Final = 10.0
"""How long a flow run waits for a store that fails, before it cannot begin."""

MOST_COLLISIONS: Final = 5

_COLUMNS: Final = bulk_inserts(Dialect.SQLITE)["put_flow_runs"].row
_ID: Final = _COLUMNS.index("id")
_ENDED: Final = _COLUMNS.index("ended")


class Beginnings:
    """Says which runs the flow runs are that begin in one process."""

    def __init__(self, store: DurableStore) -> None:
        self._store = store
        self._ours: set[str] = set()  # the runs that we know we have, until the store knows that they have ended

    def were_written(self, flow_runs: Sequence[Row]) -> None:
        """These rows are in the store."""
        self._ours.difference_update(row[_ID] for row in flow_runs if row[_ENDED] is not None)

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
        beginning, look = _beginning_of(run), self._store.watch()
        until, collisions = time() + PATIENCE_SECONDS, 0
        meant: list[str] = []  # the run that was found, so that another try means the same
        while True:
            try:
                await look()
                claim = await self._store.attempt(beginning, rows, meant, self._ours)
                if claim is not None:
                    if claim.ended is None:
                        self._ours.add(claim.flow_run_id)
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


def begin_flow_run(journal: Any, run: FlowRun) -> Any:
    """The same in the process that keeps this journal, on the journal's loop; the Claim, as a future."""

    async def begin(store: Any) -> Claim:
        if journal.beginnings is None:
            journal.beginnings = Beginnings(durable_of(store, journal.process.id, settings().durable_max_crashes))
        beginnings: Beginnings = journal.beginnings
        return await beginnings.begin_flow_run(journal.rows, run)

    return journal.ask(begin, lambda: 0.0 if run.is_given_up else PATIENCE_SECONDS)


def is_refusal(error: Exception) -> bool:
    """Whether this is our answer, not the database's."""
    return isinstance(error, NotResumableError | UnknownRunError)


def _beginning_of(run: FlowRun) -> Beginning:
    wish = run.wish
    around = run.scope.parent.durable if run.scope.parent is not None else None
    known_by = None
    if run.durable and around is None and wish.assigned is None and settings().durable_resume:
        assert run.arguments is not None
        known_by = run.arguments[:DIGEST_BYTES]
    return Beginning(
        id=str(run.id),
        name=run.name,
        created=run.created,
        flow_name=run.flow_name,
        entrypoint=run.entrypoint,
        is_child=run.parent_flow_run_id is not None,
        known_by=known_by,
        idempotency_key=wish.idempotency_key,
        resume=wish.resume,
        fork_of=wish.fork_of,
        fork_before=wish.fork_before,
        is_assigned=wish.assigned is not None,
    )


async def call_of(store: Any, flow_run_id: str) -> tuple[str, str, bytes]:
    """See `DurableStore.call_of`."""
    return await durable_of(store, "", settings().durable_max_crashes).call_of(flow_run_id)


async def runs_to_resume(store: Any) -> list[tuple[str, str]]:
    """See `DurableStore.runs_to_resume`."""
    return await durable_of(store, "", settings().durable_max_crashes).runs_to_resume()
