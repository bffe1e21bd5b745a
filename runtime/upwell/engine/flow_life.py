"""The life of a flow run, told once: from its parameters to its final state. `steps` says how a thread or a loop
carries it out.
"""

# An isinstance check cannot say what a generic future holds, and here nobody needs to know.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, cast

from msgspec import Struct
from msgspec.structs import replace

from upwell.core.dependencies import Dependency
from upwell.core.errors import FailedRun, FlowRunTimeoutError, MissingResult, UpwellError
from upwell.core.flow_states import state_from_states, state_from_unseen
from upwell.core.lifecycle import (
    RAISED,
    RETURNED,
    TIMED_OUT,
    WAS_CANCELLED,
    Finish,
    Outcome,
    describe,
    final_state,
    safe_repr,
)
from upwell.core.names import render_name
from upwell.core.results import ResultRecord, not_kept
from upwell.core.states import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    FAILED,
    NOT_READY,
    PENDING,
    RUNNING,
    SCHEDULED,
    State,
    StateType,
)
from upwell.engine.attempt import outcome_of
from upwell.engine.caching import results_of_flow
from upwell.engine.caching_inline import Beside
from upwell.engine.chance import random_part
from upwell.engine.clock import clock, moment
from upwell.engine.flow_run import EndedFlowRun, FlowRun
from upwell.engine.future import CURRENT_RUN
from upwell.engine.interrupts import INTERRUPTED_BY_CTRL_C, Stopped, ctrl_c_was_pressed, interrupted_after, meant_by
from upwell.engine.prints import printing_to_log
from upwell.engine.scope import CURRENT_SCOPE, names_of
from upwell.engine.settle import trace_once, why_not_ready
from upwell.engine.steps import AllEnded, CallUser, Life, ScopeEmpty, Sleep, Written
from upwell.engine.stopping import UnderWay
from upwell.engine.submit import FINDER, dependencies_of, is_completed, value_of, waited_for
from upwell.settings import page_of_flow_run


class Ending(Struct, frozen=True):
    """How a flow run ends: its final state, its value or exception, and what interrupted the caller, if anything."""

    finish: Finish
    value: Any = None
    interruption: BaseException | None = None
    is_known: bool = False  # another process has come to this end, and recorded it


def flow_life(run: FlowRun, wait_for: Any = None) -> Life[None]:
    """From the parameters of a flow run to its final state; then `run.state` is final.

    A cancellation or Ctrl-C of the caller is raised again at the end, when all that the flow started is over.
    """
    under_way = UnderWay(run)
    try:
        ending = yield from _attempts(run, wait_for)
        interruptions = yield from conclude(run, ending)
    finally:
        under_way.ended()
    under_way.pass_on(interruptions)


def conclude(run: FlowRun, ending: Ending) -> Life[list[BaseException]]:
    """Call the hooks, enter the final state, and say so; answers with what has interrupted the run until then.

    Who is interrupted here has ended all the same.
    """
    interruptions = [] if ending.interruption is None else [ending.interruption]
    state = State(
        type=ending.finish.type,
        name=ending.finish.name or ending.finish.type.value.capitalize(),
        message=ending.finish.message,
        data=ending.value,
    )
    try:
        if not ending.is_known:
            yield from call_hooks(run, state)
    except BaseException as error:
        interruptions.append(error)
    try:
        yield from _enter(run, state, is_known=ending.is_known)
    except BaseException as error:
        interruptions.append(error)
    return interruptions


def _enter(run: FlowRun, state: State, *, is_known: bool) -> Life[None]:
    if is_known:
        run.states.append(state)
    else:
        run.move(state)
    if run.scope.parent is not None and run.scope.parent.durable is not None:
        run.scope.parent.durable.children.keep(run)
    _log_end(run)
    run.scope.close(EndedFlowRun(run.id, run.name, run.flow_name))
    if run.scope.recorder is not None and run.parent_flow_run_id is None:
        yield Written(run.scope.recorder)  # before the caller gets the answer


def _persisted(run: FlowRun, ending: Ending) -> Generator[Any, Any, Ending]:
    """Store the result of a flow run that says so, or is to be known again; one that cannot be stored has failed."""
    if ending.finish.type is not COMPLETED:
        return ending
    results = results_of_flow(run.definition)
    try:
        if results is None:
            _keep_result(run, ending.value)
        else:
            record: ResultRecord = yield Beside(results.put, ending.value)
            run.result_record = record.to_bytes()
    except Exception as error:
        message = f"Its result cannot be stored: {describe(error)}"
        return replace(ending, finish=Finish(FAILED, None, message), value=error)
    return ending


