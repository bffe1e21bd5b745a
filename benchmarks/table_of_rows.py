"""All rows, in the order of the table."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import (
    caching,
    coroutines,
    dependencies,
    durable,
    history,
    journal,
    keys,
    pages,
    processes,
    serving,
    startup,
    streams,
    threads,
)
from benchmarks.rows import Row

ROWS: list[Row] = [
    *coroutines.ROWS,
    *dependencies.ROWS,
    *threads.ROWS,
    *processes.ROWS,
    *streams.ROWS,
    *keys.ROWS,
    *journal.ROWS,
    *caching.ROWS,
    *durable.ROWS,
    *history.ROWS,
    *pages.ROWS,
    *serving.ROWS,
    *startup.ROWS,
]


def row_named(name: str) -> Row:
    """The row of exactly this name."""
    return next(row for row in ROWS if row.name == name)


def rows_matching(words: Sequence[str]) -> list[Row]:
    """Rows whose name is one of the words, or begins with one; all rows of no words.

    Raises:
        ValueError: a word that fits no row; says what there is.
    """
    for word in words:
        if not any(row.name.startswith(word) for row in ROWS):
            raise ValueError(f"no row begins with {word!r}; there are: {', '.join(row.name for row in ROWS)}")
    return [row for row in ROWS if not words or any(row.name.startswith(word) for word in words)]
