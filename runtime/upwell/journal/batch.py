"""What one flush writes: rows of the store's tables, ready to be written, sent or spooled."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct, field

Row = tuple[Any, ...]

SERIES_BITS: Final = 28
FIRST_KEY: Final = 1 << SERIES_BITS
"""A process numbers its series from here: `process key << 28`. So keys need no question to the store."""


def _rows() -> list[Row]:
    return []


class Batch(Struct):
    """Rows by the bulk query that inserts them; see `queries/writing.sql` for what is in a row.

    process_id: who writes. process_key: 0 while the store has not said it; then series are numbered from 0.
    number: a process counts its batches, and they are written in this order; so a store knows what it has already.
    """

    process_id: str
    process_key: int
    number: int = 0
    flow_runs: list[Row] = field(default_factory=_rows)
    flow_run_states: list[Row] = field(default_factory=_rows)
    series: list[Row] = field(default_factory=_rows)
    completed_runs: list[Row] = field(default_factory=_rows)
    found_runs: list[Row] = field(default_factory=_rows)
    task_runs: list[Row] = field(default_factory=_rows)
    task_run_states: list[Row] = field(default_factory=_rows)
    edges: list[Row] = field(default_factory=_rows)
    results: list[Row] = field(default_factory=_rows)
    durable_calls: list[Row] = field(default_factory=_rows)
    cache_records: list[Row] = field(default_factory=_rows)
    released_locks: list[Row] = field(default_factory=_rows)
    rolled_back_runs: list[Row] = field(default_factory=_rows)
    logs: list[Row] = field(default_factory=_rows)

    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not any(getattr(self, kind) for kind in KINDS)

    def size(self) -> int:
        """How many rows there are."""
        return sum(len(getattr(self, kind)) for kind in KINDS)

    def numbered_from(self, process_key: int) -> Batch:
        """The same with the keys of its series as the store wants them, now that it has said the process's key."""
        if self.process_key == process_key:
            return self
        moved: dict[str, list[Row]] = {
            kind: [_moved(row, self.process_key, process_key, columns) for row in getattr(self, kind)]
            for kind, columns in _SERIES_IN.items()
        }
        others = {kind: getattr(self, kind) for kind in KINDS if kind not in moved}
        return Batch(self.process_id, process_key, self.number, **moved, **others)

    def add(self, other: Batch) -> None:
        """Take in the rows of another one."""
        for kind in KINDS:
            if rows := getattr(other, kind):
                getattr(self, kind).extend(rows)

    def parts(self) -> list[Batch]:
        """The same in smaller ones, in the order in which they are written; none of a single row."""
        filled = [kind for kind in KINDS if getattr(self, kind)]
        if len(filled) != 1:
            return [self._part(kind, getattr(self, kind)) for kind in filled]
        rows = getattr(self, filled[0])
        half = len(rows) // 2
        return [self._part(filled[0], part) for part in (rows[:half], rows[half:])] if half else []

    def _part(self, kind: str, rows: list[Row]) -> Batch:
        return Batch(self.process_id, self.process_key, self.number, **{kind: rows})


KINDS: Final = Batch.__struct_fields__[3:]

_SERIES_IN: Final[dict[str, tuple[int, ...]]] = {
    "series": (0,),
    "completed_runs": (0,),
    "task_runs": (0,),
    "task_run_states": (0,),
    "edges": (0, 2),
    "results": (0,),
    "found_runs": (0,),
    "rolled_back_runs": (0,),
    "durable_calls": (2,),
}
"""Which values of a row are keys of series."""


def _moved(row: Row, old_key: int, new_key: int, columns: tuple[int, ...]) -> Row:
    """A row with the keys of its process's own series moved; those of an earlier process's stay."""
    first = (new_key - old_key) << SERIES_BITS
    return tuple(
        value + first if place in columns and value >> SERIES_BITS == old_key else value
        for place, value in enumerate(row)
    )