def _attempts(run: FlowRun, wait_for: Any) -> Generator[Any, Any, Ending]:
    try:
        problem = yield from prepare(run, wait_for)
        if problem is not None:
            return problem
        while True:
            yield from begin_attempt(run)
            attempt = FlowAttempt(run)
            outcome: Outcome = yield attempt
            ending = yield from end_children(run, outcome, attempt.seconds_left())
            if not (yield from is_tried_again(run, ending)):
                return (yield from _persisted(run, ending))
    except BaseException as error:  # the caller was interrupted between attempts
        return (yield from interrupted(run, error))


def interrupted(run: FlowRun, error: BaseException) -> Generator[Any, Any, Ending]:
    """The end of a run whose caller was interrupted between attempts."""
    outcome = outcome_of(error)
    outcome.kind, outcome.value = WAS_CANCELLED, error
    return (yield from end_children(run, outcome))


def begin_attempt(run: FlowRun) -> Life[None]:
    """Say that the flow's code begins, maybe again."""
    run.run_count += 1
    run.move(State(type=RUNNING, name="Running" if run.run_count - run.crashes <= 1 else "Retrying"))
    yield from call_hooks(run, run.state)


def prepare(run: FlowRun, wait_for: Any) -> Generator[Any, Any, Ending | None]:
    """Wait for the futures among the arguments, bind and validate, and give the run its name."""
    definition = run.definition
    given, is_plain = (run.args, run.kwargs), FINDER.is_plain(run.args, run.kwargs)
    upstream = ([] if is_plain else dependencies_of(None, list(given))) + waited_for(None, wait_for)
    if upstream:
        yield AllEnded([getattr(dependency, "future", dependency) for dependency in upstream])
        for future in upstream:
            if type(future) is not Dependency and not is_completed(future):
                message, _ = why_not_ready(future)
                return Ending(Finish(PENDING, NOT_READY, message))
    try:
        args, kwargs = given if is_plain else FINDER.resolve(given, value_of)
        parameters = definition.parameters.bind(args, kwargs)
        options = definition.options
        if options.validate_parameters:
            parameters = definition.parameters.validate(parameters)
        run.parameters = parameters
        run.args, run.kwargs = definition.parameters.call_args(parameters)
        if options.run_name is not None:
            with inside(run):  # a function may ask where it is
                run.name = render_name(options.run_name, parameters)
            run.scope.name = f"flow run '{run.name}'"
    except UpwellError as error:
        message = f"Validation of flow parameters failed with error: {describe(error)}"
        return Ending(Finish(FAILED, None, message), error)
    except Exception as error:
        return Ending(Finish(FAILED, None, f"The flow run could not be named: {describe(error)}"), error)
    if run.needs_claim:
        known = yield from _claim(run)
        if known is not None:
            return known
    run.log.info("Beginning flow run '%s' for flow '%s'", run.name, run.flow_name)
    if run.parent_flow_run_id is None and (page := page_of_flow_run(run.id)) is not None:
        run.log.info("View at %s", page)
    return None


def _claim(run: FlowRun) -> Generator[Any, Any, Ending | None]:
    """Have the store say which run this is; its end, if it has ended already."""
    from upwell.engine.durability import begin_durably, fork_instead  # here: it costs a start more than most flows need

    try:
        claim = yield from begin_durably(run)
        if claim.ended is None:
            return None
        try:
            return _known_end(run, claim.ended)
        except MissingResult:
            if run.wish.idempotency_key is not None:
                raise
        yield from fork_instead(run, claim)
        return None
    except UpwellError as error:
        return Ending(Finish(FAILED, None, f"The flow run could not begin: {describe(error)}"), error)


def _known_end(run: FlowRun, ended: tuple[str, str | None, str | None, bytes | None]) -> Ending:
    """How another process has ended this run.

    Raises:
        MissingResult: it completed, and its result was not stored, or is gone.
    """
    state, name, message, result = ended
    finish = Finish(StateType(state), name, message)
    if finish.type is not COMPLETED:
        return Ending(finish, None, None, True)
    if result is None:
        raise not_kept(run.name)
    run.result_record = result
    return Ending(finish, run.scope.recorder.journal.kept.load(result), None, True)  # type: ignore[union-attr]  # it asked


