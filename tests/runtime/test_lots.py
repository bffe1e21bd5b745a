"""Lots: runs of a map that are columns until somebody looks at them; nobody can tell but by their speed."""

from __future__ import annotations

import asyncio
import copy
import gc
import threading
import time
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from upwell import Runtime, as_completed, flow, tags, task, unmapped, wait
from upwell.core.errors import FailedRun
from upwell.core.lifecycle import RAISED, RETURNED, Outcome, OutcomeKind
from upwell.core.seams import RunnerHost
from upwell.core.states import StateType
from upwell.engine.future import RunFuture
from upwell.engine.lot import Stretch
from upwell.futures import FutureList, LotFutures


class Together:
    """Executes nothing until it is told to, and then many at once."""

    coroutines_on_loop = False
    max_at_once: int | None = None
    takes_lots = True

    def __init__(self) -> None:
        self.given: list[Sequence[Any]] = []
        self.arrived = threading.Event()

    def open(self, host: RunnerHost) -> None:
        self.host = host

    def start(self, attempts: Sequence[Any]) -> None:
        self.given.append(attempts)
        self.arrived.set()

    def interrupt(self, attempt: Any, kind: OutcomeKind, error: BaseException) -> None:
        self.host.finished(attempt, Outcome(kind, error, str(error)))

    def blocked(self, attempt: Any) -> None: ...

    def unblocked(self, attempt: Any) -> None: ...

    async def close(self) -> None: ...

    def do(self, start: int = 0, stop: int | None = None, *, batch: int = 0) -> None:
        """Those of a batch from here to there return their argument, doubled. From any thread."""
        assert self.arrived.wait(30)
        attempts = self.given[batch][start:stop]
        items = self.host.only_arguments(attempts)
        assert items is not None
        now = time.time()
        self.host.returned_many(attempts, [2 * item for item in items], [now + n for n in range(len(items) + 1)])

    def fail(self, place: int, error: Exception) -> None:
        self.host.finished(self.given[0][place], Outcome(RAISED, error))


@task
def double(number: int) -> int:
    return 2 * number


@task
def add(a: int, b: int) -> int:
    return a + b


@contextmanager
def together() -> Generator[Together]:
    runner = Together()
    with Runtime(task_runner=runner):
        yield runner


def of_a_lot(futures: FutureList[Any]) -> bool:
    return type(futures) is LotFutures


# --- the list -----------------------------------------------------------------------------------------------------


def test_a_map_that_a_runner_executes_together_makes_no_run_an_object() -> None:
    with together() as runner:
        futures = double.map(range(1000))
        runner.do()
        assert futures.result() == [2 * n for n in range(1000)]
        assert len(futures) == 1000
        assert isinstance(futures, FutureList)
        assert isinstance(futures, list)
        assert of_a_lot(futures)


LOOKS: list[Callable[[FutureList[int]], Any]] = [
    lambda futures: futures[3].result(),
    lambda futures: [future.result() for future in futures],
    lambda futures: [future.result() for future in futures[2:4]],
    lambda futures: [future.result() for future in futures + list[Any]()],
    lambda futures: [future.result() for future in [*futures]],
    lambda futures: [future.result() for future in list[Any]() + futures],
    lambda futures: [future.result() for future in reversed(futures)],
    lambda futures: [future.result() for future in copy.copy(futures)],
    lambda futures: [future.result() for future in sorted(futures, key=lambda future: -future.result())],
    lambda futures: futures.index(futures[4]),
    lambda futures: futures[4] in futures,
    lambda futures: futures.pop().result(),
    lambda futures: len(futures * 2),
    lambda futures: repr(futures[0]) in repr(futures),
    lambda futures: futures.append(futures[0]) or len(futures),  # type: ignore[func-returns-value]
    lambda futures: futures == list(futures),
    lambda futures: [future.result() for future in as_completed(futures)],
    lambda futures: len(wait(futures).done),
    bool,
]


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_whoever_looks_into_the_list_finds_a_list_of_futures(look: Any, when: str) -> None:
    def seen(runner: Any) -> Any:
        with Runtime(task_runner=runner):
            futures = double.map(range(8))
            doing = threading.Timer(0.0, runner.do) if isinstance(runner, Together) else None
            if doing is not None:
                doing.start()
                if when == "after":
                    doing.join()
            if when == "after":
                futures.wait()
            found = look(futures)
            assert [future.result() for future in futures[:7]] == [2 * n for n in range(7)]
            if doing is not None:
                doing.join()
            return found

    assert seen(Together()) == seen("threads")


