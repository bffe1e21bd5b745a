"""Upwell: flows and tasks from plain functions, at asyncio's speed.

Everything here is loaded when it is first used, so that `import upwell` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as type checkers know it: `typing` takes longer to load than all else here

if TYPE_CHECKING:
    from typing import Any

    from upwell import (
        cache_policies,
        concurrency,
        deployments,
        durability,
        exceptions,
        filesystems,
        futures,
        history,
        results,
        runtime,
        schedules,
        serializers,
        settings,
        states,
        task_runners,
        testing,
        transactions,
    )
    from upwell.context import get_run_context, tags
    from upwell.core.retries import exponential_backoff
    from upwell.deployments import aserve, deploy, serve
    from upwell.durability import fork, resume, resume_all
    from upwell.flows import Flow, flow
    from upwell.futures import TaskFuture, as_completed, first, first_async, wait, wait_async
    from upwell.logging import get_logger, get_run_logger
    from upwell.runtime import Runtime
    from upwell.states import State
    from upwell.tasks import Task, task
    from upwell.utilities.annotations import allow_failure, quote, unmapped

__version__ = "0.1.0"

_HOMES = {
    "Flow": "upwell.flows",
    "Runtime": "upwell.runtime",
    "State": "upwell.states",
    "Task": "upwell.tasks",
    "TaskFuture": "upwell.futures",
    "allow_failure": "upwell.utilities.annotations",
    "as_completed": "upwell.futures",
    "aserve": "upwell.deployments",
    "deploy": "upwell.deployments",
    "exponential_backoff": "upwell.core.retries",
    "first": "upwell.futures",
    "first_async": "upwell.futures",
    "flow": "upwell.flows",
    "fork": "upwell.durability",
    "get_logger": "upwell.logging",
    "get_run_context": "upwell.context",
    "get_run_logger": "upwell.logging",
    "quote": "upwell.utilities.annotations",
    "resume": "upwell.durability",
    "resume_all": "upwell.durability",
    "serve": "upwell.deployments",
    "tags": "upwell.context",
    "task": "upwell.tasks",
    "unmapped": "upwell.utilities.annotations",
    "wait": "upwell.futures",
    "wait_async": "upwell.futures",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    if name in __all__:  # a module
        return import_module(f"upwell.{name}")
    raise AttributeError(f"module 'upwell' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "Flow",
    "Runtime",
    "State",
    "Task",
    "TaskFuture",
    "allow_failure",
    "as_completed",
    "aserve",
    "cache_policies",
    "concurrency",
    "deploy",
    "deployments",
    "durability",
    "exceptions",
    "exponential_backoff",
    "filesystems",
    "first",
    "first_async",
    "flow",
    "fork",
    "futures",
    "get_logger",
    "get_run_context",
    "get_run_logger",
    "history",
    "quote",
    "results",
    "resume",
    "resume_all",
    "runtime",
    "schedules",
    "serializers",
    "serve",
    "settings",
    "states",
    "tags",
    "task",
    "task_runners",
    "testing",
    "transactions",
    "unmapped",
    "wait",
    "wait_async",
]
