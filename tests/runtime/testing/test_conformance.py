"""The conformance suite sees what a task runner does wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, cast

import pytest

from upwell.core.lifecycle import HAS_CRASHED, RAISED, Outcome, OutcomeKind
from upwell.core.seams import Attempt, RunnerHost, TaskRunner
from upwell.testing import TaskRunnerConformance as Suite


class Faulty:
    """A thread for each attempt, and a fault."""

    coroutines_on_loop = False
    max_at_once: int | None = None

    def __init__(self, end: Callable[[RunnerHost, Attempt], list[Outcome]]) -> None:
        self._end = end

    def open(self, host: RunnerHost) -> None:
        self._host = host

    def start(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            threading.Thread(target=self._work, args=(attempt,), daemon=True).start()

    def _work(self, attempt: Attempt) -> None:
        self._host.started(attempt)
        for outcome in self._end(self._host, attempt):
            self._host.finished(attempt, outcome)

    def interrupt(self, attempt: Attempt, kind: OutcomeKind, error: BaseException) -> None:
        self._host.finished(attempt, Outcome(kind, error, str(error)))

    def blocked(self, attempt: Attempt) -> None: ...

    def unblocked(self, attempt: Attempt) -> None: ...

    async def close(self) -> None: ...


class _InAnEmptyContext:
    def __init__(self, attempt: Any) -> None:
        self._attempt = attempt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._attempt, name)

    def new_context(self) -> Context:
        return Context()


def honest(host: RunnerHost, attempt: Attempt) -> list[Outcome]:
    return [host.execute(attempt)]


def reports_twice(host: RunnerHost, attempt: Attempt) -> list[Outcome]:
    return [host.execute(attempt)] * 2


def changes_exceptions(host: RunnerHost, attempt: Attempt) -> list[Outcome]:
    outcome = host.execute(attempt)
    return [Outcome(RAISED, RuntimeError(str(outcome.value))) if outcome.kind is RAISED else outcome]


def loses_the_traceback(host: RunnerHost, attempt: Attempt) -> list[Outcome]:
    outcome = host.execute(attempt)
    if outcome.kind is RAISED:
        outcome.value = outcome.value.with_traceback(None)
    return [outcome]


def takes_exits_for_failures(host: RunnerHost, attempt: Attempt) -> list[Outcome]:
    outcome = host.execute(attempt)
    return [Outcome(RAISED, ValueError("exit")) if outcome.kind is HAS_CRASHED else outcome]


def forgets_the_context(host: RunnerHost, attempt: Attempt) -> list[Outcome]:
    return [host.execute(cast("Attempt", _InAnEmptyContext(attempt)))]


def drops_keywords(host: RunnerHost, attempt: Attempt) -> list[Outcome]:
    return [Outcome(OutcomeKind.RETURNED, attempt.fn(*attempt.args))] if attempt.kwargs else honest(host, attempt)


FAULTS: list[tuple[Callable[[RunnerHost, Attempt], list[Outcome]], Callable[[Suite], None]]] = [
    (reports_twice, Suite.test_each_attempt_has_exactly_one_outcome),
    (changes_exceptions, Suite.test_an_exception_keeps_its_type_its_message_and_the_users_line),
    (changes_exceptions, Suite.test_random_graphs_end_as_on_every_other_runner),
    (loses_the_traceback, Suite.test_an_exception_keeps_its_type_its_message_and_the_users_line),
    (takes_exits_for_failures, Suite.test_an_exit_of_the_code_crashes_its_run_and_nothing_else),
    (forgets_the_context, Suite.test_context_variables_are_each_runs_own),
    (forgets_the_context, Suite.test_the_code_knows_its_run),
    (drops_keywords, Suite.test_keywords_and_unmapped_values_arrive),
]


def suite_for(end: Callable[[RunnerHost, Attempt], list[Outcome]]) -> Suite:
    class Conformance(Suite):
        graphs = 10

        def make_runner(self) -> TaskRunner:
            return Faulty(end)

    return Conformance()


def _name(value: Any) -> str:
    return str(value.__name__)


@pytest.mark.parametrize(("end", "test"), FAULTS, ids=_name)
def test_a_fault_is_seen(end: Callable[[RunnerHost, Attempt], list[Outcome]], test: Callable[[Suite], None]) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011  # whatever the fault leads to
        test(suite_for(end))


@pytest.mark.parametrize("test", sorted({test for _, test in FAULTS}, key=_name), ids=_name)
def test_the_same_runner_without_a_fault_passes(test: Callable[[Suite], None]) -> None:
    test(suite_for(honest))


def test_a_suite_without_a_runner_says_what_to_write() -> None:
    with pytest.raises(NotImplementedError, match="def make_runner"):
        Suite().test_a_result_comes_back()
