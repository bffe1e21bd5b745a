"""What one flush writes: rows of the store's tables, ready to be written, sent or spooled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from msgspec import Struct

from upwell.journal.database import Columns, Row

SERIES_BITS: Final = 28
FIRST_KEY: Final = 1 << SERIES_BITS
"""A process numbers its series from here: `process key << 28`. So keys need no question to the store."""

BLOCK: Final = 32
"""Fewer rows that come together are no block, unless they follow one of their kind."""

MOST: Final = 2048
"""More rows are more blocks: each is a statement of its own."""


class Block(NamedTuple):
    """Many rows of one kind, by columns: to make and to write them takes a fraction of the time."""

    kind: str
    columns: list[list[Any]]

    def rows(self) -> Columns:
        """As they are inserted."""
        return Columns(self.columns)


class Batch(Struct, omit_defaults=True):
    """Rows by the bulk query that inserts them; see `queries/writing.sql` for what is in a row.

    process_id: who writes. process_key: 0 while the store has not said it; then series are numbered from 0.
    number: a process counts its batches, and they are written in this order; so a store knows what it has already.
    blocks: more rows of the kinds above, written after those.
    safe_ends: the ends that the process has written at once, up to this number, are in this batch or in those before.
    """

    process_id: str
    process_key: int
    number: int = 0
    flow_runs: list[Row] = []
    flow_run_states: list[Row] = []
    series: list[Row] = []
    completed_runs: list[Row] = []
    found_runs: list[Row] = []
    task_runs: list[Row] = []
    task_run_states: list[Row] = []
    edges: list[Row] = []
    results: list[Row] = []
    durable_calls: list[Row] = []
    cache_records: list[Row] = []
    released_locks: list[Row] = []
    rolled_back_runs: list[Row] = []
    logs: list[Row] = []
    blocks: list[Block] = []
    safe_ends: int = 0

    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.blocks or self.safe_ends or any(getattr(self, kind) for kind in KINDS))

    def size(self) -> int:
        """How many rows there are."""
        return sum(len(getattr(self, kind)) for kind in KINDS) + sum(len(block.columns[0]) for block in self.blocks)

    def by_rows(self) -> Batch:
        """The same without blocks: for whoever looks at single rows, or sends them elsewhere."""
        if not self.blocks:
            return self
        rows: dict[str, Any] = {kind: list(getattr(self, kind)) for kind in KINDS}
        for block in self.blocks:
            rows[block.kind] += block.rows()
        return Batch(self.process_id, self.process_key, self.number, safe_ends=self.safe_ends, **rows)

    def numbered_from(self, process_key: int) -> Batch:
        """The same with the keys of its series as the store wants them, now that it has said the process's key."""
        if self.process_key == process_key:
            return self
        moved: dict[str, Any] = {
            kind: _moved_in(getattr(self, kind), self.process_key, process_key, columns)
            for kind, columns in _SERIES_IN.items()
        }
        others: dict[str, Any] = {kind: getattr(self, kind) for kind in KINDS if kind not in moved}
        batch = Batch(self.process_id, process_key, self.number, safe_ends=self.safe_ends, **moved, **others)
        for kind, columns in self.blocks:
            found = list(columns)
            for place in _SERIES_IN[kind]:
                found[place] = _moved(columns[place], self.process_key, process_key)
            batch.blocks.append(Block(kind, found))
        return batch

    def add(self, other: Batch) -> None:
        """Take in the rows of another one, which is used no more."""
        for kind in KINDS:
            if rows := getattr(other, kind):
                self._add_rows(kind, rows)
        for block in other.blocks:
            self._add_block(block)

    def add_columns(self, kind: str, columns: Sequence[list[Any]]) -> None:
        """Take in rows that are given by columns, which stay as they are: one may be of rows of other kinds, too."""
        if len(columns[0]) < BLOCK:
            self._add_rows(kind, list(zip(*columns, strict=True)))
        else:
            self._add_block(Block(kind, [list(column) for column in columns]))

    def _add_block(self, block: Block) -> None:
        """Rows of one kind are one block, up to what one statement takes, if none of their table stand between."""
        columns = block.columns
        latest = next((one for one in reversed(self.blocks) if _TABLES[one.kind] == _TABLES[block.kind]), None)
        if latest is not None and latest.kind == block.kind and (room := MOST - len(latest.columns[0])) > 0:
            for column, more in zip(latest.columns, columns, strict=True):
                column.extend(more[:room])
            columns = [column[room:] for column in columns]
        if columns[0]:
            self.blocks.append(Block(block.kind, columns))

    def _add_rows(self, kind: str, rows: list[Row]) -> None:
        """After a block of their kind they are in one, too: a later row may be of the same run, and counts."""
        if any(block.kind == kind for block in self.blocks):
            self._add_block(Block(kind, [list(column) for column in zip(*rows, strict=True)]))
        else:
            getattr(self, kind).extend(rows)

    def cut(self) -> Batch:
        """Take out the last rows of each kind that fill no block: with the next batch they may."""
        rest = Batch(self.process_id, self.process_key)
        while self.blocks and len(self.blocks[-1].columns[0]) < MOST and self.blocks[-1].kind not in dict(rest.blocks):
            rest.blocks.insert(0, self.blocks.pop())
        return rest

    def parts(self) -> list[Batch]:
        """The same in smaller ones, in the order in which they are written; none of a single row."""
        if self.blocks:
            return self.by_rows().parts()
        filled = [kind for kind in KINDS if getattr(self, kind)]
        if len(filled) != 1:
            return [self._part(kind, getattr(self, kind)) for kind in filled]
        rows = getattr(self, filled[0])
        half = len(rows) // 2
        return [self._part(filled[0], part) for part in (rows[:half], rows[half:])] if half else []

    def _part(self, kind: str, rows: list[Row]) -> Batch:
        part = Batch(self.process_id, self.process_key, self.number)
        setattr(part, kind, rows)
        return part


KINDS: Final = Batch.__struct_fields__[3:-2]

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

_TABLES: Final = {kind: "task_runs" if kind.endswith("_runs") and kind != "flow_runs" else kind for kind in KINDS}
"""Where rows of each kind go, as far as their order counts."""


def _moved_in(rows: list[Row], old_key: int, new_key: int, places: tuple[int, ...]) -> list[Row]:
    columns = list(zip(*rows, strict=True))
    for place in places if rows else ():
        columns[place] = tuple(_moved(columns[place], old_key, new_key))
    return list(zip(*columns, strict=True))


def _moved(keys: Iterable[int], old_key: int, new_key: int) -> list[int]:
    """Keys of series, those of the process's own series moved; those of an earlier process's stay."""
    first = (new_key - old_key) << SERIES_BITS
    return [key + first if key >> SERIES_BITS == old_key else key for key in keys]
