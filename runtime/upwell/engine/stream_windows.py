"""The window of a stream: its runs that were started and not taken. Its length bounds the memory of the stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Protocol

from upwell.core.results import StoredValue
from upwell.core.states import COMPLETED
from upwell.engine.future import RunFuture
from upwell.engine.loop_lot import LoopLot

Run = RunFuture[Any]
Wake = Callable[[], object]
_COMPLETED: Final[str] = COMPLETED.value


class Window(Protocol):
    """What was started and not taken. Only one thread at a time adds and takes."""

    def __len__(self) -> int: ...

    def add(self, runs: list[Run] | LoopLot) -> None:
        """These were started."""

    def take_returned(self, most: int) -> list[Any]:
        """The results of those that are next, as far as they are at hand, and not more than so many."""
        ...

    def take_ended(self) -> Run | None:
        """The next run, if it has ended."""

    @contextmanager
    def watched(self, wake: Wake) -> Generator[Run | None]:
        """Call this as soon as there may be something to take; gives the run that must end, if it is a certain one."""
        yield None

    def left(self) -> Sequence[Run]:
        """All that are in it, as objects, to be cancelled."""
        ...


class InOrder(Window):
    """Its runs are taken in the order of their inputs."""

    def __init__(self) -> None:
        self._parts: deque[Run | LoopLot] = deque()
        self._place = 0  # in the first lot: that of its next run
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, runs: list[Run] | LoopLot) -> None:
        self._size += len(runs)
        if isinstance(runs, LoopLot):
            self._parts.append(runs)
        else:
            self._parts.extend(runs)

    def take_returned(self, most: int) -> list[Any]:
        results: list[Any] = []
        while self._parts and len(results) < most:
            head = self._parts[0]
            if type(head) is LoopLot and (values := head.returned(self._place, most - len(results))):
                results += values
                self._drop(len(values))
            elif (run := self._next()) is not None and _has_result_at_hand(run):
                results.append(run.value)
                self._drop(1)
            else:
                break
        return results

    def take_ended(self) -> Run | None:
        run = self._next()
        if run is None or not run.done:
            return None
        self._drop(1)
        return run

    @contextmanager
    def watched(self, wake: Wake) -> Generator[Run | None]:
        first, lot = self._next(), self._lot()
        watcher = partial(_wake, wake)
        if first is not None:
            first.watch(watcher)
        elif lot is not None:
            lot.when_stepped(self._place, wake)
        try:
            yield first
        finally:
            if first is not None:
                first.unwatch(watcher)
            elif lot is not None:
                lot.when_stepped(self._place, None)

    def left(self) -> list[Run]:
        return [run for part in self._parts for run in (part.objects() if isinstance(part, LoopLot) else (part,))]

    def _lot(self) -> LoopLot | None:
        """What the next run is in, if that is a lot."""
        return head if self._parts and type(head := self._parts[0]) is LoopLot else None

    def _next(self) -> Run | None:
        """The next run, if it is an object."""
        lot = self._lot()
        if lot is not None:
            return lot.known(self._place)
        return self._parts[0] if self._parts else None  # type: ignore[return-value]

    def _drop(self, taken: int) -> None:
        self._size -= taken
        lot = self._lot()
        if lot is None or self._place + taken == len(lot):
            self._parts.popleft()
            self._place = 0
        else:
            self._place += taken


class AsTheyCome(Window):
    """Its runs are taken as they end."""

    def __init__(self, wake: Wake) -> None:
        self._runs: dict[int, Run] = {}
        self._ended: deque[Run] = deque()
        self._wake = wake

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, runs: list[Run] | LoopLot) -> None:
        for run in runs:
            self._runs[id(run)] = run
            run.watch(self._has_ended)

    def _has_ended(self, run: Run) -> None:
        self._ended.append(run)
        self._wake()

    def take_returned(self, most: int) -> list[Any]:
        results: list[Any] = []
        while self._ended and len(results) < most and _has_result_at_hand(self._ended[0]):
            run = self._ended.popleft()
            del self._runs[id(run)]
            results.append(run.value)
        return results

    def take_ended(self) -> Run | None:
        if not self._ended:
            return None
        run = self._ended.popleft()
        del self._runs[id(run)]
        return run

    @contextmanager
    def watched(self, wake: Wake) -> Generator[Run | None]:
        if self._ended:
            wake()
        yield None

    def left(self) -> list[Run]:
        return list(self._runs.values())


def _has_result_at_hand(run: Run) -> bool:
    return run.done and run.status == _COMPLETED and type(run.value) is not StoredValue


def _wake(wake: Wake, _: object) -> None:
    wake()
