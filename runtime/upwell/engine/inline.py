"""Direct calls of tasks: run here and now, in the caller's own thread or coroutine, with no hop."""

# An isinstance check cannot say what a generic future holds, and here nobody needs to know.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from upwell.core.definition import Definition
from upwell.core.dependencies import Dependency
from upwell.core.lifecycle import RAISED, RETURNED, WAS_CANCELLED, Finish, Outcome, final_state, may_retry
from upwell.core.states import COMPLETED, PENDING, RUNNING, SCHEDULED, State, StateType
from upwell.engine.attempt import attempt_fully, outcome_of, timeout_error
from upwell.engine.caching_inline import give_up, keep_result, look_up
from upwell.engine.chance import random_part
from upwell.engine.clock import clock
from upwell.engine.current import scope_of_direct_call
from upwell.engine.future import CURRENT_RUN, RunFuture
from upwell.engine.generators import Bounds, Iteration, iterate, iterate_async
from upwell.engine.interrupts import interrupted_after, meant_by, why_interrupted
from upwell.engine.limits import PROCESS_LIMITS, NamedLimit
from upwell.engine.logs import task_run_logger
from upwell.engine.prelude import name_run
from upwell.engine.prints import printing_to_log
from upwell.engine.records import record_of
from upwell.engine.settle import (
    finish,
    goes_on_waiting,
    keep,
    log_end,
    never_ready,
    record_retry,
    retry_message,
    state_of,
)
from upwell.engine.steps import AllEnded, CallUser, Life, Sleep, Written
from upwell.engine.submit import FINDER, dependencies_of, is_completed, new_call, resolved, waited_for
from upwell.engine.waits import give_back_tickets, holders_of, limits_held_by, take_tickets

Run = RunFuture[Any]

_RUNNING: Final[str] = RUNNING.value  # an enum's `value` takes as long as much of what is done here


def inline_run(
    definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], wait_for: Any, key: Any = None
) -> Run:
    """The record of a direct call; its life is `inline_life`. key: what it is known by in a durable flow run.

    Raises:
        ParameterBindError: the arguments do not fit.
    """
    if not definition.parameters.accepts(len(args), kwargs):
        definition.parameters.bind(args, kwargs)
    scope = scope_of_direct_call()
    durable, place = scope.durable, None
    if durable is None:
        series = scope.series_of(definition)
        series.submitted += 1
    else:
        can_be = not definition.kind.is_generator  # of which the caller takes more than the result
        series, place = durable.place(definition, args, kwargs, wait_for, key, restorable=can_be)
    call = new_call(series, None, unary=False)  # never opened: its caller waits for it, so its scope need not
    item: Any = args
    if kwargs:
        call.row_names = tuple(kwargs)
        item = (*args, *kwargs.values())
    number = next(series.numbers) if place is None else place.number
    run: Run = RunFuture(call, number, item, inline=True, looked=True)
    if place is not None:
        run.durable_key = place.key
        if durable is not None and place.finished is not None and durable.restore(run, place.finished):
            return run
        if place.waiting is not None:
            run.run_count, run.due = place.waiting.run_count, place.waiting.due
    plain = FINDER.is_plain(args, kwargs)
    if not plain or wait_for is not None:
        run.upstream = [*dependencies_of(None, item), *waited_for(None, wait_for)]
        if scope.recorder is not None:
            scope.recorder.fed.append((run, item, wait_for))
            if scope.is_strict:
                scope.recorder.strict.note()
    return run


def record_begin(run: Run) -> None:
    """Record that the run's code begins now."""
    recorder = run.call.scope.recorder
    if recorder is not None:
        recorder.begun.append(run)
        recorder.wake()


