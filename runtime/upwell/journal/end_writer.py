"""Notes ends of task runs at once, each in the thread in which it happens, in the log of this process."""

from __future__ import annotations

import threading
from asyncio import _get_running_loop  # pyright: ignore[reportPrivateUsage]  # None where no loop runs, at no cost
from pathlib import Path
from typing import Any, Final, Protocol

from msgspec import Raw

from upwell.journal.end_log import EndLog
from upwell.journal.processes import Process
from upwell.journal.rows import RowMaker
from upwell.journal.safe_ends import message_of

MOST_SERIES: Final = 50
"""Of which the rows are remembered."""


class Host(Protocol):
    """What is needed of the journal."""

    process: Process
    rows: RowMaker


class LogEndWriter:
    """Writes the ends of one process into a log beside its SQLite file. See `strict.EndWriter`.

    waits_for_disk: so no end is written on the thread of an event loop, which has other work to do.
    """

    def __init__(self, host: Host, database: Path, *, waits_for_disk: bool = False) -> None:
        self._waits_for_disk = waits_for_disk
        self._host = host
        self._database = database
        self._opening = threading.Lock()
        self._log: EndLog | None = None
        self._refuses = False
        self._series: dict[int, Raw] = {}  # the rows of those of which there were ends, as they are written

    @property
    def written(self) -> int:
        return 0 if self._log is None else self._log.written

    def facts_of(self, run: Any, record: bytes, key: bytes | None) -> bytes | None:
        rows = self._host.rows
        if self._refuses or not rows.process_key:  # the store has not been opened
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
        log = self._log or self._open()
        return log is not None and log.add(facts)

    def _open(self) -> EndLog | None:
        with self._opening:
            if self._log is None and not self._refuses:
                key, process_id = self._host.rows.process_key, self._host.process.id
                try:
                    self._log = EndLog(self._database, key, process_id, waits_for_disk=self._waits_for_disk)
                except OSError:  # no room, no rights, nothing that can be mapped: then the journal is waited for
                    self._refuses = True
            return self._log

    def are_in_tables(self, number: int) -> None:
        if self._log is not None:
            self._log.are_in_tables(number)

    def abandon(self) -> None:
        self._refuses = True
        if self._log is not None:
            self._log.abandon()

    def close(self) -> None:
        with self._opening:
            self._refuses = True
            if self._log is not None:
                self._log.close()
