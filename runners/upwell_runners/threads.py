"""Task runner `threads`: attempts on worker threads of one process.

Workers take attempts from a shared queue, and put outcomes on another, so nothing crosses to the loop one by
one. A worker is woken, or made, only while there is work that nobody takes: a worker that finds more work
than its own calls the next. All queue operations are single steps under the interpreter's lock; the counts
are changed under `_counting`.
"""

from __future__ import annotations

import _thread
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from upwell.core.lifecycle import Outcome, OutcomeKind
from upwell.core.options import check_at_least_one
from upwell.core.seams import Attempt, RunnerHost
from upwell.engine.clock import INTERRUPTIBLE
from upwell.engine.interrupts import Interrupted, cancelled_because, clear_raise_in_thread, raise_in_thread
from upwell.engine.stopping import ends_in_thread
from upwell.settings import current

DEFAULT_MAX_WORKERS: Final = 32
GRACE_SECONDS: Final = 0.2
"""How long interrupted code may take to react before its thread is given up."""


class ThreadPoolTaskRunner:
    """Executes attempts on up to `max_workers` threads (32 unless said otherwise).

    A thread that waits for another run is not counted, so nested waits cannot deadlock, on one worker either.
    Coroutine functions run on their worker's thread too, in an event loop of their own.
    """

    coroutines_on_loop = False
    max_at_once: int | None = None

    def __init__(self, max_workers: int | None = None) -> None:
        check_at_least_one("max_workers", max_workers)
        self.max_workers = max_workers or current().tasks_runner_thread_pool_max_workers or DEFAULT_MAX_WORKERS
        self._queue: deque[Attempt] = deque()
        self._idle: list[_Worker] = []
        self._workers: dict[Attempt, _Worker] = {}
        self._given_up: set[Attempt] = set()
        self._counting = threading.Lock()
        self._all: set[_Worker] = set()
        self._blocked = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}(max_workers={self.max_workers})"

    # --- what the engine calls ------------------------------------------------------------------------

    def open(self, host: RunnerHost) -> None:
        self.host = host
        self._closed = False

    def start(self, attempts: Sequence[Attempt]) -> None:
        self._queue.extend(attempts)
        self.call_another()

    def interrupt(self, attempt: Attempt, kind: OutcomeKind, error: BaseException) -> None:
        outcome = Outcome(kind, error, str(error))
        self._given_up.add(attempt)  # if it stands in the queue still, or is being taken this moment
        worker = self._workers.get(attempt)
        if worker is None or not worker.interrupt(attempt, outcome):
            self.host.finished(attempt, outcome)
        else:
            self.host.call_later(GRACE_SECONDS, lambda: self._abandon(worker, attempt, outcome))

    def blocked(self, attempt: Attempt) -> None:
        with self._counting:
            self._blocked += 1
        self.call_another()

    def unblocked(self, attempt: Attempt) -> None:
        with self._counting:
            self._blocked -= 1

    async def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().wake.release()

    # --- workers ----------------------------------------------------------------------------------------

    def call_another(self) -> None:
        """Have one more worker come to the queue, if there is work and room for it."""
        if not self._queue:
            return
        try:
            self._idle.pop().wake.release()
        except IndexError:
            if self._is_full():  # looked at first: threads that queue for a lock hand the interpreter's to and fro
                return
            with self._counting:
                if self._is_full():
                    return
                worker = _Worker(self)
                self._all.add(worker)
            _thread.start_new_thread(worker.work, ())

    def _is_full(self) -> bool:
        return len(self._all) - self._blocked >= self.max_workers

    def take(self, worker: _Worker) -> Attempt | None:
        """The next attempt for this worker; None sends it home."""
        while not self._closed:
            if len(self._all) - self._blocked > self.max_workers:
                break  # there were more while others waited for runs
            try:
                attempt = self._queue.popleft()
            except IndexError:
                self._idle.append(worker)
                if not self._queue or not self._leave_idle(worker):
                    worker.wake.acquire()
                continue
            self._workers[attempt] = worker
            if self._queue:
                self.call_another()
            return attempt
        with self._counting:
            self._all.discard(worker)
        return None

    def _leave_idle(self, worker: _Worker) -> bool:
        try:
            self._idle.remove(worker)
        except ValueError:  # somebody has called this worker: the call must be taken
            return False
        return True

    def report(self, attempt: Attempt, outcome: Outcome) -> None:
        self._workers.pop(attempt, None)
        self._given_up.discard(attempt)
        self.host.finished(attempt, outcome)

    def is_given_up(self, attempt: Attempt) -> bool:
        return attempt in self._given_up

    def _abandon(self, worker: _Worker, attempt: Attempt, outcome: Outcome) -> None:
        """Give up a thread whose code does not react: its run ends, and another worker takes its place."""
        if worker.is_ending(attempt):
            self.host.call_later(GRACE_SECONDS, lambda: self._abandon(worker, attempt, outcome))
            return
        if not worker.abandon(attempt):
            return
        with self._counting:
            self._all.discard(worker)
        self._workers.pop(attempt, None)
        self.host.emit_log(
            attempt,
            30,
            f"Its code did not react within {GRACE_SECONDS} second(s), so its thread was abandoned: it may go on "
            "unseen until its current call returns. Use task_runner='processes' for code that must be stoppable.",
            "",
            0.0,
        )
        self.host.finished(attempt, outcome)
        self.call_another()


