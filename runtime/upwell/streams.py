"""`task.stream`: a map over inputs of any number, with back-pressure and in constant memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable
from itertools import islice
from typing import Any, Final, Generic, TypeVar

from upwell.core.annotations import constant_part
from upwell.core.definition import Definition
from upwell.core.errors import BlockingWaitError
from upwell.engine.calls import MapOptions, show_progress
from upwell.engine.console import ensure_configured
from upwell.engine.current import current_scope
from upwell.engine.scope import current_sketch
from upwell.engine.stream import Feed
from upwell.engine.submit import FINDER

DEFAULT_WINDOW: Final = 256
READING_SECONDS: Final = 0.002
"""How long to go on reading inputs before looking at results: a slow source must not hold them up.

Nor must it hold up what could run beside: while there is room, a result is waited for no longer than the reading took.
"""
READING_STEP: Final = 32
TOGETHER: Final = 8
"""Such a part of the window is looked at in one go, as far as it has ended."""

R = TypeVar("R")


class TaskStream(Generic[R]):
    """The results of a stream, as they are taken: `async for`, or `for` in sync code. Can be taken once.

    constants: arguments that all runs are given. states: each run's final state is given in place of its result.
    """

    def __init__(
        self,
        definition: Definition,
        inputs: Iterable[Any] | AsyncIterable[Any],
        options: MapOptions,
        constants: dict[str, Any],
        *,
        ordered: bool,
        states: bool = False,
    ) -> None:
        if isinstance(inputs, str | bytes) or not isinstance(inputs, Iterable | AsyncIterable):  # pyright: ignore[reportUnnecessaryIsInstance]  # users' input
            raise TypeError(f"stream takes an iterable or async iterable of inputs, not {inputs!r}")
        constants = {name: constant_part(value) for name, value in constants.items()}
        if not definition.parameters.accepts(1, constants):
            definition.parameters.bind((None,), constants)
        if not FINDER.is_plain((), constants):
            raise TypeError(
                f"stream gives each run the same {' and '.join(map(repr, constants))}, and that cannot hold futures or "
                "wrappers: wait for their results first, and pass those."
            )
        self._definition = definition
        self._constants = constants
        self._inputs = inputs
        self._options = options.checked()
        self._ordered = ordered
        self._states = states
        self._opened = False
        self._taken = 0

    def _open(self) -> Feed:
        if self._opened:
            raise RuntimeError(
                f"This stream of {self._definition.name} has been taken already; call `stream` again for another one."
            )
        self._opened = True
        ensure_configured()
        gates = MapOptions(None, self._options.max_per_second).gates(self._definition.name)
        feed = Feed(
            current_scope(), self._definition, gates, self._constants, ordered=self._ordered, as_runs=self._states
        )
        if self._options.wants_progress():
            show_progress(self._definition.name, feed.call, None, lambda: self._taken)
        return feed

    def _sketched(self) -> list[Any]:
        """The one result that stands for all, where nothing is to be run."""
        sketch = current_sketch()
        return [] if sketch is None else [sketch.stream(self._definition, self._inputs)]

    async def __aiter__(self) -> AsyncGenerator[R, None]:
        if sketched := self._sketched():
            yield sketched[0]
            return
        feed = self._open()
        reader: _Reader | _Pump = (
            _Pump(self._inputs, feed, self._most)
            if isinstance(self._inputs, AsyncIterable)
            else _Reader(self._inputs, feed, self._most)
        )
        try:
            while (results := self._next(reader, feed)) is not None:
                if not results:
                    await feed.until_some_ended(reader.patience)
                for result in results:
                    yield result
        finally:
            feed.close()
            await reader.close()

    def __iter__(self) -> Generator[R, None, None]:
        if not isinstance(self._inputs, Iterable):
            raise TypeError("An async iterable can only be streamed with `async for`.")
        if sketched := self._sketched():
            yield sketched[0]
            return
        feed = self._open()
        if feed.on_loop_thread:
            feed.close()
            raise BlockingWaitError("On the event loop's own thread, write `async for result in task.stream(...)`.")
        reader = _Reader(self._inputs, feed, self._most)
        try:
            while (results := self._next(reader, feed)) is not None:
                if not results:
                    feed.wait_until_some_ended(reader.patience)
                yield from results
        finally:
            feed.close()

    def _next(self, reader: _Reader | _Pump, feed: Feed) -> list[R] | None:
        """The next results, as far as they are there; None at the end. Starts runs where there is room for them."""
        reader.fill()
        results = feed.take(max(1, self._most // TOGETHER))
        if not results:
            reader.fill(to_the_brim=True)
            if reader.exhausted and not len(feed):
                reader.check()
                return None
        self._taken += len(results)
        return [run.state for run in results] if self._states else results

    @property
    def _most(self) -> int:
        return self._options.max_at_once or DEFAULT_WINDOW


class _Reader:
    """Takes inputs from a plain iterable: many at a time if they come fast.

    patience: for how many seconds a result may be waited for before more is read; None: there is no room, or no more.
    """

    def __init__(self, inputs: Iterable[Any], feed: Feed, most: int) -> None:
        self._items = iter(inputs)
        self._feed = feed
        self._most = most
        self.exhausted = False
        self.patience: float | None = None
        self._fault: Exception | None = None

    def fill(self, *, to_the_brim: bool = False) -> None:
        """If half of the window is free, or any of it: start runs for as many inputs as fit in, or come in a moment."""
        self.patience = None
        room = self._most - len(self._feed)
        if self.exhausted or not room or (room * 2 < self._most and not to_the_brim):
            return
        began = time.monotonic()
        batch: list[Any] = []
        while room > len(batch) and not self.exhausted:
            wanted = min(READING_STEP, room - len(batch)) if len(batch) else 1
            before = len(batch)
            try:
                batch.extend(islice(self._items, wanted))
            except Exception as error:  # of the source; what came before it is in the batch, and is to be done
                self._fault = error
            self.exhausted = len(batch) < before + wanted
            took = time.monotonic() - began
            if took > READING_SECONDS:
                self.patience = None if self.exhausted or len(batch) == room else took
                break
        self._feed.start(batch)

    def check(self) -> None:
        """Raise what the iterable raised."""
        if self._fault is not None:
            raise self._fault

    async def close(self) -> None:
        pass


class _Pump:
    """The same from an async iterable, as they come, in a Task beside the consumer, while there is room."""

    def __init__(self, inputs: AsyncIterable[Any], feed: Feed, most: int) -> None:
        self._inputs = inputs
        self._feed = feed
        self._most = most
        self.patience = None
        self._room = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def exhausted(self) -> bool:
        return self._task.done()

    def fill(self, *, to_the_brim: bool = False) -> None:
        """Let the pump go on if there is room."""
        if len(self._feed) < self._most:
            self._room.set()

    async def _run(self) -> None:
        try:
            async for item in self._inputs:
                self._feed.start([item])
                self._feed.wake_up()
                while len(self._feed) >= self._most:
                    self._room.clear()
                    await self._room.wait()
        finally:
            asyncio.get_running_loop().call_soon(self._feed.wake_up)

    def check(self) -> None:
        """Raise what the iterable raised."""
        self._task.result()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
