"""The records of runs, as hooks, journals and readers see them: one line a field."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from upwell.core.states import State

if TYPE_CHECKING:
    from uuid import UUID


class TaskRun(Struct, frozen=True, kw_only=True, eq=False):
    """One task run at one moment.

    parameters: argument by name; empty once the run has ended, for arguments are not kept.
    run_count: how often it has begun.
    """

    id: UUID
    name: str
    task_name: str
    state: State
    tags: frozenset[str]
    run_count: int
    parameters: dict[str, Any]
    flow_run_id: UUID | None
    flow_run_name: str | None
    parent_task_run_id: UUID | None
    created: dt.datetime
    start_time: dt.datetime | None
    end_time: dt.datetime | None

    @property
    def state_type(self) -> str:
        return self.state.type.value

    @property
    def state_name(self) -> str:
        return self.state.name
