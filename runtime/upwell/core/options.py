"""What a user can say about a flow or a task at its decoration, checked when it is said."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

from msgspec import Struct

from upwell.core.errors import ConfigurationError
from upwell.core.retries import DelaySpec, RetryPolicy

Hook = Callable[[Any, Any, Any], Any]
"""`hook(flow_or_task, run, state)`, sync or async."""


class TaskOptions(Struct, frozen=True, kw_only=True):
    """Every option of `@task`; None is "not said"."""

    name: str | None = None
    description: str | None = None
    tags: frozenset[str] = frozenset()
    version: str | None = None
    task_run_name: str | Callable[..., str] | None = None
    task_runner: Any = None
    retries: int | None = None
    retry_delay_seconds: DelaySpec = None
    retry_jitter_factor: float | None = None
    retry_condition_fn: Callable[[Any, Any, Any], Any] | None = None
    timeout_seconds: float | None = None
    log_prints: bool | None = None
    on_completion: tuple[Hook, ...] = ()
    on_failure: tuple[Hook, ...] = ()
    on_running: tuple[Hook, ...] = ()
    on_cancellation: tuple[Hook, ...] = ()
    on_crashed: tuple[Hook, ...] = ()


class FlowOptions(Struct, frozen=True, kw_only=True):
    """Every option of `@flow`; None is "not said"."""

    name: str | None = None
    description: str | None = None
    version: str | None = None
    flow_run_name: str | Callable[..., str] | None = None
    task_runner: Any = None
    retries: int | None = None
    retry_delay_seconds: DelaySpec = None
    retry_condition_fn: Callable[[Any, Any, Any], Any] | None = None
    timeout_seconds: float | None = None
    validate_parameters: bool = True
    log_prints: bool | None = None
    on_completion: tuple[Hook, ...] = ()
    on_failure: tuple[Hook, ...] = ()
    on_running: tuple[Hook, ...] = ()
    on_cancellation: tuple[Hook, ...] = ()
    on_crashed: tuple[Hook, ...] = ()


def check_hooks(option: str, hooks: object) -> tuple[Hook, ...]:
    """The hooks as a tuple.

    Raises:
        TypeError: not an iterable of callables.
    """
    if hooks is None:
        return ()
    if callable(hooks):
        raise TypeError(f"{option} takes a list of functions; write {option}=[{_name(hooks)}]")
    if not isinstance(hooks, Iterable):
        raise TypeError(f"{option} takes a list of functions, not {hooks!r}")
    checked = tuple(cast("Iterable[object]", hooks))
    for hook in checked:
        if not callable(hook):
            raise TypeError(f"{option} takes functions hook(flow_or_task, run, state); {hook!r} cannot be called")
    return cast("tuple[Hook, ...]", checked)


def check_tags(tags: object) -> frozenset[str]:
    """The tags as a set.

    Raises:
        TypeError: not an iterable of strings, or one bare string.
    """
    if tags is None:
        return frozenset()
    if isinstance(tags, str):
        raise TypeError(f"tags takes several strings; write tags=[{tags!r}]")
    if not isinstance(tags, Iterable):
        raise TypeError(f"tags takes strings, not {tags!r}")
    checked = frozenset(cast("Iterable[object]", tags))
    for tag in checked:
        if not isinstance(tag, str):
            raise TypeError(f"tags takes strings; {tag!r} is {type(tag).__name__}")
    return cast("frozenset[str]", checked)


def check_seconds(option: str, seconds: object) -> float | None:
    """A length of time above zero, or None.

    Raises:
        TypeError: not a number. ConfigurationError: not above zero, or not finite.
    """
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{option} is a number of seconds, not {seconds!r}")
    if not seconds > 0 or math.isinf(seconds):
        raise ConfigurationError(f"{option} must be above zero and finite, not {seconds!r}; leave it out for no limit")
    return float(seconds)


def check_optional(option: str, value: object, kind: type) -> None:
    """Raises TypeError unless the value is None or of this type."""
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{option} takes {kind.__name__}, not {value!r}")


def check_callable(option: str, value: object) -> None:
    """Raises TypeError unless the value is None or can be called."""
    if value is not None and not callable(value):
        raise TypeError(f"{option} takes a function, not {value!r}")


def check_at_least_one(option: str, value: object) -> int | None:
    """A whole number above zero, or None.

    Raises:
        TypeError: not a whole number. ConfigurationError: below one.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{option} is a whole number, not {value!r}")
    if value < 1:
        raise ConfigurationError(f"{option} must be at least 1, not {value}")
    return value


def retry_policy(
    retries: int | None, delay: DelaySpec, jitter_factor: float | None, default_retries: int = 0
) -> RetryPolicy:
    """The policy that these options spell; None is the default."""
    return RetryPolicy(
        retries=default_retries if retries is None else retries, delay_seconds=delay, jitter_factor=jitter_factor
    )


def _name(hook: object) -> str:
    return getattr(hook, "__name__", "my_hook")
