"""Which scope a call belongs to: the flow run around it, the runtime around it, or one made for the occasion.

Outside of flows and runtimes, code on a running loop gets an engine for that loop, which ends with it; code
without a loop gets the *portal*: one loop of our own on a thread beside the caller, for the whole process.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
import threading
import weakref
from asyncio import _get_running_loop  # pyright: ignore[reportPrivateUsage]  # None where no loop runs, at no cost
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, NoReturn

from upwell.core.errors import RuntimeClosedError
from upwell.core.lifecycle import PROGRAM_HAS_ENDED
from upwell.engine.clock import Gate, clock
from upwell.engine.elsewhere import ELSEWHERE
from upwell.engine.future import CURRENT_RUN
from upwell.engine.interrupts import uninterrupted
from upwell.engine.loggers import ENGINE
from upwell.engine.recorder import recorder
from upwell.engine.runtime import Engine
from upwell.engine.scope import CURRENT_SCOPE, Scope
from upwell.engine.staging import CURRENT_TRANSACTION
from upwell.settings import current as settings

CURRENT_ENGINE: ContextVar[Engine | None] = ContextVar("upwell_engine", default=None)
"""The runtime that was opened around this code."""


def current_scope() -> Scope:
    """The scope that owns what the caller starts.

    Raises:
        RuntimeClosedError: the flow run around the caller has ended.
    """
    scope = CURRENT_SCOPE.get()
    if scope is None:
        engine = CURRENT_ENGINE.get()
        if engine is None:
            loop = _get_running_loop()
            engine = portal_engine() if loop is None else engine_of(loop)
        scope = recording(engine.scope)
    if scope.ended:
        _refuse(scope)
    return scope


def _refuse(ended: Scope) -> NoReturn:
    """Raises RuntimeClosedError: this scope has ended."""
    raise RuntimeClosedError(
        f"{ended.name} has ended, so nothing can be started in it any more. "
        "Wait for background code before the flow returns, or start it outside of the flow."
    )


def engine_for_flow() -> Engine | Callable[[], Engine]:
    """The engine for a flow run that begins here; the portal is made only when something is submitted.

    Raises:
        RuntimeClosedError: the runtime around the caller is closed.
    """
    scope = CURRENT_SCOPE.get()
    engine = scope.engine if scope is not None and scope.has_engine else CURRENT_ENGINE.get()
    loop = _get_running_loop()
    if isinstance(engine, Engine) and (loop is None or engine.loop is loop):
        if engine.scope.ended:
            _refuse(engine.scope)
        return engine
    return portal_engine if loop is None else engine_of(loop)  # a worker's thread, or a plain caller's


def engine_for_blocking_flow() -> Engine | Callable[[], Engine]:
    """The same for a flow that blocks its thread: a loop's own thread cannot drive what it waits for."""
    loop = _get_running_loop()
    if loop is None:
        return engine_for_flow()
    scope = CURRENT_SCOPE.get()
    around = scope.engine.loop if scope is not None and scope.has_engine else None
    for place, known in list(_portals.items()):
        if known.loop is loop:
            return partial(portal_engine, place + 1)
        if known.loop is around:
            return known.engine  # the portals before it may be blocked, by a flow around this one
    return portal_engine


def recording(scope: Scope) -> Scope:
    """A scope that outlives journals, set to record where this process records now."""
    here = recorder()
    if scope.recorder is not here:
        scope.recorder, scope.series = here, {}
    return scope


def scope_of_direct_call() -> Scope:
    """The same for a direct call, which needs no engine of its own: outside of everything it opens none."""
    if CURRENT_SCOPE.get() is None and CURRENT_ENGINE.get() is None and _get_running_loop() is None:
        return recording(OUTSIDE)
    return current_scope()


# --- an engine for a loop that is not ours ----------------------------------------------------------------

_engines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Engine] = weakref.WeakKeyDictionary()


_latest: tuple[weakref.ref[asyncio.AbstractEventLoop], Engine] | None = None
"""The engine that was asked for last: most programs have one loop, and ask for it very often."""


def engine_of(loop: asyncio.AbstractEventLoop) -> Engine:
    """The engine of the running loop; it is closed when the loop shuts its asynchronous generators down."""
    global _latest
    latest = _latest
    if latest is not None and latest[0]() is loop and not latest[1].closed:
        return latest[1]
    engine = _engines.get(loop)
    if engine is None or engine.closed:
        _forget_closed_loops()
        engine = _engines[loop] = Engine(loop)
        _close_with_loop(engine)
    _latest = (weakref.ref(loop), engine)
    return engine


def _forget_closed_loops() -> None:
    """An engine refers to its loop, so none of them would ever go by itself."""
    for known in _engines.keyrefs():
        loop = known()
        if loop is not None and loop.is_closed():
            _engines.pop(loop, None)


