"""The pool: a queue of attempts, the children that they go to, and what happens when one dies.

All of it runs on the runtime's loop: sockets do not block, so there are no threads, no locks, and outcomes reach
the engine on the thread where they are wanted. A child is sent a little more than it can do before the next
message could reach it (see `batches`); what it has not begun can always go back to the queue.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any, Final

from upwell.core.errors import CrashedRun, SerializationError
from upwell.core.lifecycle import HAS_CRASHED, RAISED, RETURNED, Outcome, OutcomeKind, describe
from upwell.core.options import check_at_least_one
from upwell.core.seams import Attempt, RunnerHost
from upwell.settings import current
from upwell_runners.processes import functions
from upwell_runners.processes.backlog import Backlog, group_of
from upwell_runners.processes.batches import FunctionUse
from upwell_runners.processes.deaths import how_it_died
from upwell_runners.processes.launch import Launcher, StartMethod, launcher_for
from upwell_runners.processes.wire import Form, Function, Log
from upwell_runners.processes.worker import Ended, Worker, rows_of

GRACE_SECONDS: Final = 0.06
"""Before a child is killed it may report, for so long, what it has done; longer than its watch needs to see it."""

CLOSE_SECONDS: Final = 2.0
"""How long children may take to end by themselves when the pool closes."""

AHEAD_SECONDS: Final = 0.01
"""A child is sent more while it has less than this to do, so that it never waits for the pool."""

MAX_FAILED_STARTS: Final = 3
"""So many children in a row that die before they can work, and the attempts that wait are given up."""

MAX_FUNCTIONS: Final = 256
"""How many functions the children keep; the one that was sent first is forgotten for the next."""


class ProcessPoolTaskRunner:
    """Executes attempts in child processes that are started when first needed and then reused.

    max_workers: how many children at most; as many as there are processors unless said otherwise.
    start_method: "forkserver" (children are forked from a clean process; the default on Linux) or "spawn" (each
    is a new interpreter). The main module is not run again in either.

    Functions of the main module, lambdas and closures are sent by value, others by name. Arguments, results and
    exceptions are pickled; large buffers cross in shared memory. Coroutine functions run in the child, in a loop
    of their own. A timeout or a cancellation kills the child, and another takes its place. If a child dies, the
    attempt that it was executing has crashed; the others that it had are executed by another child. Among those
    may be some very short ones that had ended, and whose results died with it: they are executed again.

    Raises:
        ValueError: `max_workers` is not a whole number of at least 1, or `start_method` is neither of those.
    """

    coroutines_on_loop = False
    max_at_once: int | None = None
    takes_lots = True

    def __init__(self, max_workers: int | None = None, start_method: StartMethod | None = None) -> None:
        check_at_least_one("max_workers", max_workers)
        if start_method not in (None, "spawn", "forkserver"):
            raise ValueError(f"start_method is 'spawn' or 'forkserver', not {start_method!r}")
        self.max_workers = max_workers or current().tasks_runner_process_pool_max_workers or os.cpu_count() or 1
        self.start_method: StartMethod = start_method or ("forkserver" if sys.platform == "linux" else "spawn")
        self._queue = Backlog()
        self._workers: list[Worker] = []
        self._launcher: Launcher | None = None
        self._condemned: dict[Attempt, Outcome] = {}
        self._carrying_out = False
        self._uses: dict[Any, FunctionUse] = {}
        self._last_use: tuple[Any, FunctionUse] | None = None
        self._next_function = 1
        self._failed_starts = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}(max_workers={self.max_workers}, start_method={self.start_method!r})"

    # --- what the engine calls --------------------------------------------------------------------------------

    def open(self, host: RunnerHost) -> None:
        self.host = host

    def start(self, attempts: Sequence[Attempt]) -> None:
        self._queue.add(attempts)
        self._share_out()

    def interrupt(self, attempt: Attempt, kind: OutcomeKind, error: BaseException) -> None:
        self._condemned[attempt] = Outcome(kind, error, str(error))
        if not self._carrying_out:  # once for all that are interrupted in one go
            self._carrying_out = True
            self.host.call_soon(self._carry_out)

    def blocked(self, attempt: Attempt) -> None:
        """Nothing to do: a child waits in a process, and a runtime, of its own."""

    def unblocked(self, attempt: Attempt) -> None:
        """Nothing to do: see `blocked`."""

    async def close(self) -> None:
        workers, self._workers = self._workers, []
        launcher, self._launcher = self._launcher, None
        self._uses.clear()
        self._last_use = None
        if launcher is None:
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        for worker in workers:
            worker.detach()

        def end_all() -> None:
            try:
                _end(workers, launcher)
            finally:
                loop.call_soon_threadsafe(ended.set)

        thread = threading.Thread(target=end_all, name="upwell-processes-close")
        thread.start()
        await ended.wait()
        thread.join()

    # --- sharing out ------------------------------------------------------------------------------------------

    def _share_out(self) -> None:
        while self._queue:
            worker = self._next_worker()
            if worker is None:
                return
            use = self._use_at_head()
            if use is None:
                self._queue.take(1)
                continue
            if use.alone and not worker.idle:
                return
            ended = worker.send_rows(use, self._take(use))
            if ended:
                self.worker_ended_rows(ended, share_out=False)

    def _next_worker(self) -> Worker | None:
        roomy: Worker | None = None
        least = AHEAD_SECONDS
        for worker in self._workers:
            if worker.idle:
                return worker
            if (seconds := worker.seconds_ahead()) < least:
                roomy, least = worker, seconds
        if len(self._workers) < self.max_workers:
            if self._launcher is None:
                self._launcher = launcher_for(self.start_method)
            worker = Worker(self, self._launcher, asyncio.get_running_loop())
            self._workers.append(worker)
            return worker
        return roomy

    def _take(self, use: FunctionUse) -> Sequence[Attempt]:
        taken = self._queue.take(use.rows_at_once(len(self._queue), self.max_workers))
        if group_of(taken) is None:
            for position in range(len(taken)):
                other = self._use_of(taken[position])
                if other is not use:
                    self._queue.put_back(taken[position + (other is None) :])
                    taken = taken[:position]
                    break
        use.note_rows(len(taken))
        return taken

    def _use_of(self, attempt: Attempt) -> FunctionUse | None:
        """The function of an attempt as the children know it; None: it cannot be sent, and its attempt has ended."""
        group = attempt.group
        if self._last_use is not None and self._last_use[0] is group:
            return self._last_use[1]
        log_prints = attempt.logs_prints
        key = (attempt.fn, attempt.timeout_seconds is not None, log_prints)
        use = self._uses.get(key)
        if use is None:
            try:
                use = self._new_use(attempt, log_prints)
            except Exception as why:
                name = getattr(attempt.fn, "__qualname__", repr(attempt.fn))
                fault = SerializationError(f"The function {name!r} cannot be sent to another process: {describe(why)}")
                self.host.finished(attempt, Outcome(RAISED, fault))
                return None
            self._uses[key] = use
        self._last_use = (group, use)
        return use

    def _use_at_head(self) -> FunctionUse | None:
        """That of the first that waits, which is not looked at if its group is known."""
        if self._last_use is not None and self._last_use[0] is self._queue.group:
            return self._last_use[1]
        return self._use_of(self._queue.head)

    def _new_use(self, attempt: Attempt, log_prints: bool) -> FunctionUse:
        reference = functions.reference_of(attempt.fn)
        pickled = b"" if reference else functions.pickled(attempt.fn)
        if len(self._uses) >= MAX_FUNCTIONS:
            forgotten = self._uses.pop(next(iter(self._uses)))
            for worker in self._workers:
                worker.forget(forgotten)
        number, self._next_function = self._next_function, self._next_function + 1
        function = Function(number, reference, functions.file_of(attempt.fn), pickled, log_prints)
        return FunctionUse(function, attempt.timeout_seconds is not None)

    # --- what workers tell --------------------------------------------------------------------------------------

    def worker_ended_rows(self, ended: Ended, share_out: bool = True) -> None:
        if self._condemned:
            ended = [(attempt, self._condemned.pop(attempt, outcome)) for attempt, outcome in ended]
        self.host.finished_many(ended)
        if share_out and self._queue:
            self._share_out()

    def worker_returned_rows(self, attempts: Sequence[Attempt], values: list[Any], times: Sequence[float]) -> None:
        if self._condemned:
            outcomes = [
                Outcome(RETURNED, value, "", began, ended)
                for value, began, ended in zip(values, times, times[1:], strict=False)
            ]
            self.worker_ended_rows(list(zip(attempts, outcomes, strict=True)))
            return
        self.host.returned_many(attempts, values, times)
        if self._queue:
            self._share_out()

    def arguments_of(self, attempts: Sequence[Attempt]) -> tuple[Form, list[Any]]:
        only = self.host.only_arguments(attempts)
        return rows_of(attempts) if only is None else (Form.ITEM, only)

    def worker_gave_back(self, worker: Worker, attempts: list[Attempt]) -> None:
        self._put_back(attempts)
        self._share_out()

    def worker_said_hello(self) -> None:
        self._failed_starts = 0
        self._share_out()

    def attempt_started(self, attempt: Attempt) -> None:
        self.host.started(attempt)

    def attempt_logged(self, attempt: Attempt, log: Log) -> None:
        self.host.emit_log(attempt, log.level, log.message, log.logger, log.timestamp)

    def worker_lost(self, worker: Worker) -> None:
        """A child has died, or was killed: one attempt ends with it at most, and the others go to other children."""
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        status = worker.finish()
        in_flight = worker.in_flight
        hit = in_flight.take_out({serial for serial, attempt in in_flight if attempt in self._condemned})
        ended: Ended = [(attempt, self._condemned.pop(attempt)) for attempt in hit]
        if not worker.ready:
            self._failed_starts += 1
        elif not ended and in_flight:
            guilty = in_flight.first if in_flight.get(worker.last_begun) is None else worker.last_begun
            (attempt,) = in_flight.take_out({guilty})
            why = f"The process that executed {attempt.name!r} {how_it_died(status)}."
            ended.append((attempt, Outcome(HAS_CRASHED, CrashedRun(why), why)))
        self._put_back([attempt for _, attempt in in_flight])
        if self._failed_starts >= MAX_FAILED_STARTS:
            ended += self._give_up(how_it_died(status))
        self.host.finished_many(ended)
        self._share_out()

    def _give_up(self, how: str) -> Ended:
        self._failed_starts = 0
        why = f"Worker processes cannot start: {MAX_FAILED_STARTS} in a row died at once, the last {how}."
        ended: Ended = [(attempt, Outcome(HAS_CRASHED, CrashedRun(why), why)) for attempt in self._queue.clear()]
        return ended

    # --- interrupting ---------------------------------------------------------------------------------------------

    def _put_back(self, attempts: Sequence[Attempt]) -> None:
        """To the head of the queue, but for those that were interrupted meanwhile."""
        self._queue.put_back(attempts)
        if self._condemned:
            self._drop_queued()

    def _drop_queued(self) -> None:
        dropped = self._queue.drop(self._condemned)
        if dropped:
            self.host.finished_many([(attempt, self._condemned.pop(attempt)) for attempt in dropped])

    def _carry_out(self, again: bool = False) -> None:
        """End what was interrupted: drop what is queued, kill the children that execute it.

        A child that has other rows than those may report and give them back first, and is looked at again.
        """
        self._drop_queued()
        sought = set(self._condemned)
        waiting = False
        for worker in self._workers[:]:
            hit = {serial: attempt for serial, attempt in worker.in_flight if attempt in self._condemned}
            sought.difference_update(hit.values())
            if not hit:
                continue
            if len(hit) == len(worker.in_flight) or (again and worker.running() in hit):
                self.worker_lost(worker)
            else:
                waiting = True
        for attempt in sought:  # it ended before it could be interrupted
            self._condemned.pop(attempt, None)
        self._carrying_out = waiting
        if waiting:
            self.host.call_later(GRACE_SECONDS, lambda: self._carry_out(again=True))


def _end(workers: list[Worker], launcher: Launcher) -> None:
    """End children and what started them; blocks, so it is called in a thread of its own."""
    for worker in workers:
        worker.ask_to_end()
    for worker in workers:
        worker.wait_for_end(CLOSE_SECONDS)
        worker.finish()
    launcher.close()
