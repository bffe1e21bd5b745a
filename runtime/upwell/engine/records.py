"""Takes the picture of a live run that hooks, journals and readers get."""

from __future__ import annotations

from typing import Any

from upwell.core.model import TaskRun
from upwell.core.states import State
from upwell.engine.clock import moment
from upwell.engine.future import RunFuture


def record_of(run: RunFuture[Any], state: State | None = None) -> TaskRun:
    """The run as it is now, or as it will be in this state."""
    call = run.call
    flow_run = call.scope.flow_run
    return TaskRun(
        id=run.task_run_id,
        name=run.name,
        task_name=call.definition.name,
        state=state or run.peek(),
        tags=run.tags,
        run_count=run.run_count,
        parameters=run.parameters(),
        flow_run_id=flow_run.id if flow_run else None,
        flow_run_name=flow_run.name if flow_run else None,
        parent_task_run_id=call.parent.task_run_id if call.parent else call.parent_id,
        created=moment(call.created),
        start_time=moment(run.started) if run.started else None,
        end_time=state.timestamp if state and state.is_final() else moment(run.ended) if run.ended else None,
    )
