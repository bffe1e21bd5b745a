"""What becomes of a run when an attempt has ended: retried after a delay, or final with its hooks called."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from itertools import islice
from typing import Any, Final

from upwell.core.flow_states import EndedSubmission
from upwell.core.lifecycle import RETURNED, WAS_CANCELLED, Finish, Outcome, final_state, may_retry, safe_repr
from upwell.core.states import COMPLETED, FAILED, NOT_READY, PENDING, RUNNING, SCHEDULED, State, StateType
from upwell.engine.attempt import call_hook
from upwell.engine.call import Call
from upwell.engine.chance import random_part
from upwell.engine.clock import clock, moment
from upwell.engine.future import RunFuture
from upwell.engine.logs import task_run_logger
from upwell.engine.lot import Lot
from upwell.engine.prelude import name_run
from upwell.engine.records import record_of

Run = RunFuture[Any]

_COMPLETED: Final[str] = COMPLETED.value


def complete(run: Run, value: Any, now: float) -> None:
    """A run with nothing to be done around it has returned: the shortest way to its end."""
    run.value = value
    run.ended = now
    if run.run_count > 1:
        run.state_name = run.message = None  # those of the attempt that failed
    run.status = _COMPLETED
    run.done = True
    call = run.call
    if call.record is None:
        run.item = None
    else:
        call.record(run)  # the journal shows the arguments, and lets them go
    watchers = run.watchers
    if watchers is not None:
        if type(watchers) is RunFuture and watchers.item is run and watchers.upstream is run:
            run.watchers = None  # the one dependant there is takes the result as its only argument
            call.scope.engine.upstream_completed(watchers, value)
        else:
            run.notify()
    call.open -= 1
    if not call.open:
        call.run_ended()


def complete_found(call: Call, runs: Sequence[Run], values: Sequence[Any], messages: Sequence[str], now: float) -> None:
    """The same for runs of one call that never began, because their results were in the cache."""
    record, ended = call.record, 0
    call.scope.live.difference_update(runs)
    for run, value, message in zip(runs, values, messages, strict=True):
        if run.done:  # somebody who watched one before has cancelled it
            continue
        run.value = value
        run.message = message
        run.state_name = "Cached"
        run.ended = now
        run.status = _COMPLETED
        run.done = True
        if record is None:
            run.item = None
        else:
            record(run)
        if run.watchers is not None:
            run.notify()
        ended += 1
    call.open -= ended
    if not call.open:
        call.run_ended()


def complete_many(call: Call, runs: Sequence[Run], values: Sequence[Any], times: Sequence[float]) -> None:
    """The same for runs of one call, one after the other. times: when the first began, then when each ended."""
    record = call.record
    for run, value, began, ended in zip(runs, values, times, islice(times, 1, None), strict=False):
        run.value = value
        run.started = began
        run.ended = ended
        if run.run_count > 1:
            run.state_name = run.message = None
        run.status = _COMPLETED
        run.done = True
        if record is None:
            run.item = None
        else:
            record(run)
        if run.watchers is not None:
            run.notify()
    call.open -= len(runs)
    if not call.open:
        call.run_ended()


def complete_columns(lot: Lot, start: int, stop: int, made: Sequence[int]) -> None:
    """The same for runs of a lot, which has their values and times. made: those are objects, and end as such."""
    call = lot.call
    lot.record_columns(start, stop, made)
    call.open -= stop - start - len(made)
    if not call.open:
        call.run_ended()


def finish(run: Run, kind: StateType, value: Any, message: str | None, name: str | None, now: float) -> None:
    """Put a run into its final state, and let everybody know who waits for it. Ignored if it has ended."""
    if run.done:
        return
    run.upstream = None
    run.value = value
    run.message = message
    run.state_name = name
    run.ended = now
    run.status = kind._value_  # an enum's `value` takes as long as all else here
    if isinstance(value, BaseException) and kind is not COMPLETED:
        run.traceback = value.__traceback__
    scope = run.call.scope
    scope.live.discard(run)
    if kind is FAILED or kind is PENDING or kind is StateType.CRASHED:
        if scope.flow_run is not None:  # nobody asks a runtime's own scope, which lives long
            scope.failed.append(run)
        run.call.failed += 1
    elif kind is StateType.CANCELLED:
        scope.note_cancelled(run)
    run.done = True
    call = run.call
    if call.record is None:
        run.item = None
    else:
        call.record(run)
    if run.watchers:
        run.notify()
    call.open -= 1
    if not call.open:
        call.run_ended()
    elif run.inline:
        call.let_go()


def keep(run: Run, outcome: Outcome) -> Outcome:
    """Store what a run of a durable flow has returned; not what was yielded to a caller: it is only the end of that."""
    durable = run.call.scope.durable
    if durable is None or (run.inline and run.call.definition.kind.is_generator):
        return outcome
    return durable.keep(run, outcome)  # type: ignore[no-any-return]  # a scope does not know what it is


def keep_quickly(run: Run, value: Any) -> bool:
    """Store a result of the commonest kind, of a simple call's run that is to hold nothing; whether that was done."""
    call = run.call
    return not call.gates and bool(call.scope.durable.keep_quickly(run, value))