def _keep_result(run: FlowRun, value: Any) -> None:
    """Store the value of a durable or keyed flow run, for who calls it again, or resumes what is around it.

    Raises:
        UpwellError: it cannot be stored; says what, and why.
    """
    recorder = run.scope.recorder
    if not run.needs_claim or recorder is None:
        return
    try:
        run.result_record, run.result_file = recorder.journal.kept.dump(value)
    except UpwellError as error:
        if run.parent_flow_run_id is None or run.wish.idempotency_key is not None:
            raise
        run.log.warning("The result of flow run '%s' cannot be stored, and can only be read here: %s", run.name, error)


class FlowAttempt:
    """Call the flow's function in its scope; answers with the outcome, never raises."""

    __slots__ = ("_began", "_run")

    def __init__(self, run: FlowRun) -> None:
        self._run = run
        self._began = clock().time()

    def block(self) -> Outcome:
        run = self._run
        try:
            with inside(run), interrupted_after(run.definition.options.timeout_seconds, self.timeout):
                value = run.definition.fn(*run.args, **run.kwargs)
                if run.definition.hides_coroutine:
                    run.definition.check_returned(value)
                return Outcome(RETURNED, value)
        except BaseException as error:
            return self.outcome(error)

    async def wait(self) -> Outcome:
        run = self._run
        limit = asyncio.timeout(run.definition.options.timeout_seconds)
        try:
            with inside(run):
                async with limit:
                    returned = run.definition.fn(*run.args, **run.kwargs)
                    return Outcome(RETURNED, await returned)
        except BaseException as error:
            return self.outcome(self.timeout() if isinstance(error, TimeoutError) and limit.expired() else error)

    def seconds_left(self) -> float | None:
        """For what it has started and left behind; None: as long as it likes."""
        seconds = self._run.definition.options.timeout_seconds
        return None if seconds is None else max(seconds - (clock().time() - self._began), 0)

    def timeout(self) -> FlowRunTimeoutError:
        """What its code is interrupted with."""
        return FlowRunTimeoutError(
            f"Flow run exceeded timeout of {self._run.definition.options.timeout_seconds} second(s)"
        )

    def outcome(self, error: BaseException) -> Outcome:
        error = meant_by(error)
        outcome = outcome_of(error)
        if isinstance(error, FlowRunTimeoutError):
            outcome.kind = TIMED_OUT
        if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
            outcome.kind = WAS_CANCELLED
        outcome.value = error
        return outcome


@contextmanager
def inside(run: FlowRun) -> Generator[None, None, None]:
    """The code inside is the flow run's: what it starts belongs to its scope, what it prints to its log."""
    scope_token = CURRENT_SCOPE.set(run.scope)
    run_token = CURRENT_RUN.set(None)
    try:
        with printing_to_log(run.definition.options.log_prints):
            yield
    finally:
        CURRENT_RUN.reset(run_token)
        CURRENT_SCOPE.reset(scope_token)


def end_children(run: FlowRun, outcome: Outcome, seconds_left: float | None = None) -> Generator[Any, Any, Ending]:
    """Wait for everything that the attempt has started, then say how the run ends.

    After an exception, what has not begun does not begin, and what runs is waited for. After a timeout, a
    cancellation or Ctrl-C, also one that comes while it waits, what runs is cancelled too.
    seconds_left: how long what runs may go on, after which the run has timed out.
    """
    scope = run.scope
    interruption = outcome.value if outcome.kind is WAS_CANCELLED else None
    if outcome.kind is not RETURNED:
        _stop(run, outcome, also_running=outcome.kind is not RAISED)
    elif scope.streams:
        scope.perform(lambda: scope.end_streams(f"{scope.name} has returned."))
    if outcome.kind is not RETURNED and outcome.kind is not RAISED:
        seconds_left = None
    was_stopped = scope.stop_reason is not None
    while True:
        try:
            if (yield ScopeEmpty(scope, seconds_left)):
                break
            seconds_left, attempt = None, FlowAttempt(run)
            timed_out = attempt.outcome(attempt.timeout())
            _stop(run, timed_out, also_running=True)
            if outcome.kind is RETURNED:
                outcome = timed_out
        except BaseException as error:
            if interruption is None:
                interruption, seconds_left = error, None
                outcome = Outcome(WAS_CANCELLED, error)
                _stop(run, outcome, also_running=True)
    if cancelled := scope.what_was_cancelled():
        run.log.warning("%s", cancelled)
    if outcome.kind is RETURNED and scope.stop_reason is not None and not was_stopped:  # as by a runtime that closes
        return Ending(Finish(CANCELLED, None, scope.stop_reason))
    if outcome.kind is RETURNED:
        return _ending_of_returned(run, outcome.value)
    if outcome.kind is WAS_CANCELLED:
        return Ending(Finish(CANCELLED, None, why_interrupted(run, outcome.value)), None, interruption)
    return Ending(final_state(outcome, "Flow run"), outcome.value)


