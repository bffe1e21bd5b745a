"""One attempt at a run: its function called in its own context, with its timeout, and its outcome caught."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from upwell.core.definition import FunctionKind
from upwell.core.errors import TaskRunTimeoutError
from upwell.core.lifecycle import (
    CANCELLED_UNSAID,
    HAS_CRASHED,
    RAISED,
    RETURNED,
    TIMED_OUT,
    WAS_CANCELLED,
    Outcome,
    describe,
)
from upwell.engine.clock import clock
from upwell.engine.future import CURRENT_RUN, RunFuture
from upwell.engine.interrupts import Interrupted, meant_by
from upwell.engine.prints import printing_to_log


async def attempt_unary(run: RunFuture[Any]) -> Any:
    """The shortest path: a coroutine function of one argument, with nothing to do around it."""
    CURRENT_RUN.set(run)
    return await run.call.definition.fn(run.item)


async def attempt_plain(run: RunFuture[Any]) -> Any:
    """A coroutine function with nothing to do around it."""
    CURRENT_RUN.set(run)
    return await run.call.definition.fn(*run.args, **run.kwargs)


async def attempt_fully(run: RunFuture[Any]) -> Any:
    """A coroutine or async generator function with its timeout and its prints."""
    CURRENT_RUN.set(run)
    definition = run.call.definition
    with printing_to_log(definition.options.log_prints):
        if definition.options.timeout_seconds is None:
            return await _call(run)
        limit = asyncio.timeout(definition.options.timeout_seconds)
        try:
            async with limit:
                return await _call(run)
        except TimeoutError as error:
            if not limit.expired():
                raise  # the user's own
            raise timeout_error(run) from error


async def _call(run: RunFuture[Any]) -> Any:
    definition = run.call.definition
    if definition.kind is FunctionKind.ASYNC_GENERATOR:
        return [item async for item in definition.fn(*run.args, **run.kwargs)]
    returned = definition.fn(*run.args, **run.kwargs)
    if definition.kind is FunctionKind.COROUTINE or inspect.isawaitable(returned):
        return await returned
    return list(returned) if definition.kind is FunctionKind.GENERATOR else returned


def timeout_error(run: RunFuture[Any]) -> TaskRunTimeoutError:
    return TaskRunTimeoutError(f"Task run exceeded timeout of {run.timeout_seconds} second(s)")


def execute_here(run: RunFuture[Any]) -> Outcome:
    """Run a task's function in this thread, in the run's own context; never raises."""
    definition = run.call.definition
    started = clock().time()
    context = run.new_context()
    fn: Callable[..., Any] = definition.fn
    if definition.kind.is_async:
        fn = _run_to_its_end
    elif definition.kind is FunctionKind.GENERATOR:
        fn = _exhaust
    args: tuple[Any, ...] = run.args if fn is definition.fn else (definition.fn, run.args, run.kwargs)
    kwargs: Mapping[str, Any] = run.kwargs if fn is definition.fn else {}
    try:
        if definition.options.log_prints is not None:
            with printing_to_log(definition.options.log_prints, context):
                value = context.run(fn, *args, **kwargs)
        else:
            value = context.run(fn, *args, **kwargs)
        if definition.hides_coroutine:
            definition.check_returned(value)
    except BaseException as error:
        outcome = outcome_of(error)
        outcome.started, outcome.ended = started, clock().time()
        return outcome
    return Outcome(RETURNED, value, "", started, clock().time())


def outcome_of(error: BaseException) -> Outcome:
    """What an exception that left a user's function means. Drops the engine's own frames from its traceback."""
    error = meant_by(error)
    trace = users = error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        trace = trace.tb_next
        if module.startswith("upwell.engine."):
            users = trace
        elif not module.startswith("asyncio."):
            break
    error.__traceback__ = users
    if isinstance(error, TaskRunTimeoutError):
        return Outcome(TIMED_OUT, error)
    if isinstance(error, asyncio.CancelledError | Interrupted):  # the latter was meant for code around this
        return Outcome(WAS_CANCELLED, None, str(error) or CANCELLED_UNSAID)
    if isinstance(error, Exception):
        return Outcome(RAISED, error)
    return Outcome(HAS_CRASHED, error, f"Execution was aborted: {describe(error)}")


def _exhaust(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    return list(fn(*args, **kwargs))


_coroutines: dict[RunFuture[Any], tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = {}
"""The coroutines that worker threads run, each in a loop of its thread's own."""


def _run_to_its_end(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A coroutine function in a worker thread gets a loop of its own."""
    run = CURRENT_RUN.get()
    assert run is not None

    async def main() -> Any:
        task = asyncio.current_task()
        assert task is not None
        _coroutines[run] = (asyncio.get_running_loop(), task)
        returned = fn(*args, **kwargs)
        if inspect.isasyncgen(returned):
            return [item async for item in returned]
        return await returned

    try:
        return asyncio.run(main())
    finally:
        _coroutines.pop(run, None)


def cancel_coroutine_of(run: RunFuture[Any]) -> bool:
    """Cancel the coroutine that a worker thread runs for this run; False if it runs none."""
    found = _coroutines.get(run)
    if found is None:
        return False
    loop, task = found
    try:
        loop.call_soon_threadsafe(task.cancel)
    except RuntimeError:  # it has ended this moment
        return False
    return True


async def call_hook(hook: Callable[..., Any], *args: Any) -> Any:
    """Call a user's hook from the loop: a sync one on a thread, so that it cannot stall the loop."""
    if inspect.iscoroutinefunction(hook):
        return await hook(*args)
    returned: Any = await asyncio.to_thread(hook, *args)
    return await returned if inspect.isawaitable(returned) else returned
