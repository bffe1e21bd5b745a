"""Who computes what: one run computes a key, the others that want it wait; and what is found needs no computing.

Here are the seams (`Keeping`: what a task wants, `Cache`: where records are) and the table of what this process
computes now. How submitted runs go through it is in `caching_loop`, how direct calls do in `caching_inline`.
"""

# An isinstance check cannot say what a generic future holds, and here nobody needs to know.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol
from weakref import WeakSet

from msgspec import Struct

from upwell.core.definition import Definition
from upwell.core.errors import SerializationError, UpwellError
from upwell.core.results import ResultRecord
from upwell.engine.clock import clock
from upwell.engine.future import RunFuture
from upwell.engine.logs import task_run_logger
from upwell.settings import current as settings

Run = RunFuture[Any]

MOST_RECORDS: Final = 100_000
"""How many records the cache of a process without a journal keeps; beyond that, those used longest ago go."""


class Results(Protocol):
    """Turns values into records and back; `upwell.results.ResultStore` is one."""

    def prepare(self, value: object, key: str | None = None, expires: Any = None) -> tuple[ResultRecord, bytes | None]:
        """The record of a value, and what is yet to be written for it."""
        ...

    def put(self, value: object) -> ResultRecord:
        """Store a value."""
        ...

    def write(self, record: ResultRecord, content: bytes) -> None:
        """Write what `prepare` gave."""
        ...

    def get(self, record: ResultRecord) -> Any:
        """The value of a record."""
        ...

    def get_many(self, records: Sequence[ResultRecord]) -> list[Any]:
        """The values of several; raises if one cannot be had."""
        ...

    def exists(self, record: ResultRecord) -> bool:
        """Whether the record's bytes are there."""
        ...


class Keeping(Protocol):
    """What is to be done about the results of one task, in one scope.

    persists: they are stored. in_memory: futures keep them, too. caches: a run may take one that was stored.
    refresh: it is computed anyway. is_local: nobody but this flow run can want the same key.
    is_exclusive: while one run computes a key, the others wait.
    is_inline: small ones are stored with the run's own row. expiration: for how many seconds what is cached counts.
    known: all keys that can be there, where that is known: those that this flow run has computed; else None.
    """

    persists: bool
    in_memory: bool
    caches: bool
    refresh: bool
    is_local: bool
    is_exclusive: bool
    is_inline: bool
    expiration: float | None
    known: set[str] | None
    results: Results

    def key_of(self, run: Run) -> str | None:
        """The key that a run's result is cached under; None: not at all.

        Raises:
            HashError: an argument cannot be part of a key.
        """
        ...

    def keys_of(self, runs: Sequence[Run]) -> list[str] | None:
        """The same for runs of one call, in a fraction of the time; None: they are to be asked for one by one."""
        ...

    def location_of(self, run: Run) -> str | None:
        """Where the result is to be stored, if the task says."""
        ...


class CacheRow(Struct, frozen=True, gc=False):
    """One entry of a cache. Times are seconds since the epoch."""

    key: str
    task: str
    record: ResultRecord
    created: float
    expires: float | None = None
    task_run_id: str | None = None


class Computation(Struct, eq=False):
    """One key that a run of this process looks up or computes now.

    cache: where it is looked up. holder: the run. refresh: what is there does not count.
    waiters: who wants the same, if anybody does; each is called with the record, or None if there is none after all.
    has_ended: it is over, and nobody can wait for it any more. has_lock: other processes wait, too.
    staged: the record, that only runs in the same transaction (`staged_in`) may have by now.
    """

    cache: Cache
    key: str
    holder: Run
    keeping: Keeping
    refresh: bool
    waiters: list[Callable[[ResultRecord | None], object]] | None = None
    has_ended: bool = False
    has_lock: bool = False
    staged: ResultRecord | None = None
    staged_in: Any = None

    @property
    def wants_lock(self) -> bool:
        """Whether other processes may want to compute this key, and are to wait."""
        return self.keeping.is_exclusive and not self.keeping.is_local


Found = tuple[Computation, ResultRecord | None]
Tell = Callable[[Sequence[Found]], object]


