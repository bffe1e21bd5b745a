"""From rows of the store to the records that readers get."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec

from upwell.core.ids import RANDOM_BITS, uuid7
from upwell.core.model import FlowRunRecord, LogLine, TaskRun
from upwell.core.states import SCHEDULED, State, StateType

V = TypeVar("V")

RUN_COLUMNS: Final = (
    "t.series, t.number, t.created, t.started, t.ended, t.state, t.state_name, t.message, t.run_count, t.name, "
    "t.parent, t.tags, t.inputs, s.base, s.task, s.tags AS series_tags, s.flow_run_id, f.name AS flow_run_name"
)
FLOW_RUN_COLUMNS: Final = (
    "f.id, f.flow, f.name, f.version, f.state, f.state_name, f.message, f.created, f.started, f.ended, f.due, "
    "f.run_count, f.tags, f.parameters, f.parent_flow_run_id, f.parent_task_run_id, f.root_flow_run_id, f.durable, "
    "f.crashes, f.idempotency_key, f.deployment_id, (SELECT j.due FROM jobs j WHERE j.flow_run_id = f.id)"
)

NOT_BEGUN: Final = "Has not begun."

_MASK: Final = (1 << RANDOM_BITS) - 1
_LOW_BITS: Final = 62


def moment(micros: int) -> dt.datetime:
    """A time as people have it."""
    return _EPOCH + dt.timedelta(microseconds=micros)


def moment_or_none(micros: int | None) -> dt.datetime | None:
    return None if micros is None else _EPOCH + dt.timedelta(microseconds=micros)


def task_run_id(base: str, created: int, number: int) -> UUID:
    """The id of a run of a series."""
    return uuid7(created / 1e6, int(base, 16) + number)


def random_part(run_id: UUID) -> int:
    """The part of an id that its series and number make, the reverse of `uuid7`."""
    number = run_id.int
    return ((number >> 64) & 0xFFF) << _LOW_BITS | (number & ((1 << _LOW_BITS) - 1))


def state_of(kind: str, name: str | None, micros: int, message: str | None, due: int | None = None) -> State:
    """A state as the journal keeps it; without its data, which is not kept there."""
    return State(
        type=StateType(kind),
        name=name or kind.capitalize(),
        timestamp=moment(micros),
        message=message,
        scheduled_time=moment_or_none(due) if kind == SCHEDULED.value else None,
    )


def task_run(row: tuple[Any, ...]) -> TaskRun:
    """From `RUN_COLUMNS`."""
    (_, number, created, started, ended, state, state_name, message, run_count, name,
     parent, tags, inputs, base, task, series_tags, flow_run_id, flow_run_name) = row  # fmt: skip  # in their order
    last = next(at for at in (ended, started, created) if at is not None)
    return TaskRun(
        id=task_run_id(base, created, number),
        name=name or f"{task}-{number}",
        task_name=task,
        state=state_of(state, state_name, last, message),
        tags=tags_of(series_tags if tags is None else tags),
        run_count=run_count,
        parameters={},
        flow_run_id=uuid_or_none(flow_run_id),
        flow_run_name=flow_run_name,
        parent_task_run_id=uuid_or_none(parent),
        created=moment(created),
        start_time=moment_or_none(started),
        end_time=moment_or_none(ended),
        inputs=inputs,
    )


def run_not_begun(number: int, series: tuple[Any, ...]) -> TaskRun:
    """A run that has no row of its own: as its series tells, the time of its submission that of the first run.

    series: created, base, task, tags, flow run's id, flow run's name.
    """
    created, base, task, tags, flow_run_id, flow_run_name = series
    return task_run(
        (None, number, created, None, None, "PENDING", None, NOT_BEGUN, 0, None,
         None, tags, None, base, task, tags, flow_run_id, flow_run_name)
    )  # fmt: skip  # one line a few columns


def flow_run(row: tuple[Any, ...]) -> FlowRunRecord:
    """From `FLOW_RUN_COLUMNS`."""
    (run_id, flow, name, version, state, state_name, message, created, started, ended, due, run_count, tags, parameters,
     parent_flow_run_id, parent_task_run_id, root, durable, crashes, idempotency_key, deployment_id,
     job_due) = row  # fmt: skip  # likewise
    last = next(at for at in (ended, started, created) if at is not None)
    return FlowRunRecord(
        id=UUID(run_id),
        name=name,
        flow_name=flow,
        flow_version=version,
        state=state_of(state, state_name, last, message, due),
        tags=tags_of(tags),
        run_count=run_count,
        parameters=msgspec.json.decode(parameters) if parameters else {},
        parent_flow_run_id=uuid_or_none(parent_flow_run_id),
        parent_task_run_id=uuid_or_none(parent_task_run_id),
        root_flow_run_id=UUID(root),
        durable=bool(durable),
        crashes=crashes,
        idempotency_key=idempotency_key,
        created=moment(created),
        start_time=moment_or_none(started),
        end_time=moment_or_none(ended),
        deployment_id=uuid_or_none(deployment_id),
        due=moment_or_none(job_due),
    )


def log_line(row: tuple[Any, ...]) -> LogLine:
    """From flow_run_id, task_run_id, at, level, logger, message."""
    flow_run_id, task_id, at, level, logger, message = row
    return LogLine(
        timestamp=moment(at),
        level=level,
        logger=logger,
        message=message,
        flow_run_id=uuid_or_none(flow_run_id),
        task_run_id=uuid_or_none(task_id),
    )


def tags_of(text: str | None) -> frozenset[str]:
    return frozenset(msgspec.json.decode(text)) if text else _NO_TAGS


def uuid_or_none(text: str | None) -> UUID | None:
    return UUID(text) if text else None


def by_default_name(text: str) -> tuple[str, int] | None:
    """`fetch-3` as people write it: the end of the task's name, and the number."""
    found = re.fullmatch(r"(.*)-(\d{1,15})", text)
    return (found[1].lower(), int(found[2])) if found else None


_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NO_TAGS: Final[frozenset[str]] = frozenset()
