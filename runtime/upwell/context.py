"""What is around a piece of code: the run, the flow run, the tags."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from msgspec import Struct

from upwell.core.errors import MissingContextError
from upwell.core.model import TaskRun
from upwell.core.options import check_tags
from upwell.engine.flow_run import FlowRun
from upwell.engine.future import CURRENT_RUN
from upwell.engine.records import record_of
from upwell.engine.scope import CURRENT_SCOPE, CURRENT_TAGS


class FlowRunContext(Struct, frozen=True):
    """The flow run whose code this is: the Flow, the run, its parameters."""

    flow: Any
    flow_run: FlowRun
    parameters: dict[str, Any]

    @staticmethod
    def get() -> FlowRunContext | None:
        """The context here; None outside of flow runs."""
        scope = CURRENT_SCOPE.get()
        if scope is None or not isinstance(scope.flow_run, FlowRun):
            return None
        run = scope.flow_run
        return FlowRunContext(run.definition.face, run, run.parameters)


class TaskRunContext(Struct, frozen=True):
    """The task run whose code this is: the Task, the run, its parameters."""

    task: Any
    task_run: TaskRun
    parameters: dict[str, Any]

    @staticmethod
    def get() -> TaskRunContext | None:
        """The context here; None outside of task runs."""
        run = CURRENT_RUN.get()
        if run is None:
            return None
        record = record_of(run)
        return TaskRunContext(run.call.definition.face, record, record.parameters)


def get_run_context() -> FlowRunContext | TaskRunContext:
    """The innermost run whose code this is.

    Raises:
        MissingContextError: outside of runs.
    """
    found = TaskRunContext.get() or FlowRunContext.get()
    if found is None:
        raise MissingContextError("There is no run here: call this from the code of a flow or a task.")
    return found


@contextmanager
def tags(*new_tags: str) -> Generator[frozenset[str], None, None]:
    """Runs that are started inside carry these tags, too; may be nested."""
    together = CURRENT_TAGS.get() | check_tags(new_tags)
    token = CURRENT_TAGS.set(together)
    try:
        yield together
    finally:
        CURRENT_TAGS.reset(token)