def inline_life(run: Run) -> Life[None]:
    """From the dependencies of a direct call to its final state."""
    if run.done:
        return  # it was finished in an earlier process
    retries, computation = run.call.definition.retry.retries, None
    try:
        if run.upstream is not None and not (yield from _upstream(run)):
            return
        if run.call.keeping is not None:
            computation, found = yield from look_up(run)
            if found is not None:
                name_run(run)
                yield from _end(run, found, "Cached")
                return
        yield from _begin(run)
        limits = _limits(run)
        if run.due and run.due > clock().time():
            goes_on_waiting(run)
            yield Sleep(run.due - clock().time())
            run.status, run.state_name = PENDING.value, "Retrying"
        recorder = run.call.scope.recorder
        strict = recorder.strict if recorder is not None and run.call.scope.is_strict else None
        while True:
            if recorder is not None and strict is not None and not strict.are_safe():
                happened = strict.happened()
                yield Written(recorder)
                strict.became_safe(happened)
            elif recorder is not None and recorder.is_full():
                yield Written(recorder)
            run.tickets = yield from take_tickets(limits)
            run.status = _RUNNING
            run.run_count += 1
            run.started = clock().time()
            record_begin(run)
            outcome: Outcome = yield InlineAttempt(run)
            give_back_tickets(run)
            if not may_retry(outcome, run.run_count, retries) or not (yield from _is_tried_again(run, outcome)):
                break
        if run.call.keeping is not None:
            outcome = yield from keep_result(run, computation, outcome)
        yield from _end(run, outcome)
    except BaseException as error:
        give_up(computation)
        _interrupted(run, error)
        raise


class InlineAttempt:
    """Call the function in the caller's own thread or coroutine; answers with the outcome, never raises."""

    __slots__ = ("_run",)

    def __init__(self, run: Run) -> None:
        self._run = run

    def block(self) -> Outcome:
        run = self._run
        definition = run.call.definition
        token = CURRENT_RUN.set(run)
        try:
            if definition.plain:
                value = definition.fn(*run.args, **run.kwargs)
            else:
                options = definition.options
                with (
                    printing_to_log(options.log_prints),
                    interrupted_after(options.timeout_seconds, lambda: timeout_error(run)),
                ):
                    value = definition.fn(*run.args, **run.kwargs)
            if definition.hides_coroutine:
                definition.check_returned(value)
        except BaseException as error:
            return _outcome(error)
        finally:
            CURRENT_RUN.reset(token)
        return Outcome(RETURNED, value)

    async def wait(self) -> Outcome:
        token = CURRENT_RUN.set(self._run)
        try:
            value = await attempt_fully(self._run)
        except BaseException as error:
            return _outcome(error)
        finally:
            CURRENT_RUN.reset(token)
        return Outcome(RETURNED, value)


def _outcome(error: BaseException) -> Outcome:
    error = meant_by(error)
    outcome = outcome_of(error)
    if isinstance(error, KeyboardInterrupt):  # the caller's, as a cancellation is
        outcome.kind, outcome.message = WAS_CANCELLED, why_interrupted(error)
    if outcome.kind is WAS_CANCELLED:
        outcome.value = error  # a direct call raises what the caller was cancelled with
    return outcome


def _upstream(run: Run) -> Generator[Any, Any, bool]:
    """Wait for the futures among the arguments and put their results in their place; False: one has failed."""
    upstream: list[Any] = run.upstream
    yield AllEnded([getattr(dependency, "future", dependency) for dependency in upstream])
    for future in upstream:
        if type(future) is not Dependency and not is_completed(future):
            never_ready(run, future)
            return False
    try:
        run.item = resolved(run.item)
    except Exception as error:  # such as: a set that is to hold a list
        yield from _end(run, Outcome(RAISED, error))
        return False
    run.upstream = None
    return True


def _begin(run: Run) -> Life[None]:
    definition = run.call.definition
    name_run(run)
    for hook in definition.hooks[RUNNING]:
        state = State(type=RUNNING, name="Running")
        yield from _hook(run, hook, state)


def _limits(run: Run) -> list[NamedLimit]:
    """The limits of the run's tags, but for those that the runs which call it hold: it runs in their place.

    Raises:
        ConcurrencySlotAcquisitionError: one of them is zero.
    """
    tags = run.call.tags
    if not tags:
        return []
    scope = run.call.scope
    known = getattr(scope.engine, "limits", PROCESS_LIMITS) if scope.has_engine else PROCESS_LIMITS
    found = (known.get(f"tag:{tag}") for tag in sorted(tags)) if known else ()
    limits = [limit for limit in found if limit is not None]
    for limit in limits:
        limit.check_that_it_lets_anybody_through()
    around = limits_held_by(holders_of(run.call.parent)) if limits and run.call.parent is not None else ()
    return [limit for limit in limits if limit not in around]


