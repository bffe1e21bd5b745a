"""The records of runs, as hooks, journals and readers see them: one line a field."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any, Generic, TypeVar
from uuid import UUID

from msgspec import Struct

from upwell.core.states import State, StateType

T = TypeVar("T")


class TaskRun(Struct, frozen=True, kw_only=True, eq=False):
    """One task run at one moment.

    parameters: argument by name; empty once the run has ended, for arguments are not kept.
    inputs: its arguments as text, bounded and without secrets, as the journal keeps them; None in a live record.
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
    inputs: str | None = None

    @property
    def state_type(self) -> str:
        return self.state.type.value

    @property
    def state_name(self) -> str:
        return self.state.name


class FlowRunRecord(Struct, frozen=True, kw_only=True, eq=False):
    """One flow run as the journal has it.

    parameters: for people: bounded, secrets left out.
    run_count: how often it has begun.
    deployment_id, due: of which deployment it is, and when it was to begin; None for one that was just called.
    """

    id: UUID
    name: str
    flow_name: str
    flow_version: str | None
    state: State
    tags: frozenset[str]
    run_count: int
    parameters: dict[str, Any]
    parent_flow_run_id: UUID | None
    parent_task_run_id: UUID | None
    root_flow_run_id: UUID
    durable: bool
    crashes: int
    idempotency_key: str | None
    created: dt.datetime
    start_time: dt.datetime | None
    end_time: dt.datetime | None
    deployment_id: UUID | None = None
    due: dt.datetime | None = None

    @property
    def state_type(self) -> str:
        return self.state.type.value

    @property
    def state_name(self) -> str:
        return self.state.name


class LogLine(Struct, frozen=True, kw_only=True, eq=False):
    """One line of a run's log. level: as in `logging`, 20 is INFO."""

    timestamp: dt.datetime
    level: int
    logger: str
    message: str
    flow_run_id: UUID | None
    task_run_id: UUID | None

    @property
    def level_name(self) -> str:
        from logging import getLevelName  # here: most who read records read no logs

        return getLevelName(self.level)


class Edge(Struct, frozen=True, kw_only=True):
    """One task run waited for another. argument: which one the other's result became; None where it became none."""

    upstream_id: UUID
    upstream_name: str
    task_run_id: UUID
    task_run_name: str
    argument: str | None


class StateCounts(Struct, frozen=True, kw_only=True):
    """How many runs that were created in one span of time are in which state.

    states: number by state type, without those that are 0.
    """

    start: dt.datetime
    end: dt.datetime
    states: dict[StateType, int]

    @property
    def total(self) -> int:
        return sum(self.states.values())


class TaskGroup(Struct, frozen=True, kw_only=True, eq=False):
    """All runs of one task in one flow run.

    states: number by state type; those that have not begun count as PENDING.
    start_time, end_time: the first start and the last end.
    runs: the first ones, in the order in which they were submitted.
    """

    task_name: str
    states: dict[StateType, int]
    start_time: dt.datetime | None
    end_time: dt.datetime | None
    runs: tuple[TaskRun, ...]

    @property
    def total(self) -> int:
        return sum(self.states.values())


class RunTree(Struct, frozen=True, kw_only=True, eq=False):
    """A flow run, its task runs by task, and the flow runs that it started, each in turn a tree; oldest first."""

    run: FlowRunRecord
    tasks: tuple[TaskGroup, ...]
    flow_runs: tuple[RunTree, ...]


class Span(Struct, frozen=True, kw_only=True):
    """When one run of a flow run's timeline ran. flow_run_id: whose task run it is; its own id for a flow run."""

    id: UUID
    name: str
    is_flow_run: bool
    flow_run_id: UUID
    state_type: StateType
    state_name: str
    created: dt.datetime
    start_time: dt.datetime | None
    end_time: dt.datetime | None


class Page(Struct, Generic[T], frozen=True, kw_only=True, eq=False):
    """Some of many, in order. next: what to give as `after` to get the next page; None at the end."""

    items: tuple[T, ...]
    next: str | None

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)
