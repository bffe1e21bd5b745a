"""What one flush writes: rows of the store's tables, ready to be written, sent or spooled."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct, field

Row = tuple[Any, ...]

SERIES_BITS: Final = 28
"""A process numbers its series from here: `process key << 28`. So keys need no question to the store."""


def _rows() -> list[Row]:
    return []


class Batch(Struct):
    """Rows by the bulk query that inserts them; see `queries/writing.sql` for what is in a row.

    process_id: who writes. process_key: 0 while the store has not said it; then series are numbered from 0.
    """

    process_id: str
    process_key: int
    flow_runs: list[Row] = field(default_factory=_rows)
    flow_run_states: list[Row] = field(default_factory=_rows)
    series: list[Row] = field(default_factory=_rows)
    completed_runs: list[Row] = field(default_factory=_rows)
    task_runs: list[Row] = field(default_factory=_rows)
    task_run_states: list[Row] = field(default_factory=_rows)
    edges: list[Row] = field(default_factory=_rows)
    results: list[Row] = field(default_factory=_rows)
    durable_calls: list[Row] = field(default_factory=_rows)
    logs: list[Row] = field(default_factory=_rows)

    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not any(getattr(self, kind) for kind in KINDS)

    def size(self) -> int:
        """How many rows there are."""
        return sum(len(getattr(self, kind)) for kind in KINDS)

    def numbered_from(self, process_key: int) -> Batch:
        """The same with the keys of its series as the store wants them, now that it has said the process's key."""
        if self.process_key:
            return self
        first = process_key << SERIES_BITS
        moved: dict[str, list[Row]] = {
            kind: [_moved(row, first, columns) for row in getattr(self, kind)] for kind, columns in _SERIES_IN.items()
        }
        others = {kind: getattr(self, kind) for kind in KINDS if kind not in moved}
        return Batch(self.process_id, process_key, **moved, **others)


KINDS: Final = Batch.__struct_fields__[2:]

_SERIES_IN: Final[dict[str, tuple[int, ...]]] = {
    "series": (0,),
    "completed_runs": (0,),
    "task_runs": (0,),
    "task_run_states": (0,),
    "edges": (0, 2),
    "results": (0,),
    "durable_calls": (4,),
}
"""Which values of a row are keys of series."""


def _moved(row: Row, first: int, columns: tuple[int, ...]) -> Row:
    return tuple(value + first if place in columns else value for place, value in enumerate(row))
