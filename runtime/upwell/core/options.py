"""What a user can say about a flow or a task at its decoration, checked when it is said."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, Literal, TypedDict, cast

from msgspec import Struct

from upwell.core.errors import ConfigurationError
from upwell.core.names import check_name, check_name_template
from upwell.core.retries import DelaySpec, RetryPolicy
from upwell.core.storage_keys import check_key_template

Hook = Callable[[Any, Any, Any], Any]
"""`hook(flow_or_task, run, state)`, sync or async."""


Hooks = Iterable[Hook] | None
NameTemplate = str | Callable[..., str] | None
RetryCondition = Callable[[Any, Any, Any], Any] | None
"""`condition(flow_or_task, run, state)`, sync or async: whether to try again."""
CacheKeyFn = Callable[[Any, dict[str, Any]], str | None] | None
"""`cache_key_fn(context, parameters)`: the key of a call, or None for not to cache it."""


class TaskKeywords(TypedDict, total=False):
    """The keywords of `@task` and `Task.with_options`; see `upwell.tasks.task` for what each means."""

    name: str | None
    description: str | None
    tags: Iterable[str] | None
    version: str | None
    task_run_name: NameTemplate
    task_runner: Any
    retries: int | None
    retry_delay_seconds: DelaySpec
    retry_jitter_factor: float | None
    retry_condition_fn: RetryCondition
    timeout_seconds: float | None
    log_prints: bool | None
    persist_result: bool | None
    result_storage: Any
    result_storage_key: str | None
    result_serializer: Any
    cache_result_in_memory: bool | None
    cache_policy: Any
    cache_key_fn: CacheKeyFn
    cache_expiration: dt.timedelta | None
    refresh_cache: bool | None
    viz_return_value: Any
    on_completion: Hooks
    on_failure: Hooks
    on_running: Hooks
    on_cancellation: Hooks
    on_crashed: Hooks


class FlowKeywords(TypedDict, total=False):
    """The keywords of `@flow` and `Flow.with_options`; see `upwell.flows.flow` for what each means."""

    name: str | None
    description: str | None
    version: str | None
    flow_run_name: NameTemplate
    task_runner: Any
    retries: int | None
    retry_delay_seconds: DelaySpec
    retry_jitter_factor: float | None
    retry_condition_fn: RetryCondition
    timeout_seconds: float | None
    validate_parameters: bool
    durable: bool | Literal["strict"] | None
    log_prints: bool | None
    persist_result: bool | None
    result_storage: Any
    result_serializer: Any
    cache_result_in_memory: bool | None
    on_completion: Hooks
    on_failure: Hooks
    on_running: Hooks
    on_cancellation: Hooks
    on_crashed: Hooks


class Options(Struct, frozen=True, kw_only=True):
    """What `@task` and `@flow` were told, checked; None is "not said"."""

    name: str | None = None
    description: str | None = None
    tags: frozenset[str] = frozenset()
    version: str | None = None
    run_name: NameTemplate = None
    task_runner: Any = None
    retries: int | None = None
    retry_delay_seconds: DelaySpec = None
    retry_jitter_factor: float | None = None
    retry_condition_fn: RetryCondition = None
    timeout_seconds: float | None = None
    validate_parameters: bool = True
    durable: bool | Literal["strict"] | None = None
    log_prints: bool | None = None
    persist_result: bool | None = None
    result_storage: Any = None
    result_storage_key: str | None = None
    result_serializer: Any = None
    cache_result_in_memory: bool | None = None
    cache_policy: Any = None
    cache_key_fn: CacheKeyFn = None
    cache_expiration: dt.timedelta | None = None
    refresh_cache: bool | None = None
    viz_return_value: Any = None
    on_completion: tuple[Hook, ...] = ()
    on_failure: tuple[Hook, ...] = ()
    on_running: tuple[Hook, ...] = ()
    on_cancellation: tuple[Hook, ...] = ()
    on_crashed: tuple[Hook, ...] = ()

    @property
    def says_about_results(self) -> bool:
        """Whether anything is said about what becomes of results."""
        return any(getattr(self, option) is not None for option in RESULT_OPTIONS)


RESULT_OPTIONS: Final = (
    "persist_result", "result_storage", "result_storage_key", "result_serializer", "cache_result_in_memory",
    "cache_policy", "cache_key_fn", "cache_expiration", "refresh_cache",
)  # fmt: skip  # a list of names
"""What can be said about results. What needs more than their type to be checked, `upwell.persistence` checks."""

HOOKS = ("on_completion", "on_failure", "on_running", "on_cancellation", "on_crashed")


def checked_options(decorator: str, keywords: Mapping[str, Any], parameter_names: Collection[str]) -> Options:
    """The options that these keywords spell.

    decorator: "task" or "flow", for messages and for the keyword of the run's name.

    Raises:
        TypeError: an unknown keyword, or a value of the wrong type.
        ConfigurationError, InvalidNameError, ValueError: a value that cannot work.
    """
    known = (TaskKeywords if decorator == "task" else FlowKeywords).__annotations__
    unknown = [keyword for keyword in keywords if keyword not in known]
    if unknown:
        raise TypeError(f"@{decorator} has no option {unknown[0]!r}; it has: {', '.join(sorted(known))}")
    given = {keyword: value for keyword, value in keywords.items() if keyword not in (f"{decorator}_run_name", "tags")}
    run_name = keywords.get(f"{decorator}_run_name")
    if run_name is not None:
        check_name_template(run_name, parameter_names)
    if given.get("name") is not None:
        check_name(given["name"])
    check_optional("description", given.get("description"), str)
    check_optional("version", given.get("version"), str)
    check_optional("log_prints", given.get("log_prints"), bool)
    check_optional("validate_parameters", given.get("validate_parameters"), bool)
    if given.get("durable") not in (None, True, False, "strict"):
        raise TypeError(f"durable takes True, False or 'strict', not {given['durable']!r}")
    check_callable("retry_condition_fn", given.get("retry_condition_fn"))
    _check_result_options(given, parameter_names)
    given["timeout_seconds"] = check_seconds("timeout_seconds", given.get("timeout_seconds"))
    check_runner(given.get("task_runner"))
    given.update({hook: check_hooks(hook, given[hook]) for hook in HOOKS if hook in given})
    if given.get("validate_parameters", True) is None:
        given["validate_parameters"] = True
    options = Options(run_name=run_name, tags=check_tags(keywords.get("tags")), **given)
    retry_policy(options)
    return options


def _check_result_options(given: Mapping[str, Any], parameter_names: Collection[str]) -> None:
    for option in ("persist_result", "cache_result_in_memory", "refresh_cache"):
        check_optional(option, given.get(option), bool)
    check_callable("cache_key_fn", given.get("cache_key_fn"))
    expiration = given.get("cache_expiration")
    if expiration is not None and not isinstance(expiration, dt.timedelta):
        raise TypeError(f"cache_expiration takes a timedelta, such as timedelta(hours=1), not {expiration!r}")
    if expiration is not None and expiration <= dt.timedelta():
        raise ConfigurationError(f"cache_expiration must be above zero, not {expiration!r}; leave it out for no limit")
    if given.get("result_storage_key") is not None:
        check_key_template(given["result_storage_key"], parameter_names)
    policy = given.get("cache_policy")
    if policy is not None and not callable(getattr(policy, "compute_key", None)):
        raise TypeError(f"cache_policy takes a policy such as INPUTS of upwell.cache_policies, not {policy!r}")


def retry_policy(options: Options, default_retries: int = 0, default_delay: DelaySpec = None) -> RetryPolicy:
    """When to try again, as these options say it."""
    return RetryPolicy(
        retries=default_retries if options.retries is None else options.retries,
        delay_seconds=default_delay if options.retry_delay_seconds is None else options.retry_delay_seconds,
        jitter_factor=options.retry_jitter_factor,
    )


def check_idempotency_key(key: object) -> str:
    """The key.

    Raises:
        TypeError: it is no text, or an empty one.
    """
    if not isinstance(key, str) or not key:
        raise TypeError(f"idempotency_key takes a text that is not empty, not {key!r}")
    return key


def check_runner(runner: object) -> None:
    """Raises TypeError unless this is None, a name, or an object with a task runner's methods."""
    if runner is None or isinstance(runner, str):
        return
    missing = [name for name in ("open", "start", "interrupt", "close") if not callable(getattr(runner, name, None))]
    if missing or isinstance(runner, type):
        hint = (
            f"write task_runner={runner.__name__}()" if isinstance(runner, type) else "it lacks " + ", ".join(missing)
        )
        raise TypeError(f"task_runner takes a name such as 'threads' or a task runner, not {runner!r}: {hint}")


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


def _name(hook: object) -> str:
    return getattr(hook, "__name__", "my_hook")
