"""Takes what the engine has recorded and has it made into batches of rows, a slice at a time.

What no row can be made of is left out and reported; a run is never the worse for it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from time import sleep
from typing import Any, Final

from upwell.engine.loggers import ENGINE
from upwell.engine.recorder import Recorder
from upwell.journal.batch import Batch
from upwell.journal.cache import add_cached
from upwell.journal.rows import RowMaker

SLICE: Final = 512
"""How many runs are made into rows at a time: a fraction of a millisecond."""

TURN_EVERY_SECONDS: Final = 0.001
TURN_SECONDS: Final = 0.00005
"""How often, and for how long, other threads get their turn, such as a loop that would be late: to free the
interpreter's lock alone does not give it to anybody, for it is taken again at once."""

MOST_ROWS: Final = 16_384
"""Of one batch, and so of one transaction; what fills no block of the last slice is in the next."""

Add = Callable[[Batch, list[Any]], None]
Ready = Callable[[Batch], object]


class Intake:
    """Makes the batches of one process, numbered in the order in which they are to be written."""

    def __init__(self, recorder: Recorder, rows: RowMaker) -> None:
        self._recorder = recorder
        self._rows = rows
        self._numbers = itertools.count(1)
        self._safe_ends = 0
        self._said = False
        self._turn_began = 0.0

    def of(self, recorder: Recorder) -> Intake:
        """The same, from another recorder."""
        self._recorder = recorder
        return self

    async def take(self, ready: Ready) -> None:
        """Everything that has been recorded until now; `ready` is given each batch as soon as it is full.

        What flow runs did is taken first and stored last: nobody reads of the end of one before those of its runs.
        """
        recorder, rows = self._recorder, self._rows
        safe_ends = recorder.strict.written  # their runs have been recorded before
        flow_moves, ends, written = _ends_of(recorder)
        begun = list(dict.fromkeys(take(recorder.begun)))
        logs = len(recorder.logs)
        batch = rows.new_batch()
        kept = len(recorder.kept)  # of all runs that have ended until now, and maybe of more
        self._add(batch, rows.add_moves, take(recorder.moves))
        self._add(batch, rows.add_calls, take(recorder.calls))
        while kept > 0:
            self._add(batch, rows.add_kept, take(recorder.kept, min(SLICE, kept)))
            kept -= SLICE
            batch = await self._next(batch, ready)
        self._add(batch, rows.add_edges, take(recorder.fed))
        while ends > 0:
            slice_ = take(recorder.ended, min(SLICE, ends))
            ends -= SLICE
            self._add(batch, rows.add_ended, slice_)
            batch = await self._next(batch, ready)
        for stretch in take(recorder.ended_in_lots):
            self._add(batch, rows.add_ended_in_lots, [stretch])
            batch = await self._next(batch, ready)
        while written > 0:
            self._add(batch, rows.add_ends, take(recorder.ends, min(SLICE, written)))
            written -= SLICE
            batch = await self._next(batch, ready)
        while logs > 0:
            batch.logs += take(recorder.logs, min(MOST_ROWS, logs))
            logs -= MOST_ROWS
            batch = await self._next(batch, ready)
        self._add(batch, rows.add_begun, begun)
        self._add(batch, rows.add_flow_moves, flow_moves)
        self._add(batch, add_cached, take(recorder.cached))
        self._add(batch, rows.add_rolled_back, take(recorder.rolled_back))
        if safe_ends > self._safe_ends or not batch.is_empty():
            batch.safe_ends = self._safe_ends = safe_ends
        self._hand_over(batch, ready)

    async def _next(self, batch: Batch, ready: Ready) -> Batch:
        """Let others have their turn if it is time, and begin another batch if this one is full."""
        now = asyncio.get_running_loop().time  # that of a simulated loop is the same each time
        if now() - self._turn_began < TURN_EVERY_SECONDS and batch.size() < MOST_ROWS:
            return batch
        sleep(TURN_SECONDS)  # noqa: ASYNC251  # it is the loop of the journal alone
        await asyncio.sleep(0)
        self._turn_began = now()
        if batch.size() < MOST_ROWS:
            return batch
        following = batch.cut()
        self._hand_over(batch, ready)
        return following

    def _hand_over(self, batch: Batch, ready: Ready) -> None:
        self._rows.add_series(batch)
        if not batch.is_empty():
            batch.number = next(self._numbers)
            ready(batch)

    def _add(self, batch: Batch, add: Add, items: list[Any]) -> None:
        """Add the rows of these; if there is something wrong with one, those of the others."""
        if not items:
            return
        part = self._rows.new_batch()
        try:
            add(part, items)
        except Exception as error:
            if len(items) == 1:
                self._report(items[0], error)
                return
            for item in items:
                self._add(batch, add, [item])
        else:
            batch.add(part)

    def _report(self, item: Any, error: Exception) -> None:
        if not self._said:
            self._said = True
            ENGINE.error(
                "The journal leaves out what it cannot record, of which this is the first: %s",
                type(item).__name__,
                exc_info=error,
            )


def _ends_of(recorder: Recorder) -> tuple[list[Any], int, int]:
    """What flow runs did, and how many task runs have ended, and been written at once, as of one moment although others
    go on.

    Of each flow run that has ended the ends of its task runs are among these; and of each task run that has started a
    flow run, and has ended, that one's end is: or who resumes it would find the one without the other.
    """
    flow_moves: list[Any] = take(recorder.flow_moves)
    ends, written = len(recorder.ended), len(recorder.ends)
    while recorder.flow_moves and len(flow_moves) < MOST_ROWS:
        flow_moves += take(recorder.flow_moves)
        ends, written = len(recorder.ended), len(recorder.ends)
    return flow_moves, ends, written


def take(items: list[Any], most: int | None = None) -> list[Any]:
    """Take everything, or the first so many, out of a list to which others append."""
    taken = items[:most]
    del items[: len(taken)]
    return taken
