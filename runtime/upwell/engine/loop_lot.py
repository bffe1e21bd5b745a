"""A lot that the loop steps: a run of it is an object while its code runs, and most are columns again after that."""

from __future__ import annotations

from itertools import repeat
from sys import getrefcount
from typing import Any, Final

from upwell.core.states import RUNNING
from upwell.engine.call import Call
from upwell.engine.future import RunFuture
from upwell.engine.lot import PART, Lot

Run = RunFuture[Any]

MANY: Final = PART // 16
_RUNNING: Final[str] = RUNNING.value


class LoopLot(Lot):
    """The runs of a call that the loop executes.

    A run whose code runs is an object, for that code may ask which it is. If it returns at its first step, and nobody
    else refers to it then, it is let go: nobody could tell that it was one.

    next: where the run is that begins next. stepped: the run whose first step is made.

    Threads: the loop steps runs without the lock, so it and who looks go opposite ways. The loop says which run it
    steps, then asks whether somebody looks; it notes that the run has ended, then asks whether somebody knows it. Who
    looks says so, then asks what is stepped, then what has ended.
    """

    done = True  # among the runs that are ready it is none itself

    def __init__(self, call: Call, first: int, items: list[Any]) -> None:
        super().__init__(call, first, items)
        self.next = 0
        self.stepped: Run | None = None
        self._stayed = 0  # objects, of those that were stepped last
        self.is_looked_into = False  # for runs that have not ended

    def is_new(self, run: Run) -> bool:
        """Whether the stepped run is the only object of its kind."""
        with self._lock:
            return not self._is_object(self.next - 1) or self._run(self.next - 1) is run

    def stays(self, run: Run) -> bool:
        """Have the stepped run be an object until it ends, and after; False if it has ended, and was seen so."""
        with self._lock:
            if not run.done and not self._is_object(self.next - 1):
                self._make(self.next - 1, run)
            return not run.done

    def have_ended(self, start: int, objects: list[int]) -> None:
        """The runs from there on have been stepped, and all but these are in columns."""
        with self._lock:
            self.stepped, self._stayed = None, len(objects)
            ended = self.next - start - len(objects)
            self._in_columns -= ended
            self._open -= ended

    @property
    def is_left_to_objects(self) -> bool:
        """Whether there is nothing to be gained: all are objects, or many of the last ones have stayed objects."""
        return self._all is not None or self._stayed > MANY

    def rest(self) -> list[Run]:
        """All that have not begun, as objects, which go their own ways."""
        with self._lock:
            start, size = self.next, len(self)
            self.next = size
            if self._all is not None:
                return self._all[start:]
            numbers = range(self.first + start, self.first + size)
            runs: list[Run] = list(map(RunFuture, repeat(self.call), numbers, self.items[start:]))
            for place in self._made.keys() & range(start, size):
                runs[place - start] = self._made[place]
            self._is_told_by_runs = True
            self._in_columns = 0
            self._are_all_made([*(self._run(place) for place in range(start)), *runs])
        self.tell()
        return runs

    def _run(self, place: int) -> Run:
        if not self.ended[place]:
            self.is_looked_into = True
        stepped = self.stepped
        if stepped is None or stepped.number - self.first != place or self._is_object(place):
            return super()._run(place)
        return self._fill(place, stepped) if self.ended[place] else self._make(place, stepped)


class _Lot:
    stepped: Any = None


def _references_alone() -> int:
    lot = _Lot()
    lot.stepped = run = object()
    return getrefcount(run)


ALONE: Final = _references_alone()
"""References to a run that only the pump and its lot know."""
