"""Deployments and schedules: found in the store, and from rows to records and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import msgspec

from upwell.core.deployments import Deployment, DeploymentSpec, Schedule
from upwell.core.errors import NotFoundError
from upwell.journal.control_part import ids_json, json_of
from upwell.journal.database import Row, Session
from upwell.journal.reader_records import moment, moment_or_none

Ref = UUID | str

COLUMNS: Final = (
    "d.id, d.flow, d.name, d.entrypoint, d.version, d.description, d.tags, d.parameters, d.parameter_schema, "
    "d.work_pool, d.work_queue, d.job_variables, d.concurrency, d.when_full, d.paused, d.created, d.updated"
)


async def find_deployment(session: Session, ref: Ref) -> Deployment:
    """The deployment of this id or name.

    Raises:
        NotFoundError: there is none.
    """
    found = await _deployment(session, ref)
    if found is None:
        raise NotFoundError(f"There is no deployment {ref!s}. A deployment's name is like 'flow/deployment'.")
    return found


async def locked_deployment(session: Session, ref: Ref) -> Deployment:
    """The same, locked until the transaction ends: runs of it are made, and it is changed, by one after the other."""
    found = await find_deployment(session, ref)
    await session.fetch("lock_deployment", id=str(found.id))
    return await find_deployment(session, found.id)


async def _deployment(session: Session, ref: Ref) -> Deployment | None:
    identity = ref if isinstance(ref, UUID) else _uuid(ref)
    if identity is not None:
        rows = await session.fetch("deployment_by_id", id=str(identity))
    else:
        flow, slash, name = str(ref).rpartition("/")
        if not slash:
            raise NotFoundError(f"There is no deployment {ref!r}. A deployment's name is like 'flow/deployment'.")
        rows = await session.fetch("deployment_by_name", flow=flow, name=name)
    found = await with_schedules(session, rows)
    return found[0] if found else None


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


async def with_schedules(session: Session, rows: Sequence[Row]) -> list[Deployment]:
    """From rows of `COLUMNS`."""
    if not rows:
        return []
    schedules: dict[str, list[Schedule]] = {row[0]: [] for row in rows}
    for row in await session.fetch("schedules_of_deployments", ids=ids_json(schedules)):
        schedules[row[1]].append(schedule_of(row))
    return [_record(row, tuple(schedules[row[0]])) for row in rows]


def _record(row: Row, schedules: tuple[Schedule, ...]) -> Deployment:
    (identity, flow, name, entrypoint, version, description, tags, parameters, schema, work_pool, work_queue, variables,
     concurrency, when_full, paused, created, updated) = row  # fmt: skip  # in their order
    decode = msgspec.json.decode
    return Deployment(
        id=UUID(identity),
        flow_name=flow,
        name=name,
        entrypoint=entrypoint,
        version=version,
        description=description,
        tags=tuple(decode(tags)) if tags else (),
        parameters=decode(parameters),
        parameter_schema=decode(schema) if schema else {},
        work_pool=work_pool,
        work_queue=work_queue,
        job_variables=decode(variables),
        concurrency_limit=concurrency,
        when_full=when_full,
        paused=bool(paused),
        schedules=schedules,
        created=moment(created),
        updated=moment(updated),
    )


def schedule_of(row: Row) -> Schedule:
    """From a row of schedules."""
    (identity, deployment_id, slug, kind, expression, timezone, anchor, parameters, active, catchup, max_late, last,
     following) = row[:13]  # fmt: skip  # in their order
    return Schedule(
        id=UUID(identity),
        deployment_id=UUID(deployment_id),
        slug=slug,
        kind=kind,
        expression=expression,
        timezone=timezone,
        anchor=moment_or_none(anchor),
        parameters=msgspec.json.decode(parameters),
        active=bool(active),
        catchup=catchup,
        max_late_seconds=None if max_late is None else max_late / 1e6,
        last_tick=moment_or_none(last),
        next_tick=moment_or_none(following),
    )


def values_of(wanted: DeploymentSpec, queue: str | None) -> dict[str, Any]:
    """What is wanted, as parameters of a query. queue: of its pool."""
    tags = sorted(set(wanted.tags))
    return {
        "entrypoint": wanted.entrypoint,
        "version": wanted.version,
        "description": wanted.description,
        "tags": json_of(tags) if tags else None,
        "parameters": json_of(wanted.parameters),
        "parameter_schema": json_of(wanted.parameter_schema) if wanted.parameter_schema else None,
        "work_pool": wanted.work_pool,
        "work_queue": queue,
        "job_variables": json_of(wanted.job_variables),
        "concurrency": wanted.concurrency_limit,
        "when_full": wanted.when_full,
        "paused": None if wanted.paused is None else int(wanted.paused),
    }
