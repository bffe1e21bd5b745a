"""A lot that the loop steps: a run of it is an object while its code runs, and most are columns again after that."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from sys import getrefcount
from typing import Any, Final

from upwell.core.states import RUNNING
from upwell.engine.call import Call
from upwell.engine.future import RunFuture
from upwell.engine.kept_columns import KeptColumns
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

    def __init__(self, call: Call, first: int, items: list[Any], kept: KeptColumns | None = None) -> None:
        super().__init__(call, first, items, kept)
        self.next = 0
        self.stepped: Run | None = None
        self._settled = 0  # those before this have made their first step, or are objects
        self._stayed = 0  # objects, of those that were stepped last
        self._step_watcher: tuple[int, Callable[[], object]] | None = None
        self.is_looked_into = False  # for runs that have not ended

    @staticmethod
    def _no_times(size: int) -> list[float]:
        """A list, for each is put there by itself: into an array of numbers that takes ten times as long."""
        return [0.0] * size

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
            self.stepped, self._settled, self._stayed = None, self.next, len(objects)
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
            self.next = self._settled = size
            runs = self._all
            if runs is None:
                self._is_told_by_runs = True
                runs = [*(self._run(place) for place in range(start)), *self._new_objects(start)]
                self._in_columns = 0
                self._are_all_made(runs)
        self.tell()
        return runs[start:]

    def _new_objects(self, start: int) -> list[Run]:
        """All from there on, of which none has begun."""
        numbers = range(self.first + start, self.first + len(self))
        runs: list[Run] = list(map(RunFuture, repeat(self.call), numbers, self.items[start:]))
        if self.kept is not None:
            for run, key in zip(runs, self.kept.keys[start:], strict=True):
                run.durable_key = key
        for place in self._made.keys() & range(start, len(self)):
            runs[place - start] = self._made[place]
        return runs

    def known(self, place: int) -> Run | None:
        """The run there, if it is an object."""
        with self._lock:
            return self._run(place) if self._is_object(place) else None

    def objects(self) -> list[Run]:
        """Those that are objects, or have not ended."""
        self.open_runs()
        with self._lock:
            return list(self._made.values() if self._all is None else self._all)

    def _run(self, place: int) -> Run:
        if not self.ended[place]:
            self.is_looked_into = True
        stepped = self.stepped
        if stepped is None or stepped.number - self.first != place or self._is_object(place):
            return super()._run(place)
        return self._fill(place, stepped) if self.ended[place] else self._make(place, stepped)

    # --- for who takes what they return, one after the other ------------------------------------------------

    def returned(self, place: int, most: int) -> list[Any]:
        """What those from there on have returned, as far as they are in columns, and not more than so many."""
        stop = min(place + most, self._settled)
        if self._made or self._all is not None:
            stop = next((later for later in range(place, stop) if self._is_object(later)), stop)
        return self.values[place:stop]

    def when_stepped(self, place: int, watcher: Callable[[], object] | None) -> None:
        """Call this once the run there has made its first step, or is an object; None: do so no more."""
        with self._lock:
            self._step_watcher = None if watcher is None else (place, watcher)
        self._tell_of_steps()

    def tell(self) -> None:
        super().tell()
        if self._step_watcher is not None:
            self._tell_of_steps()

    def _tell_of_steps(self) -> None:
        with self._lock:
            if self._step_watcher is None or self._step_watcher[0] >= self._settled:
                return
            _, watcher = self._step_watcher
            self._step_watcher = None
        watcher()


class _Lot:
    stepped: Any = None


def _references_alone() -> int:
    lot = _Lot()
    lot.stepped = run = object()
    return getrefcount(run)


ALONE: Final = _references_alone()
"""References to a run that only the pump and its lot know."""
