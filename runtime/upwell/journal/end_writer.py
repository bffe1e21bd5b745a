"""Writes ends of task runs at once: each in the thread in which it happens, in a transaction of its own."""

from __future__ import annotations

import itertools
from asyncio import _get_running_loop  # pyright: ignore[reportPrivateUsage]  # None where no loop runs, at no cost
from typing import Any, Final, Protocol

from msgspec import Raw

from upwell.journal.batch import SERIES_BITS
from upwell.journal.beside import Beside
from upwell.journal.processes import Process
from upwell.journal.rows import RowMaker
from upwell.journal.safe_ends import message_of
from upwell.journal.sql import Dialect, queries

MOST_SERIES: Final = 50
"""Of which the rows are remembered."""


class Host(Protocol):
    """What is needed of the journal."""

    process: Process
    rows: RowMaker


class SqliteEndWriter:
    """Writes the ends of one process into its SQLite file. See `strict.EndWriter`.

    waits_for_disk: so no end is written on the thread of an event loop, which has other work to do.
    """

    def __init__(self, host: Host, beside: Beside, *, waits_for_disk: bool = False) -> None:
        self.written = 0
        self._waits_for_disk = waits_for_disk
        self._host = host
        self._beside = beside
        self._numbers = itertools.count(1)
        self._series: dict[int, Raw] = {}  # the rows of those of which there were ends, as they are written
        self._text = queries(Dialect.SQLITE)["write_safe_end"].text

    def facts_of(self, run: Any, record: bytes, key: bytes | None) -> bytes | None:
        rows = self._host.rows
        if not rows.process_key:  # the store has not been opened
            return None
        if self._waits_for_disk and _get_running_loop() is not None:
            return None
        try:
            is_short, row = rows.row_of_end(run)
            series = run.call.series
            known = self._series.get(row[0])
            if known is None:
                if len(self._series) > MOST_SERIES:
                    self._series.clear()
                known = self._series[row[0]] = Raw(message_of(rows.series_row(row[0], series)))
            return message_of((known, series.submitted, is_short, row, record, key))
        except Exception:  # whatever is wrong with it, the journal says so
            return None

    def write(self, facts: bytes) -> bool:
        self.written = number = next(self._numbers)
        first = self._host.rows.process_key
        values = ((first << SERIES_BITS) + number, facts, first, self._host.process.id)
        asked = self._beside.ask(self._text, values)
        return asked is not None and asked[1] == 1

    def close(self) -> None:
        self._beside.close()
