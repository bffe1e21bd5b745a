"""Durable flow runs in the store: begun, claimed by exactly one process, and what they have finished."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import Any, Final

from upwell.core.errors import NotResumableError, UnknownRunError
from upwell.engine.clock import clock
from upwell.engine.durable_records import (
    WAITING,
    Child,
    Claim,
    FinishedRow,
    OldMap,
    OldSeries,
    waiting_of,
)
from upwell.engine.flow_run import FlowRun
from upwell.journal.batch import Batch
from upwell.journal.database import Database, Session, StoreUnavailable
from upwell.journal.liveness import Observer
from upwell.journal.rows import RowMaker
from upwell.settings import current as settings

WATCH_SECONDS: Final = 0.2
"""How often somebody who waits for another process's run looks whether it has ended."""

PATIENCE_SECONDS: Final = 10.0
"""How long a flow run waits for a store that fails, before it cannot begin."""


class Beginning:
    """The flow runs that one process has begun in one store."""

    def __init__(self, database: Database, process_id: str) -> None:
        self._database = database
        self._process_id = process_id
        self._ours: set[str] = set()  # those that were begun, or claimed, and are known to be

    async def begin_flow_run(self, maker: RowMaker, run: FlowRun) -> Claim:
        """Which run this is: a new one, whose row is in the store then, or one that the store knows; see `begin`."""
        batch = maker.new_batch()
        maker.add_flow_moves(batch, [(run, run.state)])
        return await self.begin(run, batch)

    async def begin(self, run: FlowRun, rows: Batch) -> Claim:
        """Which run this is; waits for one of the same idempotency key that is at work elsewhere.

        Raises:
            UnknownRunError, NotResumableError: about the run that is to be resumed.
            StoreUnavailable: the store has failed for some seconds.
        """
        database, observer = self._database, Observer(self._database, self._process_id)
        until = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while True:
            try:
                await observer.look()  # those who have died leave runs that can be gone on with
                async with database.transaction() as session:
                    claim = await self._begin(session, run, rows)
                if claim is not None:
                    await self._load(run, claim)
                    self._ours.add(claim.flow_run_id)
                    return claim
            except StoreUnavailable:
                if asyncio.get_running_loop().time() > until or run.is_given_up:
                    raise
            except UpwellError_ as error:
                raise error
            if run.is_given_up:
                raise NotResumableError(f"Nobody waits for the flow run of {run.flow_name!r} any more.")
            await asyncio.sleep(WATCH_SECONDS * random.uniform(0.5, 1.5))
