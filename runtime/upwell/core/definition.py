"""A flow or a task as the engine knows it: a function and what was decided about it at decoration."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Container
from enum import Enum
from typing import Any, Final

from upwell.core.options import Hook, Options
from upwell.core.parameters import Parameters
from upwell.core.retries import RetryPolicy
from upwell.core.states import CANCELLED, COMPLETED, CRASHED, FAILED, RUNNING, StateType


class FunctionKind(Enum):
    """How the user's function is called."""

    SYNC = "function"
    COROUTINE = "coroutine function"
    GENERATOR = "generator function"
    ASYNC_GENERATOR = "async generator function"

    def __init__(self, words: str) -> None:
        self.is_async = words.startswith(("async", "coroutine"))
        self.is_generator = "generator" in words


def _without_partials(fn: Callable[..., Any]) -> Any:
    inner: Any = fn
    while isinstance(inner, functools.partial):
        inner = inner.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return inner


def kind_of(fn: Callable[..., Any]) -> FunctionKind:
    """How this callable is called; looks through partials and callable objects."""
    inner = _without_partials(fn)
    if not (inspect.isfunction(inner) or inspect.ismethod(inner)) and callable(inner):
        inner = getattr(inner, "__call__", inner)  # noqa: B004  # the bound method says what kind it is
    if inspect.isasyncgenfunction(inner):
        return FunctionKind.ASYNC_GENERATOR
    if inspect.iscoroutinefunction(inner):
        return FunctionKind.COROUTINE
    if inspect.isgeneratorfunction(inner):
        return FunctionKind.GENERATOR
    return FunctionKind.SYNC


def hides_coroutine(fn: Callable[..., Any]) -> bool:
    """Whether a plain function stands around a coroutine function, as that of a decorator may: what it returns tells
    whether it has run that, or leaves it to its caller.
    """
    inner = _without_partials(fn)
    return hasattr(inner, "__wrapped__") and kind_of(inspect.unwrap(inner)) is FunctionKind.COROUTINE


HOOK_OPTIONS: Final = {
    COMPLETED: "on_completion",
    FAILED: "on_failure",
    RUNNING: "on_running",
    CANCELLED: "on_cancellation",
    CRASHED: "on_crashed",
}


class Definition:
    """What the engine needs to run a flow or a task. Never changes, but for hooks that are added to it.

    face: the object that the user holds, given to hooks.
    plain: nothing is to be done around the function but to call it; such runs take the shortest path.
    silent: nothing is to be done when a run of it completes.
    hides_coroutine: it is no coroutine function, and may return a coroutine; see `check_returned`.
    settled: how often these two were decided.
    commit_hooks, rollback_hooks: called when a transaction that a run of it is in is committed, or rolled back.
    wraps_flow: its runs are submitted flow runs, which speak for themselves.
    """

    __slots__ = (
        "commit_hooks",
        "face",
        "fn",
        "hides_coroutine",
        "hooks",
        "is_flow",
        "kind",
        "name",
        "options",
        "parameters",
        "plain",
        "retry",
        "rollback_hooks",
        "settled",
        "silent",
        "wraps_flow",
    )

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str,
        options: Options,
        parameters: Parameters,
        retry: RetryPolicy,
        face: Any,
        *,
        is_flow: bool = False,
        wraps_flow: bool = False,
    ) -> None:
        self.fn = fn
        self.name = name
        self.kind = kind_of(fn)
        self.hides_coroutine = self.kind is FunctionKind.SYNC and hides_coroutine(fn)
        self.options = options
        self.parameters = parameters
        self.retry = retry
        self.face = face
        self.is_flow = is_flow
        self.wraps_flow = wraps_flow
        self.hooks: dict[StateType, list[Hook]] = {
            COMPLETED: list(options.on_completion),
            FAILED: list(options.on_failure),
            RUNNING: list(options.on_running),
            CANCELLED: list(options.on_cancellation),
            CRASHED: list(options.on_crashed),
        }
        self.commit_hooks: list[Callable[[Any], Any]] = []
        self.rollback_hooks: list[Callable[[Any], Any]] = []
        self.plain = False
        self.silent = False
        self.settled = 0
        self.settle_plainness()

    def check_returned(self, value: object) -> None:
        """See that what a function returned is no coroutine, which nobody would run; for one that may return one.

        Raises:
            TypeError: it is.
        """
        if inspect.iscoroutine(value):
            value.close()
            raise TypeError(
                f"{self.name!r} is a plain function around a coroutine function, as a decorator makes one, and "
                "returned a coroutine that nobody has run. Make the decorator's inner function `async def`, and await "
                "in it."
            )

    def settle_plainness(self) -> None:
        """Decide `plain` and `silent` again, after a hook was added; `settled` tells whoever has relied on them."""
        self.plain = (
            self.kind in (FunctionKind.COROUTINE, FunctionKind.SYNC)
            and self.options.timeout_seconds is None
            and self.options.log_prints is None
            and self.options.run_name is None
            and not self.is_flow
            and not self.wraps_flow
            and not self.hooks[RUNNING]
        )
        self.silent = not self.hooks[COMPLETED]
        self.settled += 1

    def add_hook(self, state: StateType, hook: Hook) -> None:
        self.hooks[state].append(hook)
        self.settle_plainness()

    def add_commit_hook(self, hook: Callable[[Any], Any]) -> None:
        self.commit_hooks.append(hook)
        self.settle_plainness()

    def take_hooks_from(self, other: Definition, named: Container[str]) -> None:
        """Take over the hooks that were added to another definition, but for the kinds that options name."""
        for state, hooks in other.hooks.items():
            if HOOK_OPTIONS[state] not in named:
                self.hooks[state] = list(hooks)
        self.commit_hooks = list(other.commit_hooks)
        self.rollback_hooks = list(other.rollback_hooks)
        self.settle_plainness()

    @property
    def task_runner(self) -> Any:
        return self.options.task_runner

    def __repr__(self) -> str:
        return f"<{'flow' if self.is_flow else 'task'} {self.name!r}>"
