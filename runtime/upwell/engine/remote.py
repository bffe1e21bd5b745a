"""Runs that are executed elsewhere than on the loop: handed to task runners in batches, outcomes taken back.

Nothing crosses one by one: what becomes ready in one turn of the loop goes to its runner as one batch, and
outcomes gather in a queue that wakes the loop once, however many there are.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any, Final, NamedTuple
from weakref import WeakSet

from upwell.core.errors import CancelledRun, InternalError, RuntimeClosedError
from upwell.core.lifecycle import HAS_CRASHED, PROGRAM_HAS_ENDED, RETURNED, TIMED_OUT, WAS_CANCELLED, Outcome
from upwell.core.seams import TaskRunner
from upwell.core.states import RUNNING
from upwell.engine.attempt import cancel_coroutine_of, execute_here, timeout_error
from upwell.engine.call import Call
from upwell.engine.clock import clock
from upwell.engine.future import RunFuture
from upwell.engine.logs import task_run_logger
from upwell.engine.lot import Lot, Stretch
from upwell.engine.recorder import FULL_SECONDS
from upwell.engine.settle import complete, complete_columns, complete_many

Run = RunFuture[Any]

SLICE_SECONDS: Final = 0.002
LOOK_AT_CLOCK_EVERY: Final = 64
PART: Final = 512
"""So many of those that have returned together are ended in one go: a fraction of that slice."""

OPEN: WeakSet[Remote] = WeakSet()
"""All that are in use in this process."""


class Returned(NamedTuple):
    """Runs that have returned, one after the other. times: when the first began, then when each ended."""

    runs: Sequence[Run]
    values: Sequence[Any]
    times: Sequence[float]


class Remote:
    """One task runner in use by one engine: what waits for it, what it executes, and its reports.

    The public half is the `RunnerHost` that the runner sees.
    """

    def __init__(
        self,
        runner: TaskRunner,
        settle: Callable[[Run, Outcome, float], None],
        refuse: Callable[[Run], None],
        post: Callable[[Callable[[], None]], None],
        later: Callable[[Callable[[], None]], None],
    ) -> None:
        self.runner = runner
        self._settle = settle
        self._refuse = refuse
        self._post = post
        self._later = later
        self._waiting: list[Run | Lot] = []
        self._flush_due = False
        self._under_way: set[Run | Lot] = set()
        self._timers: dict[Run, asyncio.TimerHandle] = {}
        self._reports: deque[tuple[Run, Outcome] | Returned] = deque()
        self._report_due = False
        OPEN.add(self)
        runner.open(self)

    # --- the engine's half, on the loop's thread --------------------------------------------------------

    def push_many(self, runs: Sequence[Run]) -> None:
        """These runs are ready."""
        if isinstance(runs, Lot):
            self._waiting.append(runs)
        else:
            self._waiting.extend(runs)
        if not self._flush_due:
            self._flush_due = True
            self._later(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._waiting and (recorder := self._waiting[0].call.scope.recorder) is not None and recorder.is_full():
            self._flush_due = True
            asyncio.get_running_loop().call_later(FULL_SECONDS, self._flush)
            return
        waiting, self._waiting = self._waiting, []
        batch: list[Run] = []
        call: Call | None = None
        stopped, live = False, set[Any]()
        for run in waiting:
            if run.call is not call:
                call = run.call
                stopped, live = call.scope.stop_reason is not None, call.scope.live
            if isinstance(run, Lot):
                if stopped or not self._begin(run):
                    self._waiting.extend(run)
                    continue
                self._start(batch)
                self._start(run[:])
                batch = []
            elif run.done:
                continue
            elif stopped:
                self._refuse(run)
            else:
                run.run_count += 1
                live.add(run)
                self._under_way.add(run)
                batch.append(run)
        self._start(batch)
        if self._waiting:  # runs of lots that go their own way
            self._flush()

    def _start(self, runs: Sequence[Run]) -> None:
        """Have the runner execute these, which are under way."""
        if runs:
            try:
                self.runner.start(runs)
            except Exception as error:
                outcome = self._not_started(error)
                self.finished_many([(run, outcome) for run in runs])

    def _begin(self, lot: Lot) -> bool:
        """Take a lot as a whole; False: some of its runs are objects already."""
        live = lot.call.scope.live
        live.add(lot)
        self._under_way.add(lot)
        if lot.begin(self):
            return True
        live.discard(lot)
        self._under_way.discard(lot)
        return False

    def run_was_made(self, run: Run) -> None:
        """Somebody has looked at a run of a lot that is under way. From any thread."""
        self._under_way.add(run)
        run.call.scope.live.add(run)

    def all_were_made(self, lot: Lot) -> None:
        """No run of a lot is under way that is no object. From any thread."""
        self._under_way.discard(lot)
        lot.call.scope.live.discard(lot)

    def _not_started(self, error: Exception) -> Outcome:
        if not threading.main_thread().is_alive():  # from then on Python 3.12 and later start no thread
            return Outcome(WAS_CANCELLED, CancelledRun(PROGRAM_HAS_ENDED), PROGRAM_HAS_ENDED)
        fault = InternalError(f"The task runner {self.runner!r} failed to start its work: {error!r}")
        return Outcome(HAS_CRASHED, fault, str(fault))

    def interrupt(self, run: Run, reason: str) -> bool:
        """Cancel a run that is here; False if it is not."""
        if run in self._under_way:
            run.message = reason
            self.runner.interrupt(run, WAS_CANCELLED, CancelledRun(reason))
            return True
        return False

    def under_way(self) -> list[Run | Lot]:
        """What the runner was given and has not reported; a clock that jumps must know. From any thread."""
        return list(self._under_way)

    # --- the runner's half, from any thread -------------------------------------------------------------

    def execute(self, attempt: Any) -> Outcome:
        """Run the function here, in this thread, in the run's own context; never raises."""
        attempt.started = clock().time()
        attempt.status = RUNNING.value
        self._record_begin(attempt)
        return execute_here(attempt)

    def started(self, attempt: Any) -> None:
        """The attempt has begun now; starts its clock."""
        attempt.started = clock().time()
        attempt.status = RUNNING.value
        self._record_begin(attempt)
        if attempt.timeout_seconds is not None:
            self._post(lambda: self._start_timer(attempt))

    def _record_begin(self, attempt: Any) -> None:
        recorder = attempt.call.scope.recorder
        if recorder is not None:
            recorder.begun.append(attempt)
            recorder.wake()

    def finished(self, attempt: Any, outcome: Outcome) -> None:
        """The attempt has ended so."""
        self._reports.append((attempt, outcome))
        self._report()

    def finished_many(self, outcomes: Sequence[tuple[Any, Outcome]]) -> None:
        """The same for many at once."""
        self._reports.extend(outcomes)
        self._report()

    def returned_many(self, attempts: Sequence[Any], values: Sequence[Any], times: Sequence[float]) -> None:
        """These have followed each other, and have all returned."""
        self._reports.append(Returned(attempts, values, times))
        self._report()

    def only_arguments(self, attempts: Sequence[Any]) -> list[Any] | None:
        """The argument of each, where all are of one call and have no other."""
        if isinstance(attempts, Stretch):
            return attempts.items()
        call = attempts[0].call
        if not call.unary or call.kwargs or call.row_names:
            return None
        return list(map(_item_of, attempts)) if len(set(map(_call_of, attempts))) == 1 else None

    def _report(self) -> None:
        if not self._report_due:
            self._report_due = True
            try:
                self._post(self._take_reports)
            except RuntimeClosedError:
                pass  # abandoned code has come to its end after the loop's: nobody waits for it

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call this on the loop's thread."""
        self._post(callback)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call this on the loop's thread after so many seconds."""
        self._post(lambda: _call_later(seconds, callback))

    def cancel_coroutine(self, attempt: Any) -> bool:
        """Cancel the coroutine that `execute` runs for this attempt in a worker's thread; False if it runs none."""
        return cancel_coroutine_of(attempt)

    def emit_log(self, attempt: Any, level: int, message: str, logger: str, timestamp: float) -> None:
        """A log record or a printed line that an attempt made elsewhere."""
        task_run_logger(attempt).forward(level, message, logger, timestamp or clock().time())

    # --- on the loop's thread again ----------------------------------------------------------------------

    def _take_reports(self) -> None:
        self._report_due = False
        reports = self._reports
        now = clock().time()
        slice_end = now + SLICE_SECONDS
        settled = 0
        while reports:
            report = reports.popleft()
            if isinstance(report, Returned):
                self._take_returned(report)
                settled += LOOK_AT_CLOCK_EVERY
            else:
                run, outcome = report
                self._take(run, outcome, now)
                settled += 1
            if not settled % LOOK_AT_CLOCK_EVERY and clock().time() >= slice_end:
                break
        if reports and not self._report_due:  # the loop gets its turn, however many have ended
            self._report_due = True
            self._later(self._take_reports)

    def _take(self, run: Run, outcome: Outcome, now: float) -> None:
        try:
            self._under_way.remove(run)
        except KeyError:
            return  # a second report of an attempt that was given up
        timer = self._timers.pop(run, None)
        if timer is not None:
            timer.cancel()
        call = run.call
        call.scope.live.discard(run)
        if outcome.started:
            run.started = outcome.started
        if call.plain and outcome.kind is RETURNED:
            complete(run, outcome.value, outcome.ended or now)
        else:
            self._settle(run, outcome, outcome.ended or now)

    def _take_returned(self, report: Returned) -> None:
        """The same for a part of those that have returned; the others are the next report."""
        runs, values, times = report
        if isinstance(runs, Stretch):
            self._take_columns(runs, values, times)
            return
        if len(runs) > PART:
            self._reports.appendleft(Returned(runs[PART:], values[PART:], times[PART:]))
            runs, values = runs[:PART], values[:PART]
        call, under_way = runs[0].call, self._under_way
        if (
            call.plain
            and not self._timers
            and under_way.issuperset(runs)  # else one was given up meanwhile
            and len(set(map(_call_of, runs))) == 1
        ):
            under_way.difference_update(runs)
            call.scope.live.difference_update(runs)
            complete_many(call, runs, values, times)
            return
        for run, value, began, ended in zip(runs, values, times, islice(times, 1, None), strict=False):
            self._take(run, Outcome(RETURNED, value, "", began, ended), ended)

    def _take_columns(self, runs: Stretch, values: Sequence[Any], times: Sequence[float]) -> None:
        """The same for runs of a lot, of which only those that are objects are looked at."""
        lot = runs.lot
        made = lot.have_returned(runs.start, values, times)
        if len(made) == len(values):
            self._reports.appendleft(Returned(list(runs), values, times))
            return
        complete_columns(lot, runs.start, runs.stop, made)
        for place in made:
            at = place - runs.start
            self._take(lot[place], Outcome(RETURNED, values[at], "", times[at], times[at + 1]), times[at + 1])
        lot.tell()

    def _start_timer(self, run: Run) -> None:
        seconds = run.timeout_seconds
        if run in self._under_way and seconds is not None:
            self._timers[run] = asyncio.get_running_loop().call_later(seconds, self._time_is_up, run)

    def _time_is_up(self, run: Run) -> None:
        self._timers.pop(run, None)
        if run in self._under_way:
            self.runner.interrupt(run, TIMED_OUT, timeout_error(run))


def call_of(runs: Sequence[Run]) -> Call:
    """That of these runs, which share it."""
    return runs.call if isinstance(runs, Lot) else runs[0].call


_call_of: Final[Callable[[Run], Call]] = attrgetter("call")
_item_of: Final[Callable[[Run], Any]] = attrgetter("item")


def _call_later(seconds: float, callback: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, callback)
