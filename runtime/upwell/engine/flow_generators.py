"""Generator flows: the flow run is under way for as long as the caller takes from it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

from upwell.core.definition import Definition
from upwell.core.lifecycle import Outcome
from upwell.engine.flow_life import (
    Ending,
    FlowAttempt,
    begin_attempt,
    conclude,
    end_children,
    inside,
    interrupted,
    is_tried_again,
    prepare,
)
from upwell.engine.flow_run import FlowRun
from upwell.engine.generators import Bounds, Iteration, iterate, iterate_async
from upwell.engine.interrupts import ctrl_c_twice_kills
from upwell.engine.steps import Life
from upwell.engine.stopping import UnderWay


def iterate_flow(
    definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], wait_for: Any
) -> Generator[Any, Any, Any]:
    """A generator flow, called directly."""
    return iterate(_begin(definition, args, kwargs, wait_for))


def iterate_flow_async(
    definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], wait_for: Any
) -> AsyncGenerator[Any, Any]:
    """An async generator flow, called directly."""
    return iterate_async(_begin(definition, args, kwargs, wait_for))


def _begin(definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], wait_for: Any) -> Life[Iteration]:
    run = FlowRun(definition, args, kwargs)
    under_way, attempt = UnderWay(run), FlowAttempt(run)
    bounds = Bounds(run, [], definition.options.timeout_seconds, attempt.timeout)
    generator: Any = None
    try:
        ending = yield from prepare(run, wait_for)
        if ending is None:
            generator = yield from _generator(run)
    except BaseException as error:
        ending = yield from interrupted(run, error)
    if ending is not None:
        yield from _conclude(run, under_way, ending)
        raise run.exception()
    step, end = partial(_step, run, under_way), partial(_end, run, under_way, bounds)
    return Iteration(run, generator, step, attempt.outcome, end, bounds)


@contextmanager
def _step(run: FlowRun, under_way: UnderWay) -> Generator[BaseException | None]:
    """The code inside is a step of the flow run's; gives what is to be thrown into it."""
    with ctrl_c_twice_kills(), under_way.at_work() as interruption, inside(run):
        yield interruption


def _generator(run: FlowRun) -> Life[Any]:
    """That of another attempt."""
    yield from begin_attempt(run)
    return run.definition.fn(*run.args, **run.kwargs)


def _end(run: FlowRun, under_way: UnderWay, bounds: Bounds, outcome: Outcome, untouched: bool) -> Life[Any]:
    ending = yield from end_children(run, outcome, bounds.seconds_left())
    try:
        if untouched and (yield from is_tried_again(run, ending)):
            bounds.renew()
            return (yield from _generator(run))
    except BaseException as error:
        ending = yield from interrupted(run, error)
    yield from _conclude(run, under_way, ending)
    if ending.interruption is not None:
        raise run.exception() from None  # nobody has interrupted its caller
    return None


def _conclude(run: FlowRun, under_way: UnderWay, ending: Ending) -> Life[None]:
    try:
        interruptions = yield from conclude(run, ending)
    finally:
        under_way.ended()
    under_way.pass_on(interruptions)
