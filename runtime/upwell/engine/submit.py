"""From a call to runs: `.submit` makes one, `.map` makes many, both in the caller's thread.

Mistakes in the call are raised here, before anything has started. No run is touched by the loop before it is
whole: the caller makes all of them, then hands them over in one go.
"""

from __future__ import annotations

from contextvars import copy_context
from itertools import count as counting
from typing import Any, Final, cast

from upwell.core.definition import Definition, FunctionKind
from upwell.core.dependencies import Dependency, DependencyFinder
from upwell.core.errors import ForeignFutureError, RuntimeClosedError
from upwell.core.seams import TaskRunner
from upwell.core.states import StateType
from upwell.engine.attempt import attempt_fully, attempt_plain, attempt_unary
from upwell.engine.clock import clock
from upwell.engine.future import CURRENT_RUN, Call, RunFuture, TaskFuture
from upwell.engine.scope import CURRENT_TAGS, Scope

FINDER: Final[DependencyFinder[Any]] = DependencyFinder(TaskFuture)

DEFAULT_RUNNER: Final = "concurrent"
"""The task runner of those who do not say which: coroutines on the loop, sync functions on threads."""


def value_of(future: Any, allow_failure: bool) -> Any:
    """What a dependant gets in place of a future that has ended."""
    if isinstance(future, RunFuture):
        return future.value if future.status is StateType.COMPLETED else future.exception()
    return future.result(raise_on_failure=False) if allow_failure else future.result()


def new_call(scope: Scope, definition: Definition) -> Call:
    """What the runs of one submit or map will share."""
    around = CURRENT_TAGS.get()
    own = definition.options.tags
    return Call(
        scope.series_of(definition),
        definition,
        scope,
        copy_context(),
        CURRENT_RUN.get(),
        clock().time(),
        own | around if around else own,
    )


def route(call: Call, runner_wanted: Any, gates: list[Any]) -> None:
    """Decide where the runs of a call are executed, and which gates they pass before."""
    engine: Any = call.scope.engine
    runner: TaskRunner
    definition = call.definition
    wanted = runner_wanted or definition.task_runner or call.scope.task_runner or engine.task_runner
    on_loop = wanted == DEFAULT_RUNNER and definition.kind.is_async
    if not on_loop:  # the default runner leaves coroutines to the loop: no need to load it to know
        runner = engine.runner(wanted)
        lane = engine.lane_of(runner)
        if lane is not None:
            gates = [*gates, lane]
        on_loop = definition.kind.is_async and runner.coroutines_on_loop
        if not on_loop:
            call.runner = runner
    if call.tags and engine.limits:
        gates = [*gates, *engine.tag_gates(call.tags)]
    if gates:
        call.gates = tuple(gates)
    if definition.plain and definition.kind is FunctionKind.COROUTINE:
        call.attempt = attempt_unary if call.unary and not call.kwargs else attempt_plain
    else:
        call.attempt = attempt_fully
    call.plain = definition.plain and definition.silent and not gates
    call.straight = not gates and call.runner is None


def submit(
    scope: Scope,
    definition: Definition,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    wait_for: Any = None,
    task_runner: Any = None,
) -> RunFuture[Any]:
    """Start one run; returns its future at once."""
    if not definition.parameters.accepts(len(args), kwargs):
        definition.parameters.bind(args, kwargs)
    call = new_call(scope, definition)
    item: Any = args
    if len(args) == 1 and not kwargs:
        call.unary, item = True, args[0]
    elif kwargs:
        call.row_names = tuple(kwargs)
        item = (*args, *kwargs.values())
    route(call, task_runner, [])
    run: RunFuture[Any] = RunFuture(call, call.series.take(1), item)
    if wait_for is not None or not FINDER.is_plain(args, kwargs):
        run.upstream = dependencies_of(scope, item)
        if wait_for is not None:
            run.upstream += dependencies_of(scope, wait_for)
        call.straight = False
    hand_over(scope, [run])
    return run


def map_over(
    scope: Scope,
    definition: Definition,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    wait_for: Any = None,
    task_runner: Any = None,
    gates: list[Any] | None = None,
) -> list[RunFuture[Any]]:
    """Start one run for each row of the mapped inputs; returns their futures in order."""
    plan = definition.parameters.plan_map(args, kwargs)
    if not plan.length:
        return []
    call = new_call(scope, definition)
    call.row_names = plan.kwarg_names
    call.kwargs = plan.static_kwargs or None
    call.unary = len(args) == 1 and not kwargs
    route(call, task_runner, gates or [])
    first = call.series.take(plan.length)
    if call.unary:
        items = [row[0] for row in plan.rows]
    else:
        items = list(plan.rows)
    runs: list[RunFuture[Any]] = list(map(RunFuture, [call] * plan.length, counting(first), items))
    if not FINDER.all_plain(items) or wait_for is not None or not FINDER.is_plain((), plan.static_kwargs):
        _add_upstream(scope, call, runs, wait_for)
    hand_over(scope, runs)
    return runs


def _add_upstream(scope: Scope, call: Call, runs: list[RunFuture[Any]], wait_for: Any) -> None:
    shared = dependencies_of(scope, wait_for) if wait_for is not None else []
    if call.kwargs and not FINDER.is_plain((), call.kwargs):
        # A constant that holds futures becomes part of each row, where it is resolved.
        names, values = tuple(call.kwargs), tuple(call.kwargs.values())
        call.row_names = (*call.row_names, *names)
        for run in runs:
            run.item = (*run.args_row(), *values)
        call.kwargs, call.unary = None, False
    for run in runs:
        upstream = dependencies_of(scope, run.item)
        run.upstream = [*upstream, *shared]
    call.straight = False


def dependencies_of(scope: Scope, value: Any) -> list[Dependency[Any]]:
    """The futures in a value that a run must wait for; being waited for counts as being looked at.

    Raises:
        ForeignFutureError: one of them is unfinished and of another runtime.
    """
    found = FINDER.find(value)
    for dependency in found:
        future = dependency.future
        if isinstance(future, RunFuture):
            future.looked = True
            if not future.done and future.call.scope.engine is not scope.engine:
                raise ForeignFutureError(
                    f"{future.name!r} belongs to another runtime and has not ended, so no run here can wait for "
                    "it. Wait for its result first and pass that."
                )
    return cast("list[Dependency[Any]]", found)


def hand_over(scope: Scope, runs: list[RunFuture[Any]]) -> None:
    """Give whole runs to the engine.

    Raises:
        RuntimeClosedError: the scope's runtime is closed.
    """
    engine: Any = scope.engine
    if engine.closed:
        raise RuntimeClosedError("This runtime is closed, so nothing can be submitted to it any more.")
    engine.accept(runs)