class Cache:
    """Where records are looked up by key, and the table of what this process computes now."""

    def __init__(self) -> None:
        self._computing: dict[str, Computation] = {}
        self._lock = threading.Lock()

    # --- the table; from any thread -----------------------------------------------------------------------

    def begin(self, key: str, run: Run, keeping: Keeping, refresh: bool) -> tuple[Computation, bool]:
        """The computation of a key, and whether it is this run's own: begun by this call."""
        mine = Computation(self, key, run, keeping, refresh)
        if not keeping.is_exclusive:
            return mine, True
        found = self._computing.setdefault(key, mine)  # one step under the interpreter's lock
        return found, found is mine

    def is_computed(self, key: str) -> bool:
        """Whether a run of this process looks this key up, or computes it."""
        return key in self._computing

    def computed_of(self, keys: Sequence[str]) -> set[str]:
        """Those keys of which that is so."""
        return self._computing.keys() & keys if self._computing else set()

    def wait_for(self, computation: Computation, waiter: Callable[[ResultRecord | None], object]) -> None:
        """Call this when the computation has ended: at once if it has."""
        with self._lock:
            if not computation.has_ended:
                if computation.waiters is None:
                    computation.waiters = []
                computation.waiters.append(waiter)
                return
        waiter(None)

    def end(self, computation: Computation, record: ResultRecord | None) -> None:
        """A computation is over; those who wait get the record, or compute it themselves."""
        if self._computing.get(computation.key) is computation:
            del self._computing[computation.key]
        with self._lock:
            computation.has_ended = True
        if computation.waiters:
            for waiter in computation.waiters:
                waiter(record)
            computation.waiters = None

    def stage(self, computation: Computation, record: ResultRecord, root: Any) -> None:
        """There is a result, which counts inside of this transaction; the others wait until it is committed."""
        with self._lock:
            computation.staged, computation.staged_in = record, root
            waiters, computation.waiters = computation.waiters, None
        for waiter in waiters or ():
            waiter(None)  # it looks again: it may be one of those

    def give_up(self, computation: Computation) -> None:
        """The run that was to compute it did not."""
        if computation.has_lock:
            self.release(computation)
        self.end(computation, None)

    # --- where the records are; for each kind of cache -----------------------------------------------------

    def find(self, keys: Sequence[str]) -> Sequence[ResultRecord | None]:
        """The record of each key that can be had at once, with no wait worth the name; nothing at all if none can.

        There may be others. From any thread.
        """
        return ()

    def close(self) -> None:
        """`find` finds nothing any more."""

    def claim(self, computations: Sequence[Computation], tell: Tell) -> None:
        """Look these up; those that are not there are the caller's to compute, once no other process does so.

        tell: called, from any thread and perhaps several times, with what is known of some of them.
        """
        raise NotImplementedError

    def keep(self, row: CacheRow, computation: Computation | None) -> None:
        """A result is to be found from now on; in the same step, other processes need not wait any more."""
        raise NotImplementedError

    def release(self, computation: Computation) -> None:
        """Other processes need not wait any more, though there is no result."""
        raise NotImplementedError

    def row(self, key: str) -> CacheRow | None:
        """What is kept under this key, expired or not; may block."""
        raise NotImplementedError


class MemoryCache(Cache):
    """The cache of a process that keeps no journal."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: OrderedDict[str, CacheRow] = OrderedDict()

    def claim(self, computations: Sequence[Computation], tell: Tell) -> None:
        now = clock().time()
        tell([(computation, None if computation.refresh else self._find(computation.key, now))
              for computation in computations])  # fmt: skip

    def _find(self, key: str, now: float) -> ResultRecord | None:
        row = self.row(key)
        return None if row is None or (row.expires is not None and row.expires <= now) else row.record

    def row(self, key: str) -> CacheRow | None:
        return self._rows.get(key)

    def keep(self, row: CacheRow, computation: Computation | None) -> None:
        self._rows.pop(row.key, None)
        self._rows[row.key] = row
        if len(self._rows) > MOST_RECORDS:
            self._rows.popitem(last=False)

    def release(self, computation: Computation) -> None:
        pass

    def clear(self) -> None:
        """Forget everything."""
        self._rows.clear()


IN_THIS_PROCESS: Final = MemoryCache()


def cache_in(scope: Any) -> Cache:
    """Where the results of what is started in a scope are cached."""
    recorder = scope.recorder
    return IN_THIS_PROCESS if recorder is None or recorder.cache is None else recorder.cache


# --- what tasks want ----------------------------------------------------------------------------------------

Maker = Callable[[Any, Any], Keeping | None]
_maker: Maker | None = None


def keep_with(maker: Maker) -> None:
    """Say what decides about a task's results, given its definition and its scope; the public face does."""
    global _maker
    _maker = maker


FlowMaker = Callable[[Definition], Results | None]
_flow_maker: FlowMaker | None = None


def keep_flows_with(maker: FlowMaker) -> None:
    """Say what decides about a flow's own result; the public face does."""
    global _flow_maker
    _flow_maker = maker


def results_of_flow(definition: Definition) -> Results | None:
    """What stores the results of a flow; None: nothing does."""
    if _flow_maker is None:
        return None
    says = definition.options.says_about_results or settings().results_persist_by_default
    return _flow_maker(definition) if says else None


