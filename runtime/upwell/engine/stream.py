"""The engine's half of a stream: one call whose runs are started as room appears, and the window of those under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any, Final

from upwell.core.definition import Definition
from upwell.core.errors import RuntimeClosedError
from upwell.engine.clock import Gate
from upwell.engine.future import RunFuture, until_aside, wait_aside
from upwell.engine.loop_lot import LoopLot
from upwell.engine.lot import Lot
from upwell.engine.scope import Scope
from upwell.engine.stream_windows import AsTheyCome, InOrder, Window
from upwell.engine.submit import FINDER, dependencies_of, new_call, new_runs, restored

Run = RunFuture[Any]

FEWEST_IN_LOT: Final = 16
"""Of fewer inputs that have come together it is as cheap to make objects."""


class Feed:
    """Starts the runs of one stream and hands them out as they end: in order, or as they come.

    as_runs: it hands out the runs themselves, in place of their results.
    """

    def __init__(
        self,
        scope: Scope,
        definition: Definition,
        gates: tuple[Any, ...],
        constants: dict[str, Any],
        *,
        ordered: bool,
        as_runs: bool,
    ) -> None:
        self._scope = scope
        self._engine: Any = scope.engine
        self._window: Window = InOrder() if ordered else AsTheyCome(self.wake_up)
        self._may_use_lots = ordered and not as_runs
        self._as_runs = as_runs
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
        return len(self._window)

    @property
    def on_loop_thread(self) -> bool:
        return bool(self._engine.on_loop_thread())

    def start(self, items: list[Any]) -> None:
        """Start a run for each of these inputs."""
        if not items or not self._is_open:
            return
        call, places, kept = self.call, None, None
        numbers: Iterable[int] = call.series.numbers
        if self._durable is not None:
            _, places = self._durable.place_map(self._definition, items, self._constants, as_whole=False)
            numbers, kept = places.numbers, self._durable.columns(places)
        runs: list[Run] | Lot
        if self._may_use_lots and call.runner is None:
            runs = new_runs(call, numbers, items, kept=kept, fewest=FEWEST_IN_LOT)
        else:
            runs = list(map(RunFuture, [call] * len(items), numbers, items))
        if isinstance(runs, LoopLot):
            self._window.add(runs)
            self._engine.accept(runs)
        else:
            self._start_each(list(runs), items, places)

    def _start_each(self, runs: list[Run], items: list[Any], places: Any) -> None:
        begun = runs if places is None else restored(self._durable, runs, places)
        if not FINDER.all_plain(items):
            self.call.straight = False
            for run in begun:
                run.upstream = dependencies_of(self._scope, run.item)
        self._window.add(runs)
        if begun:
            self._engine.accept(begun)

    def take(self, most: int) -> list[Any]:
        """The next results, as far as they are there, and not more than so many; of a feed of runs, the next of these.

        Raises:
            RuntimeClosedError: what is around the stream has ended.
            The exception of a run that did not complete, once it is the next.
        """
        if self._ended_by is not None:
            raise RuntimeClosedError(
                f"Nothing more can be taken from this stream of {self._definition.name}: {self._ended_by} Take what "
                "you want from a stream before what is around it ends."
            )
        results = [] if self._as_runs else self._window.take_returned(most)
        if results or (run := self._window.take_ended()) is None:
            return results
        run.looked = True  # else a failure that is left with the stream would count as one that nobody saw
        return [run if self._as_runs else run.result()]

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
        try:
            with self._window.watched(wake) as first:
                yield first
        finally:
            self._wake = None

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
        for run in self._window.left():
            run.looked = True
            if not run.done:
                self._engine.stop_run(run, reason)
        self._engine.close_call(self.call)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
