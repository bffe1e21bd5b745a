"""From a call to runs: `.submit` makes one, `.map` makes many, both in the caller's thread.

Mistakes in the call are raised here, before anything has started. No run is touched by the loop before it is
whole: the caller makes all of them, then hands them over in one go.
"""

# An isinstance check cannot say what a generic future holds, and here nobody needs to know.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from itertools import islice
from typing import Any, Final

from msgspec import Struct

from upwell.core.definition import Definition, FunctionKind
from upwell.core.dependencies import Dependency, DependencyFinder
from upwell.core.errors import ForeignFutureError
from upwell.core.seams import TaskRunner
from upwell.core.states import COMPLETED, RUNNING, State
from upwell.engine.attempt import attempt_fully, attempt_plain, attempt_unary
from upwell.engine.caching import keeping_of
from upwell.engine.call import Call
from upwell.engine.clock import clock
from upwell.engine.future import CURRENT_RUN, RunFuture, TaskFuture, read_value
from upwell.engine.kept_columns import KeptColumns
from upwell.engine.loop_lot import LoopLot
from upwell.engine.lot import Lot
from upwell.engine.scope import CURRENT_TAGS, Scope, Series
from upwell.engine.staging import CURRENT_TRANSACTION, NOTHING_KEPT, current_transaction

FINDER: Final[DependencyFinder[Any]] = DependencyFinder(TaskFuture)

STATES: Final[DependencyFinder[Any]] = DependencyFinder(State)
"""Finds states in a `wait_for`; among the arguments they are values."""

DEFAULT_RUNNER: Final = "concurrent"
"""The task runner of those who do not say which: coroutines on the loop, sync functions on threads."""


def value_of(future: Any, allow_failure: bool) -> Any:
    """What a dependant gets in place of a future that has ended."""
    if isinstance(future, RunFuture):
        return read_value(future.value) if future.status == COMPLETED else future.exception()
    return future.result(raise_on_failure=False) if allow_failure else future.result()


def is_completed(future: Any) -> bool:
    """Whether a future that has ended has a result."""
    return future.status == COMPLETED if isinstance(future, RunFuture) else future.state.is_completed()


def resolved(value: Any) -> Any:
    """The value with results in the place of futures, all of which have ended."""
    kind = type(value)
    if kind is RunFuture:
        return value_of(value, False)
    if isinstance(value, list) and set(map(type, value)) == _ONLY_RUNS:
        return [value_of(future, False) for future in value]
    return FINDER.resolve(value, value_of)


_PLAIN: Final = FINDER.plain_types
_ONLY_RUNS: Final = {RunFuture}
"""What the types in a list are that came from a map: the commonest arguments that hold futures."""


class Route(Struct, frozen=True):
    """How the runs of one task in one scope are executed.

    settled: which hooks the task had when this was decided. runner: the task runner; None: the loop.
    gates: what its runs pass before they start, whatever their call.
    plain, is_simple, has_prelude: see `Call`. attempt, attempt_unary: make the coroutine of an attempt.
    is_once: a run that fails is not tried again.
    """

    settled: int
    runner: TaskRunner | None
    gates: tuple[Any, ...]
    plain: bool
    is_simple: bool
    attempt: Any
    attempt_unary: Any
    has_prelude: bool
    is_once: bool


def _find_route(scope: Scope, definition: Definition) -> Route:
    engine: Any = scope.engine
    wanted = definition.task_runner or scope.task_runner or engine.task_runner
    coroutines = definition.kind.is_async
    runner: Any = None
    gates: tuple[Any, ...] = ()
    if not (coroutines and wanted == DEFAULT_RUNNER):  # to know where that goes it need not be loaded
        runner = engine.runner(wanted)
        lane = engine.lane_of(runner)
        if lane is not None:
            gates = (lane,)
        if coroutines and runner.coroutines_on_loop:
            runner = None
    shortest = definition.plain and definition.kind is FunctionKind.COROUTINE
    is_durable, quiet = scope.durable is not None, definition.plain and definition.silent
    return Route(
        settled=definition.settled,
        runner=runner,
        gates=gates,
        plain=quiet and not is_durable,
        is_simple=quiet and is_durable,
        attempt=attempt_plain if shortest else attempt_fully,
        attempt_unary=attempt_unary if shortest else attempt_fully,
        has_prelude=definition.options.run_name is not None or bool(definition.hooks[RUNNING]),
        is_once=not definition.retry.retries,
    )