def keeping_of(series: Any) -> Keeping | None:
    """What is to be done about the results of these runs; None: nothing."""
    found: Keeping | None = None
    if _maker is not None and says_anything(series.definition, series.scope):
        found = _maker(series.definition, series.scope)
    series.keeping = found
    return found


def says_anything(definition: Definition, scope: Any) -> bool:
    """Whether a task or flow, one around it, or the settings, say anything about results; most do not."""
    if definition.options.says_about_results or settings().results_persist_by_default:
        return True
    while scope is not None:
        around = getattr(scope.flow_run, "definition", None)
        if around is not None and around.options.says_about_results:
            return True
        scope = scope.parent
    return False


_warned: WeakSet[Any] = WeakSet()
"""The tasks that were told of that there are runs without a key."""


def key_of(run: Run) -> str | None:
    """The key that a run's result is cached under; None, and a warning the first time, if it has none."""
    keeping: Keeping = run.call.keeping
    if not keeping.caches:
        return None
    try:
        return keeping.key_of(run)
    except Exception as error:
        task = run.call.definition.face
        if task not in _warned:
            _warned.add(task)
            expected = isinstance(error, UpwellError)
            task_run_logger(run).warning(
                "Runs of %r are not cached, because there is no key for this one: %s",
                run.call.definition.name,
                error,
                exc_info=None if expected else error,
            )
        return None


def keys_of(runs: Sequence[Run]) -> list[str] | None:
    """The keys of runs of one call; None: they are to be asked for one by one, which says what is wrong with them."""
    keeping: Keeping = runs[0].call.keeping
    try:
        return keeping.keys_of(runs) if keeping.caches else None
    except Exception:
        return None


# --- values into records ------------------------------------------------------------------------------------

_SCALARS: Final = frozenset({type(None), bool, int, float})
_TEXTS: Final = frozenset({str, bytes})
MOST_AT_ONCE: Final = 16 * 1024
"""Texts of up to so many characters, and containers of up to a hundredth as many, are serialized on the loop."""


def is_small(value: Any) -> bool:
    """Whether to serialize a value takes next to no time, so that no thread is needed for it."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind in _TEXTS:
        return len(value) <= MOST_AT_ONCE
    if kind is dict:
        value = value.values()
    elif kind is not list and kind is not tuple:
        return False
    return len(value) * 100 <= MOST_AT_ONCE and all(
        type(item) in _SCALARS or (type(item) in _TEXTS and len(item) < 100) for item in value
    )


def stored(run: Run, value: Any) -> ResultRecord:
    """Serialize a value and write what does not stay inline; may block.

    Raises:
        SerializationError, ResultStorageError, ConfigurationError: it cannot be stored.
    """
    keeping: Keeping = run.call.keeping
    try:
        record, content = keeping.results.prepare(value, keeping.location_of(run))
    except SerializationError as error:
        error.add_note(f"The result of {run.name!r} was to be stored (persist_result).")
        raise
    if content is not None:
        keeping.results.write(record, content)
    return record


def is_quick(run: Run, value: Any) -> bool:
    """Whether to store a value takes next to no time: it is small, and goes into the database."""
    keeping: Keeping = run.call.keeping
    return not keeping.persists or (keeping.is_inline and is_small(value))


def record_result(run: Run, record: ResultRecord) -> None:
    """Have the journal write where the result of a run is, with the run's own row."""
    recorder = run.call.scope.recorder
    if recorder is not None and run.call.scope.durable is None:  # else it is recorded there
        recorder.kept.append((run, record.to_bytes(), None, None))


def keep_in_cache(run: Run, computation: Computation, record: ResultRecord) -> None:
    """A run has computed a key: others may have it."""
    now = clock().time()
    expiration = computation.keeping.expiration
    row = CacheRow(
        computation.key,
        run.call.definition.name,
        record,
        now,
        None if expiration is None else now + expiration,
        str(run.task_run_id),
    )
    computation.cache.keep(row, computation)
    computation.cache.end(computation, record)


def staged_for(run: Run, computation: Computation) -> ResultRecord | None:
    """The result that a run may have because it is in the same transaction."""
    around = run.call.transaction
    if computation.staged is None or around is None or computation.staged_in is not around.root:
        return None
    return computation.staged


def found_under(key: str) -> str:
    """The message of a run whose result was found; `key_in` reads the key from it."""
    return f"{_FOUND}{key}."


def key_in(message: str | None) -> str | None:
    """The key under which the result of a run was found, by its message."""
    return message[len(_FOUND) : -1] if message and message.startswith(_FOUND) else None


_FOUND: Final = "Found in the cache under "


def log_lost(run: Run, error: Exception) -> None:
    """A result that was cached cannot be had: it is computed again."""
    task_run_logger(run).warning("The cached result cannot be used, so it is computed again: %s", error)