def record_move(run: Run, kind: StateType, name: str, message: str | None, seconds: float) -> None:
    """Record a state that the run's own times will not tell."""
    recorder = run.call.scope.recorder
    if recorder is not None:
        recorder.moves.append((run, State(type=kind, name=name, timestamp=moment(seconds), message=message)))
        recorder.wake()


def record_retry(run: Run, now: float) -> None:
    """Record the attempt that has failed, and what the run does until the next."""
    record_move(run, RUNNING, "Retrying" if run.run_count > 1 else "Running", None, run.started or now)
    record_move(run, StateType(run.status), run.state_name or "", run.message, now)
    scope = run.call.scope
    if scope.recorder is not None:
        scope.recorder.begun.append(run)  # its row shall say that it waits
    if scope.durable is not None and run.status == SCHEDULED:
        scope.durable.keep_waiting(run)
    if scope.is_strict and scope.recorder is not None:
        scope.recorder.strict.note()


def goes_on_waiting(run: Run) -> None:
    """A run waits for the attempt that was due when an earlier process died: its row shall say so."""
    run.status, run.state_name = SCHEDULED.value, "AwaitingRetry"
    recorder = run.call.scope.recorder
    if recorder is not None:
        recorder.begun.append(run)
        recorder.wake()


def never_ready(run: Run, upstream: Any) -> None:
    """End a run that never begins, because this upstream did not complete; says so, and what began it."""
    message, run.cause = why_not_ready(upstream)
    finish(run, PENDING, None, message, NOT_READY, clock().time())
    if run.call.scope.stop_reason is None:
        task_run_logger(run).error("Finished in state %s", run.peek())


def why_not_ready(upstream: Any) -> tuple[str, str]:
    """Why nothing that depends on this future can begin, and the name of the run at the root of it."""
    state: State = upstream.state  # looking at it is right: it has a dependant
    name = str(getattr(upstream, "name", upstream))
    root: str | None = getattr(upstream, "cause", None)
    # A state quotes its own reason, and a chain must not quote all reasons before: from the second on, the root alone.
    message = f"Upstream task run '{name}' did not reach a 'COMPLETED' state: it ended {state.name if root else state}"
    return (f"{message}, because of '{root}'." if root else f"{message}."), root or name


KeepResult = Callable[[Run, Outcome, float, Callable[[Run, Outcome, float], None]], None]
"""Stores what an attempt has returned, then ends the run with the outcome that this leads to."""