def test_a_run_that_somebody_looks_at_is_like_any_other() -> None:
    with together() as runner:
        futures = double.map([10, 20, 30])
        assert runner.arrived.wait(30)
        second = futures[1]
        assert second is futures[1]
        assert not second.is_done()
        assert second.state.type is StateType.PENDING
        ended: list[Any] = []
        second.add_done_callback(ended.append)
        runner.do(0, 1)
        runner.do(1, 3)
        assert second.result() == 40
        assert ended == [second]
        for future in futures:
            assert isinstance(future, RunFuture)
            assert future.run_count == 1
            assert future.state.type is StateType.COMPLETED
            assert future.ended > future.started > 0
        assert [getattr(future, "name", "") for future in futures] == ["double-0", "double-1", "double-2"]
        assert len({future.task_run_id for future in futures if isinstance(future, RunFuture)}) == 3


def test_futures_of_a_lot_are_arguments_as_others_are() -> None:
    @task(task_runner="threads")
    def total_of(numbers: list[int]) -> int:
        return sum(numbers)

    with together() as runner:
        futures = double.map(range(10))
        total = total_of.submit(futures)
        runner.do()
        assert total.result() == 90


# --- waiting ------------------------------------------------------------------------------------------------------


def test_results_come_when_the_last_has_ended() -> None:
    with together() as runner:
        futures = double.map(range(10))
        with pytest.raises(TimeoutError, match=r"'double-0' has not ended within 0.001 seconds; it goes on\."):
            futures.result(timeout=0.001)
    with together() as runner:
        futures = double.map(range(10))
        doing = threading.Thread(target=lambda: list(map(runner.do, (0, 5), (5, 10))))
        doing.start()
        assert futures.result(timeout=30) == [2 * n for n in range(10)]
        doing.join()


def test_results_can_be_awaited_on_the_runtimes_loop_and_on_another() -> None:
    async def on_its_own() -> list[int]:
        runner = Together()
        async with Runtime(task_runner=runner):
            futures = double.map(range(4))
            asyncio.get_running_loop().call_later(0.0, lambda: threading.Thread(target=runner.do).start())
            assert of_a_lot(futures)
            return await futures

    assert asyncio.run(on_its_own()) == [0, 2, 4, 6]
    with together() as runner:
        futures = double.map(range(4))

        async def elsewhere() -> list[int]:
            return await futures

        doing = threading.Thread(target=runner.do)
        doing.start()
        assert asyncio.run(elsewhere()) == [0, 2, 4, 6]
        doing.join()


def test_a_wait_for_all_outlives_that_somebody_else_looks_into_the_list() -> None:
    with together() as runner:
        futures = double.map(range(2000))
        results: list[Any] = []
        waiting = threading.Thread(target=lambda: results.append(futures.result()))
        waiting.start()
        assert runner.arrived.wait(30)
        runner.do(0, 500)
        assert not futures[1999].is_done()
        runner.do(500, 2000)
        waiting.join(30)
        assert results == [[2 * n for n in range(2000)]]


def test_threads_may_look_while_the_runs_end() -> None:
    for _ in range(20):
        with together() as runner:
            futures = double.map(range(3000))
            seen: list[Any] = []

            def look(futures: FutureList[int] = futures, seen: list[Any] = seen) -> None:
                seen.append([future.result() for future in futures])

            threads = [threading.Thread(target=look) for _ in range(3)]

            def do(runner: Together = runner) -> None:
                for start in range(0, 3000, 100):
                    runner.do(start, start + 100)

            doing = threading.Thread(target=do)
            for thread in [*threads, doing]:
                thread.start()
            for thread in [*threads, doing]:
                thread.join(30)
            assert seen == [[2 * n for n in range(3000)]] * 3


# --- what does not go as it should ---------------------------------------------------------------------------------


def test_the_failure_of_one_is_raised_and_the_others_are_there() -> None:
    with together() as runner:
        futures = double.map(range(6))
        assert runner.arrived.wait(30)
        runner.do(0, 2)
        runner.fail(2, ValueError("two"))
        with pytest.raises(ValueError, match="two"):
            futures.result()
        runner.do(3, 6)
        found = futures.result(raise_on_failure=False)
        assert [str(result) for result in found] == ["0", "2", "two", "6", "8", "10"]
        assert [future.state.name for future in futures] == [*["Completed"] * 2, "Failed", *["Completed"] * 3]