_INLINE: Final = Route(0, None, (), False, False, None, None, False, False)
"""Of direct calls, which the engine does not execute."""


def new_call(
    series: Series,
    context: Context | None,
    *,
    unary: bool,
    kwargs: Any = None,
    gates: tuple[Any, ...] = (),
) -> Call:
    """What the runs of one submit or map will share. context: in copies of which they run; None: a direct call.

    Raises:
        ConcurrencySlotAcquisitionError: one of the tags has a limit of zero.
    """
    definition, scope = series.definition, series.scope
    route: Route | None = _INLINE if context is None else series.route
    if route is None or (route.settled != definition.settled and route is not _INLINE):
        # Decided once, for it depends only on the task, its hooks, and where it is started.
        route = series.route = _find_route(scope, definition)
    tags = definition.options.tags
    around = CURRENT_TAGS.get()
    if around:
        tags = tags | around
    keeping = keeping_of(series) if series.keeping is False else series.keeping
    transaction = None if CURRENT_TRANSACTION.get() is None else current_transaction()
    if keeping is None and (transaction is not None or definition.commit_hooks):
        keeping = NOTHING_KEPT
    if route.gates:
        gates = (*gates, *route.gates)
    if tags and context is not None:
        engine: Any = scope.engine
        gates = (*gates, *engine.tag_gates(tags))
    quick = not gates and keeping is None
    direct = quick and not route.has_prelude
    is_simple = keeping is None and route.is_simple
    # All at once, by position: that costs half of what it does to set one field after another.
    return Call(
        series,
        definition,
        scope,
        context,
        CURRENT_RUN.get(),
        clock().time(),
        tags,
        0,
        unary,
        kwargs,
        quick and route.plain,
        direct,
        direct,
        route.attempt_unary if unary and not kwargs else route.attempt,
        gates,
        route.runner,
        route.has_prelude,
        _recording_in(scope),
        bool(around),
        is_simple,
        scope.durable.keep_quickly if is_simple and not gates else None,
        keeping,
        transaction,
    )


def _recording_in(scope: Scope) -> Any:
    """What takes each run that has ended here; see `Call.record`."""
    if scope.is_strict:
        return scope.durable.record_strictly
    return None if scope.recorder is None else scope.recorder.ended.append


_copy: Final[Callable[[Call], Call]] = Call.__copy__  # type: ignore[attr-defined]  # pyright: ignore  # msgspec does not tell of it


def single_call(series: Series, context: Context, unary: bool) -> Call:
    """The Call of one submitted run: a copy of the first one's, unless the task or what is around it says otherwise.

    Raises:
        ConcurrencySlotAcquisitionError: one of the tags has a limit of zero.
    """
    usual: Call | None = series.usual_unary if unary else series.usual
    if (
        usual is None
        or series.route.settled != series.definition.settled
        or CURRENT_TAGS.get()
        or CURRENT_TRANSACTION.get() is not None
    ):
        call = new_call(series, context, unary=unary)
        call.owns_context = series.route.is_once
        if not call.tags and call.transaction is None:
            usual = _copy(call)
            usual.context = usual.parent = None
            usual.series = None  # type: ignore[assignment]  # else it and the series would keep each other
            if unary:
                series.usual_unary = usual
            else:
                series.usual = usual
        return call
    call = _copy(usual)
    call.series = series
    call.context, call.parent, call.created = context, CURRENT_RUN.get(), clock().time()
    if call.record is not None:
        call.record = _recording_in(series.scope)  # the journal may have closed meanwhile
    return call


