"""The cache in the journal's store: records by key, and locks, so that one process computes while the others wait."""

# An isinstance check cannot say what a generic future holds, and here nobody needs to know.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec.json import encode

from upwell.core.errors import MissingResult
from upwell.core.results import ResultRecord
from upwell.engine.caching import Cache, CacheRow, Computation, Found, Tell
from upwell.engine.clock import clock
from upwell.engine.loggers import ENGINE
from upwell.journal.database import Row, Session
from upwell.journal.processes import is_gone

if TYPE_CHECKING:
    from upwell.journal.batch import Batch

PATIENCE_SECONDS: Final = 5.0
"""How long a store that cannot be used is waited for; then results are computed without asking it."""

FIRST_PAUSE_SECONDS: Final = 0.002
LAST_PAUSE_SECONDS: Final = 0.1
"""Between two looks at what another process computes."""

MOST_KNOWN: Final = 200_000
"""How many keys of one task in one flow run are remembered, so that the store need not be asked for others."""

MOST_KEYS: Final = 500
"""Of one query."""


class JournalCache(Cache):
    """The cache of all processes that write to one store.

    What this process has stored and the store has not got yet is found here.
    """

    persistent = True

    def __init__(self, journal: Any) -> None:
        super().__init__()
        self._journal = journal
        self._unwritten: dict[str, CacheRow] = {}
        self._failing = False

    # --- the engine's side, from any thread -----------------------------------------------------------------

    def claim(self, computations: Sequence[Computation], tell: Tell) -> None:
        computations = self._answer_here(computations, tell)
        if not computations:
            return

        waiting = list(computations)  # those that have no answer yet

        def ask(store: Any) -> Any:
            return self._claim(store.database, waiting, tell)

        def asked(done: Any) -> None:
            error = asyncio.CancelledError("the journal has ended") if done.cancelled() else done.exception()
            self._has_failed(error, waiting, tell)

        try:
            self._journal.ask(ask).add_done_callback(asked)
        except RuntimeError as error:  # its loop has ended
            self._has_failed(error, waiting, tell)

    def _answer_here(self, computations: Sequence[Computation], tell: Tell) -> list[Computation]:
        """Answer what needs no question to the store; returns the others."""
        now = clock().time()
        found: list[Found] = []
        others: list[Computation] = []
        for computation in computations:
            known, key = computation.keeping.known, computation.key
            row = None if computation.refresh else self._unwritten.get(key)
            if row is not None and (row.expires is None or row.expires > now):
                found.append((computation, row.record))
            elif known is not None and (computation.refresh or key not in known):
                found.append((computation, None))
            else:
                others.append(computation)
        if found:
            tell(found)
        return others

    def keep(self, row: CacheRow, computation: Computation | None) -> None:
        self._unwritten[row.key] = row
        if computation is not None and (known := computation.keeping.known) is not None:
            known.add(row.key)
            if len(known) > MOST_KNOWN:
                computation.keeping.known = None
        recorder = self._journal.recorder
        recorder.cached.append((row, None))
        if computation is not None and computation.has_lock:
            recorder.cached.append((None, computation))
        recorder.wake()

    def release(self, computation: Computation) -> None:
        self._journal.recorder.cached.append((None, computation))
        self._journal.recorder.wake()

    def row(self, key: str) -> CacheRow | None:
        row = self._unwritten.get(key)
        if row is not None:
            return row

        def ask(store: Any) -> Any:
            return store.database.fetch("cached_record", key=key)

        for task, record, created, expires, task_run_id in self._journal.ask(ask).result(PATIENCE_SECONDS):
            ends = None if expires is None else expires / 1e6
            return CacheRow(key, task, ResultRecord.from_bytes(record), created / 1e6, ends, task_run_id)
        return None

    # --- the journal's side -----------------------------------------------------------------------------------

    def were_written(self, rows: Iterable[Row]) -> None:
        """The store has these now."""
        for key, _, _, created, _, _ in rows:
            kept = self._unwritten.get(key)
            if kept is not None and _micros(kept.created) == created:
                del self._unwritten[key]

    def _has_failed(self, error: BaseException | None, waiting: list[Computation], tell: Tell) -> None:
        """Whatever happens to the store, runs go on."""
        if error is not None and not self._failing:
            ENGINE.warning("The cache cannot be used, so results are computed: %s", error or type(error).__name__)
        self._failing = error is not None
        if waiting:
            tell([(computation, None) for computation in waiting])

    async def _claim(self, database: Any, waiting: list[Computation], tell: Tell) -> None:
        """Answer for all of these; each is taken out of the list when it has its answer."""
        pause = FIRST_PAUSE_SECONDS
        while waiting:
            found = await asyncio.wait_for(self._look(database, list(waiting)), PATIENCE_SECONDS)
            answered = {id(computation) for computation, _ in found}
            waiting[:] = [computation for computation in waiting if id(computation) not in answered]
            if found:
                tell(found)
            if waiting:
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, LAST_PAUSE_SECONDS)

    async def _look(self, database: Any, computations: Sequence[Computation]) -> list[Found]:
        """What is known by now: a record, or that it is to be computed here; the rest, another process computes."""
        found = await self._records(database, computations)
        missing = [computation for computation in computations if id(computation) not in found]
        free = [computation for computation in missing if not computation.wants_lock]
        locked = [computation for computation in missing if computation.wants_lock]
        if locked:
            async with database.transaction() as session:
                found |= await self._records(session, locked)
                free += await self._take_locks(session, [one for one in locked if id(one) not in found])
        return [*found.values(), *((computation, None) for computation in free)]

    async def _records(self, session: Session, computations: Sequence[Computation]) -> dict[int, Found]:
        wanted = {computation.key: computation for computation in computations if not computation.refresh}
        keys, now = list(wanted), _micros(clock().time())
        found: dict[int, Found] = {}
        for start in range(0, len(keys), MOST_KEYS):
            part = encode(keys[start : start + MOST_KEYS]).decode()
            ((packed,),) = await session.fetch("cached_records", keys=part, now=now)
            for entry in packed.split(",") if packed else ():
                key, _, data = entry.partition(":")
                try:
                    record = ResultRecord.from_bytes(bytes.fromhex(data))
                except MissingResult as error:
                    ENGINE.warning("A cached result cannot be used, so it is computed again: %s", error)
                    wanted[key].refresh = True
                else:
                    computation = wanted[key]
                    found[id(computation)] = (computation, record)
            await asyncio.sleep(0)
        return found

    async def _take_locks(self, session: Session, computations: Sequence[Computation]) -> list[Computation]:
        """The locks that can be had now, in an open transaction."""
        me = self._journal.process.id
        by_key = {computation.key: computation for computation in computations}
        if not by_key:
            return []
        await session.insert("take_cache_locks", [(key, _holder(one), me) for key, one in by_key.items()])
        mine: set[str] = set()
        held = await session.fetch("cache_lock_holders", keys=encode(list(by_key)).decode())
        for key, process_id, *process in held:
            computation = by_key[key]
            if process_id != me and _has_ended(*process):
                taken = await session.fetch(
                    "take_over_cache_lock", key=key, holder=_holder(computation), process_id=me, gone=process_id
                )
                process_id = me if taken else process_id
            if process_id == me:
                computation.has_lock = True
                mine.add(key)
        return [computation for computation in computations if computation.key in mine]


def add_cached(batch: Batch, cached: list[tuple[CacheRow | None, Computation | None]]) -> None:
    """The rows of what was kept and released; of two for one key, the later one."""
    rows: dict[str, Row] = {}
    for kept, released in cached:
        if kept is not None:
            created = _micros(kept.created)
            expires = None if kept.expires is None else _micros(kept.expires)
            rows[kept.key] = (kept.key, kept.task, kept.record.to_bytes(), created, expires, kept.task_run_id)
        if released is not None:
            batch.released_locks.append((released.key, _holder(released)))
    batch.cache_records += rows.values()


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


def _has_ended(state: str | None, host: str, pid: int, pid_started: str, lease_until: int) -> bool:
    """Whether a process that holds a lock does not compute any more."""
    if state != "alive":
        return True
    gone = is_gone(host, pid, pid_started)
    return lease_until < _micros(clock().time()) if gone is None else gone


def _holder(computation: Computation) -> str:
    return str(computation.holder.task_run_id)


def _micros(seconds: float) -> int:
    return int(seconds * 1e6)
