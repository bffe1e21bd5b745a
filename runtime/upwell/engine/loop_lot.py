"""A lot that the loop steps: its runs are objects a part at a time, and most are columns again after that."""

from __future__ import annotations

from array import array
from itertools import repeat
from sys import getrefcount
from typing import Any, Final

from upwell.core.states import COMPLETED
from upwell.engine.call import Call
from upwell.engine.future import RunFuture
from upwell.engine.lot import PART, Lot

Run = RunFuture[Any]

MANY: Final = PART // 16
_COMPLETED: Final[str] = COMPLETED.value
_REFERENCES: Final = next(map(getrefcount, [object()]))
"""To a run that only its part knows."""


class LoopLot(Lot):
    """The runs of a call that the loop executes.

    A run whose code runs is an object, for that code may ask which it is. When all of a part have been stepped, those
    that have returned, and to which there is no other reference, are let go: nobody could tell that they were objects.
    """

    done = True  # among the runs that are ready it is none itself: `next_part` says which are

    def __init__(self, call: Call, first: int, items: list[Any]) -> None:
        super().__init__(call, first, items)
        self._part: list[Run] = []
        self._begun = 0  # those up to here have been in a part
        self._ends: list[Run] = []  # of the part, in the order in which they have ended
        self._record: Any = None  # what takes the ends of runs that stay objects

    def begin_on_loop(self) -> None:
        """The loop will ask for them from now on."""
        call = self.call
        call.lot = self
        self._record = call.record
        if self._record is not None:
            call.record = self._ends.append

    def next_part(self) -> list[Run]:
        """Those to be stepped next; none: there are no more.

        If many of a part have stayed objects, because they have suspended, or somebody knows them, so do those that
        follow, which are given at once: to find out for each would cost more than it saves.
        """
        stayed = self.fold()
        with self._lock:
            start, size = self._begun, len(self)
            is_last = self._is_told_by_runs or stayed > MANY
            stop = self._begun = size if is_last else min(start + PART, size)
            numbers = range(self.first + start, self.first + stop)
            part: list[Run] = list(map(RunFuture, repeat(self.call), numbers, self.items[start:stop]))
            if self._all is not None:
                part = self._all[start:]
            for place in self._made.keys() & range(start, stop):
                part[place - start] = self._made[place]
            if is_last:
                self._is_told_by_runs = True
                self._in_columns = 0
                self._are_all_made([*(self._run(place) for place in range(start)), *part])
                self.call.record = self._record
            else:
                self._part = part
        self.tell()
        return part

    def fold(self) -> int:
        """Make columns of those of the part that can be; how many stay objects."""
        part, ended = self._part, self._ends[:]
        if not part:
            return 0
        start, stop = self._begun - len(part), self._begun
        alone = _REFERENCES + (self._record is not None)  # that of `ended`
        with self._lock:
            self._part = []
            self._ends.clear()
            references = list(map(getrefcount, part))
            self.values[start:stop] = [run.value for run in part]
            self.started[start:stop] = array("d", [run.started for run in part])
            self.ended[start:stop] = array("d", [run.ended for run in part])
            objects = [
                place
                for place, run in enumerate(part, start)
                if run.status != _COMPLETED or references[place - start] > alone
            ]
            for place in objects:
                if not self._is_object(place):
                    self._make(place, part[place - start])
            returned = len(part) - len(objects)
            self._in_columns -= returned
            self._open -= returned
        self.record_columns(start, stop, objects)
        if objects and self._record is not None:
            for run in ended:
                if self._is_object(run.number - self.first):
                    self._record(run)
        if stop == len(self):
            self.call.record = self._record
        self.tell()
        return len(objects)

    def _run(self, place: int) -> Run:
        at = place - self._begun + len(self._part)
        if 0 <= at < len(self._part) and not self._is_object(place):
            return self._make(place, self._part[at])
        return super()._run(place)
