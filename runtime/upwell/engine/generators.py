"""Generators that are runs: such a run is under way for as long as the caller takes from it.

A run's beginning is a `Life` that answers with its `Iteration`; what follows is the same for task runs and flow runs,
and told twice only because Python has two kinds of generators. What the caller sends or throws reaches the generator.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from upwell.core.lifecycle import RETURNED, Outcome
from upwell.engine.steps import Life, live_async, live_blocking


class Iteration(NamedTuple):
    """A generator of the user's, and the run that it is."""

    run: Any  # has `state` and `exception()`
    generator: Any
    inside: Callable[[], AbstractContextManager[None]]  # the code inside is the run's own
    outcome: Callable[[BaseException], Outcome]
    end: Callable[[Outcome], Life[None]]


def iterate(beginning: Life[Iteration]) -> Generator[Any, Any, Any]:
    """Yields what the run's generator yields, and ends the run when it is exhausted, fails or is left."""
    run, generator, inside, outcome, end = live_blocking(beginning)
    take, given = generator.send, None
    while True:
        try:
            with inside():
                item = take(given)
        except StopIteration as stop:
            live_blocking(end(Outcome(RETURNED, stop.value)))
            if not run.state.is_completed():
                raise run.exception() from None
            return stop.value
        except BaseException as error:
            live_blocking(end(outcome(error)))
            raise
        try:
            given = yield item
            take = generator.send
        except GeneratorExit:
            try:
                with inside():
                    generator.close()
            except BaseException as error:
                live_blocking(end(outcome(error)))
                raise
            live_blocking(end(Outcome(RETURNED)))
            raise
        except BaseException as error:
            take, given = generator.throw, error


async def iterate_async(beginning: Life[Iteration]) -> AsyncGenerator[Any, Any]:
    """The same for an async generator."""
    run, generator, inside, outcome, end = await live_async(beginning)
    take, given = generator.asend, None
    while True:
        try:
            with inside():
                item = await take(given)
        except StopAsyncIteration:
            break
        except BaseException as error:
            await live_async(end(outcome(error)))
            raise
        try:
            given = yield item
            take = generator.asend
        except GeneratorExit:
            try:
                with inside():
                    await generator.aclose()
            except BaseException as error:
                await live_async(end(outcome(error)))
                raise
            await live_async(end(Outcome(RETURNED)))
            raise
        except BaseException as error:
            take, given = generator.athrow, error
    await live_async(end(Outcome(RETURNED)))
    if not run.state.is_completed():
        raise run.exception()
