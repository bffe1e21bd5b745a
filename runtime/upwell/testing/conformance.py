"""What every task runner must do, as a suite that its author runs: subclass it, and say how one is made.

    class TestMyRunner(TaskRunnerConformance):
        def make_runner(self):
            return MyRunner()

Any test framework that collects classes with `test_` methods runs it. Each test opens a runtime of its own with a
new runner. Timeouts are machine time here, for a runner may work in other processes.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Final, cast

from upwell.core.annotations import unmapped
from upwell.core.errors import TaskRunTimeoutError
from upwell.core.lifecycle import Outcome
from upwell.core.seams import RunnerHost, TaskRunner
from upwell.core.states import CANCELLED, CRASHED
from upwell.flows import flow
from upwell.logging import get_run_logger
from upwell.runtime import Runtime, flow_run, task_run
from upwell.tasks import task
from upwell.testing.graphs import ends_on_this_runner, expected_ends, random_graph

LONG_SECONDS: Final = 60.0
"""What is interrupted would take so long; a runner that interrupts nothing is noticed by its time."""
SOON_SECONDS: Final = 20.0
SHORT_SECONDS: Final = 0.2


class TaskRunnerConformance:
    """The promises of a task runner, a test each.

    in_this_process: its code runs in the process of the runtime, so that context variables are inherited.
    graphs, first_seed: how many random graphs are run, and from which seed on.
    """

    in_this_process: ClassVar[bool] = True
    graphs: ClassVar[int] = 100
    first_seed: ClassVar[int] = 0

    def make_runner(self) -> TaskRunner:
        """A new runner."""
        raise NotImplementedError("say how a runner is made: def make_runner(self): return MyRunner()")

    # --- what comes back ----------------------------------------------------------------------------------

    def test_a_result_comes_back(self) -> None:
        with self._runtime():
            assert double.submit(21).result() == 42
            assert async_double.submit(21).result() == 42

    def test_an_exception_keeps_its_type_its_message_and_the_users_line(self) -> None:
        with self._runtime():
            for failing in (fail, async_fail):
                error: Any = failing.submit("odd").result(raise_on_failure=False)
                assert type(error) is OddError
                assert error.args == ("odd",)
                assert "raise OddError(word)" in "".join(traceback.format_exception(error))

    def test_a_map_keeps_the_order_of_its_inputs(self) -> None:
        with self._runtime():
            assert double.map(range(50)).result() == [2 * n for n in range(50)]
            assert async_double.map(range(50)).result() == [2 * n for n in range(50)]

    def test_keywords_and_unmapped_values_arrive(self) -> None:
        with self._runtime():
            futures = gather.map([1, 2], unmapped([7, 8]), last=["x", "y"], more=unmapped(9))
            assert futures.result() == [(1, [7, 8], "x", {"more": 9}), (2, [7, 8], "y", {"more": 9})]

    def test_futures_at_any_depth_are_replaced_by_their_results(self) -> None:
        with self._runtime():
            one, two = double.submit(1), async_double.submit(2)
            assert gather.submit(one, {"deep": [two, (one,)]}).result() == (2, {"deep": [4, (2,)]}, None, {})
            assert gather.map(double.map([1, 2]), [one, two]).result() == [(2, 2, None, {}), (4, 4, None, {})]

    def test_a_generator_gives_a_list(self) -> None:
        with self._runtime():
            for counting in (count_up, async_count_up):
                listed: Any = counting.submit(3).result()
                assert listed == [0, 1, 2]

    # --- attempts -----------------------------------------------------------------------------------------

    def test_a_failed_attempt_is_tried_again(self) -> None:
        with self._runtime():
            for failing in (succeed_at, async_succeed_at):
                assert failing.with_options(retries=2).submit(3).result() == 3
                given_up = failing.with_options(retries=1).submit(3)
                error: Any = given_up.result(raise_on_failure=False)
                assert type(error) is OddError

    def test_a_timeout_interrupts_the_code(self) -> None:
        with self._runtime(), _soon():
            for slow in (work_long, async_work_long):
                future = slow.with_options(timeout_seconds=SHORT_SECONDS).submit()
                assert isinstance(future.result(raise_on_failure=False), TaskRunTimeoutError)
                assert future.state.name == "TimedOut"
            assert double.submit(1).result() == 2, "the runner works on after a timeout"

    def test_what_runs_is_cancelled_with_its_flow(self) -> None:
        @flow(timeout_seconds=SHORT_SECONDS)
        async def impatient(slow: Any, started: list[Any]) -> None:
            started.extend(slow.submit() for _ in range(3))
            await started[0]

        async def main() -> None:
            async with Runtime(task_runner=self.make_runner()):
                for slow in (work_long, async_work_long):
                    started: list[Any] = []
                    state: Any = await impatient(slow, started, return_state=True)
                    assert state.name == "TimedOut"
                    assert [future.state.type for future in started] == [CANCELLED] * 3
                assert await double.submit(1) == 2, "the runner works on after a cancellation"

        with _soon():
            asyncio.run(main())

    def test_an_exit_of_the_code_crashes_its_run_and_nothing_else(self) -> None:
        with self._runtime():
            future, other = leave.submit(), double.submit(1)
            future.wait()
            assert future.state.type is CRASHED
            assert "SystemExit" in (future.state.message or "")
            assert other.result() == 2
            assert double.submit(2).result() == 4

    def test_each_attempt_has_exactly_one_outcome(self) -> None:
        witness = _Witness(self.make_runner())
        ended: list[str] = []
        counted = succeed_at.with_options(
            retries=1,
            on_completion=[lambda task, run, state: ended.append(run.name)],
            on_failure=[lambda task, run, state: ended.append(run.name)],
        )
        with Runtime(task_runner=witness):
            counted.map([1, 2, 3] * 20).wait()
        assert Counter(ended) == {f"{counted.name}-{number}": 1 for number in range(60)}
        assert len(witness.given) == 100, "20 need one attempt, 40 a second one"
        assert Counter(witness.reported) == Counter(witness.given)

    # --- where am I ---------------------------------------------------------------------------------------

    def test_context_variables_are_each_runs_own(self) -> None:
        with self._runtime():
            for setting in (set_word, async_set_word):
                token = WORD.set("the submitter's")
                try:
                    seen = setting.map([str(n) for n in range(20)]).result()
                    assert WORD.get() == "the submitter's"
                finally:
                    WORD.reset(token)
                inherited = "the submitter's" if self.in_this_process else "unset"
                assert seen == [(inherited, str(n)) for n in range(20)]

    def test_the_code_knows_its_run(self) -> None:
        with self._runtime():
            for asking in (who_am_i, async_who_am_i):

                @flow(flow_run_name="the-flow")
                def around(asking: Any = asking) -> Any:
                    return asking.with_options(tags=["a", "b"], retries=1, task_run_name="me-{n}").submit(5).result()

                assert around() == ("me-5", 2, ["a", "b"], "the-flow")

    def test_what_it_logs_and_prints_names_its_run(self) -> None:
        with self._runtime(), _records() as records:
            chat.submit("hello").result()
            _wait_for(lambda: len(records) >= 2)
        assert [(record.getMessage(), record.levelname, record.task_run_name) for record in records] == [  # type: ignore[attr-defined]
            ("logged hello", "WARNING", "chat-0"),
            ("printed hello", "INFO", "chat-0"),
        ]

    # --- many, nested, and in a row -------------------------------------------------------------------------

    def test_a_thousand_runs(self) -> None:
        with self._runtime():
            assert sum(double.map(range(1_000)).result()) == 999_000

    def test_many_dependants_of_one_run(self) -> None:
        with self._runtime():
            one = double.submit(1)
            assert sum(gather_first.map([one] * 500).result()) == 1_000

    def test_a_run_may_submit_and_wait(self) -> None:
        with self._runtime(), _soon():
            assert nest.map([3] * 4).result() == [3] * 4
            assert async_nest.map([3] * 4).result() == [3] * 4

    def test_two_flows_use_the_runner_one_after_the_other(self) -> None:
        @flow
        def either(n: int) -> list[int]:
            return double.map([n, n + 1]).result()

        with self._runtime():
            assert either(1) == [2, 4]
            assert either(2) == [4, 6]

    def test_it_may_be_closed_twice_and_unused(self) -> None:
        runner = self.make_runner()
        with Runtime(task_runner=runner):
            assert double.submit(1).result() == 2
        asyncio.run(runner.close())
        with self._runtime():
            pass
        asyncio.run(self.make_runner().close())

    def test_random_graphs_end_as_on_every_other_runner(self) -> None:
        with self._runtime():
            for seed in range(self.first_seed, self.first_seed + self.graphs):
                graph = random_graph(seed)
                ends, expected = ends_on_this_runner(graph), expected_ends(graph)
                for node, end, wanted in zip(graph, ends, expected, strict=True):
                    assert end == wanted, f"seed {seed}, {node}: ended as {end}, should be {wanted}"

    @contextmanager
    def _runtime(self) -> Generator[Runtime]:
        with Runtime(task_runner=self.make_runner()) as runtime:
            yield runtime


@contextmanager
def _soon() -> Generator[None]:
    """What happens inside must take far less than what it interrupts would have."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SOON_SECONDS, "the code was not interrupted"


