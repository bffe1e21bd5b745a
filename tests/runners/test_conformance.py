"""Every task runner keeps the promises of the conformance suite; so can one that is made elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from upwell.core.lifecycle import Outcome, OutcomeKind
from upwell.core.seams import Attempt, RunnerHost, TaskRunner
from upwell.engine.registry import runner_named
from upwell.testing import TaskRunnerConformance


class TestSequential(TaskRunnerConformance):
    def make_runner(self) -> TaskRunner:
        return runner_named("sequential")


class TestConcurrent(TaskRunnerConformance):
    def make_runner(self) -> TaskRunner:
        return runner_named("concurrent")


class TestThreads(TaskRunnerConformance):
    def make_runner(self) -> TaskRunner:
        return runner_named("threads")


class TestProcesses(TaskRunnerConformance):
    in_this_process = False

    def make_runner(self) -> TaskRunner:
        try:
            return runner_named("processes")
        except ImportError as error:
            pytest.skip(f"the process runner cannot be imported yet: {error}")


class OneThreadEach:
    """A third party's runner, as small as it can be: a thread for each attempt, which it cannot interrupt."""

    coroutines_on_loop = True
    max_at_once: int | None = 8

    def open(self, host: RunnerHost) -> None:
        self._host = host

    def start(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            threading.Thread(target=self._work, args=(attempt,), daemon=True).start()

    def _work(self, attempt: Attempt) -> None:
        self._host.started(attempt)
        self._host.finished(attempt, self._host.execute(attempt))

    def interrupt(self, attempt: Attempt, kind: OutcomeKind, error: BaseException) -> None:
        self._host.finished(attempt, Outcome(kind, error, str(error)))

    def blocked(self, attempt: Attempt) -> None: ...

    def unblocked(self, attempt: Attempt) -> None: ...

    async def close(self) -> None: ...


class TestOneThreadEach(TaskRunnerConformance):
    def make_runner(self) -> TaskRunner:
        return OneThreadEach()


class ReportsReturned(OneThreadEach):
    """The same, by the way that is quicker for many."""

    def _work(self, attempt: Attempt) -> None:
        self._host.started(attempt)
        outcome = self._host.execute(attempt)
        if outcome.kind is OutcomeKind.RETURNED and not outcome.message:
            self._host.returned_many([attempt], [outcome.value], [outcome.started, outcome.ended])
        else:
            self._host.finished(attempt, outcome)


class TestReportsReturned(TaskRunnerConformance):
    def make_runner(self) -> TaskRunner:
        return ReportsReturned()
