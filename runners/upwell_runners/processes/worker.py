"""The pool's side of one child: its socket, what it was sent and has not answered, and its death."""

from __future__ import annotations

import array
import asyncio
import logging
import math
import mmap
import os
import socket
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Protocol

from upwell.core.errors import SerializationError
from upwell.core.lifecycle import RAISED, RETURNED, Outcome, describe
from upwell.core.seams import Attempt
from upwell_runners.processes.backlog import InFlight
from upwell_runners.processes.batches import FunctionUse
from upwell_runners.processes.faults import unsendable_argument
from upwell_runners.processes.launch import Launcher
from upwell_runners.processes.parcels import Packer, unpack
from upwell_runners.processes.shared_memory import Borrower, Lender, nameless_file
from upwell_runners.processes.wire import (
    KINDS,
    PROGRESS_SEGMENT,
    Batch,
    Facts,
    Form,
    FrameReader,
    Kind,
    Log,
    Outcomes,
    Parcel,
    Segment,
    Setup,
    frame,
)

_PROGRESS_BYTES: Final = mmap.PAGESIZE

Ended = list[tuple[Attempt, Outcome]]


class Pool(Protocol):
    """What a worker tells its pool, all on the loop's thread."""

    def worker_ended_rows(self, ended: Ended) -> None: ...

    def worker_returned_rows(self, attempts: Sequence[Attempt], values: list[Any], times: Sequence[float]) -> None: ...

    def arguments_of(self, attempts: Sequence[Attempt]) -> tuple[Form, list[Any]]: ...

    def worker_gave_back(self, worker: Worker, attempts: list[Attempt]) -> None: ...

    def worker_said_hello(self) -> None: ...

    def worker_lost(self, worker: Worker) -> None: ...

    def attempt_started(self, attempt: Attempt) -> None: ...

    def attempt_logged(self, attempt: Attempt, log: Log) -> None: ...


