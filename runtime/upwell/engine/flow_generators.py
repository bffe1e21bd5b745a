"""Generator flows: the flow run is under way for as long as the caller takes from it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from functools import partial
from typing import Any

from upwell.core.definition import Definition
from upwell.core.lifecycle import Outcome
from upwell.core.states import RUNNING, State
from upwell.engine.flow_life import FlowAttempt, call_hooks, conclude, end_children, inside, prepare
from upwell.engine.flow_run import FlowRun
from upwell.engine.generators import Iteration, iterate, iterate_async
from upwell.engine.steps import Life


def iterate_flow(definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Generator[Any, Any, Any]:
    """A generator flow, called directly."""
    return iterate(_begin(definition, args, kwargs))


def iterate_flow_async(
    definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> AsyncGenerator[Any, Any]:
    """An async generator flow, called directly."""
    return iterate_async(_begin(definition, args, kwargs))


def _begin(definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Life[Iteration]:
    run = FlowRun(definition, args, kwargs)
    problem = yield from prepare(run, None)
    if problem is not None:
        yield from conclude(run, problem)
        raise run.exception()
    run.run_count = 1
    run.move(State(type=RUNNING))
    yield from call_hooks(run, run.state)
    generator = definition.fn(*run.args, **run.kwargs)
    return Iteration(run, generator, partial(inside, run), FlowAttempt(run).outcome, partial(_end, run))


def _end(run: FlowRun, outcome: Outcome) -> Life[None]:
    ending = yield from end_children(run, outcome)
    yield from conclude(run, ending)