def _close_with_loop(engine: Engine) -> None:
    """`asyncio.run` closes every asynchronous generator that began on its loop: one of them carries our end."""

    async def until_the_loop_ends() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await engine.close("The event loop ends.")

    generator = until_the_loop_ends()
    try:
        generator.__anext__().send(None)
    except StopIteration:
        pass
    engine.keeps = generator


# --- the portal: a loop of our own beside callers that have none ------------------------------------------

CLOSE_SECONDS: Final = 10.0
"""How long the end of the process waits for what the portal still runs."""


class Portal:
    """An event loop on a daemon thread, with an engine; uvloop where it is installed."""

    def __init__(self, task_runner: Any = None, limits: Mapping[str, Any] | None = None) -> None:
        self.pid = os.getpid()
        self.loop = clock().new_loop()
        self._begun = threading.Event()
        self._closing = False
        self._fault: BaseException | None = None
        self._options = (task_runner, limits)
        self._thread = threading.Thread(target=self._serve, name="upwell-loop", daemon=True)
        self._thread.start()
        self._begun.wait()
        if self._fault is not None:
            raise self._fault

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.engine = Engine(self.loop, *self._options)
        except BaseException as error:
            self._fault = error
            self.loop.close()
            self._begun.set()
            return
        thresholds = gc.get_threshold()
        raised = settings().gc_threshold
        if raised:
            gc.set_threshold(raised, *thresholds[1:])
        from concurrent.futures import ThreadPoolExecutor  # here: an import of upwell does without

        self._executor = ThreadPoolExecutor(thread_name_prefix="upwell-hooks")
        self.loop.set_default_executor(self._executor)  # ours: the loop's own cannot be ended at interpreter exit
        self.loop.call_soon(self._begun.set)
        try:
            while not self._closing:  # a stop that is not ours, or an error out of the loop, ends nobody's flow
                try:
                    self.loop.run_forever()
                except BaseException as error:
                    ENGINE.error("An error came out of the portal's loop, which goes on", exc_info=error)
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self._executor.shutdown(wait=False)
            gc.set_threshold(*thresholds)
            self.loop.close()

    def run(self, work: Coroutine[Any, Any, Any], timeout: float | None = None) -> Any:
        """Run a coroutine on the portal's loop and wait for it."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        ended = Gate()
        future.add_done_callback(ended.open)
        if not ended.wait(timeout):
            raise TimeoutError
        return future.result()

    def close_at_exit(self) -> None:
        """The interpreter ends."""
        self.close(PROGRAM_HAS_ENDED)

    def close(self, reason: str = "The runtime was closed.") -> None:
        """End everything, then the loop and its thread."""
        if not self._thread.is_alive() or self.pid != os.getpid():
            return
        try:
            self.run(self.engine.close(reason), CLOSE_SECONDS)
        except TimeoutError:
            pass
        self._closing = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(CLOSE_SECONDS)


_portals: Final[dict[int, Portal]] = {}
"""At 0 the process's portal; at each other place that for sync flows which block the loop of the one before."""

_opening = threading.Lock()


def portal(place: int = 0) -> Portal:
    """The process's portal, started when it is first needed; a forked child starts its own."""
    known = _portals.get(place)
    if known is None or known.pid != os.getpid() or known.engine.closed:
        with _opening, uninterrupted():  # by a timeout: half a portal would be a loop that nobody closes
            known = _portals.get(place)
            if known is None or known.pid != os.getpid() or known.engine.closed:
                known = _portals[place] = Portal()
                atexit.register(known.close_at_exit)
    return known


def portal_engine(place: int = 0) -> Engine:
    """The engine of the process's portal."""
    return portal(place).engine


def close_portal() -> None:
    """End the portal now instead of at the end of the process; the next use starts a new one."""
    with _opening:
        closing = list(_portals.values())
        _portals.clear()
    for known in reversed(closing):  # the loop of one may be blocked by what the next one runs
        atexit.unregister(known.close_at_exit)
        known.close()


OUTSIDE: Final = Scope(portal_engine, "the process")
"""The scope of direct calls outside of flows, runtimes and loops."""


# --- after a fork -----------------------------------------------------------------------------------------

_OF_A_RUN: Final[tuple[ContextVar[Any], ...]] = (
    CURRENT_SCOPE,
    CURRENT_ENGINE,
    CURRENT_RUN,
    CURRENT_TRANSACTION,
    ELSEWHERE,
)


def _begin_anew() -> None:
    """In the child, which has this thread alone: the runs around, and the loops that drive them, are the parent's."""
    global _opening
    _opening = threading.Lock()
    scope = CURRENT_SCOPE.get()
    while scope is not None:
        scope.has_engine = False  # so that its end, should it come here, too, waits for nothing
        scope = scope.parent
    for variable in _OF_A_RUN:
        variable.set(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
