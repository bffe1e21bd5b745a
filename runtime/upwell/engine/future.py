"""The future of a run: the handle that users hold, and the live record that the engine moves.

Both are one object, because a million of them must be cheap: a msgspec Struct whose fields are plain values
is not even tracked by the garbage collector until a container is put into it. (An enum member counts as one:
so `status` is a plain string, equal to the StateType of the same name.)

Threads: the engine changes a run on its loop's thread only. Anyone may read, and `watch` from any thread:
whoever takes a watcher out of the list calls it, so each is called exactly once.
"""

# An isinstance check cannot say what a generic future holds, and here nobody needs to know.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
from __future__ import annotations

import asyncio
import threading
from asyncio import get_running_loop
from asyncio.tasks import _enter_task, _leave_task  # pyright: ignore[reportPrivateUsage]  # documented for Task implementations
from collections.abc import Callable, Generator, Mapping
from contextvars import Context, ContextVar, copy_context
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec import Struct

from upwell.core.errors import BlockingWaitError, CancelledRun, NotReadyRun
from upwell.core.ids import uuid7
from upwell.core.results import StoredValue
from upwell.core.states import (
    CANCELLED,
    COMPLETED,
    NOT_READY,
    PENDING,
    SCHEDULED,
    State,
    StateType,
)
from upwell.engine.call import Call
from upwell.engine.clock import Gate, moment
from upwell.engine.loggers import ENGINE, prints_are_logged
from upwell.engine.scope import CURRENT_SCOPE, EngineSeam

if TYPE_CHECKING:
    from uuid import UUID

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class TaskFuture(Generic[R_co]):
    """A result that may not be there yet. Base of upwell's futures, and of anybody's who brings their own.

    An implementation gives `state`, `wait`, `result` and `add_done_callback`; awaiting it then works.
    """

    __slots__ = ()

    @property
    def state(self) -> State:
        """The state of the run now."""
        raise NotImplementedError

    def wait(self, timeout: float | None = None) -> None:
        """Block until the run has ended, for at most `timeout` seconds; returns in either case."""
        raise NotImplementedError

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R_co:
        """Block until the run has ended and return its result; see `State.result` for what is raised.

        Raises:
            TimeoutError: not ended within `timeout` seconds.
        """
        raise NotImplementedError

    def add_done_callback(self, fn: Callable[[TaskFuture[Any]], object]) -> None:
        """Call `fn(future)` once the run has ended; at once if it has."""
        raise NotImplementedError

    def is_done(self) -> bool:
        """Whether the run has ended."""
        return self.state.is_final()

    def __await__(self) -> Generator[Any, None, R_co]:
        """Wait on the running loop without blocking it, and return the result."""
        if not self.is_done():
            loop = get_running_loop()
            waiter: asyncio.Future[None] = loop.create_future()
            self.add_done_callback(lambda _: loop.call_soon_threadsafe(wake_up, waiter, None))
            yield from waiter
        return self.result()


