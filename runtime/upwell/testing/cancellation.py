"""Cancel a scenario at every place where it can be cancelled, and see that it ends and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import warnings
from _thread import _count  # pyright: ignore[reportPrivateUsage]  # nothing else counts them all
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import contextmanager, nullcontext
from itertools import count as counting
from typing import Any, Final

from upwell.engine.limits import PROCESS_LIMITS
from upwell.engine.recorder import recorder
from upwell.testing.clock import virtual_clock
from upwell.testing.leaks import PATIENCE_SECONDS, LeakError
from upwell.testing.waiting import describe_coroutine, describe_task

Scenario = Callable[[], Coroutine[Any, Any, Any]]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]

VIRTUAL_PATIENCE_SECONDS: Final = 1e6
"""A scenario that has not ended after that many virtual seconds never will."""

TURNS: Final = 10
"""How many turns of the loop what was cancelled has to end in, once the scenario is over."""


def cancel_everywhere(
    make_coroutine: Scenario,
    *,
    times: Iterable[int] = (1, 2, 3),
    check: Callable[[], object] | None = None,
    loop_factory: LoopFactory | None = None,
) -> int:
    """Run a scenario again and again: once for each of its suspension points and each of `times`, cancelled there.

    Its outermost task is cancelled at that point, and so many times in all: again at each point that it comes to
    from there. After each run: the scenario has ended, normally or with CancelledError, and has left behind
    no task, thread, slot, warning or coroutine that was never awaited; then `check()` is called.

    Args:
        make_coroutine: makes the scenario's coroutine, anew for each run. Uncancelled, it must end normally.
        loop_factory: makes the loop of each run; unless said, loops of a clock that jumps.

    Returns:
        How many points there were.

    Raises:
        LeakError: says where and how often it was cancelled, and what went wrong.
    """
    with _quick_collections(), nullcontext() if loop_factory else virtual_clock() as clock:
        new_loop: LoopFactory = loop_factory or clock.new_loop  # type: ignore[union-attr]  # pyright: ignore
        patience = 10 * PATIENCE_SECONDS if loop_factory else VIRTUAL_PATIENCE_SECONDS
        _Trial(make_coroutine, 0, 0).run(new_loop, patience, check)
        amounts = list(times)
        for point in counting(1):
            for amount in amounts:
                trial = _Trial(make_coroutine, point, amount)
                trial.run(new_loop, patience, check)
                if not trial.delivered:
                    return point - 1
    raise AssertionError("a scenario that ends has a last point")


@contextmanager
def _quick_collections() -> Generator[None]:
    """What was there before need not be looked at after each run."""
    seen_to = gc.get_freeze_count() > 0  # by who calls this: it is not for us to undo
    gc.collect()
    if not seen_to:
        gc.freeze()
    try:
        yield
    finally:
        if not seen_to:
            gc.unfreeze()


def _open_journal() -> None:
    """The journal, where one is kept, is there before: its threads are nothing that a run leaves behind."""
    here = recorder()
    if here is not None:
        here.journal.flush()


class _Trial:
    """One run of a scenario, cancelled so often from one of its points on."""

    def __init__(self, make_coroutine: Scenario, point: int, times: int) -> None:
        self._make_coroutine = make_coroutine
        self._point = point
        self._times = times
        self._passed = 0
        self.delivered = 0
        self._place = ""
        self._problems: list[str] = []

    def run(self, new_loop: LoopFactory, patience: float, check: Callable[[], object] | None) -> None:
        """Run it, and look at what it left.

        Raises:
            LeakError: it left something, or did not end as it should.
        """
        _open_journal()
        threads = threads_alive()
        slots = {limit.name: limit.taken for limit in PROCESS_LIMITS}
        with self._noting_warnings():
            loop = new_loop()
            try:
                self._run_on(loop, patience)
            finally:
                loop.close()
            del loop
            gc.collect()
        self._check_threads(threads)
        for limit in PROCESS_LIMITS:
            if limit.taken > slots.get(limit.name, 0):
                self._problems.append(f"{limit!r}, before {slots.get(limit.name, 0)}")
        if self._problems:
            where = f"cancelled {self.delivered} time(s), first at point {self._point}: {self._place}"
            raise LeakError("\n- ".join([where if self.delivered else "not cancelled", *self._problems]))
        if check is not None:
            check()

    def _run_on(self, loop: asyncio.AbstractEventLoop, patience: float) -> None:
        loop.set_exception_handler(lambda _, context: self._problems.append(f"the loop was told: {context}"))
        task = loop.create_task(self._outermost(), name="the scenario")
        loop.run_until_complete(_until_over(task, patience))
        if not task.done():
            self._problems.append("it never ended")
        elif not task.cancelled() and task.exception() is not None:
            self._problems.append(f"it ended with {task.exception()!r}")
        elif task.cancelled() and not self.delivered:
            self._problems.append("it was cancelled by its own code")
        self._end_all(loop, patience, "outlived the scenario", {t for t in asyncio.all_tasks(loop) if describe_task(t)})
        loop.run_until_complete(loop.shutdown_asyncgens())  # ends the loop's engine
        self._end_all(loop, patience, "outlived the engine", asyncio.all_tasks(loop))
        loop.run_until_complete(loop.shutdown_default_executor())

    def _end_all(
        self, loop: asyncio.AbstractEventLoop, patience: float, problem: str, left: set[asyncio.Task[Any]]
    ) -> None:
        """End tasks that should not be there any more."""
        for task in left:
            self._problems.append(f"{problem}: {describe_task(task) or task}")
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=patience))

    async def _outermost(self) -> Any:
        task = asyncio.current_task()
        assert task is not None
        coroutine = self._make_coroutine()
        return await _Stepper(coroutine, lambda: self._suspended(task, coroutine))

    def _suspended(self, task: asyncio.Task[Any], coroutine: Any) -> None:
        """The scenario suspends: cancel it before it goes on, if this is the point."""
        self._passed += 1
        if self._passed >= self._point and self.delivered < self._times:
            self.delivered += 1
            self._place = self._place or describe_coroutine(coroutine)
            task.get_loop().call_soon(task.cancel, f"cancelled at point {self._passed}")

    def _check_threads(self, before: int) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while threads_alive() > before and time.monotonic() < until:
            time.sleep(0.001)
        if threads_alive() > before:
            self._problems.append(f"{threads_alive() - before} thread(s) more than before")

    @contextmanager
    def _noting_warnings(self) -> Generator[None]:
        """Warnings, and what Python could not raise, are problems."""

        def note(unraisable: Any) -> None:
            self._problems.append(f"could not be raised: {unraisable.exc_value!r} in {unraisable.object!r}")

        hook = sys.unraisablehook
        sys.unraisablehook = note
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                yield
        finally:
            sys.unraisablehook = hook
        self._problems += [f"warned: {warning.message} ({warning.filename}:{warning.lineno})" for warning in caught]


def threads_alive() -> int:
    """How many threads there are, those included that the threading module does not know."""
    return _count()


class _Stepper:
    """Awaits a coroutine, and says each time it suspends."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], suspended: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._suspended = suspended

    def __await__(self) -> Generator[Any, Any, Any]:
        advance: Callable[[Any], Any] = self._coroutine.send
        answer: Any = None
        while True:
            try:
                waits_on = advance(answer)
            except StopIteration as stop:
                return stop.value
            self._suspended()
            try:
                answer = yield waits_on
                advance = self._coroutine.send
            except BaseException as error:
                answer, advance = error, self._coroutine.throw


async def _until_over(task: asyncio.Task[Any], patience: float) -> None:
    await asyncio.wait([task], timeout=patience)
    for _ in range(TURNS):
        await asyncio.sleep(0)


__all__ = ["cancel_everywhere"]
