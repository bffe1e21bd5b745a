"""The cache in the journal's store: records by key, and locks, so that one process computes while the others wait."""

# An isinstance check cannot say what a generic future holds, and here nobody needs to know.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec.json import encode

from upwell.core.errors import MissingResult
from upwell.core.results import ResultRecord
from upwell.engine.caching import Cache, CacheRow, Computation, Found, Tell
from upwell.engine.clock import clock
from upwell.engine.future import RunFuture
from upwell.engine.loggers import ENGINE
from upwell.journal.cache_store import CacheStore, Wanted
from upwell.journal.database import Row, StoreUnavailable
from upwell.journal.sql import Dialect, queries
from upwell.journal.store_parts import cache_of

if TYPE_CHECKING:
    from upwell.journal.batch import Batch
    from upwell.journal.beside import Beside

PATIENCE_SECONDS: Final = 5.0
"""How long a store that cannot be used is waited for; then results are computed without asking it."""

QUICK_SECONDS: Final = 0.005
"""How long an event loop may be kept from other work to look some records up; what takes longer, the journal does."""

FIRST_PAUSE_SECONDS: Final = 0.002
LAST_PAUSE_SECONDS: Final = 0.1
"""Between two looks at what another process computes."""

MOST_KNOWN: Final = 200_000
"""How many keys of one task in one flow run are remembered, so that the store need not be asked for others."""


class JournalCache(Cache):
    """The cache of all processes that write to one store.

    What this process has stored and the store has not got yet is found here.

    open_beside: a connection on which records may be looked up at once, if there is one; opened when it is needed.
    """

    def __init__(self, journal: Any, open_beside: Callable[[], Beside | None] = lambda: None) -> None:
        super().__init__()
        self._journal = journal
        self._open_beside: Callable[[], Beside | None] | None = open_beside
        self._beside: Beside | None = None
        self._text = ""
        self._is_closed = False
        self._unwritten: dict[str, CacheRow] = {}
        self._failing = False

    # --- the engine's side, from any thread -----------------------------------------------------------------

    def claim(self, computations: Sequence[Computation], tell: Tell) -> None:
        computations = self._answer_here(computations, tell)
        if not computations:
            return

        waiting = list(computations)  # those that have no answer yet

        def ask(store: Any) -> Any:
            return self._claim(cache_of(store), waiting, tell)

        def asked(done: Any) -> None:
            error = asyncio.CancelledError("the journal has ended") if done.cancelled() else done.exception()
            self._has_failed(error, waiting, tell)

        try:
            self._journal.ask(ask).add_done_callback(asked)
        except RuntimeError as error:  # its loop has ended
            self._has_failed(error, waiting, tell)

    def find(self, keys: Sequence[str]) -> Sequence[ResultRecord | None]:
        if self._open_beside is not None:
            open_beside, self._open_beside = self._open_beside, None
            self._text = queries(Dialect.SQLITE)["cached_records"].text
            self._beside = open_beside()
            if self._is_closed:  # this moment
                self.close()
        if self._beside is None:
            return ()
        asked = self._beside.ask(self._text, (encode(keys).decode(), _micros(clock().time())))
        if asked is None:
            return ()
        ((there, records),) = asked
        if not there:
            return ()
        try:
            found = ResultRecord.many_from_bytes(bytes.fromhex(records), records.count(" ") + 1)
        except MissingResult:  # whoever asks for that one in the usual way is told
            return ()
        if self._unwritten or there != " ".join(keys):
            known = dict(zip(there.split(), found, strict=True))
            return [None if key in self._unwritten else known.get(key) for key in keys]  # those are newer
        return found

    def close(self) -> None:
        self._is_closed = True
        if self._beside is not None:
            self._beside.close()

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
            return cache_of(store).record(key)

        asked = self._journal.ask(ask)
        try:
            found = asked.result(PATIENCE_SECONDS)
        except TimeoutError:
            asked.cancel()
            raise StoreUnavailable(f"The store has not answered for {PATIENCE_SECONDS:g} seconds.") from None
        if found is None:
            return None
        task, record, created, expires, task_run_id = found
        ends = None if expires is None else expires / 1e6
        return CacheRow(key, task, ResultRecord.from_bytes(record), created / 1e6, ends, task_run_id)

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

    async def _claim(self, store: CacheStore, waiting: list[Computation], tell: Tell) -> None:
        """Answer for all of these; each is taken out of the list when it has its answer."""
        pause = FIRST_PAUSE_SECONDS
        while waiting:
            found = await asyncio.wait_for(self._look(store, list(waiting)), PATIENCE_SECONDS)
            answered = {id(computation) for computation, _ in found}
            waiting[:] = [computation for computation in waiting if id(computation) not in answered]
            if found:
                tell(found)
            if waiting:
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, LAST_PAUSE_SECONDS)

    async def _look(self, store: CacheStore, computations: Sequence[Computation]) -> list[Found]:
        """What is known by now: a record, or that it is to be computed here; the rest, another process computes."""
        wanted = [Wanted(one.key, _holder(one), one.refresh, one.wants_lock) for one in computations]
        looked = await store.look(self._journal.process.id, wanted)
        free, locked = set(looked.free), set(looked.locked)
        answers: list[Found] = []
        for computation in computations:
            key = computation.key
            if (data := looked.found.get(key)) is not None:
                try:
                    answers.append((computation, ResultRecord.from_bytes(data)))
                except MissingResult as error:  # and it is asked again, for a computation of its own
                    ENGINE.warning("A cached result cannot be used, so it is computed again: %s", error)
                    computation.refresh = True
            elif key in free:
                computation.has_lock = key in locked
                answers.append((computation, None))
        return answers


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


def _holder(computation: Computation) -> str:
    """Tells one run from all others, in a tenth of the time that its id takes."""
    run: Any = computation.holder  # of a transaction with a key it is not a run
    return f"{run.call.series.id_base:x}-{run.number}" if isinstance(run, RunFuture) else str(run.task_run_id)


def _micros(seconds: float) -> int:
    return int(seconds * 1e6)
