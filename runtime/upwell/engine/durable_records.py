"""What the store knows of a durable flow run, as the engine is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from msgspec import Struct
from msgspec.msgpack import decode, encode

WAITING: Final = b"\1"
"""What the record of a run begins with that waits for its next attempt."""


class OldSeries(NamedTuple):
    """A series of an earlier process; see `Series`. begun: the numbers of its runs that began and did not complete."""

    key: int
    base: int
    task: str
    created: float
    submitted: int
    source: bytes | None
    begun: frozenset[int]


class FinishedRow(NamedTuple):
    """A task run that was completed: where it stands, its key and result, and its times.

    series: the key of an old one, or one of this process, if an earlier attempt of the flow run has finished it.
    started, ended: in seconds. created: in microseconds.
    parent: the task run that called it, if one did.
    """

    series: Any
    number: int
    key: bytes
    record: bytes
    started: float
    ended: float
    created: int
    parent: str | None


class OldMap(NamedTuple):
    """A large map of an earlier process: the digest of its inputs, and the numbers of its runs."""

    digest: bytes
    series: int
    first: int
    runs: int


class Waiting(NamedTuple):
    """A task run that waited for its next attempt: how many it had had, and when the next is due."""

    key: bytes
    run_count: int
    due: float


class Child(NamedTuple):
    """A subflow run of an earlier process, or attempt.

    arguments: a digest of them. parent: the task run that called it, if one did.
    """

    id: str
    flow: str
    arguments: bytes
    parent: str | None
    state: str
    ended: int | None
    source_hash: str | None
    has_result: bool


class Claim(Struct):
    """What the store says to a durable flow run that is about to begin: who it is, and what it has finished.

    due: when its next attempt is to begin, if it waited for that.
    again: it was this process's already, which had not heard of it, or had.
    ended: state, name, message and stored result of a run that has ended already; then there is nothing to do.
    inherited: what is finished is another run's, of which this one is a fork.
    """

    flow_run_id: str
    name: str
    created: float
    run_count: int = 0
    crashes: int = 0
    source_hash: str | None = None
    due: float | None = None
    resumed: bool = False
    again: bool = False
    inherited: bool = False
    ended: tuple[str, str | None, str | None, bytes | None] | None = None
    series: list[OldSeries] = []
    finished: list[FinishedRow] = []
    maps: list[OldMap] = []
    waiting: list[Waiting] = []
    children: list[Child] = []


class Place(NamedTuple):
    """Where a run stands: its number in its series, its key (or what it will be made of), and what it has finished, or
    waited for, if it has.
    """

    number: int
    key: Any
    finished: FinishedRow | None
    waiting: Waiting | None = None


class FinishedRuns:
    """The finished runs of one series, in the order of their numbers; each is taken once.

    Where all of them are of one map they are taken in one go, and never put into a dict.
    """

    def __init__(self, rows: list[FinishedRow]) -> None:
        self._in_order = rows
        self._by_number: dict[int, FinishedRow] | None = None

    def put(self, row: FinishedRow) -> None:
        self._known()[row.number] = row

    def take(self, number: int) -> FinishedRow | None:
        return self._known().pop(number, None)

    def take_all(self, numbers: list[int]) -> list[FinishedRow] | None:
        """The rows of all these numbers, which are in a row, if there are no others; else None."""
        rows = self._in_order
        if self._by_number is not None or len(rows) != len(numbers):
            return None
        if (rows[0][1], rows[-1][1]) != (numbers[0], numbers[-1]):
            return None
        self._in_order = []
        return rows

    def left(self) -> list[FinishedRow]:
        """Those that were not taken."""
        return self._in_order if self._by_number is None else list(self._by_number.values())

    def _known(self) -> dict[int, FinishedRow]:
        if self._by_number is None:
            self._by_number = {row[1]: row for row in self._in_order}
        return self._by_number


class Places(NamedTuple):
    """The same for the runs of a map. finished, waiting: None where nothing was.

    is_whole: all were finished, and are of one series.
    """

    numbers: list[int]
    keys: list[Any]
    finished: Sequence[FinishedRow | None] | None = None
    waiting: list[Waiting | None] | None = None
    is_whole: bool = False


def waiting_record(run_count: int, due: float) -> bytes:
    """What is stored of a run that waits for its next attempt."""
    return WAITING + encode([run_count, due])


def waiting_of(key: bytes, record: bytes) -> Waiting:
    """What `waiting_record` made."""
    run_count, due = decode(record[1:])
    return Waiting(key, run_count, due)