class _Worker:
    """One thread: takes attempts and executes them until it is sent home, or abandoned."""

    __slots__ = ("_abandoned", "_attempt", "_changing", "_interrupted", "_pool", "_thread_id", "wake")

    def __init__(self, pool: ThreadPoolTaskRunner) -> None:
        self._pool = pool
        self.wake = threading.Lock()
        self.wake.acquire()
        self._changing = threading.Lock()
        self._attempt: Attempt | None = None
        self._interrupted: Outcome | None = None
        self._abandoned = False
        self._thread_id = 0

    def work(self) -> None:
        """The thread's whole life."""
        self._thread_id = threading.get_ident()
        INTERRUPTIBLE.depth = 1  # whose time is up while it waits for a future is to notice
        pool = self._pool
        host = pool.host
        while not self._abandoned:
            attempt = pool.take(self)
            if attempt is None:
                return
            outcome = self._execute(attempt, host)
            if outcome is not None:
                pool.report(attempt, outcome)

    def _execute(self, attempt: Attempt, host: RunnerHost) -> Outcome | None:
        try:
            with self._changing:
                self._attempt = attempt
            outcome: Outcome | None
            if self._pool.is_given_up(attempt):
                outcome = Outcome(OutcomeKind.CANCELLED)  # it was reported already
            else:
                if attempt.timeout_seconds is not None:
                    host.started(attempt)
                outcome = host.execute(attempt)
            with self._changing:  # from here on nobody interrupts this thread because of it
                self._attempt = None
        except Interrupted:  # it hit between the user's code and here
            outcome = None
        if self._interrupted is not None:
            outcome = self._after_interrupt()
        return None if self._abandoned else outcome

    def _after_interrupt(self) -> Outcome | None:
        with self._changing:
            self._attempt = None
            clear_raise_in_thread(self._thread_id)
            outcome, self._interrupted = self._interrupted, None
        return outcome

    def interrupt(self, attempt: Attempt, outcome: Outcome) -> bool:
        """Raise in this thread, if it is executing this attempt; it will report this outcome.

        Once only: a second time could hit this thread after it has caught the first.
        """
        with self._changing:
            if self._attempt is not attempt:
                return False
            was_interrupted = self._interrupted is not None
            self._interrupted = outcome
            if not was_interrupted and not self._pool.host.cancel_coroutine(attempt):
                is_cancelled = outcome.kind is OutcomeKind.CANCELLED
                raise_in_thread(self._thread_id, cancelled_because(outcome.message) if is_cancelled else Interrupted)
            return True

    def is_ending(self, attempt: Attempt) -> bool:
        """Whether it executes this attempt, a flow's, that has reacted: the flow run waits for what it has started."""
        return self._attempt is attempt and ends_in_thread(self._thread_id)

    def abandon(self, attempt: Attempt) -> bool:
        """Stop caring for this thread, if it is executing this attempt still."""
        with self._changing:
            if self._attempt is not attempt:
                return False
            self._abandoned = True
            return True
