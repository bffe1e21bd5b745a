"""From rows of the store to the records that readers get."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec

from upwell.core.ids import RANDOM_BITS, uuid7_number
from upwell.core.model import FlowRunRecord, LogLine, Span, TaskRun
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
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NO_TAGS: Final[frozenset[str]] = frozenset()
_TYPES: Final = {kind.value: kind for kind in StateType}
"""The enumeration itself takes ten times as long to say which of its members is meant."""

_SCHEDULED: Final[str] = SCHEDULED.value
_NAMES: Final = {kind.value: kind.capitalize() for kind in StateType}

KEPT: Final = 4096
"""How many of what many rows say alike are remembered: sets of tags, ids of flow runs."""


def moment(micros: int) -> dt.datetime:
    """A time as people have it."""
    return _EPOCH + dt.timedelta(0, 0, micros)


def moment_or_none(micros: int | None) -> dt.datetime | None:
    return None if micros is None else _EPOCH + dt.timedelta(0, 0, micros)


def task_run_id(base: str, created: int, number: int) -> UUID:
    """The id of a run of a series."""
    return msgspec.convert(_id_bytes(int(base, 16), created, number), UUID)


def _id_bytes(first: int, created: int, number: int) -> bytes:
    """The same as bytes. first: what the ids of the series begin with."""
    return uuid7_number(created // 1000, first + number).to_bytes(16, "big")


def random_part(run_id: UUID) -> int:
    """The part of an id that its series and number make, the reverse of `uuid7`."""
    number = run_id.int
    return ((number >> 64) & 0xFFF) << _LOW_BITS | (number & ((1 << _LOW_BITS) - 1))


def state_of(kind: str, name: str | None, micros: int, message: str | None, due: int | None = None) -> State:
    """A state as the journal keeps it; without its data, which is not kept there."""
    return State(
        type=_TYPES[kind],
        name=name or _NAMES[kind],
        timestamp=moment(micros),
        message=message,
        scheduled_time=moment_or_none(due) if kind == _SCHEDULED else None,
    )


def task_run(row: tuple[Any, ...]) -> TaskRun:
    """From `RUN_COLUMNS`."""
    (_, number, created, started, ended, state, state_name, message, run_count, name,
     parent, tags, inputs, base, task, series_tags, flow_run_id, flow_run_name) = row  # fmt: skip  # in their order
    last = created if started is None else started
    return TaskRun(
        id=task_run_id(base, created, number),
        name=name or f"{task}-{number}",
        task_name=task,
        state=state_of(state, state_name, last if ended is None else ended, message),
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
    last = created if started is None else started
    return FlowRunRecord(
        id=msgspec.convert(run_id, UUID),
        name=name,
        flow_name=flow,
        flow_version=version,
        state=state_of(state, state_name, last if ended is None else ended, message, due),
        tags=tags_of(tags),
        run_count=run_count,
        parameters=msgspec.json.decode(parameters) if parameters else {},
        parent_flow_run_id=uuid_or_none(parent_flow_run_id),
        parent_task_run_id=uuid_or_none(parent_task_run_id),
        root_flow_run_id=uuid_of(root),
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


def spans_of_runs(rows: Iterable[tuple[Any, ...]], series: Iterable[tuple[Any, ...]]) -> list[Span]:
    """From series, number, created, started, ended, state, state's name, name; all at once, for there are many.

    series: their keys, each with what its ids begin with, its task and its flow run.
    """
    named = {key: (int(base, 16), task, flow_run_id) for key, base, task, flow_run_id in series}
    made: list[dict[str, Any]] = []
    for key, number, created, started, ended, state, state_name, name in rows:
        first, task, flow_run_id = named[key]
        made.append(
            {
                "id": _id_bytes(first, created, number),
                "name": name or f"{task}-{number}",
                "is_flow_run": False,
                "flow_run_id": flow_run_id,
                "state_type": state,
                "state_name": state_name or _NAMES[state],
                "created": created / 1e6,  # exact to the microsecond until the year 2106
                "start_time": None if started is None else started / 1e6,
                "end_time": None if ended is None else ended / 1e6,
            }
        )
    return msgspec.convert(made, list[Span], strict=False)


@lru_cache(KEPT)
def tags_of(text: str | None) -> frozenset[str]:
    return frozenset(msgspec.json.decode(text)) if text else _NO_TAGS


@lru_cache(KEPT)
def uuid_of(text: str) -> UUID:
    """An id as the store has it, of which many rows have the same."""
    return msgspec.convert(text, UUID)


def uuid_or_none(text: str | None) -> UUID | None:
    return uuid_of(text) if text else None


def by_default_name(text: str) -> tuple[str, int] | None:
    """`fetch-3` as people write it: the end of the task's name, and the number."""
    found = re.fullmatch(r"(.*)-(\d{1,15})", text)
    return (found[1].lower(), int(found[2])) if found else None
