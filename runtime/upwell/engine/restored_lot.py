"""A lot whose runs were all finished in an earlier process: columns from the store, and objects for who looks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from upwell.core.states import COMPLETED
from upwell.engine.call import Call
from upwell.engine.future import RunFuture
from upwell.engine.lot import Lot

Run = RunFuture[Any]


class RestoredLot(Lot):
    """The runs of a map of which none has to be run again.

    numbers: of the runs, in the order of the inputs. records: of their results, as the store has them.
    """

    def __init__(
        self,
        call: Call,
        numbers: Sequence[int],
        values: list[Any],
        started: Iterable[float],
        ended: Iterable[float],
        records: Sequence[bytes],
    ) -> None:
        super().__init__(call, numbers[0], [None] * len(numbers))
        self.values, self.started, self.ended = values, list(started), list(ended)
        self._numbers, self._records = numbers, records
        self._in_columns = self._open = 0

    def _run(self, place: int) -> Run:
        run = self._made.get(place) if self._all is None else self._all[place]
        if run is None:
            run = self._made[place] = RunFuture(
                self.call,
                self._numbers[place],
                None,
                COMPLETED.value,
                True,
                self.started[place],
                self.ended[place],
                self.values[place],
                self._records[place],
            )
        return run