def submit(
    scope: Scope,
    definition: Definition,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    wait_for: Any = None,
    key: Any = None,
    own: dict[str, Any] | None = None,
) -> RunFuture[Any]:
    """Start one run; returns its future at once.

    key: what it is known by in a durable flow run. own: keywords of upwell's that the function is given all the same.
    """
    parameters = definition.parameters
    if kwargs or not parameters.min_positional <= len(args) <= parameters.max_positional:
        parameters.bind(args, kwargs)
    durable, place = scope.durable, None
    if durable is None:
        series = scope.series.get(definition) or scope.series_of(definition)
    else:
        series, place = durable.place(definition, args, kwargs, wait_for, key)
    if own:
        kwargs = {**kwargs, **own}
    unary = len(args) == 1 and not kwargs
    call = single_call(series, copy_context(), unary)
    item: Any = args[0] if unary else args
    if kwargs:
        call.row_names = tuple(kwargs)
        item = (*args, *kwargs.values())
    run: RunFuture[Any] = RunFuture(call, next(series.numbers) if place is None else place.number, item)
    if place is not None:
        run.durable_key = place.key
        if durable is not None and place.finished is not None and durable.restore(run, place.finished):
            call.let_go()
            return run
        if place.waiting is not None:
            _wait_on(run, place.waiting)
    kind = type(item) if unary else None
    if kind is RunFuture and wait_for is None:
        item.looked = True
        if item.call.scope is not scope:
            _check_dependency(scope, item)
        run.upstream = item
        call.straight = False
        if scope.recorder is not None:
            scope.recorder.fed.append((run, item, None))
    elif wait_for is not None or not (kind in _PLAIN or FINDER.is_plain(args, kwargs)):
        run.upstream = dependencies_of(scope, item)
        if wait_for is not None:
            run.upstream += waited_for(scope, wait_for)
        call.straight = False
        if run.upstream and scope.recorder is not None:
            scope.recorder.fed.append((run, item, wait_for))
    scope.engine.accept_one(run)
    return run


def map_over(
    scope: Scope,
    definition: Definition,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    wait_for: Any = None,
    gates: tuple[Any, ...] = (),
) -> list[RunFuture[Any]] | Lot:
    """Start one run for each row of the mapped inputs; returns their futures in order."""
    plan = definition.parameters.plan_map(args, kwargs)
    if not plan.length:
        return []
    unary = len(args) == 1 and not plan.kwarg_names
    items: list[Any] = list(plan.columns[0] if unary else plan.rows())
    durable, places = scope.durable, None
    numbers: Iterable[int]
    if durable is None:
        series = scope.series_of(definition)
        numbers = series.numbers
    else:
        labels = None if unary else _labels(definition, len(items[0]), plan.kwarg_names)
        series, places = durable.place_map(definition, items, plan.static_kwargs, wait_for, labels)
        numbers = places.numbers
    call = new_call(series, copy_context(), unary=unary, kwargs=plan.static_kwargs or None, gates=gates)
    call.row_names = plan.kwarg_names
    if durable is not None and (finished := durable.restored(call, places)) is not None:
        call.let_go()
        return finished  # type: ignore[no-any-return]
    kept = None if durable is None else durable.columns(places)
    runs = new_runs(call, numbers, items, wait_for, kept)
    if isinstance(runs, Lot):
        scope.engine.accept(runs)
        return runs
    begun = runs if places is None else restored(durable, runs, places)
    if begun:
        _begin(scope, call, begun, items, wait_for, plan.static_kwargs)
    else:
        call.let_go()
    return runs


FEWEST_ON_LOOP: Final = 256
"""Of fewer runs on the loop it is as cheap to make objects."""


def new_runs(
    call: Call,
    numbers: Iterable[int],
    items: list[Any],
    wait_for: Any = None,
    kept: KeptColumns | None = None,
    fewest: int = FEWEST_ON_LOOP,
) -> list[RunFuture[Any]] | Lot:
    """The runs of a map: a lot, where many are executed together, and nothing is to be done around any of them.

    kept: what is stored of them, if nothing else is to be done in their durable flow run. fewest: on the loop are many.
    """
    if (
        (len(items) >= fewest if call.runner is None else getattr(call.runner, "takes_lots", False))
        and (call.plain or (call.is_simple and kept is not None and call.runner is None))
        and call.straight
        and call.unary
        and not (call.kwargs or call.record_fully or call.parent)
        and wait_for is None
        and FINDER.all_plain(items)
    ):
        numbers = list(islice(numbers, len(items)))
        if numbers[-1] - numbers[0] == len(items) - 1:  # else another thread has numbered some in between
            return (LoopLot if call.runner is None else Lot)(call, numbers[0], items, kept)
    return list(map(RunFuture, [call] * len(items), numbers, items))