def test_a_run_that_failed_is_tried_again() -> None:
    with together() as runner:
        futures = double.with_options(retries=1).map(range(3))
        assert runner.arrived.wait(30)
        runner.arrived.clear()
        runner.fail(1, ValueError("once"))
        runner.do(0, 1)
        runner.do(2, 3)
        assert runner.arrived.wait(30)
        runner.do(batch=1)
        assert futures.result() == [0, 2, 4]
        assert [future.run_count for future in futures if isinstance(future, RunFuture)] == [1, 2, 1]


def test_a_failure_that_nobody_looks_at_fails_the_flow() -> None:
    runner = Together()

    @flow(task_runner=runner)
    def forgetful() -> None:
        double.map(range(3))
        assert runner.arrived.wait(30)
        runner.do(0, 2)
        runner.fail(2, ValueError("unseen"))

    with pytest.raises(FailedRun, match="never looked at: double-2"):
        forgetful()


def test_a_runtime_that_closes_cancels_those_that_have_not_ended() -> None:
    with together() as runner:
        futures = double.map(range(5))
        assert runner.arrived.wait(30)
        runner.do(0, 2)
        futures_of_another_map = double.map(range(2))
        while sum(map(len, runner.given)) < 7:
            time.sleep(0.001)
    names = [future.state.name for future in futures]
    assert names == ["Completed", "Completed", "Cancelled", "Cancelled", "Cancelled"]
    assert [future.state.name for future in futures_of_another_map] == ["Cancelled", "Cancelled"]


def test_what_is_reported_after_a_run_was_cancelled_is_ignored() -> None:
    with together() as runner:
        futures = double.map(range(3))
        assert runner.arrived.wait(30)
        runner.interrupt(futures[1], OutcomeKind.CANCELLED, RuntimeError("enough"))
        runner.do()
        futures.wait()
        assert [future.state.name for future in futures] == ["Completed", "Cancelled", "Completed"]


def test_a_second_report_is_ignored() -> None:
    with together() as runner:
        futures = double.map(range(6))
        runner.do(0, 3)
        items = runner.given[0]
        now = time.time()
        runner.host.returned_many(items[1:5], ["again", "again", 6, 8], [now] * 5)
        runner.do(5, 6)
        assert futures.result(timeout=30) == [0, 2, 4, 6, 8, 10]
        assert [future.result() for future in futures] == [0, 2, 4, 6, 8, 10]


# --- which maps are lots --------------------------------------------------------------------------------------------


def test_runs_that_have_something_done_around_them_are_objects_from_the_start() -> None:
    def hook(task: Any, run: Any, state: Any) -> None: ...

    with together() as runner:
        assert not of_a_lot(add.map([1], [2]))
        assert not of_a_lot(add.map([1], b=unmapped(2)))
        assert not of_a_lot(double.map([1], max_at_once=1))
        assert not of_a_lot(double.map([1], wait_for=[]))
        assert not of_a_lot(double.with_options(timeout_seconds=5).map([1]))
        assert not of_a_lot(double.with_options(on_completion=[hook]).map([1]))
        with tags("blue"):
            assert not of_a_lot(double.map([1]))
        first = double.map([1])
        assert of_a_lot(first)
        assert not of_a_lot(double.map(first))
        for _ in range(30_000):
            if sum(map(len, runner.given)) >= 8:
                break
            time.sleep(0.001)


# --- memory -----------------------------------------------------------------------------------------------------


class Large:
    pass


@task
def drop(each: Large) -> None: ...


def test_arguments_are_let_go_when_their_runs_have_returned() -> None:
    given = [Large() for _ in range(3)]
    refs = [weakref.ref(each) for each in given]
    with together() as runner:
        futures: FutureList[Any] = drop.map(given)
        given.clear()
        assert runner.arrived.wait(30)
        now = time.time()
        runner.host.returned_many(runner.given[0], [1, 2, 3], [now] * 4)
        assert futures.result() == [1, 2, 3]
        gc.collect()
        assert [ref() for ref in refs] == [None] * 3


def test_stretches_of_a_lot_are_sequences() -> None:
    with together() as runner:
        double.map(range(10))
        assert runner.arrived.wait(30)
        given = runner.given[0]
        assert isinstance(given, Stretch)
        lot, stretch = given.lot, given[2:8][1:-1]
        assert (len(stretch), stretch.items()) == (4, [3, 4, 5, 6])
        assert stretch[0] is lot[3]
        assert stretch[-1] is lot[6]
        assert [run.number for run in stretch] == [3, 4, 5, 6]
        with pytest.raises(IndexError):
            stretch[4]
        runner.host.finished_many([(run, Outcome(RETURNED, 0)) for run in lot])
