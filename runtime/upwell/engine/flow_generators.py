"""Generator flows: the flow run is under way for as long as the caller takes from it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any

from upwell.core.definition import Definition
from upwell.core.lifecycle import RETURNED, Outcome
from upwell.core.states import RUNNING, State
from upwell.engine.flow_life import FlowAttempt, call_hooks, conclude, end_children, inside, prepare
from upwell.engine.flow_run import FlowRun
from upwell.engine.steps import Life, live_async, live_blocking


def iterate_flow(definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Generator[Any, Any, Any]:
    """A generator flow, called directly: yields what it yields, and ends the run when it is exhausted."""
    run = FlowRun(definition, args, kwargs)
    problem = live_blocking(prepare(run, None))
    if problem is not None:
        live_blocking(conclude(run, problem))
        raise run.exception()
    live_blocking(_begin_iterating(run))
    generator = definition.fn(*run.args, **run.kwargs)
    sent: Any = None
    while True:
        try:
            with inside(run):
                item = generator.send(sent)
        except StopIteration as stop:
            live_blocking(_end_iterating(run, Outcome(RETURNED, stop.value)))
            if not run.state.is_completed():
                raise run.exception() from None
            return stop.value
        except BaseException as error:
            live_blocking(_end_iterating(run, FlowAttempt(run).outcome(error)))
            raise
        try:
            sent = yield item
        except GeneratorExit:
            with inside(run):
                generator.close()
            live_blocking(_end_iterating(run, Outcome(RETURNED)))
            raise


async def iterate_flow_async(
    definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> AsyncGenerator[Any, None]:
    """The same for an async generator flow."""
    run = FlowRun(definition, args, kwargs)
    problem = await live_async(prepare(run, None))
    if problem is not None:
        await live_async(conclude(run, problem))
        raise run.exception()
    await live_async(_begin_iterating(run))
    generator = definition.fn(*run.args, **run.kwargs)
    try:
        while True:
            try:
                with inside(run):
                    item = await anext(generator)
            except StopAsyncIteration:
                break
            yield item
    except GeneratorExit:
        with inside(run):
            await generator.aclose()
        await live_async(_end_iterating(run, Outcome(RETURNED)))
        raise
    except BaseException as error:
        await live_async(_end_iterating(run, FlowAttempt(run).outcome(error)))
        raise
    await live_async(_end_iterating(run, Outcome(RETURNED)))
    if not run.state.is_completed():
        raise run.exception()


def _begin_iterating(run: FlowRun) -> Life[None]:
    run.run_count = 1
    run.move(State(type=RUNNING))
    yield from call_hooks(run, run.state)


def _end_iterating(run: FlowRun, outcome: Outcome) -> Life[None]:
    ending = yield from end_children(run, outcome)
    yield from conclude(run, ending)
