"""What the calls of tasks and flows do: direct, submitted, mapped; with the keywords that are upwell's own."""

# An isinstance check cannot say what a generic future holds, and here nobody needs to know.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from upwell.core.definition import Definition, FunctionKind
from upwell.core.errors import BlockingWaitError, ConfigurationError
from upwell.core.flow_states import EndedSubmission
from upwell.core.options import Options, check_at_least_one, check_idempotency_key, check_seconds
from upwell.core.retries import RetryPolicy
from upwell.core.states import CANCELLED, State
from upwell.engine.call import Call
from upwell.engine.console import ensure_configured
from upwell.engine.current import current_scope
from upwell.engine.flow_generators import iterate_flow, iterate_flow_async
from upwell.engine.flow_life import flow_life
from upwell.engine.flow_run import FlowRun, Wish
from upwell.engine.future import RunFuture, TaskFuture
from upwell.engine.gates import Lane, Pace
from upwell.engine.inline import inline_life, inline_run, iterate_inline, iterate_inline_async
from upwell.engine.interrupts import ctrl_c_twice_kills
from upwell.engine.lot import Lot
from upwell.engine.scope import CURRENT_SCOPE, Scope
from upwell.engine.steps import AllEnded, live_async, live_blocking
from upwell.engine.submit import DEFAULT_RUNNER, map_over, submit
from upwell.settings import current as settings

Kwargs = dict[str, Any]
L = TypeVar("L", bound=list[Any])


class MapOptions(NamedTuple):
    """How a map or a stream goes: how many runs at once, how many starts a second, with a bar or not."""

    max_at_once: int | None = None
    max_per_second: float | None = None
    progress: bool | None = None

    def checked(self) -> MapOptions:
        """The same.

        Raises:
            TypeError, ConfigurationError: a bound that is not a number above zero.
        """
        check_at_least_one("max_at_once", self.max_at_once)
        check_seconds("max_per_second", self.max_per_second)
        return self

    def gates(self, title: str) -> tuple[Any, ...]:
        """What each run passes before it starts."""
        gates: list[Any] = []
        if self.max_at_once is not None:
            gates.append(Lane(self.max_at_once, f"the map of {title}"))
        if self.max_per_second is not None:
            gates.append(Pace(self.max_per_second))
        return tuple(gates)

    def wants_progress(self) -> bool:
        return bool(settings().progress if self.progress is None else self.progress)


def _own_keywords(kwargs: Kwargs) -> tuple[bool, Any]:
    """Take `return_state` and `wait_for` out of a call's keywords; no function has parameters of these names."""
    return bool(kwargs.pop("return_state", False)), kwargs.pop("wait_for", None)


def _own_key(definition: Definition, kwargs: Kwargs, keyword: str) -> Any:
    """Take a keyword that is upwell's own out of a call's, unless the function has one of this name."""
    return None if definition.parameters.takes(keyword) else kwargs.pop(keyword, None)


def _has_idempotency_key(definition: Definition, kwargs: Kwargs) -> bool:
    """Whether a submitted flow is given one, which its call takes."""
    return definition.wraps_flow and "idempotency_key" in kwargs and not definition.parameters.takes("idempotency_key")


def call_task(definition: Definition, args: tuple[Any, ...], kwargs: Kwargs) -> Any:
    """A direct call of a task."""
    around = CURRENT_SCOPE.get()
    if around is not None and around.sketch is not None:
        return around.sketch.call(definition, args, kwargs)
    return_state, wait_for = _own_keywords(kwargs) if kwargs else (False, None)
    key = _own_key(definition, kwargs, "key") if kwargs else None
    ensure_configured()
    if definition.kind is FunctionKind.COROUTINE:
        return _call_task_async(definition, args, kwargs, return_state, wait_for, key)
    if return_state and definition.kind.is_generator:
        raise _no_state_of_generator(definition)
    run = inline_run(definition, args, kwargs, wait_for, key)
    if definition.kind is FunctionKind.GENERATOR:
        return iterate_inline(run)
    if definition.kind is FunctionKind.ASYNC_GENERATOR:
        return iterate_inline_async(run)
    live_blocking(inline_life(run))
    return _state_of(run) if return_state else run.result()


def _no_state_of_generator(definition: Definition) -> ConfigurationError:
    return ConfigurationError(
        f"{definition.name!r} is a generator: a direct call of it gives what it yields, and its state is known when "
        "that is over. Take the items, or write `.submit(..., return_state=True)`, whose result is the list of them."
    )


async def _call_task_async(
    definition: Definition, args: tuple[Any, ...], kwargs: Kwargs, return_state: bool, wait_for: Any, key: Any
) -> Any:
    run = inline_run(definition, args, kwargs, wait_for, key)
    await live_async(inline_life(run))
    return _state_of(run) if return_state else run.result()


def _state_of(run: RunFuture[Any]) -> State:
    """The final state of a direct call; what has interrupted it was meant for its caller, too, and is raised."""
    if run.status == CANCELLED and isinstance(run.value, BaseException) and not isinstance(run.value, Exception):
        raise run.exception()
    return run.state


def submit_task(definition: Definition, args: tuple[Any, ...], kwargs: Kwargs, scope: Scope | None = None) -> Any:
    """`.submit`: a future, or with `return_state` the final state."""
    scope = scope or current_scope()
    if scope.sketch is not None:
        return scope.sketch.submit(definition, args, kwargs)
    if not kwargs:
        return submit(scope, definition, args, kwargs)
    return_state, wait_for = _own_keywords(kwargs)
    key = _own_key(definition, kwargs, "key")
    own = {"idempotency_key": kwargs.pop("idempotency_key")} if _has_idempotency_key(definition, kwargs) else None
    future = submit(scope, definition, args, kwargs, wait_for, key, own)
    return _final_states([future], lambda states: states[0]) if return_state else future