class Settlement:
    """Ends and retries the runs of one engine; called on its loop's thread."""

    def __init__(
        self,
        again: Callable[[Run], None],
        leave_gates: Callable[[Run], None],
        spawn: Callable[[Coroutine[Any, Any, None], Context | None], object],
    ) -> None:
        self._again = again
        self._leave_gates = leave_gates
        self._spawn = spawn
        self._retrying: dict[Run, asyncio.TimerHandle] = {}
        self.keep_result: KeepResult | None = None  # what stores the results that are to be stored

    def settle(self, run: Run, outcome: Outcome, now: float) -> None:
        """One attempt at the run has ended so."""
        if run.call.gates:
            self._leave_gates(run)
        if run.done:
            return
        definition = run.call.definition
        if outcome.kind is RETURNED:
            if type(outcome.value) is EndedSubmission:
                self._end_as_its_flow_run(run, outcome.value, now)
                return
            outcome = keep(run, outcome)
            if outcome.kind is not RETURNED:  # it cannot be stored, however often it is tried
                self._conclude(run, outcome, now)
                return
            if run.call.is_simple:
                complete(run, outcome.value, now)
                return
        if outcome.kind is WAS_CANCELLED:
            reason = run.call.scope.stop_reason
            outcome.message = run.message or reason or outcome.message
        elif run.call.scope.stop_reason is None and may_retry(outcome, run.run_count, definition.retry.retries):
            if definition.options.retry_condition_fn is None:
                self._retry_later(run, outcome, now)
            else:
                self._spawn(self._retry_if_wanted(run, outcome, now), run.context_of_hooks())
            return
        self._conclude(run, outcome, now)

    def _end_as_its_flow_run(self, run: Run, ended: EndedSubmission, now: float) -> None:
        """A run that stands for a submitted flow run ends as that has."""
        end, outcome = ended.finish(), Outcome(RETURNED, ended.state.data)
        if end.type is COMPLETED:
            outcome = keep(run, outcome)
        self._finish(run, outcome, end, now)

    def cancel_retry(self, run: Run) -> bool:
        """Forget a retry that is due later; False if there is none."""
        timer = self._retrying.pop(run, None)
        if timer is None:
            return False
        timer.cancel()
        return True

    def refuse(self, run: Run) -> None:
        """A run that has not begun and will not: its flow run is being stopped."""
        self.cancel(run, run.call.scope.stop_reason or "Its runtime was closed.")

    def cancel(self, run: Run, reason: str) -> None:
        """Cancel a run whose code does not run now."""
        self.give_up(run, Outcome(WAS_CANCELLED, None, reason))

    def give_up(self, run: Run, outcome: Outcome) -> None:
        """End a run whose code does not run now, whatever it waits for; it is not tried again."""
        if run.call.gates:
            self._leave_gates(run)
        if not run.done:
            run.upstream = None  # what it waited for does not matter any more, should it end while hooks are called
            run.call.scope.live.discard(run)
            self._conclude(run, outcome, clock().time())

    def not_ready(self, run: Run, upstream: Any) -> None:
        """A run whose upstream did not complete never begins."""
        never_ready(run, upstream)

    # --- retries ----------------------------------------------------------------------------------------

    async def _retry_if_wanted(self, run: Run, outcome: Outcome, now: float) -> None:
        definition = run.call.definition
        condition: Any = definition.options.retry_condition_fn
        state = state_of(final_state(outcome, "Task run"), outcome.value, now)
        try:
            wanted = await call_hook(condition, definition.face, record_of(run), state)
        except BaseException as error:
            task_run_logger(run).error("The retry condition raised, so the run is not retried", exc_info=error)
            wanted = False
        if wanted and run.call.scope.stop_reason is None:
            self._retry_later(run, outcome, now)
        else:
            self._conclude(run, outcome, now)

    def _retry_later(self, run: Run, outcome: Outcome, now: float) -> None:
        delay = run.call.definition.retry.delay(run.run_count, random_part())
        retry_message(run, outcome, delay)
        run.value = None
        if delay:
            run.status = SCHEDULED.value
            run.state_name = "AwaitingRetry"
            run.due = now + delay
            run.call.scope.live.add(run)
            self._retrying[run] = asyncio.get_running_loop().call_later(delay, self._due, run)
            record_retry(run, now)
        else:
            run.status, run.state_name = PENDING.value, "Retrying"
            record_retry(run, now)
            self._start_again(run)

    def wait_out(self, run: Run, now: float) -> None:
        """A run waits for the time of an attempt that was due when an earlier process died."""
        goes_on_waiting(run)
        run.call.scope.live.add(run)
        self._retrying[run] = asyncio.get_running_loop().call_later(run.due - now, self._due, run)

    def _due(self, run: Run) -> None:
        self._retrying.pop(run, None)
        run.call.scope.live.discard(run)
        self._start_again(run)

    def _start_again(self, run: Run) -> None:
        run.status = PENDING.value
        run.state_name = "Retrying"
        self._again(run)

    # --- the end ----------------------------------------------------------------------------------------

    def found(self, runs: Sequence[Run], values: Sequence[Any], messages: Sequence[str], now: float) -> None:
        """Runs of one call need not begin: their results were in the cache."""
        call = runs[0].call
        if call.has_prelude:
            for run in runs:
                if not run.done:
                    name_run(run)
        if call.definition.silent and call.scope.durable is None:
            complete_found(call, runs, values, messages, now)
        else:
            for run, value, message in zip(runs, values, messages, strict=True):
                if not run.done:
                    self._end(run, keep(run, Outcome(RETURNED, value, message)), now, "Cached")

    def _conclude(self, run: Run, outcome: Outcome, now: float) -> None:
        if run.call.keeping is not None and self.keep_result is not None:
            self.keep_result(run, outcome, now, self._end)
        else:
            self._end(run, outcome, now)

    def _end(self, run: Run, outcome: Outcome, now: float, name: str | None = None) -> None:
        end = final_state(outcome, "Task run")
        if name is not None and end.type is COMPLETED:
            end = Finish(COMPLETED, name, outcome.message)
        if run.call.definition.hooks[end.type]:
            self._spawn(self._conclude_with_hooks(run, outcome, end, now), run.context_of_hooks())
        else:
            self._finish(run, outcome, end, now)

    async def _conclude_with_hooks(self, run: Run, outcome: Outcome, end: Finish, now: float) -> None:
        state = state_of(end, outcome.value, now)
        definition = run.call.definition
        for hook in definition.hooks[end.type]:
            await run_hook(hook, definition.face, record_of(run, state), state, task_run_logger(run))
        self._finish(run, outcome, end, now)

    def _finish(self, run: Run, outcome: Outcome, end: Finish, now: float) -> None:
        if end.type is not COMPLETED:
            log_end(run, outcome, state_of(end, None, now))
        finish(run, end.type, outcome.value, end.message, end.name, now)