class Worker:
    """One child.

    in_flight: the attempts that it was sent and has not answered.
    ready: it has begun to read.
    alone: what it executes must not have anything behind it.
    """

    def __init__(self, pool: Pool, launcher: Launcher, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._launcher = launcher
        self._loop = loop
        self.in_flight = InFlight()
        self.ready = False
        self.alone = False
        self.lost = False
        self._stuck = False
        self._sent: deque[tuple[int, float, FunctionUse]] = deque()  # last serial, seconds each
        self._next_serial = 1
        self._known: set[int] = set()
        self._outgoing: deque[tuple[bytes | memoryview, int]] = deque()
        self._lender = Lender(self._announce, lambda key: self._send(frame(Kind.WITHDRAWN, key)))
        self._packer = Packer(self._lender)
        self._freeing = False
        self._borrower = Borrower(self._something_freed)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._sock = ours
        self._reader = FrameReader(ours)
        self._send(frame(Kind.SETUP, _setup()))
        self._share_progress()
        self._pid = launcher.launch(theirs)
        loop.add_reader(ours.fileno(), self._on_readable)

    # --- what it has to do ----------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        return not self.in_flight

    def seconds_ahead(self) -> float:
        """How long it has to do; without end where it should be sent nothing now."""
        if not self.in_flight:
            return 0.0
        if self.alone or self._stuck or not self.ready:
            return math.inf
        first = self.in_flight.first
        self._forget_sent(first)
        total = 0.0
        for last, seconds, _ in self._sent:
            total += max(last - first + 1, 0) * seconds
            first = max(first, last + 1)
        return total

    def _forget_sent(self, first: int) -> None:
        """Batches are over that end before this row."""
        while self._sent and self._sent[0][0] < first:
            self._sent.popleft()

    def send_rows(self, use: FunctionUse, attempts: Sequence[Attempt]) -> Ended:
        """Have it execute these; returns those that cannot be sent, and why."""
        form, parcels, faults = self._pack(use, attempts)
        ended: Ended = [(attempts[place], Outcome(RAISED, fault)) for place, fault in faults.items()]
        if faults:
            attempts = [attempt for place, attempt in enumerate(attempts) if place not in faults]
        if not attempts:
            return ended
        if use.number not in self._known:
            self._known.add(use.number)
            self._send(frame(Kind.FUNCTION, use.function))
        first, count = self._next_serial, len(attempts)
        self._next_serial += count
        self.in_flight.add(first, attempts)
        self.alone = use.alone
        self._sent.append((self._next_serial - 1, use.seconds_ahead, use))
        self._send(frame(Kind.BATCH, Batch(first, count, use.number, form, use.announces(count), parcels)))
        return ended

    def _pack(
        self, use: FunctionUse, attempts: Sequence[Attempt]
    ) -> tuple[Form, list[Parcel], dict[int, SerializationError]]:
        """The arguments of attempts; and of which they cannot be sent, by their places, and why."""
        form, rows = self._pool.arguments_of(attempts)
        if len(rows) > 1 and not use.packs_each:
            together = self._packer.pack_together(rows)
            if together is not None:
                use.note_bytes(_size(together), len(rows))
                return form, [together], {}
            use.packs_each = True
        parcels: list[Parcel] = []
        faults: dict[int, SerializationError] = {}
        for place, row in enumerate(rows):
            try:
                parcels.append(self._packer.pack(row))
            except Exception as why:
                attempt = attempts[place]
                faults[place] = unsendable_argument(attempt.name, attempt.fn, attempt.args, attempt.kwargs, why)
        if parcels:
            use.note_bytes(sum(map(_size, parcels)), len(parcels))
        return form, parcels, faults

    def forget(self, use: FunctionUse) -> None:
        """This function will not be called again under its number."""
        if use.number in self._known:
            self._known.discard(use.number)
            self._send(frame(Kind.FORGET, use.number))

    # --- sending: never blocks --------------------------------------------------------------------------------

    def _send(self, data: bytes, descriptor: int = -1) -> None:
        if self.lost:
            if descriptor >= 0:
                os.close(descriptor)
            return
        self._outgoing.append((data, descriptor))
        if len(self._outgoing) == 1:
            self._write()

    def _write(self) -> None:
        outgoing = self._outgoing
        try:
            while outgoing:
                data, descriptor = outgoing[0]
                if descriptor >= 0:
                    sent = socket.send_fds(self._sock, [data], [descriptor])
                    os.close(descriptor)
                else:
                    sent = self._sock.send(data)
                if sent == len(data):
                    outgoing.popleft()
                else:
                    outgoing[0] = (memoryview(data)[sent:], -1)
        except BlockingIOError:
            self._loop.add_writer(self._sock.fileno(), self._write)
            return
        except OSError:  # it has died: reading says so
            self._drop_outgoing()
        self._loop.remove_writer(self._sock.fileno())

    def _drop_outgoing(self) -> None:
        while self._outgoing:
            _, descriptor = self._outgoing.popleft()
            if descriptor >= 0:
                os.close(descriptor)

    def _announce(self, segment_id: int, size: int, descriptor: int) -> None:
        self._send(frame(Kind.SEGMENT, Segment(segment_id, size)), descriptor)

    def _share_progress(self) -> None:
        descriptor = nameless_file()
        os.ftruncate(descriptor, _PROGRESS_BYTES)
        self._progress_map = mmap.mmap(descriptor, _PROGRESS_BYTES)
        self._progress = memoryview(self._progress_map).cast("Q")
        self._announce(PROGRESS_SEGMENT, _PROGRESS_BYTES, descriptor)

    def _something_freed(self) -> None:
        """In whatever thread the last reference to a result in shared memory went."""
        if not self._freeing and not self.lost:
            self._freeing = True
            try:
                self._loop.call_soon_threadsafe(self._give_back)
            except RuntimeError:
                pass  # the loop is closed, and the child with it

    def _give_back(self) -> None:
        self._freeing = False
        freed = self._borrower.take_freed()
        if freed:
            self._send(frame(Kind.FREED, freed))

    # --- receiving ----------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            frames = self._reader.receive()
        except BlockingIOError:
            return
        if frames is None:
            self._pool.worker_lost(self)
            return
        for kind, body in frames:
            if kind == Kind.OUTCOMES:
                self._stuck = False
                self._on_outcomes(body)
            elif kind == Kind.FREED:
                self._lender.given_back(body)
            elif kind == Kind.SEGMENT:
                self._borrower.add(body.id, body.size, self._reader.descriptors.popleft())
            elif kind == Kind.WITHDRAWN:
                self._borrower.remove(body)
            else:
                self._on_notice(kind, body)

    def _on_notice(self, kind: int, body: Any) -> None:
        if kind == Kind.HELLO:
            self._pid, self.ready = body, True
            self._pool.worker_said_hello()
        elif kind == Kind.STARTED:
            attempt = self.in_flight.get(body)
            if attempt is not None:
                self._pool.attempt_started(attempt)
        elif kind == Kind.LOG:
            attempt = self.in_flight.get(body.serial)
            if attempt is not None:
                self._pool.attempt_logged(attempt, body)
        elif kind == Kind.ASK_FACTS:
            attempt = self.in_flight.get(body)
            self._send(frame(Kind.FACTS, Facts(body, attempt and dict(attempt.facts()))))
        elif kind == Kind.GIVEN_BACK:
            self._stuck = True
            self._pool.worker_gave_back(self, self.in_flight.take_out(set(body.serials)))

    def _on_outcomes(self, body: Outcomes) -> None:
        attempts = self.in_flight.answered(body.first, body.count)
        times = array.array("d")
        times.frombytes(body.times)
        self._note_seconds(body, times)
        if body.count > 1 and len(body.parcels) == 1:
            self._pool.worker_returned_rows(attempts, unpack(body.parcels[0], self._borrower), times)
            return
        outcomes = [self._outcome(body, position, parcel, times) for position, parcel in enumerate(body.parcels)]
        self._pool.worker_ended_rows(list(zip(attempts, outcomes, strict=True)))

    def _outcome(self, body: Outcomes, position: int, parcel: Parcel, times: Sequence[float]) -> Outcome:
        began, ended = times[position], times[position + 1]
        kind = KINDS[body.kinds[position]] if body.kinds else RETURNED
        try:
            value = unpack(parcel, self._borrower)
        except BaseException as error:  # reading may run users' code, such as a module that ends its program
            fault = SerializationError(f"What the task returned cannot be read in this process: {describe(error)}")
            return Outcome(RAISED, fault, "", began, ended)
        return Outcome(kind, value, body.messages[position] if body.messages else "", began, ended)

    def _note_seconds(self, body: Outcomes, times: Sequence[float]) -> None:
        self._forget_sent(body.first)
        if self._sent:
            _, _, use = self._sent[0]
            use.note_seconds(max(times[-1] - times[0], 0.0), body.count)

    # --- the end ------------------------------------------------------------------------------------------------

    def running(self) -> int:
        """The serial of the row that it began last; 0 if it began none."""
        return int(self._progress[0])

    def detach(self) -> None:
        """Stop listening on the loop."""
        if not self.lost:
            self.lost = True
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._drop_outgoing()

    def ask_to_end(self) -> None:
        """Tell it that nothing more will come."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def wait_for_end(self, seconds: float) -> None:
        """Block until it has closed its end, or for so long; after `detach` and `ask_to_end`."""
        self._sock.settimeout(seconds)
        try:
            while self._reader.receive() is not None:
                pass
        except TimeoutError:
            pass

    def finish(self) -> int | None:
        """End the process by force if it lives still, and release everything; its exit status, None if unknown."""
        self.detach()
        self._sock.close()
        self._reader.close()
        status = None if self._pid is None else self._launcher.end(self._pid)
        self.last_begun = self.running()
        self._progress.release()
        self._progress_map.close()
        self._lender.close()
        self._borrower.close()
        return status


def rows_of(attempts: Sequence[Attempt]) -> tuple[Form, list[Any]]:
    """The arguments of attempts in the leanest form that holds all of them."""
    args = [attempt.args for attempt in attempts]
    kwargs = [attempt.kwargs for attempt in attempts]
    if any(kwargs):
        return Form.CALL, [(a, dict(k)) for a, k in zip(args, kwargs, strict=True)]
    if set(map(len, args)) == {1}:
        return Form.ITEM, [item for (item,) in args]
    return Form.ARGS, args


def _size(parcel: Parcel) -> int:
    return sum(parcel.spans[1::2]) if parcel.segment else len(parcel.data) + sum(map(len, parcel.buffers))


def _setup() -> Setup:
    levels = {"": logging.getLogger().level}
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and logger.level != logging.NOTSET:
            levels[name] = logger.level
    return Setup([path or os.getcwd() for path in sys.path], list(sys.argv), os.getcwd(), dict(os.environ), levels)
