"""The cache in the store: which keys have a record, and who computes one now. The seam, and the one over a database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

from msgspec import Struct, field
from msgspec.json import encode

from upwell.engine.clock import clock
from upwell.journal.database import Database, Row, Session
from upwell.journal.processes import is_gone

MOST_KEYS: Final = 500
"""Of one query."""


class Wanted(Struct, array_like=True):
    """A key that somebody wants the result of. holder: the run that would compute it.

    refresh: what is there does not count. wants_lock: others wait while it is computed.
    """

    key: str
    holder: str
    refresh: bool
    wants_lock: bool


class Looked(Struct, array_like=True):
    """What was seen. Keys that are in none of these, another process computes.

    found: records by key. free: keys that are to be computed here. locked: those of them that others wait for.
    """

    found: dict[str, bytes] = field(default_factory=dict[str, bytes])
    free: list[str] = field(default_factory=list[str])
    locked: list[str] = field(default_factory=list[str])


class CacheStore(Protocol):
    """What the cache of a process needs of the store. Every method may raise StoreUnavailable."""

    async def look(self, process_id: str, wanted: Sequence[Wanted]) -> Looked:
        """What is known of these keys, each of them once; locks are taken where they can be had."""
        ...

    async def record(self, key: str) -> Row | None:
        """Task, record, created, expires and task run's id of an entry, expired or not."""
        ...


class SqlCache:
    """The cache in a SQL database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def look(self, process_id: str, wanted: Sequence[Wanted]) -> Looked:
        looked = Looked(await _records(self._database, wanted))
        missing = [one for one in wanted if one.key not in looked.found]
        looked.free = [one.key for one in missing if not one.wants_lock]
        if locked := [one for one in missing if one.wants_lock]:
            async with self._database.transaction() as session:
                looked.found |= await _records(session, locked)
                looked.locked = await _take_locks(session, process_id, [w for w in locked if w.key not in looked.found])
            looked.free += looked.locked
        return looked

    async def record(self, key: str) -> Row | None:
        rows = await self._database.fetch("cached_record", key=key)
        return rows[0] if rows else None


async def _records(session: Session, wanted: Sequence[Wanted]) -> dict[str, bytes]:
    keys = [one.key for one in wanted if not one.refresh]
    now = int(clock().time() * 1e6)
    found: dict[str, bytes] = {}
    for start in range(0, len(keys), MOST_KEYS):
        part = encode(keys[start : start + MOST_KEYS]).decode()
        found |= _records_in(await session.fetch("cached_records", keys=part, now=now))
        await asyncio.sleep(0)
    return found


def _records_in(rows: Sequence[Row]) -> Iterator[tuple[str, bytes]]:
    """The keys and records that the query `cached_records` has found."""
    ((keys, records),) = rows
    return zip(keys.split(), map(bytes.fromhex, records.split()), strict=True) if keys else iter(())


async def _take_locks(session: Session, process_id: str, wanted: Sequence[Wanted]) -> list[str]:
    """The keys whose locks can be had now, in an open transaction."""
    holders = {one.key: one.holder for one in wanted}
    if not holders:
        return []
    await session.insert("take_cache_locks", [(key, holder, process_id) for key, holder in holders.items()])
    mine: set[str] = set()
    for key, owner, *process in await session.fetch("cache_lock_holders", keys=encode(list(holders)).decode()):
        if owner != process_id and _has_ended(*process):
            taken = await session.fetch(
                "take_over_cache_lock", key=key, holder=holders[key], process_id=process_id, gone=owner
            )
            owner = process_id if taken else owner
        if owner == process_id:
            mine.add(key)
    return [one.key for one in wanted if one.key in mine]


async def release_locks(session: Session, process_id: str, locks: Sequence[Row]) -> None:
    """Let others compute these keys; each is a key and who held it."""
    for start in range(0, len(locks), MOST_KEYS):
        part = locks[start : start + MOST_KEYS]
        await session.fetch(
            "release_cache_locks",
            process_id=process_id,
            keys=encode([key for key, _ in part]).decode(),
            holders=encode([holder for _, holder in part]).decode(),
        )


def _has_ended(state: Any, host: str, pid: int, pid_started: str, lease_until: int) -> bool:
    """Whether a process that holds a lock does not compute any more."""
    if state != "alive":
        return True
    gone = is_gone(host, pid, pid_started)
    return lease_until < int(clock().time() * 1e6) if gone is None else gone
