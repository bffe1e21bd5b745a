"""The engine: drives all runs of one runtime on one event loop.

It composes the parts: admission (dependencies, gates), the dispatcher (coroutines on the loop), remotes
(everything that a task runner executes) and settlement (retries, final states). A run goes through them in
this order: `accept` -> `_admit` -> `_pass_gates` -> `_route` -> settle.
"""

# An isinstance check cannot say what a generic future holds, and here nobody needs to know.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
from __future__ import annotations

import asyncio
from asyncio import _get_running_loop  # pyright: ignore[reportPrivateUsage]  # None where no loop runs, at no cost
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import Context
from functools import partial
from typing import Any, Final

from upwell.core.dependencies import Dependency
from upwell.core.errors import BlockingWaitError, RuntimeClosedError
from upwell.core.lifecycle import HAS_CRASHED, RAISED, Outcome, describe
from upwell.core.seams import TaskRunner
from upwell.core.states import COMPLETED, PENDING, RUNNING, SCHEDULED, State, StateType
from upwell.engine.aside import Aside
from upwell.engine.caching_loop import Caching
from upwell.engine.call import Call
from upwell.engine.clock import clock, moment
from upwell.engine.dispatch import Dispatcher
from upwell.engine.finish import until_done
from upwell.engine.future import CURRENT_RUN, RunFuture
from upwell.engine.gates import Lane, LimitGate
from upwell.engine.inbox import Inbox
from upwell.engine.limits import PROCESS_LIMITS, Limits, NamedLimit
from upwell.engine.loggers import ENGINE
from upwell.engine.logs import task_run_logger
from upwell.engine.lot import Lot
from upwell.engine.prelude import name_run
from upwell.engine.records import record_of
from upwell.engine.registry import runner_named
from upwell.engine.remote import Remote, call_of
from upwell.engine.scope import CURRENT_SCOPE, Scope
from upwell.engine.settle import Settlement, finish, record_move, run_hook
from upwell.engine.steps import ScopeEmpty
from upwell.engine.submit import DEFAULT_RUNNER, is_completed, resolved
from upwell.settings import current as settings

Run = RunFuture[Any]
_COMPLETED: Final[str] = COMPLETED.value