def _stop(run: FlowRun, outcome: Outcome, *, also_running: bool) -> None:
    scope = run.scope
    if outcome.kind is WAS_CANCELLED:
        reason = f"{scope.name} was cancelled: {why_interrupted(run, outcome.value)}"
        run.move(State(type=CANCELLING, message=reason))
    else:
        reason = f"{scope.name} failed: {describe(outcome.value)}"
    scope.perform(lambda: scope.stop(reason, also_running))


def why_interrupted(run: FlowRun, error: BaseException | None) -> str:
    """Why a run's code was interrupted, as far as anything says it."""
    if run.stop_reason is not None:
        return run.stop_reason
    if not isinstance(error, Stopped) and (isinstance(error, KeyboardInterrupt) or ctrl_c_was_pressed()):
        return INTERRUPTED_BY_CTRL_C
    detail = str(error) if error is not None else ""
    return detail or "The code around it was cancelled."


def _ending_of_returned(run: FlowRun, value: Any) -> Ending:
    """The end of a flow run whose function returned."""
    if isinstance(value, State) and value.is_final():
        return Ending(Finish(value.type, value.name, value.message), value.data)
    states = _states_in(value)
    if states:
        finish = state_from_states(states)
        if finish.type is COMPLETED:
            try:
                return Ending(finish, FINDER.resolve(value, value_of))
            except Exception as problem:  # such as: a set that is to hold a list
                return Ending(Finish(FAILED, None, f"Its result cannot be put together: {describe(problem)}"), problem)
        bad = next(state for state in states if not state.is_completed())
        return Ending(finish, bad.exception())
    unseen = run.scope.never_looked_at()
    if unseen:
        finish = state_from_unseen(names_of(unseen), len(unseen), run.scope.total)
        error = FailedRun(finish.message)
        error.__cause__ = unseen[0].exception()
        return Ending(finish, error)
    return Ending(Finish(COMPLETED), value)


def _states_in(value: Any) -> list[State]:
    """The states that a returned value stands for: of the futures in it, or the states that it lists."""
    if isinstance(value, State):
        return [value]
    if isinstance(value, list | tuple | set):
        items = list(cast("Iterable[Any]", value))
        if items and all(isinstance(item, State) for item in items):
            return items
    if FINDER.is_plain((value,), {}):
        return []
    return [dependency.future.state for dependency in FINDER.find(value)]


def is_tried_again(run: FlowRun, ending: Ending) -> Generator[Any, Any, bool]:
    """Whether an attempt is left and wanted; waits for its time."""
    definition, retries = run.definition, run.definition.retry.retries
    if ending.finish.type is not FAILED or run.run_count - run.crashes > retries or ending.interruption is not None:
        return False
    if definition.options.retry_condition_fn is not None:
        state = State(type=FAILED, name="Failed", message=ending.finish.message, data=ending.value)
        try:
            if not (yield CallUser(definition.options.retry_condition_fn, definition.face, run, state)):
                return False
        except Exception:
            run.log.exception("The retry condition raised, so the run is not retried")
            return False
    delay = definition.retry.delay(run.run_count, random_part())
    run.log.info(
        "Flow run failed: %s - Retry %s/%s will start in %g second(s)",
        ending.finish.message,
        run.run_count,
        retries,
        delay,
    )
    run.move(
        State(
            type=SCHEDULED,
            name="AwaitingRetry",
            message=ending.finish.message,
            scheduled_time=moment(clock().time() + delay),
        )
    )
    if run.scope.durable is not None:
        yield Written(run.scope.durable.recorder)  # the ends of its subflow runs, which the store is asked for
    yield Sleep(delay)
    run.scope.begin_again()
    if run.scope.durable is not None:
        run.scope.durable.begin_again()
    return True


def call_hooks(run: FlowRun, state: State) -> Life[None]:
    for hook in run.definition.hooks.get(state.type, ()):
        try:
            yield CallUser(hook, run.definition.face, run, state)
        except Exception:
            run.log.exception("The hook %r failed", getattr(hook, "__name__", hook))


def _log_end(run: FlowRun) -> None:
    if not run.is_one:
        return  # whoever asked for another one is told why they cannot have it
    state = run.state
    level = logging.INFO if state.is_completed() else logging.ERROR
    if state.is_failed() and isinstance(state.data, BaseException):
        run.log.error(
            "Encountered exception during execution: %s", safe_repr(state.data), exc_info=trace_once(state.data)
        )
    run.log.log(level, "Finished in state %s", state)
