"""What has happened to runs and is not written yet: the engine puts it here, the journal takes it away.

Nothing here waits or does I/O. Whatever happens is appended to a list, which is one step under the interpreter's
lock, so any thread may; the journal takes items from the front in its own time. Where no journal is kept there is
no Recorder, and a run is not recorded at all.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, sleep
from typing import Any, Final, Protocol

from upwell.core.states import State
from upwell.engine.strict import Ends

ROOM: Final = 100_000
"""How many runs may wait to be written before those that would run next wait, too."""

FULL_SECONDS: Final = 0.005
"""How long they wait before they look again."""

BEHIND: Final = 2_000
"""With so many runs to be written the journal needs its turn, and does not wait for its next flush."""

WAY_SECONDS: Final = 0.00002
"""For how long at least a busy loop gives way to it; with what waking up takes that is 0.1 ms."""

WAY_EVERY_SECONDS: Final = 0.0008
SELDOM_SECONDS: Final = 0.003
"""How often: where the journal is behind, and where it is at work, and keeps up."""


class Recorder:
    """The lists that the engine appends to.

    ended: runs in their final state. ended_in_lots: stretches of such that are no objects (see `lot.py`).
    begun: runs that have begun, and may have ended since.
    moves: `(run, State)` for states that a run's own times do not tell.
    fed: `(run, item, wait_for)` of runs that wait for others, with the arguments as they were submitted.
    flow_moves: `(flow run, State)`. logs: lines, as the journal's handler makes them.
    kept: `(run, record, durable key, file)` of results that are stored. calls: the large maps of durable flow runs.
    cached: what the cache is to keep, and the keys that it is to release. cache: the cache that the journal keeps.
    ends: `(series, row, record, durable key)` of runs whose ends were written at once: not in `ended`, nor in `kept`.
    rolled_back: runs that had completed, and whose transaction was rolled back. strict: what strict flow runs wait for.
    awake: whether the journal looks here without being told. is_busy: whether it is at work just now.
    on_wake, on_behind: what tells it, from any thread, that there is something to be written, or much.
    """

    __slots__ = (
        "_gave_way", "_on_behind", "_on_wake", "awake", "begun", "cache", "cached", "calls", "ended", "ended_in_lots",
        "ends", "fed", "flow_moves", "is_busy", "journal", "kept", "logs", "moves", "rolled_back", "strict",
    )  # fmt: skip  # a list of names

    def __init__(self, journal: Any, on_wake: Callable[[], None], on_behind: Callable[[], None] = lambda: None) -> None:
        self.journal = journal
        self._on_wake = on_wake
        self._on_behind = on_behind
        self.awake = False
        self.is_busy = False
        self._gave_way = 0.0
        self.ended: list[Any] = []
        self.ended_in_lots: list[Any] = []
        self.begun: list[Any] = []
        self.moves: list[tuple[Any, State]] = []
        self.fed: list[tuple[Any, Any, Any]] = []
        self.flow_moves: list[tuple[Any, State]] = []
        self.logs: list[Any] = []
        self.kept: list[tuple[Any, bytes, bytes | None, Any]] = []
        self.calls: list[Any] = []
        self.cached: list[tuple[Any, Any]] = []
        self.ends: list[tuple[Any, Any, bytes, bytes | None]] = []
        self.rolled_back: list[Any] = []
        self.cache: Any = None
        self.strict = Ends()

    def wake(self) -> None:
        """Have the journal look here soon; cheap where it does anyway."""
        if not self.awake:
            self.awake = True
            self._on_wake()

    def record_end(self, run: Any, kept: tuple[bytes, bytes | None] | None) -> None:
        """A run has ended. kept: the record and the durable key of its result, if that is to be stored."""
        if kept is not None:
            self.kept.append((run, *kept, None))
        self.ended.append(run)

    def give_way(self) -> None:
        """Let the journal's thread have the interpreter's lock, if it has much to do; for an event loop's thread.

        A loop that is busy frees the lock after each slice, for a moment that is too short for another thread to take
        it; and that moment restarts the 5 ms after which the other could demand it (CPython, `take_gil`). So the
        journal would get no turn before the loop has nothing left to do. It needs a short one for each statement, and
        not the lock while SQLite carries that out: with a turn after each slice both are at work all the time.
        """
        behind = self.is_behind
        if not (behind or self.is_busy):
            return
        if not self.is_busy:
            self._on_behind()
        now = perf_counter()
        if now - self._gave_way > (WAY_EVERY_SECONDS if behind else SELDOM_SECONDS):
            sleep(WAY_SECONDS)
            self._gave_way = perf_counter()

    @property
    def waiting(self) -> int:
        """How many runs have ended, and have not been taken."""
        return len(self.ended) + sum(map(len, self.ended_in_lots))

    @property
    def is_behind(self) -> bool:
        """Whether so much waits to be written that the journal needs its turn."""
        return self.waiting >= BEHIND

    def is_full(self) -> bool:
        """Whether runs should wait until the journal has caught up."""
        return self.waiting > ROOM

    def were_written(self, cached: list[Any], ends: int) -> None:
        """These are in the store: records of the cache, and the ends that were written at once up to this number."""
        if cached and self.cache is not None:
            self.cache.were_written(cached)
        if ends:
            self.strict.are_in_tables(ends)

    def is_empty(self) -> bool:
        """Whether everything has been taken."""
        return not (
            self.ended or self.ended_in_lots or self.begun or self.moves or self.fed or self.flow_moves or self.logs
            or self.kept or self.calls or self.cached or self.ends or self.rolled_back
        )  # fmt: skip  # a list of names

    def discard(self) -> Recorder:
        """Keep nothing from here on; returns one with what was recorded until now."""
        self.strict.close()
        if self.cache is not None:
            self.cache.close()
        until_now = Recorder(self.journal, self._on_wake)
        until_now.strict = self.strict
        for name in self.__slots__:
            if isinstance(facts := getattr(self, name), list):
                setattr(until_now, name, facts)
                setattr(self, name, _Discarded())
        return until_now


class _Discarded(list[Any]):
    """Stays empty."""

    def append(self, _: Any) -> None:
        pass


class Opener(Protocol):
    """Opens this process's journal, as the settings say; None where none is kept."""

    def __call__(self) -> Recorder | None: ...


_opener: Opener | None = None


def recorder() -> Recorder | None:
    """Where to record what happens in this process now."""
    return None if _opener is None else _opener()


def record_with(opener: Opener | None) -> None:
    """Say who opens the journal; the public face does."""
    global _opener
    _opener = opener