def _wait_for(condition: Callable[[], bool]) -> None:
    """Give what comes from another process the time to come."""
    until = time.monotonic() + SOON_SECONDS
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)


@contextmanager
def _records() -> Generator[list[logging.LogRecord]]:
    """What the loggers of task runs are given inside."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[assignment, method-assign]  # all it does
    logger = logging.getLogger("upwell.task_runs")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield records
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Witness:
    """A runner that has another do the work, and notes what it is given and what it reports."""

    def __init__(self, runner: TaskRunner) -> None:
        self._runner = runner
        self.given: list[str] = []
        self.reported: list[str] = []
        self.coroutines_on_loop = runner.coroutines_on_loop
        self.max_at_once = runner.max_at_once

    def open(self, host: Any) -> None:
        self._runner.open(cast("RunnerHost", _WitnessedHost(host, self.reported)))

    def start(self, attempts: Sequence[Any]) -> None:
        self.given += [attempt.name for attempt in attempts]
        self._runner.start(attempts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)


class _WitnessedHost:
    def __init__(self, host: Any, reported: list[str]) -> None:
        self._host = host
        self._reported = reported

    def finished(self, attempt: Any, outcome: Outcome) -> None:
        self._reported.append(attempt.name)
        self._host.finished(attempt, outcome)

    def finished_many(self, outcomes: Sequence[tuple[Any, Outcome]]) -> None:
        self._reported += [attempt.name for attempt, _ in outcomes]
        self._host.finished_many(outcomes)

    def returned_many(self, attempts: Sequence[Any], values: Sequence[Any], times: Sequence[float]) -> None:
        self._reported += [attempt.name for attempt in attempts]
        self._host.returned_many(attempts, values, times)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)


# --- the tasks of the suite: here, where another process can import them --------------------------------------


class OddError(Exception):
    """The user's own."""