def _interrupted(run: Run, error: BaseException) -> None:
    """The caller was interrupted between attempts."""
    if not run.done:
        finish(run, StateType.CANCELLED, error, f"Cancelled: {str(error) or repr(error)}", None, clock().time())


def _is_tried_again(run: Run, outcome: Outcome) -> Generator[Any, Any, bool]:
    """Whether the attempt that is left is wanted; waits for its time."""
    if run.call.definition.options.retry_condition_fn is not None and not (yield from _wants_retry(run, outcome)):
        return False
    yield from _wait_for_retry(run, outcome)
    return True


def _wants_retry(run: Run, outcome: Outcome) -> Generator[Any, Any, bool]:
    definition = run.call.definition
    condition: Any = definition.options.retry_condition_fn
    state = state_of(final_state(outcome, "Task run"), outcome.value, clock().time())
    try:
        wanted = yield CallUser(condition, definition.face, record_of(run), state)
    except Exception:
        task_run_logger(run).exception("The retry condition raised, so the run is not retried")
        return False
    return bool(wanted)


def _wait_for_retry(run: Run, outcome: Outcome) -> Life[None]:
    delay = run.call.definition.retry.delay(run.run_count, random_part())
    retry_message(run, outcome, delay)
    if delay:
        run.status, run.state_name = SCHEDULED.value, "AwaitingRetry"
        run.due = clock().time() + delay
        record_retry(run, clock().time())
        yield Sleep(delay)
        run.status, run.state_name = PENDING.value, "Retrying"
    else:
        run.status, run.state_name = PENDING.value, "Retrying"
        record_retry(run, clock().time())


def _end(run: Run, outcome: Outcome, name: str | None = None) -> Life[None]:
    now = clock().time()
    if outcome.kind is RETURNED:
        outcome = keep(run, outcome)
    if outcome.kind is RETURNED and run.call.definition.silent:
        finish(run, COMPLETED, outcome.value, outcome.message or None, name, now)
        return
    end = final_state(outcome, "Task run")
    if name is not None and end.type is COMPLETED:
        end = Finish(COMPLETED, name, outcome.message)
    state = state_of(end, outcome.value, now)
    for hook in run.call.definition.hooks[end.type]:
        yield from _hook(run, hook, state)
    if end.type is not COMPLETED:
        log_end(run, outcome, state)
    finish(run, end.type, outcome.value, end.message, end.name, now)


def _hook(run: Run, hook: Any, state: State) -> Life[None]:
    try:
        yield CallUser(hook, run.call.definition.face, record_of(run, state), state)
    except Exception:
        task_run_logger(run).exception("The hook %r failed", getattr(hook, "__name__", hook))


# --- generators: the run is under way for as long as the caller takes from it --------------------------------


def iterate_inline(run: Run) -> Generator[Any, Any, Any]:
    """A generator task, called directly."""
    return iterate(_begin_iterating(run))


def iterate_inline_async(run: Run) -> AsyncGenerator[Any, Any]:
    """An async generator task, called directly."""
    return iterate_async(_begin_iterating(run))


@contextmanager
def inside(run: Run) -> Generator[None, None, None]:
    """The code inside is the run's own."""
    token = CURRENT_RUN.set(run)
    try:
        with printing_to_log(run.call.definition.options.log_prints):
            yield
    finally:
        CURRENT_RUN.reset(token)


def _begin_iterating(run: Run) -> Life[Iteration]:
    if run.upstream is not None and not (yield from _upstream(run)):
        raise run.exception()
    yield from _begin(run)
    bounds = Bounds(run, _limits(run), run.timeout_seconds, lambda: timeout_error(run))
    return Iteration(run, _generator(run), partial(inside, run), _outcome, partial(_end_iterating, run, bounds), bounds)


def _generator(run: Run) -> Any:
    """That of another attempt."""
    run.status = RUNNING.value
    run.run_count += 1
    run.started = clock().time()
    record_begin(run)
    return run.call.definition.fn(*run.args, **run.kwargs)


def _end_iterating(run: Run, bounds: Bounds, outcome: Outcome, untouched: bool) -> Life[Any]:
    try:
        may = untouched and may_retry(outcome, run.run_count, run.call.definition.retry.retries)
        if may and (yield from _is_tried_again(run, outcome)):
            bounds.renew()
            return _generator(run)
        yield from _end(run, outcome)
    except BaseException as error:
        _interrupted(run, error)
        raise
    return None
