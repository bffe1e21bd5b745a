"""The runs of one map as columns: each becomes an object only when somebody looks at it.

What is nobody's business but its own, that it was begun, and has returned, is a number in a column. Whatever else
happens to a run (it fails, logs something, is cancelled), and whatever anybody asks of it, makes it a `RunFuture` like
any other; from then on that is what counts, and the columns keep silent.

A task runner that executes many together, in other processes, never makes an object of most: there a run may take less
than that does. On the loop each is one while it is stepped, a part of the lot at a time, and most are columns again
after that: a million that have ended are a few numbers each, and nobody has to walk along them.

Threads: the engine ends runs on its loop's thread; others may look at any time, so what both touch is under a lock.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from typing import Any, Final, Protocol, overload

from upwell.core.states import COMPLETED, PENDING
from upwell.engine.call import Call
from upwell.engine.future import RunFuture
from upwell.engine.kept_columns import KeptColumns

PART: Final = 512
"""So many are made in one go."""

Run = RunFuture[Any]


class Keeper(Protocol):
    """Who has the runs under way that are not objects yet."""

    def run_was_made(self, run: Run) -> None:
        """This one, which is under way, is one now. From any thread."""

    def all_were_made(self, lot: Lot) -> None:
        """No run of this lot is under way that is none. From any thread."""


class Lot(Sequence[Run]):
    """The runs of one call that is plain, straight and unary, in the order of their numbers.

    first: the number of the first. items: their arguments, as long as somebody needs them.
    values, started, ended: of those that have ended in columns; else None and 0.0.
    kept: what is stored of them, if their flow run is durable.
    """

    status = PENDING.value  # among the live runs of a scope it stands for those of its own that are no objects

    def __init__(self, call: Call, first: int, items: list[Any], kept: KeptColumns | None = None) -> None:
        size = len(items)
        self.call = call
        self.first = first
        self.items = items
        self.kept = kept
        self.values: list[Any] = [None] * size
        self.started = self._no_times(size)
        self.ended = self._no_times(size)
        self._keeper: Keeper | None = None  # None: they are not under way
        self._made: dict[int, Run] = {}  # objects, by their place
        self._all: list[Run] | None = None  # all of them, once there is no other
        self._in_columns = size  # have not ended, and are no objects
        self._open = size  # have not ended
        self._is_told_by_runs = False  # whoever wants to know how it goes on asks the single runs
        self._all_completed = True
        self._watchers: list[Callable[[Any], object]] = []
        self._lock = threading.RLock()

    @staticmethod
    def _no_times(size: int) -> MutableSequence[float]:
        """A column of times for those who fill it by many at once."""
        return array("d", bytes(8 * size))

    # --- as a sequence ------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, place: int) -> Run: ...

    @overload
    def __getitem__(self, place: slice) -> Stretch: ...

    def __getitem__(self, place: int | slice) -> Run | Stretch:
        if isinstance(place, slice):
            start, stop, _ = place.indices(len(self))
            return Stretch(self, start, stop)
        with self._lock:
            return self._run(range(len(self))[place])

    def __iter__(self) -> Iterator[Run]:
        return iter([self[place] for place in range(len(self))])

    @property
    def group(self) -> Call:
        """See `Attempt.group`."""
        return self.call

    # --- making objects -----------------------------------------------------------------------------------

    def begin(self, keeper: Keeper) -> bool:
        """All are under way from now on; False: somebody has made one an object before, and each goes its own way."""
        with self._lock:
            if self._made or self._all is not None:
                return False
            self._keeper = keeper
            return True

    def all_runs(self) -> list[Run]:
        """All as objects, for somebody who will ask nothing but these from now on."""
        if self._all is not None:
            return self._all[:]
        runs: list[Run] = []
        self._is_told_by_runs = True
        for start in range(0, len(self), PART):
            with self._lock:  # for a moment: the loop may want it
                runs += [self._run(place) for place in range(start, min(start + PART, len(self)))]
        self._are_all_made(runs)
        self.tell()
        return runs[:]

    def _are_all_made(self, runs: list[Run]) -> None:
        with self._lock:
            self._all, self._made = runs, {}

    def open_runs(self) -> list[Run]:
        """Those that have not ended, as objects."""
        with self._lock:
            found = [self._run(place) for place, ended in enumerate(self.ended) if not ended or self._is_object(place)]
        return [run for run in found if not run.done]

    def _is_object(self, place: int) -> bool:
        return self._all is not None or place in self._made

    def _run(self, place: int) -> Run:
        found = self._made.get(place) if self._all is None else self._all[place]
        if found is not None:
            return found
        run: Run = RunFuture(self.call, self.first + place)
        if self.kept is not None:
            run.durable_key = self.kept.keys[place]
        if self.ended[place]:
            return self._fill(place, run)
        run.item = self.items[place]
        self._make(place, run)
        if self._keeper is not None:
            run.run_count = 1
            self._keeper.run_was_made(run)
            if not self._in_columns:
                self._keeper.all_were_made(self)
        return run

    def _fill(self, place: int, run: Run) -> Run:
        """This run, which has ended in the columns, is an object from now on."""
        self._made[place] = run
        run.value, run.started, run.ended = self.values[place], self.started[place], self.ended[place]
        run.status, run.done, run.run_count = COMPLETED.value, True, 1
        if self.kept is not None:
            run.durable_key = self.kept.records[place]
        return run

    def _make(self, place: int, run: Run) -> Run:
        """This run is an object from now on."""
        self._made[place] = run
        self._in_columns -= 1
        if not self._is_told_by_runs:
            run.watch(self._has_ended)
        return run

    def record_columns(self, start: int, stop: int, objects: Sequence[int]) -> None:
        """Have the journal note those in columns; where none is kept, nobody needs their arguments any more."""
        recorder = self.call.scope.recorder
        first = start
        for place in (*objects, stop):
            if first < place:
                if recorder is None or self.call.record is None:
                    self.let_go(first, place)
                else:
                    recorder.ended_in_lots.append(Stretch(self, first, place))
            first = place + 1

    # --- their ends ---------------------------------------------------------------------------------------

    def have_returned(self, start: int, values: Sequence[Any], times: Sequence[float]) -> list[int]:
        """Runs that have followed each other have returned; answers where those are that are objects, and end as such.

        start: where they begin. times: when the first began, then when each ended. On the loop's thread.
        """
        stop = start + len(values)
        with self._lock:
            if any(self.ended[start:stop]):  # somebody reports twice: each run knows for itself that it has ended
                for place in range(start, stop):
                    self._run(place)
                return list(range(start, stop))
            some = self._made or self._all is not None
            made = [place for place in range(start, stop) if self._is_object(place)] if some else []
            self.values[start:stop] = values
            self.started[start:stop] = array("d", times[:-1])
            self.ended[start:stop] = array("d", times[1:])
            ended = len(values) - len(made)
            self._in_columns -= ended
            self._open -= ended
            if not self._in_columns and self._keeper is not None:
                self._keeper.all_were_made(self)
        return made

    def let_go(self, start: int, stop: int) -> None:
        """Nobody needs the arguments of these any more, nor what they are known by."""
        self.items[start:stop] = [None] * (stop - start)
        if self.kept is not None:
            self.kept.keys[start:stop] = [None] * (stop - start)

    def _has_ended(self, run: Run) -> None:
        with self._lock:
            self._open -= 1
            self._all_completed = self._all_completed and run.status == COMPLETED
            self.values[run.number - self.first] = run.value
        self.tell()

    # --- waiting ------------------------------------------------------------------------------------------

    @property
    def is_decided(self) -> bool:
        """Whether all have ended, or one otherwise than it should; or somebody asks the single runs how they are."""
        return not self._open or not self._all_completed or self._is_told_by_runs

    @property
    def results(self) -> list[Any] | None:
        """What all have returned; None if not all have, or the single runs are to be asked."""
        return None if self._open or not self._all_completed else self.values[:]

    def watch(self, watcher: Callable[[Any], object]) -> None:
        """Call `watcher(lot)` once it is decided: at once, or where a run ends or is made."""
        with self._lock:
            if not self.is_decided:
                self._watchers.append(watcher)
                return
        watcher(self)

    def unwatch(self, watcher: Callable[[Any], object]) -> None:
        """Forget a watcher, called or not."""
        with self._lock:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

    def tell(self) -> None:
        """Call those who watch, if it is decided."""
        if self._watchers and self.is_decided:
            with self._lock:
                watchers, self._watchers = self._watchers, []
            for watcher in watchers:
                watcher(self)


class Stretch(Sequence[Run]):
    """Runs of a lot that follow each other: in the journal, each has begun when the one before had ended."""

    __slots__ = ("lot", "start", "stop")

    def __init__(self, lot: Lot, start: int, stop: int) -> None:
        self.lot = lot
        self.start = start
        self.stop = stop

    def __len__(self) -> int:
        return self.stop - self.start

    @overload
    def __getitem__(self, place: int) -> Run: ...

    @overload
    def __getitem__(self, place: slice) -> Stretch: ...

    def __getitem__(self, place: int | slice) -> Run | Stretch:
        inside = range(self.start, self.stop)[place]
        return self.lot[inside] if isinstance(inside, int) else Stretch(self.lot, inside.start, inside.stop)

    @property
    def group(self) -> Call:
        """See `Attempt.group`."""
        return self.lot.call

    def items(self) -> list[Any]:
        """Their arguments."""
        return self.lot.items[self.start : self.stop]
