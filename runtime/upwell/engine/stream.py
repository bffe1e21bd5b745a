"""The engine's half of a stream: one call whose runs are started as room appears, and the window of those under way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any, Final

from upwell.core.definition import Definition
from upwell.core.errors import RuntimeClosedError
from upwell.core.results import StoredValue
from upwell.core.states import COMPLETED
from upwell.engine.clock import Gate
from upwell.engine.future import RunFuture, until_aside, wait_aside
from upwell.engine.scope import Scope
from upwell.engine.submit import FINDER, dependencies_of, new_call, restored

Run = RunFuture[Any]
_COMPLETED: Final[str] = COMPLETED.value


class Feed:
    """Starts the runs of one stream and hands them out as they end: in order, or as they come.

    The window holds the runs that were started and not taken, so its length bounds the memory of a stream.
    """

    def __init__(
        self,
        scope: Scope,
        definition: Definition,
        gates: tuple[Any, ...],
        constants: dict[str, Any],
        *,
        ordered: bool,
    ) -> None:
        self._scope = scope
        self._engine: Any = scope.engine
        self._ordered = ordered
        self._window: dict[int, Run] = {}
        self._order: deque[Run] = deque()
        self._ended: deque[Run] = deque()
        self._wake: Any = None
        self._durable = scope.durable
        self._definition = definition
        series = scope.series_of(definition) if scope.durable is None else scope.durable.series_of(definition)
        self._constants = constants
        self.call = new_call(series, copy_context(), unary=True, kwargs=constants or None, gates=gates)
        self._ended_by: str | None = None
        self._is_open = True
        scope.streams.add(self)
        self._engine.perform(partial(self._engine.open_call, self.call))

    def __len__(self) -> int:
        """How many runs were started and not taken."""
        return len(self._order) if self._ordered else len(self._window)

    @property
    def on_loop_thread(self) -> bool:
        return bool(self._engine.on_loop_thread())

    def start(self, items: list[Any]) -> None:
        """Start a run for each of these inputs."""
        if not items or not self._is_open:
            return
        call, places = self.call, None
        numbers: Iterable[int] = call.series.numbers
        if self._durable is not None:
            _, places = self._durable.place_map(self._definition, items, self._constants, as_whole=False)
            numbers = places.numbers
        runs: list[Run] = list(map(RunFuture, [call] * len(items), numbers, items))
        begun = runs if places is None else restored(self._durable, runs, places)
        if not FINDER.all_plain(items):
            call.straight = False
            for run in begun:
                run.upstream = dependencies_of(self._scope, run.item)
        if self._ordered:
            self._order.extend(runs)
        else:
            for run in runs:
                self._window[id(run)] = run
                run.watch(self._has_ended)
        if begun:
            self._engine.accept(begun)

    def _has_ended(self, run: Run) -> None:
        self._ended.append(run)
        wake = self._wake
        if wake is not None:
            wake()

    def take(self, most: int, given: Callable[[Run], Any] | None = None) -> list[Any]:
        """The next results, as far as they are there, and not more than so many.

        given: what is given of a run, in place of its result.

        Raises:
            RuntimeClosedError: what is around the stream has ended.
            The exception of a run that did not complete, once it is the next.
        """
        if self._ended_by is not None:
            raise RuntimeClosedError(
                f"Nothing more can be taken from this stream of {self._definition.name}: {self._ended_by} Take what "
                "you want from a stream before what is around it ends."
            )
        results: list[Any] = []
        ordered = self._ordered
        queue = self._order if ordered else self._ended
        while queue and (run := queue[0]).done and len(results) < most:
            is_at_hand = given is None and run.status == _COMPLETED and type(run.value) is not StoredValue
            if results and not is_at_hand:  # what it raises must not take those before it along
                break
            queue.popleft()
            if not ordered:
                del self._window[id(run)]
            if not is_at_hand:
                run.looked = True  # else a failure that is left with the stream would count as one that nobody saw
                return [run.result() if given is None else given(run)]
            results.append(run.value)
        return results

    async def until_some_ended(self, seconds: float | None) -> None:
        """Wait on the running loop until there is a run to take, or for so long."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, _set, waiter)

        def wake() -> None:
            if loop is self._engine.loop:  # and this its thread
                _set(waiter)
            else:
                loop.call_soon_threadsafe(_set, waiter)

        try:
            with self._watched(wake) as first:
                await until_aside(waiter, first)
        finally:
            if timer is not None:
                timer.cancel()

    def wait_until_some_ended(self, seconds: float | None) -> None:
        """Block this thread until there is a run to take, or for so long."""
        ended = Gate()
        with self._watched(ended.open) as first:
            wait_aside(ended, seconds, first)

    def wake_up(self) -> None:
        """Something else has changed: let whoever waits look again."""
        wake = self._wake
        if wake is not None:
            wake()

    @contextmanager
    def _watched(self, wake: Callable[[], object]) -> Generator[Run | None]:
        """Call this as soon as there is something to take, or something else has changed; the run that must end, if it
        is a certain one.
        """
        self._wake = wake
        first = self._order[0] if self._ordered and self._order else None
        watcher = partial(_wake, wake)
        if first is not None:
            first.watch(watcher)
        elif self._ended:
            wake()
        try:
            yield first
        finally:
            self._wake = None
            if first is not None:
                first.unwatch(watcher)

    def close(self) -> None:
        """The stream is over or was left: cancel what is under way."""
        self._engine.perform(partial(self._close, "The stream that it belongs to was left."))

    def end(self, reason: str) -> None:
        """The flow or the runtime around it has come to its end, and nobody may take from it any more."""
        self._ended_by = reason
        self._close(reason)

    def _close(self, reason: str) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._scope.streams.discard(self)
        self.call.is_left = True
        for run in list(self._order if self._ordered else self._window.values()):
            run.looked = True
            if not run.done:
                self._engine.stop_run(run, reason)
        self._engine.close_call(self.call)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _wake(wake: Callable[[], object], _: object) -> None:
    wake()
