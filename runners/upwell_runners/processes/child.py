"""A child process: executes the rows that the pool sends, one after the other, and reports how they ended.

The main thread does all of that alone. A second thread, the watch, looks every WATCH_SECONDS whether one row
keeps the main thread busy. If so it reports what has ended before that row, gives back the rows behind it, for
another child may be free, and ends the process if the parent has died.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextvars import Context
from typing import Any, Final

from upwell.composition import close_journal, flush_journal
from upwell.core.errors import MissingContextError
from upwell.engine.elsewhere import ELSEWHERE, RunElsewhere
from upwell_runners.processes.calls import RUN_ROW, Callee
from upwell_runners.processes.parcels import Packer, unpack
from upwell_runners.processes.report import Failure, Report
from upwell_runners.processes.shared_memory import Borrower, Lender
from upwell_runners.processes.wire import (
    PROGRESS_SEGMENT,
    Batch,
    Facts,
    FrameReader,
    GivenBack,
    Kind,
    Log,
    Parcel,
    Segment,
    Setup,
    frame,
)

REPORT_SECONDS: Final = 0.005
"""Outcomes are kept for one message for so long, while rows follow each other quickly."""

WATCH_SECONDS: Final = 0.02
"""A row that takes longer keeps nothing back: outcomes before it are reported, rows behind it given back."""

_WATCH_IDLE_TICKS: Final = 50
"""How often the watch finds nothing to do before it waits to be called."""


def serve(descriptor: int) -> None:
    """The whole life of a child on its socket."""
    with socket.socket(fileno=descriptor) as sock:
        try:
            Child(sock).work()
        finally:
            close_journal()  # before the parent sees our end, and makes sure of it


class Child:
    """The state of a child process."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = FrameReader(sock)
        self._sending = threading.Lock()
        self._receiving = threading.Lock()
        self._inbox: deque[tuple[Callee, Batch]] = deque()
        self._answers: dict[int, Any] = {}
        self._ended = False
        self._borrower = Borrower(_nothing)
        self._lender = Lender(self._announce, lambda key: self._send(frame(Kind.WITHDRAWN, key)))
        self._packer = Packer(self._lender)
        self._given_back: deque[int] = deque()
        self._callees: dict[int, Callee] = {}
        self._progress: Any = [0]
        self._rows: deque[Any] = deque()
        self._first_behind = 0
        self._report = Report(0, None)
        self._reporting = threading.Lock()
        self._busy = False
        self._watch_called = threading.Event()
        self._watch_waits = False
        os.register_at_fork(after_in_child=self._leave_to_parent)

    # --- the socket ---------------------------------------------------------------------------------------

    def _leave_to_parent(self) -> None:
        """A process that the user's code forks is none of ours: our socket must end with this one."""
        try:
            os.close(self._sock.detach())
        except OSError:
            pass

    def _send(self, data: bytes) -> None:
        with self._sending:
            try:
                self._sock.sendall(data)
            except OSError:
                pass  # the parent has gone: reading says so

    def _announce(self, segment_id: int, size: int, descriptor: int) -> None:
        data = frame(Kind.SEGMENT, Segment(segment_id, size))
        with self._sending:
            try:
                sent = socket.send_fds(self._sock, [data], [descriptor])
                self._sock.sendall(data[sent:])
            except OSError:
                pass
            finally:
                os.close(descriptor)

    def _receive(self, timeout: float | None) -> None:
        """Take in what has come; with `_receiving` held. Waits for at most so many seconds."""
        if timeout is not None and not select.select([self._sock], [], [], timeout)[0]:
            return
        frames = self._reader.receive()
        if frames is None:
            self._ended = True
            return
        for kind, body in frames:
            if kind == Kind.SEGMENT:
                self._add_segment(body)
            elif kind == Kind.WITHDRAWN:
                self._borrower.remove(body)
            elif kind == Kind.FREED:
                self._given_back.extend(body)
            elif kind == Kind.FACTS:
                self._answers[body.serial] = body
            elif kind == Kind.FUNCTION:
                self._callees[body.number] = Callee(body)
            elif kind == Kind.FORGET:
                self._callees.pop(body, None)
            elif kind == Kind.BATCH:
                self._inbox.append((self._callees[body.function], body))
            elif kind == Kind.SETUP:
                self._set_up(body)

    def _add_segment(self, segment: Segment) -> None:
        descriptor = self._reader.descriptors.popleft()
        self._borrower.add(segment.id, segment.size, descriptor)
        if segment.id == PROGRESS_SEGMENT:
            self._progress = self._borrower.view(segment.id).cast("Q")

    def _facts_of(self, run: RunElsewhere) -> Mapping[str, Any]:
        """Ask the parent; from any thread."""
        self._send(frame(Kind.ASK_FACTS, run.key))
        while run.key not in self._answers and not self._ended:
            if self._receiving.acquire(timeout=WATCH_SECONDS):
                try:
                    if run.key not in self._answers:
                        self._receive(WATCH_SECONDS)
                finally:
                    self._receiving.release()
        answer: Facts | None = self._answers.pop(run.key, None)
        if answer is None or answer.facts is None:
            raise MissingContextError("This code's task run has ended, so nothing is known of it any more.")
        facts: Mapping[str, Any] = answer.facts
        return facts

    # --- the main thread ------------------------------------------------------------------------------------

    def work(self) -> None:
        """Execute what comes until the parent closes its end."""
        try:
            self._sock.sendall(frame(Kind.HELLO, os.getpid()))
        except OSError:  # given up already: what it sent before that must not run
            return
        threading.Thread(target=self._watch, name="upwell-watch", daemon=True).start()
        while True:
            while not self._inbox:
                if self._ended:
                    return
                with self._receiving:
                    if not self._inbox:
                        self._receive(None)
            try:
                callee, batch = self._inbox.popleft()
            except IndexError:  # the watch has given it back
                continue
            self._execute(callee, batch)

    def _set_up(self, setup: Setup) -> None:
        sys.path[:] = setup.sys_path
        sys.argv[:] = setup.argv
        os.environ.clear()
        os.environ.update(setup.environment)
        try:
            os.chdir(setup.directory)
        except OSError:
            pass  # it was removed meanwhile; files of the user's are found by full paths then
        logging.getLogger().addHandler(_ToParent(self))
        for name, level in setup.log_levels.items():
            logging.getLogger(name).setLevel(level)

    def _execute(self, callee: Callee, batch: Batch) -> None:
        callee.load()
        parcels = batch.parcels
        if batch.count > 1 and len(parcels) == 1:
            rows, packed = unpack(parcels[0], self._borrower), False
        else:
            rows, packed = parcels, True
        self._begin(callee, batch, rows)
        take, run, ask, progress = self._rows.popleft, RUN_ROW[batch.form], self._facts_of, self._progress
        note_time, note_value, announce = self._report.times.append, self._report.values.append, batch.announce
        serial = batch.first
        now = last_report = time.time()
        note_time(now)
        while True:  # the hot path: every line of it counts for tiny tasks
            try:
                row = take()
            except IndexError:
                break
            progress[0] = serial
            if announce:
                self._send(frame(Kind.STARTED, serial))
            try:
                if packed:
                    row = unpack(row, self._borrower)
                value = Context().run(run, callee, ask, serial, row)
            except BaseException as error:
                value = Failure(error)
            del row  # before its segment could be missed
            now = time.time()
            note_time(now)
            note_value(value)
            del value
            serial += 1
            if not 0 <= now - last_report < REPORT_SECONDS:
                self._send_report()
                last_report = now
        self._busy = False
        self._send_report()
        _flush_streams()

    def _begin(self, callee: Callee, batch: Batch, rows: list[Any]) -> None:
        with self._reporting:
            self._report = Report(batch.first, callee)
            self._first_behind = batch.first + batch.count
            self._rows = deque(rows)
        self._busy = True
        if self._watch_waits:
            self._watch_called.set()

    def _send_report(self) -> None:
        """Send what has ended; by the main thread or the watch. What rows have recorded here is safe before."""
        flush_journal()
        with self._reporting:
            while self._given_back:
                self._lender.given_back([self._given_back.popleft()])
            outcomes = self._report.pack(self._packer)
            if outcomes is None:
                return
            data = frame(Kind.OUTCOMES, outcomes)
            freed = self._borrower.take_freed()
            self._send(data + frame(Kind.FREED, freed) if freed else data)

    def send_log(self, log: Log) -> None:
        self._send(frame(Kind.LOG, log))

    # --- the watch --------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        seen, idle_ticks = 0, 0
        while True:
            if idle_ticks > _WATCH_IDLE_TICKS:
                self._watch_called.clear()
                self._watch_waits = True
                if not self._busy:
                    self._watch_called.wait()
                self._watch_waits = False
                idle_ticks = 0
            time.sleep(WATCH_SECONDS)
            if not self._busy:
                idle_ticks += 1
                continue
            idle_ticks = 0
            serial = self._progress[0]
            if serial == seen:
                self._relieve()
            seen = serial

    def _relieve(self) -> None:
        """One row takes long: keep nothing back that stands before or behind it."""
        self._send_report()
        given_back: list[int] = []
        with self._reporting:
            first_behind = self._first_behind
            while self._busy:
                try:
                    row = self._rows.pop()
                except IndexError:
                    break
                first_behind -= 1
                given_back.append(first_behind)
                self._skip(row)
            self._first_behind = first_behind
        if self._receiving.acquire(blocking=False):
            try:
                self._receive(0)
            finally:
                self._receiving.release()
            given_back += self._batches_behind()
        if given_back:
            self._send(frame(Kind.GIVEN_BACK, GivenBack(sorted(given_back))))
        if self._ended:
            _end_with_group()

    def _batches_behind(self) -> list[int]:
        serials: list[int] = []
        while self._busy:
            try:
                _, batch = self._inbox.pop()
            except IndexError:
                break
            serials += range(batch.first, batch.first + batch.count)
            for parcel in batch.parcels:
                self._skip(parcel)
        return serials

    def _skip(self, row: Any) -> None:
        if isinstance(row, Parcel) and row.segment:
            self._borrower.skip(row.segment)


class _ToParent(logging.Handler):
    """Sends the records that a row's code makes to the parent's log."""

    def __init__(self, child: Child) -> None:
        super().__init__()
        self._child = child

    def emit(self, record: logging.LogRecord) -> None:
        run = ELSEWHERE.get()
        if run is None:
            if logging.lastResort is not None and record.levelno >= logging.lastResort.level:
                logging.lastResort.handle(record)
            return
        try:
            message = record.getMessage()
            if record.exc_info:
                message += "\n" + logging.Formatter().formatException(record.exc_info)
            self._child.send_log(Log(run.key, record.levelno, message, record.name, record.created))
        except Exception:
            self.handleError(record)


def _nothing() -> None:
    """What is freed here is given back with the next report."""


def _end_with_group() -> None:
    """The parent has died: end this process, and what the row that runs has started."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass
