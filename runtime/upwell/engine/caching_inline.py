"""How direct calls go through the cache: steps of their life, carried out in the caller's thread or on the loop."""

# An isinstance check cannot say what a generic future holds, and here nobody needs to know.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from upwell.core.errors import DependencyCycleError
from upwell.core.lifecycle import RAISED, RETURNED, Outcome
from upwell.core.results import ResultRecord, StoredValue
from upwell.engine.caching import (
    Cache,
    Computation,
    Keeping,
    cache_in,
    found_under,
    is_quick,
    key_of,
    log_lost,
    record_result,
    staged_for,
    stored,
)
from upwell.engine.clock import Gate
from upwell.engine.future import RunFuture, until_aside, wait_aside
from upwell.engine.staging import failed, stage

Run = RunFuture[Any]


class Answer:
    """Ask something that calls back from any thread, and wait for what it says.

    holder: the run that is waited for, if it is one.

    Raises:
        DependencyCycleError: the holder waits, in the end, for the run that would wait here.
    """

    def __init__(self, ask: Callable[[Callable[[Any], object]], object], holder: Run | None = None) -> None:
        self._ask = ask
        self._holder = holder

    def block(self) -> Any:
        if self._holder is not None and asyncio._get_running_loop() is not None:
            raise DependencyCycleError("A blocking wait on a loop's thread for a run that may be on it would not end.")
        answered, answers = Gate(), list[Any]()

        def tell(answer: Any) -> None:
            answers.append(answer)
            answered.open()

        self._ask(tell)
        if not answers:
            wait_aside(answered, None, self._holder)
        return answers[0]

    async def wait(self) -> Any:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[None] = loop.create_future()
        answers: list[Any] = []

        def tell(answer: Any) -> None:
            answers.append(answer)
            try:
                loop.call_soon_threadsafe(_set, answered)
            except RuntimeError:  # the loop has ended, and who waited with it
                pass

        self._ask(tell)
        if not answers:
            await until_aside(answered, self._holder)
        return answers[0]


class Beside:
    """Call something that may block: here, in a thread of its own if this is a loop's."""

    def __init__(self, fn: Callable[..., Any], *args: Any) -> None:
        self._fn = fn
        self._args = args

    def block(self) -> Any:
        return self._fn(*self._args)

    async def wait(self) -> Any:
        return await asyncio.to_thread(self._fn, *self._args)


Looked = Generator[Any, Any, tuple[Computation | None, Outcome | None]]


def look_up(run: Run) -> Looked:
    """What a direct call is to compute, for others as well, and what it has if it need not."""
    keeping: Keeping = run.call.keeping
    key = key_of(run)
    if key is None:
        return None, None
    cache, refresh = cache_in(run.call.scope), keeping.refresh
    if not refresh and keeping.known is None and not cache.is_computed(key):
        record = next(iter(cache.find([key])), None)
        if record is not None:
            outcome = yield from _read(run, key, record)
            if outcome is not None:
                return None, outcome
            refresh = True
    while True:
        computation, is_own = cache.begin(key, run, keeping, refresh)
        if not is_own:
            if (known := staged_for(run, computation)) is not None:
                return None, (yield from _read(run, key, known))
            try:
                record = yield Answer(partial(cache.wait_for, computation), computation.holder)
            except DependencyCycleError:
                return None, None  # it computes for itself what another one waits for it to compute
            if record is None or refresh:
                continue
            outcome = yield from _read(run, key, record)
            if outcome is not None:
                return None, outcome
            refresh = True
            continue
        try:
            while True:
                record = yield Answer(partial(claim, cache, computation))
                if record is None:
                    return computation, None
                outcome = yield from _read(run, key, record)
                if outcome is not None:
                    cache.end(computation, record)
                    return None, outcome
                computation.refresh = True
        except BaseException:
            cache.give_up(computation)
            raise


def claim(cache: Cache, computation: Computation, tell: Callable[[Any], object]) -> None:
    """Look up one key; tells its record, or None."""
    cache.claim([computation], lambda found: tell(found[0][1]))


def _read(run: Run, key: str, record: ResultRecord) -> Generator[Any, Any, Outcome | None]:
    """The value of a record; None if it is lost."""
    keeping: Keeping = run.call.keeping
    try:
        if not keeping.in_memory:
            there = record.data is not None or (yield Beside(keeping.results.exists, record))
            if not there:
                raise FileNotFoundError(record.where)
            value: Any = StoredValue(keeping.results.get, record)
        elif record.data is not None:
            value = keeping.results.get(record)
        else:
            value = yield Beside(keeping.results.get, record)
    except Exception as error:
        log_lost(run, error)
        return None
    return Outcome(RETURNED, value, found_under(key))


def keep_result(run: Run, computation: Computation | None, outcome: Outcome) -> Generator[Any, Any, Outcome]:
    """Store the value of a direct call, if it has one; the outcome with which it ends."""
    keeping: Keeping = run.call.keeping
    if outcome.kind is not RETURNED or not keeping.persists:
        return (yield from _without_record(run, computation, outcome))
    try:
        if is_quick(run, outcome.value):
            record = stored(run, outcome.value)
        else:
            record = yield Beside(stored, run, outcome.value)
    except Exception as error:
        failed(run, computation)
        return Outcome(RAISED, error)
    record_result(run, record)
    hooks = stage(run, computation, record)
    if hooks is not None:
        yield from hooks
    if not keeping.in_memory:
        outcome.value = StoredValue(keeping.results.get, record)
    return outcome


def _without_record(run: Run, computation: Computation | None, outcome: Outcome) -> Generator[Any, Any, Outcome]:
    """A run that has failed, or whose result is not stored."""
    if outcome.kind is not RETURNED:
        failed(run, computation)
    else:
        hooks = stage(run, computation, None)
        if hooks is not None:
            yield from hooks
    return outcome


def give_up(computation: Computation | None) -> None:
    """A direct call does not compute what it was to compute."""
    if computation is not None and not computation.has_ended:
        computation.cache.give_up(computation)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
