"""Takes what the engine has recorded and has it made into batches of rows, a slice at a time.

What no row can be made of is left out and reported; a run is never the worse for it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, Final

from upwell.engine.loggers import ENGINE
from upwell.engine.recorder import Recorder
from upwell.journal.batch import Batch
from upwell.journal.cache import add_cached
from upwell.journal.rows import RowMaker

SLICE: Final = 500
"""How many runs are made into rows at a time: about a millisecond, then other threads get their turn."""

MOST_ROWS: Final = 20_000
"""Of one batch, and so of one transaction; the slice that reaches it is still in it."""

Add = Callable[[Batch, list[Any]], None]


class Intake:
    """Makes the batches of one process, numbered in the order in which they are to be written."""

    def __init__(self, recorder: Recorder, rows: RowMaker) -> None:
        self._recorder = recorder
        self._rows = rows
        self._numbers = itertools.count(1)
        self._said = False

    def of(self, recorder: Recorder) -> Intake:
        """The same, from another recorder."""
        self._recorder = recorder
        return self

    async def take(self) -> list[Batch]:
        """Everything that has been recorded until now.

        What flow runs did is taken first and stored last: nobody reads of the end of one before those of its runs.
        """
        recorder, rows = self._recorder, self._rows
        flow_moves = take(recorder.flow_moves)
        begun = list(dict.fromkeys(take(recorder.begun)))
        ends = len(recorder.ended)
        logs = len(recorder.logs)
        batches: list[Batch] = [rows.new_batch()]
        kept = len(recorder.kept)  # of all runs that have ended until now, and maybe of more
        self._add(batches[-1], rows.add_moves, take(recorder.moves))
        self._add(batches[-1], rows.add_calls, take(recorder.calls))
        while kept > 0:
            self._add(batches[-1], rows.add_kept, take(recorder.kept, min(SLICE, kept)))
            kept -= SLICE
            await self._next(batches)
        self._add(batches[-1], rows.add_edges, take(recorder.fed))
        while ends > 0:
            slice_ = take(recorder.ended, min(SLICE, ends))
            ends -= SLICE
            self._add(batches[-1], rows.add_ended, slice_)
            await self._next(batches)
        while logs > 0:
            batches[-1].logs += take(recorder.logs, min(MOST_ROWS, logs))
            logs -= MOST_ROWS
            await self._next(batches)
        self._add(batches[-1], rows.add_begun, begun)
        self._add(batches[-1], rows.add_flow_moves, flow_moves)
        self._add(batches[-1], add_cached, take(recorder.cached))
        self._add(batches[-1], rows.add_rolled_back, take(recorder.rolled_back))
        rows.add_series(batches[-1])
        return [self._numbered(batch) for batch in batches if not batch.is_empty()]

    async def _next(self, batches: list[Batch]) -> None:
        """Let others have their turn, and begin another batch if this one is full."""
        await asyncio.sleep(0)
        if batches[-1].size() > MOST_ROWS:
            self._rows.add_series(batches[-1])
            batches.append(self._rows.new_batch())

    def _numbered(self, batch: Batch) -> Batch:
        batch.number = next(self._numbers)
        return batch

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



def take(items: list[Any], most: int | None = None) -> list[Any]:
    """Take everything, or the first so many, out of a list to which others append."""
    taken = items[:most]
    del items[: len(taken)]
    return taken