class Engine(Inbox):
    """Drives runs on one loop. Unless said otherwise, methods are called on that loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        task_runner: Any = None,
        limits: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(loop)
        self.closed = False
        self.limits = Limits(limits, around=PROCESS_LIMITS)
        self.task_runner = task_runner or settings().task_default_task_runner or DEFAULT_RUNNER
        self._aside = Aside(self, self._leave_gates)
        self.settlement = Settlement(self._again, self._aside.leave_for_good, self._spawn)
        ways = (self._pass_gates, self.settlement.refuse, self.settlement.found)
        self.caching = Caching(loop, *ways, self.call_soon, self._spawn)
        self.settlement.keep_result = self.caching.keep
        self.dispatcher = Dispatcher(loop, self.settlement.settle, self.settlement.refuse)
        self.scope = Scope(self, "the runtime")
        self._remotes: dict[Any, Remote] = {}
        self._lanes: dict[Any, Lane] = {}
        self._named_runners: dict[str, TaskRunner] = {}
        self._spawned: set[asyncio.Task[None]] = set()
        self._limit_gates: dict[NamedLimit, LimitGate] = {}
        self._never_begun: deque[tuple[Run, Any]] = deque()
        self._busy_scopes: set[Scope] = set()
        self._closing: asyncio.Task[None] | None = None
        self.keeps: Any = None  # what must live as long as the engine

    # --- work of its own on the loop -----------------------------------------------------------------------

    def _later(self, callback: Callable[[], None]) -> None:
        self.loop.call_soon(callback)

    def _spawn(self, work: Coroutine[Any, Any, None], context: Context | None = None) -> None:
        task = self.loop.create_task(work, context=context)
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)

    # --- the way of a run --------------------------------------------------------------------------------

    def accept(self, runs: Sequence[Run]) -> None:
        """Whole runs of one call, just submitted; from any thread.

        Raises:
            RuntimeClosedError: the runtime is closed.
        """
        if self.closed:
            raise RuntimeClosedError("This runtime is closed, so nothing can be submitted to it any more.")
        call = call_of(runs)
        transaction = call.transaction
        if transaction is not None:
            transaction.joined(runs)
        if _get_running_loop() is self.loop:
            self._accept(call, runs)
        else:
            self.call_soon(partial(self._accept, call, runs))

    def accept_one(self, run: Run) -> None:
        """The same for the one run of a call, which most often is begun in a plain scope: in half the steps."""
        call = run.call
        scope = call.scope
        if (
            self.closed
            or scope.ended
            or scope.durable is not None
            or call.keeping is not None
            or call.runner is not None
            or _get_running_loop() is not self.loop
        ):
            self.accept([run])
            return
        call.open = 1
        if not scope.open_calls:
            self._busy_scopes.add(scope)
        scope.open_calls += 1
        scope.total += 1
        if scope.recorder is not None:
            call.series.submitted += 1
            scope.recorder.wake()
        if call.straight:
            self.dispatcher.push(run)
        elif run.upstream is not None:
            self.upstream_ended(run)
        else:
            self._pass_gates(run)

    def _accept(self, call: Call, runs: Sequence[Run]) -> None:
        scope = call.scope
        if not call.open:
            if not scope.open_calls:
                self._busy_scopes.add(scope)
            scope.open_calls += 1
        call.open += len(runs)
        scope.total += len(runs)
        if scope.recorder is not None:
            if scope.durable is None:  # else they are counted where they are numbered
                call.series.submitted += len(runs)
            scope.recorder.wake()
        if scope.ended or self.closed:
            for run in runs:
                finish(run, StateType.CANCELLED, None, f"{scope.name} had ended.", None, clock().time())
        elif scope.durable is not None and scope.is_strict and scope.recorder is not None:
            self._when_safe(scope, partial(self._let_in, call, runs))
        else:
            self._let_in(call, runs)

    def _when_safe(self, scope: Scope, go_on: Callable[[], None]) -> None:
        """Go on as soon as everything that has ended until now is in the store: the flow run is strict."""
        recorder: Any = scope.recorder
        strict = recorder.strict
        happened = strict.happened()

        def are_safe() -> None:
            strict.became_safe(happened)
            self.call_soon(go_on)

        if strict.are_safe():
            go_on()
        else:
            recorder.journal.when_written(are_safe)

    def _let_in(self, call: Call, runs: Sequence[Run]) -> None:
        """Start these on their way."""
        if call.straight:
            if call.runner is None:
                self.dispatcher.extend(runs)
            else:
                self._execute_elsewhere(call.runner, runs)
        elif call.keeping is not None and all(run.upstream is None and not (run.due or run.run_count) for run in runs):
            self.caching.enter(runs)
        else:
            for run in runs:
                self._set_out(run)

    def _set_out(self, run: Run) -> None:
        if run.upstream is not None and not run.due:
            self.upstream_ended(run)
        else:
            self._admit(run)

    def open_call(self, call: Call) -> None:
        """A call whose runs come bit by bit: it stays open until `close_call`."""
        call.open += 1
        call.scope.open_calls += 1
        self._busy_scopes.add(call.scope)

    def scope_is_empty(self, scope: Scope) -> None:
        """Nothing that was started in this scope is under way any more."""
        self._busy_scopes.discard(scope)

    def close_call(self, call: Call) -> None:
        """No more runs will come."""
        call.open -= 1
        if not call.open:
            call.run_ended()

    def _admit(self, run: Run) -> None:
        if run.due and run.status == PENDING and run.due > (now := clock().time()):
            self.settlement.wait_out(run, now)
        elif run.upstream is not None:
            self.upstream_ended(run)
        elif run.call.keeping is not None and not run.run_count:
            self.caching.enter((run,))
        else:
            self._pass_gates(run)

    _again = _admit

    def upstream_ended(self, run: Run, _: object = None) -> None:
        """One of the runs that this one waits for has ended, if it waited for any; see to the others.

        Only one is watched at a time, the last: all must end anyway, and by then most have.
        """
        upstream: Any = run.upstream
        if type(upstream) is RunFuture and upstream.call.scope.engine is self:  # the commonest case, and the shortest
            if not upstream.done:
                run.call.scope.live.add(run)
                upstream.watch(run)
                return
            if upstream.status != _COMPLETED:
                self._never_begin(run, upstream)
                return
        elif not self._have_all_ended(run, upstream):
            return
        if run.done:
            return
        try:
            item = resolved(run.item)
        except Exception as error:  # such as: a set that is to hold a list
            self.settlement.give_up(run, Outcome(RAISED, error))
        else:
            self.upstream_completed(run, item)

    def upstream_completed(self, run: Run, item: Any) -> None:
        """All that this run waited for has ended well; it begins as soon as gates and caches let it. item: its own."""
        if run.done:
            return
        call = run.call
        scope = call.scope
        scope.live.discard(run)
        run.upstream = None
        run.item = item
        if scope.durable is not None and scope.is_strict:
            scope.live.add(run)
            self._when_safe(scope, partial(self._upstream_is_safe, run))
        elif call.direct and call.runner is None:
            self.dispatcher.push(run)
        else:
            self._is_ready(run)

    def _upstream_is_safe(self, run: Run) -> None:
        run.call.scope.live.discard(run)
        if not run.done:
            self._is_ready(run)

    def _is_ready(self, run: Run) -> None:
        """A run whose upstream has ended begins, as soon as gates and caches let it."""
        if run.call.keeping is not None:
            self.caching.enter((run,))
        else:
            self._pass_gates(run)

    def _have_all_ended(self, run: Run, upstream: Any) -> bool:
        """Whether all futures of a list have ended as they should; else sees to it that the run hears of it."""
        if upstream is None:
            return False
        futures: list[Any] = upstream if type(upstream) is list else [upstream]
        while futures and not run.done:
            future = futures[-1]
            lenient = type(future) is Dependency
            if lenient:
                future = future.future
            if not future.is_done():
                run.call.scope.live.add(run)
                if type(future) is RunFuture and future.call.scope.engine is self:
                    future.watch(run)
                else:
                    future.add_done_callback(partial(self._upstream_ended_elsewhere, run))
                return False
            if not lenient and not is_completed(future):
                self._never_begin(run, future)
                return False
            futures.pop()
        return True

    def _never_begin(self, run: Run, upstream: Any) -> None:
        """A run whose upstream did not complete ends, and so do its own dependants: in a row, however many.

        Not each inside the end of the one before: a long chain would be deeper than Python's stack.
        """
        self._never_begun.append((run, upstream))
        if len(self._never_begun) > 1:
            return
        while self._never_begun:
            run, upstream = self._never_begun[0]
            try:
                if run.call.scope.stop_reason is not None:
                    self.settlement.refuse(run)
                else:
                    self.settlement.not_ready(run, upstream)
            finally:
                self._never_begun.popleft()

    def _upstream_ended_elsewhere(self, run: Run, _: object) -> None:
        self.call_soon(partial(self.upstream_ended, run))

    def _pass_gates(self, run: Run) -> None:
        gates = run.call.gates
        while run.gates_held < len(gates):
            if not gates[run.gates_held].enter(run, self._gate_opened):
                run.call.scope.live.add(run)
                run.status, run.state_name = SCHEDULED.value, "AwaitingConcurrencySlot"
                run.message = None
                if gates[run.gates_held].is_worth_recording:
                    reason = str(gates[run.gates_held].reason())
                    record_move(run, SCHEDULED, run.state_name, reason, clock().time())
                return
            run.gates_held += 1
        self._route(run)

    def _gate_opened(self, run: Run) -> None:
        run.gates_held += 1
        run.call.scope.live.discard(run)
        if run.done:
            self._leave_gates(run)
            return
        run.status, run.state_name = PENDING.value, None
        self._pass_gates(run)

    def _leave_gates(self, run: Run) -> None:
        gates = run.call.gates
        held, run.gates_held = run.gates_held, 0
        for gate in reversed(gates[:held]):
            gate.leave(run)

    def _route(self, run: Run) -> None:
        if run.call.has_prelude and not run.run_count:
            name_run(run)
            if run.call.definition.hooks[RUNNING]:
                self._spawn(self._call_running_hooks(run), run.context_of_hooks())
                return
        self._start(run)

    async def _call_running_hooks(self, run: Run) -> None:
        state = State(type=RUNNING, name="Running", timestamp=moment(clock().time()))
        definition = run.call.definition
        for hook in definition.hooks[RUNNING]:
            await run_hook(hook, definition.face, record_of(run, state), state, task_run_logger(run))
        self._start(run)

    def _start(self, run: Run) -> None:
        runner = run.call.runner
        if runner is None:
            self.dispatcher.push(run)
        else:
            self._execute_elsewhere(runner, (run,))

    def _execute_elsewhere(self, runner: TaskRunner, runs: Sequence[Run]) -> None:
        try:
            self.remote(runner).push_many(runs)
        except Exception as error:
            message = f"The task runner {runner!r} could not be opened: {describe(error)}"
            for run in runs:
                self.settlement.settle(run, Outcome(HAS_CRASHED, error, message), clock().time())

    # --- task runners --------------------------------------------------------------------------------------

    def runner(self, wanted: Any) -> TaskRunner:
        """The runner of this name, one a runtime, or the object itself; from any thread."""
        if not isinstance(wanted, str):
            return wanted  # type: ignore[no-any-return]  # an object of the user's own
        found = self._named_runners.get(wanted)
        if found is None:
            found = self._named_runners.setdefault(wanted, runner_named(wanted))
        return found

    def remote(self, runner: TaskRunner) -> Remote:
        """The engine's side of a runner, opened when it is first used."""
        found = self._remotes.get(runner)
        if found is None:
            found = self._remotes[runner] = Remote(
                runner, self.settlement.settle, self.settlement.refuse, self.call_soon, self._later
            )
        return found

    def lane_of(self, runner: TaskRunner) -> Lane | None:
        """The lane that all runs of a bounded runner go through; from any thread."""
        if runner.max_at_once is None:
            return None
        return self._lanes.setdefault(runner, Lane(runner.max_at_once, f"the task runner {runner!r}"))

    def tag_gates(self, tags: frozenset[str]) -> list[LimitGate]:
        """The gates of those tags that have a limit, always in the same order; from any thread."""
        gates: list[LimitGate] = []
        for tag in sorted(tags):
            name = f"tag:{tag}"
            limit = self.limits.get(name)
            if limit is not None:
                limit.check_that_it_lets_anybody_through()
                gates.append(self._limit_gates.setdefault(limit, LimitGate(limit, self.settlement.give_up)))
        return gates

    # --- stopping ------------------------------------------------------------------------------------------

    def stop_run(self, run: Run | Lot, reason: str) -> None:
        """Cancel one run, wherever it is; or those of a lot."""
        if isinstance(run, Lot):
            for one in run.open_runs():
                self.stop_run(one, reason)
            return
        if run.done:
            return
        if run.status == RUNNING:
            run.message = reason
            if self.dispatcher.interrupt(run, reason):
                return
        if any(remote.interrupt(run, reason) for remote in self._remotes.values()):
            return
        self.settlement.cancel_retry(run)
        if run.gates_held < len(run.call.gates):
            run.call.gates[run.gates_held].forget(run)
        self.settlement.cancel(run, reason)

    async def close(self, reason: str = "The runtime was closed.") -> None:
        """Stop what is under way and end the workers, however often this is cancelled; may be called twice.

        A run that calls it is itself under way: it is cancelled while it waits here, and the others are waited for.

        Raises:
            BlockingWaitError: a hook calls it, which would be waited for by what it waits for.
        """
        if asyncio.current_task() in self._spawned:
            raise BlockingWaitError(
                "A runtime cannot be closed from a hook of a run in it, for it waits until its hooks have ended. "
                "Set an event in the hook, and close the runtime in the code that opened it."
            )
        if self._closing is None:
            self.closed = True
            self._closing = self.loop.create_task(self._close(reason))
        if self._is_around_caller():
            await asyncio.wait([self._closing])
        else:
            await until_done(self._closing)

    def _is_around_caller(self) -> bool:
        run = CURRENT_RUN.get()
        scopes = (CURRENT_SCOPE.get(), None if run is None else run.call.scope)
        return any(it is not None and it.has_engine and it.engine is self for it in scopes)

    async def _close(self, reason: str) -> None:
        self.scope.begin_again()  # what was cancelled until now was told of, or left by its user
        for scope in [self.scope, *self._busy_scopes]:
            scope.stop(reason)
            await ScopeEmpty(scope).wait()
        if cancelled := self.scope.what_was_cancelled():  # those of flow runs are told of by these
            ENGINE.warning("%s %s", reason, cancelled)
        while self._spawned:
            await asyncio.wait(list(self._spawned))
        for remote in self._remotes.values():
            await remote.runner.close()
        await self.dispatcher.close()
        self.scope.close()

    def help(self, run: Run) -> None:
        """Somebody on this loop is about to wait for a run: what is ready may be done at once, in its name."""
        self.dispatcher.help(run)

    # --- waiting from inside a run ---------------------------------------------------------------------------

    def step_aside(self, run: Run, target: Run | None) -> AbstractContextManager[None]:
        """A worker's thread waits inside a run: its slots and its thread are free for others meanwhile."""
        return self._aside.step_aside(run, target)

    async def step_aside_until(self, run: Run, waiter: asyncio.Future[None], target: Run | None) -> None:
        """The same for a wait on the running loop: this one, or that of a worker's thread."""
        await self._aside.step_aside_until(run, waiter, target)
