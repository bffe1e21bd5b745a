"""A flow or a task as the engine knows it: a function and what was decided about it at decoration."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from enum import Enum
from typing import Any

from upwell.core.options import FlowOptions, Hook, TaskOptions
from upwell.core.parameters import Parameters
from upwell.core.retries import RetryPolicy
from upwell.core.states import CANCELLED, COMPLETED, CRASHED, FAILED, RUNNING, StateType


class FunctionKind(Enum):
    """How the user's function is called."""

    SYNC = "function"
    COROUTINE = "coroutine function"
    GENERATOR = "generator function"
    ASYNC_GENERATOR = "async generator function"

    @property
    def is_async(self) -> bool:
        return self in (FunctionKind.COROUTINE, FunctionKind.ASYNC_GENERATOR)

    @property
    def is_generator(self) -> bool:
        return self in (FunctionKind.GENERATOR, FunctionKind.ASYNC_GENERATOR)


def kind_of(fn: Callable[..., Any]) -> FunctionKind:
    """How this callable is called; looks through partials and callable objects."""
    inner: Any = fn
    while isinstance(inner, functools.partial):
        inner = inner.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not (inspect.isfunction(inner) or inspect.ismethod(inner)) and callable(inner):
        inner = getattr(inner, "__call__", inner)  # noqa: B004  # the bound method says what kind it is
    if inspect.isasyncgenfunction(inner):
        return FunctionKind.ASYNC_GENERATOR
    if inspect.iscoroutinefunction(inner):
        return FunctionKind.COROUTINE
    if inspect.isgeneratorfunction(inner):
        return FunctionKind.GENERATOR
    return FunctionKind.SYNC


class Definition:
    """What the engine needs to run a flow or a task. Never changes, but for hooks that are added to it.

    face: the object that the user holds, given to hooks.
    plain: nothing is to be done around the function but to call it; such runs take the shortest path.
    silent: nothing is to be done when a run of it completes.
    """

    __slots__ = (
        "face",
        "fn",
        "hooks",
        "is_flow",
        "kind",
        "name",
        "options",
        "parameters",
        "plain",
        "retry",
        "silent",
    )

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str,
        options: TaskOptions | FlowOptions,
        parameters: Parameters,
        retry: RetryPolicy,
        face: Any,
        *,
        is_flow: bool = False,
    ) -> None:
        self.fn = fn
        self.name = name
        self.kind = kind_of(fn)
        self.options = options
        self.parameters = parameters
        self.retry = retry
        self.face = face
        self.is_flow = is_flow
        self.hooks: dict[StateType, list[Hook]] = {
            COMPLETED: list(options.on_completion),
            FAILED: list(options.on_failure),
            RUNNING: list(options.on_running),
            CANCELLED: list(options.on_cancellation),
            CRASHED: list(options.on_crashed),
        }
        self.plain = False
        self.silent = False
        self.settle_plainness()

    def settle_plainness(self) -> None:
        """Decide `plain` and `silent` again, after a hook was added."""
        named = self.options.task_run_name if isinstance(self.options, TaskOptions) else True
        self.plain = (
            self.kind in (FunctionKind.COROUTINE, FunctionKind.SYNC)
            and self.options.timeout_seconds is None
            and not self.options.log_prints
            and named is None
            and not self.hooks[RUNNING]
        )
        self.silent = not self.hooks[COMPLETED]

    def add_hook(self, state: StateType, hook: Hook) -> None:
        self.hooks[state].append(hook)
        self.settle_plainness()

    @property
    def task_runner(self) -> Any:
        return self.options.task_runner

    def __repr__(self) -> str:
        return f"<{'flow' if self.is_flow else 'task'} {self.name!r}>"