class RunFuture(TaskFuture[R], Struct, eq=False):
    """One task run, or one submitted flow run."""

    call: Call
    number: int
    item: Any = None
    status: str = PENDING.value
    done: bool = False
    started: float = 0.0
    ended: float = 0.0
    value: Any = None
    durable_key: Any = None
    looked: bool = False
    run_count: int = 0
    message: str | None = None
    state_name: str | None = None
    traceback: Any = None
    watchers: Any = None
    upstream: Any = None  # what it waits for: one run, or a list of futures and Dependencies
    gates_held: int = 0
    due: float = 0.0
    own_name: str | None = None
    inline: bool = False
    waits_for: Any = None
    cause: str | None = None
    tickets: Any = ()

    # --- who it is ------------------------------------------------------------------------------------

    @property
    def task_run_id(self) -> UUID:
        """The run's id, a UUIDv7."""
        return uuid7(self.call.created, self.call.series.id_base + self.number)

    @property
    def name(self) -> str:
        """The run's name: `fetch-3`, or what `task_run_name` makes of its arguments."""
        call = self.call
        return self.own_name or f"{call.definition.name}-{self.number}"

    @property
    def tags(self) -> frozenset[str]:
        """The task's tags and those of `with tags(...)` around the call."""
        return self.call.tags

    @property
    def state(self) -> State:
        """The state of the run now."""
        self.looked = True
        return self.peek()

    def peek(self) -> State:
        """The state, without counting as someone who looked at the outcome."""
        seconds = self.ended if self.done else self.due if self.status == SCHEDULED else self.started
        return State(
            type=StateType(self.status),
            name=self.state_name or self.status.capitalize(),
            timestamp=moment(seconds or self.call.created),
            message=self.message or self._reason(),
            data=self.value if self.done else None,
            scheduled_time=moment(self.due) if self.status == SCHEDULED else None,
        )

    def unfinished_upstream(self) -> list[Any]:
        """The futures that it still has to wait for, or to look at."""
        if type(self.upstream) is RunFuture:
            return [self.upstream]
        return [getattr(upstream, "future", upstream) for upstream in self.upstream or ()]

    def _reason(self) -> str | None:
        """Why a run that has not begun has not."""
        if self.status == PENDING:
            if self.upstream:
                waits_for = self.unfinished_upstream()[-1]
                return f"Waits for {getattr(waits_for, 'name', waits_for)!r}."
            return "Ready, and waits for its turn."
        if self.status == SCHEDULED and self.gates_held < len(self.call.gates):
            return str(self.call.gates[self.gates_held].reason())
        return None

    def parameters(self) -> dict[str, Any]:
        """Argument by name while the run is under way; empty once it has ended."""
        if self.done:
            return {}
        return self.call.definition.parameters.bind(self.args, dict(self.kwargs))

    def __repr__(self) -> str:
        return f"<TaskFuture {self.name!r} {self.peek()}>"

    # --- waiting --------------------------------------------------------------------------------------

    def is_done(self) -> bool:
        """Whether the run has ended."""
        return self.done

    def watch(self, watcher: Any) -> None:
        """Call `watcher(run)` once the run has ended: at once if it has, else on the loop's thread.

        A watcher that is itself a run, of the same engine, is a dependant: it is told that its upstream has ended.
        """
        if not self.done:
            with _WATCHING:
                watchers = self.watchers
                if watchers is None and type(watcher) is RunFuture:
                    self.watchers = watcher  # one dependant needs no list; both are of the loop's thread
                    return
                if type(watchers) is not list:
                    watchers = self.watchers = [] if watchers is None else [watchers]
            watchers.append(watcher)
            if not self.done:
                return
            try:
                watchers.remove(watcher)
            except ValueError:  # whoever ended the run has taken it
                return
        watcher(self)

    def unwatch(self, watcher: Callable[[RunFuture[Any]], object]) -> None:
        """Forget a watcher, called or not."""
        if type(self.watchers) is list:
            try:
                self.watchers.remove(watcher)
            except ValueError:
                pass

    def notify(self) -> None:
        """Call every watcher; the run has ended."""
        watchers: list[Any] = self.watchers
        if type(self.watchers) is RunFuture:
            self.watchers, watchers = None, [self.watchers]
        watchers.reverse()
        while watchers:
            try:
                watcher = watchers.pop()
            except IndexError:  # its own thread took it back
                return
            try:
                if isinstance(watcher, RunFuture):
                    watcher.call.scope.engine.upstream_ended(watcher)
                else:
                    watcher(self)
            except BaseException as error:
                ENGINE.error("A callback of %r failed", self.name, exc_info=error)

    def add_done_callback(self, fn: Callable[[TaskFuture[Any]], object]) -> None:
        """Call `fn(future)` once the run has ended, in a copy of the caller's context; at once if it has.

        What it raises is logged.
        """
        self.looked = True
        if self.done:
            _call_back(fn, self)
        else:
            context = copy_context()
            self.watch(partial(_call_back, lambda run: context.run(fn, run)))

    def wait(self, timeout: float | None = None) -> None:
        """Block until the run has ended, for at most `timeout` seconds; returns in either case.

        Raises:
            BlockingWaitError: on the event loop's own thread, where the wait could never end.
        """
        self.looked = True
        if self.done:
            return
        engine = self.call.scope.engine
        if engine.on_loop_thread():
            raise BlockingWaitError(
                f"A blocking wait for {self.name!r} on the event loop's own thread would never end. "
                "Await it instead: `await future`."
            )
        gate = Gate()
        watcher: Callable[[Any], object] = gate.open
        self.watch(watcher)
        wait_aside(gate, timeout, self)
        self.unwatch(watcher)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        """The result, after blocking until the run has ended.

        Raises:
            TimeoutError: not ended within `timeout` seconds.
            BlockingWaitError: on the event loop's own thread; await the future instead.
            The run's own exception, unless `raise_on_failure` is False: then it is returned.
        """
        self.looked = True
        if not self.done:
            self.wait(timeout)
            if not self.done:
                raise TimeoutError(f"{self.name!r} has not ended within {timeout:.3g} seconds; it goes on.")
        if self.status == COMPLETED:
            return read_value(self.value)  # type: ignore[no-any-return]  # a run that completed holds its R
        if raise_on_failure:
            raise self.exception()
        return self.exception()  # type: ignore[return-value]  # asked for: the exception in place of the result

    def exception(self) -> BaseException:
        """The exception that stands for a run that did not complete, with the traceback it was raised with."""
        error = self.value
        if isinstance(error, BaseException):
            return error.with_traceback(self.traceback)
        if self.status == PENDING and self.state_name == NOT_READY:
            return NotReadyRun(f"{self.name!r} never began: {self.message}")
        if self.status == CANCELLED:
            return CancelledRun(f"{self.name!r} was cancelled: {self.message}")
        return self.peek().exception()

    def __await__(self) -> Generator[Any, None, R]:
        self.looked = True
        if not self.done:
            loop = get_running_loop()
            engine = self.call.scope.engine
            if loop is engine.loop:
                engine.help(self)
            if not self.done:
                yield from self._suspend_until_done(engine, loop)
        if self.status == COMPLETED:
            if type(self.value) is StoredValue:
                return (yield from asyncio.to_thread(self.value.read).__await__())  # type: ignore[no-any-return]  # as below
            return self.value  # type: ignore[no-any-return]  # a run that completed holds its R
        raise self.exception()

    def _suspend_until_done(self, engine: EngineSeam, loop: asyncio.AbstractEventLoop) -> Generator[Any, None, None]:
        waiter: asyncio.Future[None] = loop.create_future()
        wake: Callable[[Any], object] = partial(wake_up, waiter)
        if loop is not engine.loop:
            wake = partial(_wake_elsewhere, loop, waiter)
        self.watch(wake)
        try:
            yield from until_aside(waiter, self).__await__()
        except BaseException:
            self.unwatch(wake)
            raise

    # --- what a task runner sees (core.seams.Attempt) ---------------------------------------------------

    @property
    def fn(self) -> Callable[..., Any]:
        return self.call.definition.fn

    @property
    def args(self) -> tuple[Any, ...]:
        call = self.call
        if call.unary:
            return (self.item,)
        return self.item[: -len(call.row_names)] if call.row_names else self.item or ()

    def args_row(self) -> tuple[Any, ...]:
        """All of the run's own values in one tuple, as in a `Call` that is not unary."""
        return (self.item,) if self.call.unary else self.item or ()

    @property
    def kwargs(self) -> Mapping[str, Any]:
        call = self.call
        if call.row_names:
            return {
                **(call.kwargs or {}),
                **dict(zip(call.row_names, self.item[-len(call.row_names) :], strict=True)),
            }
        return call.kwargs or {}

    @property
    def timeout_seconds(self) -> float | None:
        return self.call.definition.options.timeout_seconds

    @property
    def is_async(self) -> bool:
        return self.call.definition.kind.is_async

    def new_context(self) -> Context:
        context: Context = self.call.context.copy()
        context.run(CURRENT_RUN.set, self)
        return context

    def context_of_hooks(self) -> Context:
        """Where its hooks are called: there where it was submitted, but in no run's name, for they hold nothing up.

        A scope that is being stopped refuses what is submitted: what clears up after it belongs to the runtime.
        """
        context: Context = self.call.context.copy()
        context.run(CURRENT_RUN.set, None)
        if self.call.scope.stop_reason is not None:
            context.run(CURRENT_SCOPE.set, None)
        return context

    if TYPE_CHECKING:

        @property
        def group(self) -> object: ...
    else:
        group = property(attrgetter("call"))  # quicker than a function of Python's

    @property
    def logs_prints(self) -> bool:
        return prints_are_logged(self.call.definition.options.log_prints, self.call.context)

    def facts(self) -> dict[str, Any]:
        flow_run = self.call.scope.flow_run
        return {
            "task_run_id": str(self.task_run_id),
            "task_run_name": self.name,
            "task_name": self.call.definition.name,
            "tags": sorted(self.tags),
            "run_count": self.run_count,
            "log_prints": self.logs_prints,
            **(flow_run.facts() if flow_run is not None else {}),
        }