WORD: ContextVar[str] = ContextVar("word", default="unset")


@task
def double(n: int) -> int:
    return 2 * n


@task
async def async_double(n: int) -> int:
    await asyncio.sleep(0)
    return 2 * n


@task
def fail(word: str) -> None:
    raise OddError(word)


@task
async def async_fail(word: str) -> None:
    await asyncio.sleep(0)
    raise OddError(word)


@task
def gather(first: Any, second: Any, last: Any = None, **more: Any) -> tuple[Any, ...]:
    return (first, second, last, more)


@task
def gather_first(first: Any) -> Any:
    return first


@task
def count_up(n: int) -> Iterator[int]:
    yield from range(n)


@task
async def async_count_up(n: int) -> AsyncIterator[int]:
    for i in range(n):
        await asyncio.sleep(0)
        yield i


@task
def succeed_at(attempt: int) -> int:
    if task_run.run_count < attempt:
        raise OddError("too early")
    return task_run.run_count


@task
async def async_succeed_at(attempt: int) -> int:
    await asyncio.sleep(0)
    if task_run.run_count < attempt:
        raise OddError("too early")
    return task_run.run_count


@task
def work_long() -> None:
    until = time.monotonic() + LONG_SECONDS
    while time.monotonic() < until:
        time.sleep(0.01)


@task
async def async_work_long() -> None:
    await asyncio.sleep(LONG_SECONDS)


@task
def leave() -> None:
    raise SystemExit(3)


@task
def set_word(word: str) -> tuple[str, str]:
    before = WORD.get()
    WORD.set(word)
    return before, WORD.get()


@task
async def async_set_word(word: str) -> tuple[str, str]:
    before = WORD.get()
    WORD.set(word)
    await asyncio.sleep(0)
    return before, WORD.get()


@task
def who_am_i(n: int) -> tuple[Any, ...]:
    if task_run.run_count < 2:
        raise OddError("ask again")
    return task_run.name, task_run.run_count, task_run.tags, flow_run.name


@task
async def async_who_am_i(n: int) -> tuple[Any, ...]:
    await asyncio.sleep(0)
    if task_run.run_count < 2:
        raise OddError("ask again")
    return task_run.name, task_run.run_count, task_run.tags, flow_run.name


@task(log_prints=True)
def chat(word: str) -> None:
    get_run_logger().warning("logged %s", word)
    print("printed", word)  # noqa: T201  # what is tested


@task
def nest(depth: int) -> int:
    return 0 if depth == 0 else nest.submit(depth - 1).result() + 1


@task
async def async_nest(depth: int) -> int:
    return 0 if depth == 0 else await async_nest.submit(depth - 1) + 1


__all__ = ["TaskRunnerConformance"]