def _labels(definition: Definition, values: int, kwarg_names: tuple[str, ...]) -> list[str]:
    """What the values in a row of a map are called."""
    names = definition.parameters.names
    positional = values - len(kwarg_names)
    return [*(names[n] if n < len(names) else f"#{n}" for n in range(positional)), *kwarg_names]


def restored(durable: Any, runs: list[RunFuture[Any]], places: Any) -> list[RunFuture[Any]]:
    """End those runs of a map that were finished in an earlier process; returns the others."""
    for run, key in zip(runs, places.keys, strict=True):
        run.durable_key = key
    if places.finished is None:
        return runs
    begun: list[RunFuture[Any]] = []
    calls: dict[Any, Call] = {}
    for index, run in enumerate(runs):
        finished = places.finished[index]
        if finished is None or not durable.restore(run, finished, calls):
            begun.append(run)
            if places.waiting is not None and places.waiting[index] is not None:
                _wait_on(run, places.waiting[index])
    return begun


def _wait_on(run: RunFuture[Any], waiting: Any) -> None:
    """Let a run go on waiting for the attempt that was due when an earlier process died."""
    run.run_count, run.due = waiting.run_count, waiting.due
    run.call.straight = False


def _begin(
    scope: Scope, call: Call, runs: list[RunFuture[Any]], items: list[Any], wait_for: Any, constants: dict[str, Any]
) -> None:
    """See to what the runs of a map wait for, and give them to the engine. items: of all its runs."""
    if wait_for is not None or not (FINDER.all_plain(items) and FINDER.is_plain((), constants)):
        _add_upstream(scope, call, runs, wait_for)
    scope.engine.accept(runs)


def _add_upstream(scope: Scope, call: Call, runs: list[RunFuture[Any]], wait_for: Any) -> None:
    shared = waited_for(scope, wait_for)
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
    if scope.recorder is not None:
        scope.recorder.fed += [(run, run.item, wait_for) for run in runs if run.upstream]


def dependencies_of(scope: Scope | None, value: Any) -> list[Any]:
    """What a run must wait for: the futures in a value; those whose failure is allowed, as a Dependency.

    scope: where the waiting run is; None: its caller waits, and may wait for runs of any runtime.
    Being waited for counts as being looked at.

    Raises:
        ForeignFutureError: one of them is unfinished and of another runtime.
    """
    if type(value) is RunFuture:
        futures: list[Any] = [value]
    elif isinstance(value, list) and set(map(type, value)) == _ONLY_RUNS:
        futures = list(value)
    else:
        found = FINDER.find(value)
        futures = [dependency if dependency.allow_failure else dependency.future for dependency in found]
    for future in futures:
        run = future.future if type(future) is Dependency else future
        if isinstance(run, RunFuture):
            _check_dependency(scope, run)
    return futures


class _GivenState(TaskFuture[Any]):
    """A run in a `wait_for` of which only the state is given: how it has ended."""

    name = "given by its state"

    def __init__(self, state: State) -> None:
        self._state = state

    @property
    def state(self) -> State:
        return self._state

    def is_done(self) -> bool:
        return True  # there is nothing to wait for: a state does not change

    def wait(self, timeout: float | None = None) -> None: ...

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        return self._state.result(raise_on_failure)

    def add_done_callback(self, fn: Callable[[TaskFuture[Any]], object]) -> None:
        fn(self)


def waited_for(scope: Scope | None, wait_for: Any) -> list[Any]:
    """What a `wait_for` names: futures, and states of runs that have been waited for.

    Raises:
        ForeignFutureError: as `dependencies_of`.
    """
    if wait_for is None:
        return []
    upstream = dependencies_of(scope, wait_for)
    for found in STATES.find(wait_for):
        given = _GivenState(found.future)
        upstream.append(Dependency(given, True) if found.allow_failure else given)
    return upstream


def _check_dependency(scope: Scope | None, future: RunFuture[Any]) -> None:
    future.looked = True
    if scope is not None and not future.done and future.call.scope.engine is not scope.engine:
        raise ForeignFutureError(
            f"{future.name!r} belongs to another runtime and has not ended, so no run here can wait for it. "
            "Wait for its result first and pass that."
        )