def map_task(
    definition: Definition,
    args: tuple[Any, ...],
    kwargs: Kwargs,
    make: Callable[[Any], L],
    scope: Scope | None = None,
) -> Any:
    """`.map`: a list of futures, or with `return_state` of final states."""
    scope = scope or current_scope()
    if scope.sketch is not None:
        return scope.sketch.map(definition, args, kwargs)
    return_state, wait_for = _own_keywords(kwargs)
    own = {
        name: kwargs.pop(name)
        for name in MapOptions._fields
        if name in kwargs and name not in definition.parameters.names
    }
    options = MapOptions(**own).checked()
    ensure_configured()
    args = tuple(map(_resolved, args))
    kwargs = {name: _resolved(value) for name, value in kwargs.items()}
    gates = options.gates(definition.name)
    runs = map_over(scope, definition, args, kwargs, wait_for, gates)
    if runs and options.wants_progress():
        call = runs.call if isinstance(runs, Lot) else _call_under_way(runs)
        handle = show_progress(definition.name, call, len(runs))
        if call.is_restored:
            handle.close()
    return _final_states(runs, lambda states: states) if return_state else make(runs)


def _call_under_way(runs: list[RunFuture[Any]]) -> Call:
    """Of the calls that the runs of a map are of, the one that is not restored, if there is one."""
    return next((run.call for run in runs if not run.call.is_restored), runs[0].call)


def show_progress(title: str, call: Call, total: int | None, taken: Callable[[], int] | None = None) -> Any:
    """A bar that counts the runs of a call which have ended, and closes itself after the last."""

    from upwell.engine.progress import with_progress  # only here: most maps show no bar

    def done() -> int:
        return taken() if taken is not None else (total or 0) - call.open

    handle = with_progress(title, total, done, lambda: call.failed)
    call.on_end = handle.close
    return handle


def _resolved(value: Any) -> Any:
    """What is mapped over must be known: a future in its place is waited for."""
    if isinstance(value, TaskFuture):
        future: TaskFuture[Any] = value
        try:
            return future.result()
        except BlockingWaitError:
            raise BlockingWaitError(
                "A map over a future needs its result, to know how many runs there are. Await it first: "
                "`task.map(await future)`."
            ) from None
    return value


def _final_states(runs: Sequence[RunFuture[Any]], pick: Callable[[list[State]], Any]) -> Any:
    """The final states: in sync code by waiting, on the loop's own thread as something to await."""

    async def ended() -> Any:
        await AllEnded(runs).wait()
        return pick([run.state for run in runs])

    if runs and runs[0].call.scope.engine.on_loop_thread():
        return ended()
    for run in runs:
        run.wait()
    return pick([run.state for run in runs])


# --- flows ------------------------------------------------------------------------------------------------


def call_flow(definition: Definition, args: tuple[Any, ...], kwargs: Kwargs, wish: Wish | None = None) -> Any:
    """A direct call of a flow. wish: which run is meant, where it is not just a new one."""
    around = CURRENT_SCOPE.get()
    if around is not None and around.sketch is not None:
        return around.sketch.call(definition, args, kwargs)
    return_state, wait_for = _own_keywords(kwargs) if kwargs else (False, None)
    key = _own_key(definition, kwargs, "idempotency_key") if kwargs else None
    if key is not None:
        wish = Wish(idempotency_key=check_idempotency_key(key))
        if definition.kind.is_generator:
            raise ConfigurationError(
                f"The flow {definition.name!r} is a generator: what it yields is not kept, so it takes no "
                "idempotency_key."
            )
    if return_state and definition.kind.is_generator:
        raise _no_state_of_generator(definition)
    ensure_configured()
    if definition.kind is FunctionKind.COROUTINE:
        return _call_flow_async(definition, args, kwargs, return_state, wait_for, wish)
    if definition.kind is FunctionKind.GENERATOR:
        return iterate_flow(definition, args, kwargs, wait_for)
    if definition.kind is FunctionKind.ASYNC_GENERATOR:
        return iterate_flow_async(definition, args, kwargs, wait_for)
    run = FlowRun(definition, args, kwargs, wish)
    with ctrl_c_twice_kills():
        live_blocking(flow_life(run, wait_for))
    return _flow_answer(run, return_state)


async def _call_flow_async(
    definition: Definition, args: tuple[Any, ...], kwargs: Kwargs, return_state: bool, wait_for: Any, wish: Wish | None
) -> Any:
    run = FlowRun(definition, args, kwargs, wish)
    with ctrl_c_twice_kills():
        await live_async(flow_life(run, wait_for))
    return _flow_answer(run, return_state)


def _flow_answer(run: FlowRun, return_state: bool) -> Any:
    if return_state:
        return run.state
    if run.state.is_completed():
        return run.state.data
    raise run.exception()


def flow_as_task(definition: Definition) -> Definition:
    """What `.submit` and `.map` of a flow run: its direct call, on the loop or on a thread."""

    async def call_async(*args: Any, **kwargs: Any) -> Any:
        if definition.kind.is_generator:
            return [item async for item in call_flow(definition, args, kwargs)]
        return EndedSubmission(await call_flow(definition, args, {**kwargs, "return_state": True}))

    def call(*args: Any, **kwargs: Any) -> Any:
        if definition.kind.is_generator:
            return list(call_flow(definition, args, kwargs))
        return EndedSubmission(call_flow(definition, args, {**kwargs, "return_state": True}))

    fn = functools.wraps(definition.fn)(call_async if definition.kind.is_async else call)
    options = Options(task_runner=DEFAULT_RUNNER)
    return Definition(
        fn, definition.name, options, definition.parameters, RetryPolicy(), definition.face, wraps_flow=True
    )