def retry_message(run: Run, outcome: Outcome, delay: float) -> None:
    """Say in the log, and in the run's state, why it will be tried again and when."""
    retries = run.call.definition.retry.retries
    when = f"{delay:g} second(s) from now" if delay else "immediately"
    task_run_logger(run).info(
        "Task run failed with exception: %s - Retry %s/%s will start %s",
        safe_repr(outcome.value),
        run.run_count,
        retries,
        when,
    )
    run.message = f"Attempt {run.run_count} of {retries + 1} failed: {safe_repr(outcome.value)}"


def trace_once(error: BaseException) -> BaseException | None:
    """The exception, for its traceback to be logged, the first time only: it may pass through many runs."""
    if getattr(error, "__upwell_traced__", False):
        return None
    try:
        error.__upwell_traced__ = True  # type: ignore[attr-defined]
    except Exception:  # a class that takes no attributes
        pass
    return error


def log_end(run: Run, outcome: Outcome, state: State) -> None:
    """What a failed run says in the log; a submitted flow run has said it itself."""
    if run.call.definition.wraps_flow:
        return
    log = task_run_logger(run)
    if state.type is FAILED and outcome.kind.name == "RAISED":
        log.error("Task run failed with exception: %s", safe_repr(outcome.value), exc_info=trace_once(outcome.value))
    elif outcome.kind.name == "TIMED_OUT":
        log.error("%s", outcome.value)
    with_others = run.call.scope.stop_reason is not None or run.call.is_left  # of which one line tells, or their user
    is_told = state.type is StateType.CANCELLED and with_others
    log.log(logging.DEBUG if is_told else logging.ERROR, "Finished in state %s", state)


async def run_hook(hook: Callable[..., Any], face: Any, record: Any, state: State, log: Any) -> None:
    """Call one of the user's hooks; what it raises is logged and changes nothing."""
    name = getattr(hook, "__name__", repr(hook))
    try:
        await call_hook(hook, face, record, state)
    except BaseException as error:
        log.error("The hook %r failed", name, exc_info=error)


def state_of(end: Finish, value: Any, now: float) -> State:
    return State(
        type=end.type,
        name=end.name or end.type.value.capitalize(),
        timestamp=moment(now),
        message=end.message,
        data=value,
    )
