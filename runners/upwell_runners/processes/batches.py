"""How many rows of a function go to a child at once: as its measured time per row says."""

from __future__ import annotations

import math
from typing import Final

from upwell_runners.processes.wire import Function

BATCH_SECONDS: Final = 0.008
"""Work of about this length goes to a child in one message: long against the cost of a message, short for balance."""

LONG_SECONDS: Final = 0.005
"""Rows that take longer go one by one, each to a child that has nothing else to do."""

MAX_ROWS: Final = 4096
MAX_BATCH_BYTES: Final = 4 * 1024 * 1024
MIN_BATCH_SECONDS: Final = 0.0015
"""Work shorter than this is not split further for the sake of balance."""

_GROWTH: Final = 16
_SHARES: Final = 3
"""A batch is at most this part of each child's share of what waits, so that all end at about the same time."""


class FunctionUse:
    """One function as the children know it, and what was measured about its rows.

    alone: its attempts have a timeout: each has its child to itself.
    packs_each: its arguments are not all of builtin kinds, so each row is pickled on its own.
    """

    def __init__(self, function: Function, alone: bool) -> None:
        self.function = function
        self.number = function.number
        self.alone = alone
        self.packs_each = False
        self._seconds: float | None = None
        self._bytes = 0.0
        self._last_rows = 1

    @property
    def seconds_ahead(self) -> float:
        """What a row counts when it is decided whether a child has enough to do."""
        return math.inf if self._seconds is None else self._seconds

    def rows_at_once(self, waiting: int, workers: int) -> int:
        """How many rows the next message to a child should hold.

        waiting: how many runs there are to be shared out; workers: among how many children.
        """
        seconds = self._seconds
        if self.alone or seconds is None or seconds > LONG_SECONDS:
            self._last_rows = 1
            return 1
        seconds = max(seconds, 1e-7)
        rows = min(BATCH_SECONDS / seconds, MAX_ROWS, self._last_rows * _GROWTH)
        rows = min(rows, max(waiting / (workers * _SHARES), MIN_BATCH_SECONDS / seconds))
        if self._bytes > 0:
            rows = min(rows, MAX_BATCH_BYTES / self._bytes)
        return max(int(rows), 1)

    def note_rows(self, count: int) -> None:
        """So many rows were sent at once."""
        self._last_rows = max(self._last_rows, count)

    def note_seconds(self, seconds: float, rows: int) -> None:
        """So many rows have taken so long together."""
        each = seconds / rows
        self._seconds = each if self._seconds is None else 0.5 * (self._seconds + each)

    def note_bytes(self, size: int, rows: int) -> None:
        """The arguments of so many rows were of this size together."""
        self._bytes = 0.5 * self._bytes + 0.5 * size / rows if self._bytes else size / rows

    def announces(self, rows: int) -> bool:
        """Whether the child should say when it begins."""
        return rows == 1 and (self.alone or self._seconds is None or self._seconds > LONG_SECONDS)
