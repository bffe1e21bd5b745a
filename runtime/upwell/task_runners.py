"""The task runners by class, for those who want to give them options; loaded when they are first asked for.

`@flow(task_runner="threads")` needs none of this; `@flow(task_runner=ThreadPoolTaskRunner(max_workers=4))` does.
"""

from __future__ import annotations

from typing import Any

from upwell.core.lifecycle import Outcome, OutcomeKind
from upwell.core.seams import Attempt, RunnerHost, TaskRunner
from upwell.engine.registry import runner_class

_NAMES = {
    "SequentialTaskRunner": "sequential",
    "ConcurrentTaskRunner": "concurrent",
    "ThreadPoolTaskRunner": "threads",
    "ProcessPoolTaskRunner": "processes",
}


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return runner_class(_NAMES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Attempt", "Outcome", "OutcomeKind", "RunnerHost", "TaskRunner"]
