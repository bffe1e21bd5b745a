"""Hooks added to a flow or task after its decoration: `@my_task.on_failure`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from upwell.core.definition import Definition
from upwell.core.options import Hook
from upwell.core.states import CANCELLED, COMPLETED, CRASHED, FAILED, RUNNING, StateType

F = TypeVar("F", bound=Callable[..., Any])


class Hookable:
    """What flows and tasks have in common for hooks, each `hook(flow_or_task, run, state)`, sync or async.

    What a hook raises is logged, and changes nothing.
    """

    _definition: Definition

    def on_completion(self, hook: F) -> F:
        """Call the hook when a run completes."""
        return self._add_hook(COMPLETED, hook)

    def on_failure(self, hook: F) -> F:
        """Call the hook when a run fails for good."""
        return self._add_hook(FAILED, hook)

    def on_running(self, hook: F) -> F:
        """Call the hook just before a run starts."""
        return self._add_hook(RUNNING, hook)

    def on_cancellation(self, hook: F) -> F:
        """Call the hook when a run was cancelled."""
        return self._add_hook(CANCELLED, hook)

    def on_crashed(self, hook: F) -> F:
        """Call the hook when what executed a run went away."""
        return self._add_hook(CRASHED, hook)

    def _add_hook(self, state: StateType, hook: F) -> F:
        self._definition.add_hook(state, cast("Hook", hook))
        return hook
