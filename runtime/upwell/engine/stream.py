"""The engine's half of a stream: one call whose runs are started as room appears, and the window of those under way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import copy_context
from functools import partial
from typing import Any

from upwell.core.definition import Definition
from upwell.engine.clock import Gate
from upwell.engine.future import RunFuture, until_aside, wait_aside
from upwell.engine.scope import Scope
from upwell.engine.submit import FINDER, dependencies_of, new_call, restored

Run = RunFuture[Any]


class Feed:
    """Starts the runs of one stream and hands them out as they end: in order, or as they come.

    The window holds the runs that were started and not taken, so its length bounds the memory of a stream.
    """

    def __init__(self, scope: Scope, definition: Definition, gates: tuple[Any, ...], *, ordered: bool) -> None:
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
        self.call = new_call(series, copy_context(), unary=True, gates=gates)
        self._engine.perform(partial(self._engine.open_call, self.call))

    def __len__(self) -> int:
        """How many runs were started and not taken."""
        return len(self._order) if self._ordered else len(self._window)

    @property
    def on_loop_thread(self) -> bool:
        return bool(self._engine.on_loop_thread())

    def start(self, items: list[Any]) -> None:
        """Start a run for each of these inputs."""
        if not items:
            return
        call, places = self.call, None
        numbers: Iterable[int] = call.series.numbers
        if self._durable is not None:
            _, places = self._durable.place_map(self._definition, items, {}, as_whole=False)
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

    def take_ended(self) -> Run | None:
        """The next run to take, if it has ended."""
        if self._ordered:
            return self._order.popleft() if self._order and self._order[0].done else None
        if not self._ended:
            return None
        run = self._ended.popleft()
        del self._window[id(run)]
        return run

    async def until_some_ended(self) -> None:
        """Wait on the running loop until there is a run to take."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._watch(lambda: loop.call_soon_threadsafe(_set, waiter))
        await until_aside(waiter)
        self._wake = None

    def wait_until_some_ended(self) -> None:
        """Block this thread until there is a run to take."""
        if self._ordered:
            self._order[0].wait()
            return
        ended = Gate()
        self._watch(ended.open)
        wait_aside(ended)
        self._wake = None

    def wake_up(self) -> None:
        """Something else has changed: let whoever waits look again."""
        wake = self._wake
        if wake is not None:
            wake()

    def _watch(self, wake: Any) -> None:
        self._wake = wake
        if self._ordered:
            if self._order:
                self._order[0].watch(partial(_wake, wake))
        elif self._ended:
            wake()

    def close(self) -> None:
        """The stream is over or was left: cancel what is under way."""
        left: Iterable[Run] = list(self._order if self._ordered else self._window.values())
        for run in left:
            run.looked = True
        self._engine.perform(partial(self._close, left))

    def _close(self, left: Iterable[Run]) -> None:
        for run in left:
            if not run.done:
                self._engine.stop_run(run, "The stream that it belongs to was left.")
        self._engine.close_call(self.call)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _wake(wake: Callable[[], object], _: object) -> None:
    wake()
