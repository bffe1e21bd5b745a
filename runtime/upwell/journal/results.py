"""The stored result of one run, by the run's id."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from msgspec import Struct

from upwell.engine.caching import key_in
from upwell.journal.database import Session
from upwell.journal.reader_records import random_part


class StoredOutcome(Struct, frozen=True):
    """How a run ended, and the record of its result, if it was stored.

    cache_key: under which its result was found in the cache, if it was.
    """

    name: str
    state: str
    state_name: str | None
    message: str | None
    record: bytes | None
    cache_key: str | None = None


async def outcome_of(session: Session, run_id: UUID) -> StoredOutcome | None:
    """What is known of a task run or a flow run; None if there is none."""
    for row in await session.fetch("flow_run_result", id=str(run_id)):
        return StoredOutcome(*row)
    part = random_part(run_id)
    for series, base, task, submitted in await session.fetch("series_at_or_before", base=f"{part:019x}"):
        number = part - int(base, 16)
        if number < submitted:
            return await _of_task_run(session, series, number, f"{task}-{number}")
    return None


async def _of_task_run(session: Session, series: int, number: int, name: str) -> StoredOutcome:
    rows: list[Any] = await session.fetch("task_run_result", series=series, number=number)
    if not rows:
        return StoredOutcome(name, "PENDING", None, None, None)
    own_name, state, state_name, message, ended, record = rows[0]
    key = key_in(message) if state_name == "Cached" else None
    if record is None and key is not None:
        for (cached,) in await session.fetch("cached_record_until", key=key, ended=ended):
            record = cached
    return StoredOutcome(own_name or name, state, state_name, message, record, key)