CURRENT_RUN: ContextVar[RunFuture[Any] | None] = ContextVar("upwell_run", default=None)
"""The task run (or submitted flow run) whose code this is."""


def read_value(value: Any) -> Any:
    """The value itself, where it is not kept in memory."""
    return value.read() if type(value) is StoredValue else value


def _call_back(fn: Callable[[TaskFuture[Any]], object], run: RunFuture[Any]) -> None:
    """Call a user's callback, in no Task's name: the one whose step ended the run is none of its business."""
    loop = asyncio._get_running_loop()
    task = None if loop is None else asyncio.current_task(loop)
    if loop is not None and task is not None:
        _leave_task(loop, task)
    try:
        fn(run)
    except BaseException as error:
        ENGINE.error("A callback of %r failed", run.name, exc_info=error)
    finally:
        if loop is not None and task is not None:
            _enter_task(loop, task)


def run_that_waits() -> RunFuture[Any] | None:
    """The run whose slots and worker a wait here keeps busy."""
    run = CURRENT_RUN.get()
    if run is None:
        scope = CURRENT_SCOPE.get()
        if scope is not None:
            return scope.holder  # type: ignore[no-any-return]  # a run, which a scope does not know
    return run


def wait_aside(gate: Gate, seconds: float | None = None, target: RunFuture[Any] | None = None) -> bool:
    """Block this thread before a gate; a run that waits here gives its slots and its thread back meanwhile.

    target: the run that is waited for, if it is one. Answers whether the gate was opened in time.

    Raises:
        DependencyCycleError: the target waits, in the end, for the run that would wait here.
    """
    waiting = run_that_waits()
    if waiting is None:
        return gate.wait(seconds)
    with waiting.call.scope.engine.step_aside(waiting, target):
        return gate.wait(seconds)


async def until_aside(waiter: asyncio.Future[None], target: RunFuture[Any] | None = None) -> None:
    """The same on the running loop, for a future of that loop."""
    waiting = run_that_waits()
    if waiting is None:
        await waiter
    else:
        await waiting.call.scope.engine.step_aside_until(waiting, waiter, target)


_WATCHING = threading.Lock()


def wake_up(waiter: asyncio.Future[None], _: object = None) -> None:
    """Let whoever awaits this go on."""
    if not waiter.done():
        waiter.set_result(None)


def _wake_elsewhere(loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[None], _: object) -> None:
    loop.call_soon_threadsafe(wake_up, waiter, None)
