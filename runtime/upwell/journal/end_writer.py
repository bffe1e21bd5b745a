"""Notes ends of task runs at once, each in the thread in which it happens, in the log of this process."""

from __future__ import annotations

import threading
from asyncio import _get_running_loop  # pyright: ignore[reportPrivateUsage]  # None where no loop runs, at no cost
from pathlib import Path
from typing import Any, Final, Protocol

from msgspec import Raw

from upwell.engine.recorder import Recorder
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
    recorder: Recorder


class LogEndWriter:
    """Writes the ends of one process into a log beside its SQLite file. See `strict.EndWriter`.

    waits_for_disk: so no end is written on the thread of an event loop, which has other work to do.
    """

    def __init__(self, host: Host, database: Path, *, waits_for_disk: bool = False) -> None:
        self._waits_for_disk = waits_for_disk
        self._host = host
        self._rows, self._recorder = host.rows, host.recorder
        self._database = database
        self._opening = threading.Lock()
        self._log: EndLog | None = None
        self._refuses = False
        self._series: dict[int, Raw] = {}  # the rows of those of which there were ends, as they are written

    @property
    def written(self) -> int:
        return 0 if self._log is None else self._log.written

    def record(self, run: Any, record: bytes, key: bytes | None) -> bool:
        log, made = self._log or self._open(), None
        if log is not None and not (self._waits_for_disk and _get_running_loop() is not None):
            made = self._facts_of(run, record, key)
        if log is None or made is None:
            self._recorder.record_end(run, (record, key))
            return False
        facts, short_row = made
        # It is recorded before it is written: else it might be forgotten there too early.
        if short_row is None:
            self._recorder.record_end(run, (record, key))
        else:
            self._recorder.ends.append((run.call.series, short_row, record, key))
            run.item = None
        return log.add(facts)

    def _facts_of(self, run: Any, record: bytes, key: bytes | None) -> tuple[bytes, Any] | None:
        """What is written of a run, and its row if that is a short one."""
        try:
            is_short, row = self._rows.row_of_end(run)
            series = run.call.series
            known = self._series.get(row[0]) or self._row_of(row[0], series)
            return message_of((known, series.submitted, is_short, row, record, key)), row if is_short else None
        except Exception:  # whatever is wrong with it, the journal says so
            return None

    def _row_of(self, key: int, series: Any) -> Raw:
        if len(self._series) > MOST_SERIES:
            self._series.clear()
        known = self._series[key] = Raw(message_of(self._rows.series_row(key, series)))
        return known

    def _open(self) -> EndLog | None:
        key, process_id = self._rows.process_key, self._host.process.id
        with self._opening:
            if self._log is None and not self._refuses and key:  # else the store has not been opened
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
