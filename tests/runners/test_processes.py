"""Task runner `processes`: what it promises when nothing goes wrong."""

import asyncio
import contextvars
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from upwell import Runtime, flow, get_run_logger, runtime, tags, task
from upwell.core.errors import CancelledRun, MissingContextError
from upwell.engine.elsewhere import ELSEWHERE
from upwell_runners.processes import ProcessPoolTaskRunner

HERE = Path("/proc/self/fd")
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class Point:
    """A class of the user's."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.x == self.x

    __hash__ = None  # type: ignore[assignment]  # nothing here is hashed


@task
def double(x: Any) -> Any:
    return x * 2


@task
def where_am_i(_: object = None) -> int:
    return os.getpid()


@task
def wait_for_file(path: str) -> int:
    while not Path(path).exists():
        time.sleep(0.001)
    return os.getpid()


@task
async def in_a_loop(x: int) -> int:
    await asyncio.sleep(0)
    assert asyncio.current_task() is not None
    return x + 1


@task
def numbers(n: int) -> Iterator[int]:
    yield from range(n)


@task
async def async_numbers(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number


@task
def set_variable(value: str) -> str:
    before = VARIABLE.get()
    VARIABLE.set(value)
    return before


@task
def keyword_only(a: int, *, b: int = 2, c: int = 3) -> tuple[int, int, int]:
    return a, b, c


@task(log_prints=True)
def talk(word: str) -> None:
    print("printed", word)
    get_run_logger().warning("logged %s", word)
    logging.getLogger("some.library").error("library %s", word)
    logging.getLogger("some.library").debug("never seen")


@task(tags=["blue"])
def who_am_i(x: int, y: int = 5) -> dict[str, Any]:
    run = runtime.task_run
    elsewhere = ELSEWHERE.get()
    assert elsewhere is not None
    return {"id": str(run.id), "name": run.name, "tags": set(run.tags), "parameters": elsewhere.parameters()}


FLOW_RUN = (
    "id", "name", "flow_name", "flow_version", "tags", "parameters", "run_count",
    "parent_flow_run_id", "root_flow_run_id", "scheduled_start_time",
)  # fmt: skip  # a list of names


@task
def whose_flow_is_it() -> dict[str, Any]:
    return {name: getattr(runtime.flow_run, name) for name in FLOW_RUN}


@task
def move(point: Point) -> Point:
    return Point(point.x + 1)


@task
def nested(x: int) -> int:
    return sum(future.result() for future in [quick.submit(x), quick.submit(x)])


@task
def quick(x: int) -> int:
    return x + 1


def in_runtime(main: Any, runner: ProcessPoolTaskRunner) -> Any:
    async def around() -> Any:
        async with Runtime(task_runner=runner):
            return await main()

    return asyncio.run(around())


def run_one(definition: Any, *args: Any, method: Literal["spawn", "forkserver"] | None = None, **kwargs: Any) -> Any:
    async def main() -> Any:
        return await definition.submit(*args, **kwargs)

    return in_runtime(main, ProcessPoolTaskRunner(2, start_method=method))


def run_map(definition: Any, *args: Any, workers: int = 2) -> list[Any]:
    async def main() -> list[Any]:
        return [await future for future in definition.map(*args)]

    result: list[Any] = in_runtime(main, ProcessPoolTaskRunner(workers))
    return result


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_task_runs_in_another_process(method: Literal["spawn", "forkserver"]) -> None:
    assert run_one(where_am_i, method=method) != os.getpid()


def test_results_come_in_the_order_of_the_inputs() -> None:
    assert run_map(double, range(5000)) == [2 * x for x in range(5000)]


def test_any_value_goes_there_and_back() -> None:
    values = [1, "é", b"x", None, (1, [2]), {"a": {3}}, 2.5, 10**30]
    assert run_map(double, [[value] for value in values]) == [[value, value] for value in values]


def test_objects_of_the_users_classes_go_there_and_back() -> None:
    assert run_map(move, [Point(1), Point(2)]) == [Point(2), Point(3)]


def test_keyword_arguments_reach_the_function() -> None:
    assert run_one(keyword_only, 1, c=7) == (1, 2, 7)


def test_coroutine_functions_run_in_a_loop_of_the_child() -> None:
    assert run_map(in_a_loop, range(20)) == list(range(1, 21))


def test_generators_are_exhausted() -> None:
    assert run_one(numbers, 3) == [0, 1, 2]
    assert run_one(async_numbers, 3) == [0, 1, 2]


def test_lambdas_and_closures_are_sent_by_value() -> None:
    factor = 3

    @task
    def times(x: int) -> int:
        return x * factor

    assert run_map(times, range(4)) == [0, 3, 6, 9]


def test_children_are_reused_and_no_more_than_asked_for() -> None:
    async def main() -> set[int]:
        pids: set[int] = set()
        for _ in range(3):
            pids |= {await future for future in where_am_i.map(range(300))}
        return pids

    assert 1 <= len(in_runtime(main, ProcessPoolTaskRunner(2))) <= 2


def test_one_run_starts_one_child() -> None:
    async def main() -> int:
        runner = ProcessPoolTaskRunner(4)
        async with Runtime(task_runner=runner):
            await where_am_i.submit()
            await where_am_i.submit()
            return len(runner._workers)  # pyright: ignore[reportPrivateUsage]

    assert asyncio.run(main()) == 1


def test_nothing_is_kept_of_runs_that_are_over() -> None:
    async def main() -> int:
        runner = ProcessPoolTaskRunner(1)
        async with Runtime(task_runner=runner):
            for _ in range(20):
                await where_am_i.submit()
            (worker,) = runner._workers  # pyright: ignore[reportPrivateUsage]
            return len(worker._sent)  # pyright: ignore[reportPrivateUsage]

    assert asyncio.run(main()) <= 1


def test_long_runs_are_shared_out_evenly(tmp_path: Path) -> None:
    """Two runs that wait for the same file must be in two children, whatever was measured before."""

    async def main() -> set[int]:
        for future in double.map(range(2000)):
            await future
        waiting = [wait_for_file.submit(str(tmp_path / "go")) for _ in range(2)]
        while not all(future.state.is_running() for future in waiting):
            await asyncio.sleep(0.005)
        (tmp_path / "go").touch()
        return {await future for future in waiting}

    assert len(in_runtime(main, ProcessPoolTaskRunner(2))) == 2


def test_a_long_run_holds_back_neither_those_before_it_nor_those_behind_it(tmp_path: Path) -> None:
    go = str(tmp_path / "go")

    @task
    def waits_at_500(x: int) -> int:
        while x == 500 and not os.path.exists(go):
            time.sleep(0.001)
        return x

    async def main() -> None:
        for future in waits_at_500.map(range(400)):  # measured as short, so that they go in large batches
            await future
        futures = waits_at_500.map(range(2000))
        for x, future in enumerate(futures):
            if x != 500:
                assert await future == x
        Path(go).touch()
        assert await futures[500] == 500

    in_runtime(main, ProcessPoolTaskRunner(2))


def test_context_variables_are_those_of_a_fresh_context() -> None:
    VARIABLE.set("parent's")
    assert set(run_map(set_variable, ["a", "b", "c", "d"])) == {"unset"}


def test_prints_and_records_of_the_child_are_in_the_parents_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run_one(talk, "hello")
    found = {(record.name, record.levelname, record.getMessage()) for record in caplog.records}
    assert ("upwell.task_runs", "INFO", "printed hello") in found
    assert ("upwell.task_runs", "WARNING", "logged hello") in found
    assert ("some.library", "ERROR", "library hello") in found
    assert not [text for _, _, text in found if "never seen" in text]
    names = {getattr(record, "run_name", None) for record in caplog.records if "hello" in record.message}
    assert names == {"talk-0"}


def test_the_child_knows_which_run_it_executes() -> None:
    async def main() -> tuple[Any, Any]:
        future = who_am_i.submit(4)
        return await future, future

    facts, future = in_runtime(main, ProcessPoolTaskRunner(1))
    assert facts == {
        "id": str(future.task_run_id),
        "name": future.name,
        "tags": {"blue"},
        "parameters": {"x": 4, "y": 5},
    }


def test_runs_submitted_in_a_child_run_in_the_child() -> None:
    assert run_one(nested, 3) == 8


def test_a_sync_flow_uses_the_pool() -> None:
    runner = ProcessPoolTaskRunner(2)

    @flow(task_runner=runner)
    def sums() -> int:
        return sum(future.result() for future in double.map(range(100)))

    assert sums() == 9900


SCRIPT = """
import sys
from upwell import flow, task
from upwell_runners.processes import ProcessPoolTaskRunner
print("main runs", flush=True)
OFFSET = 10
class Mine(Exception):
    pass
class Box:
    def __init__(self, x): self.x = x
def helper(x): return x + OFFSET
@task
def work(box):
    if box.x == 2: raise Mine("two")
    return Box(helper(box.x))
@flow(task_runner=ProcessPoolTaskRunner(2, start_method={method!r}))
def main():
    futures = work.map([Box(0), Box(1), Box(2)])
    try:
        futures[2].result()
    except Mine as error:
        print("caught", error)
    boxes = [future.result() for future in futures[:2]]
    assert all(type(box) is Box for box in boxes)
    return [box.x for box in boxes]
print(main())
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_script_without_a_main_guard_works_and_runs_once(tmp_path: Path, method: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(method=method))
    done = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, text=True, timeout=30)
    assert done.stdout.splitlines() == ["main runs", "caught two", "[10, 11]"], done.stderr
    assert "Exception ignored" not in done.stderr
    assert "Warning" not in done.stderr


def test_an_unknown_start_method_is_refused() -> None:
    with pytest.raises(ValueError, match="'spawn' or 'forkserver'"):
        ProcessPoolTaskRunner(start_method="fork")  # type: ignore[arg-type]  # the mistake that is tested


def test_nothing_is_left_after_the_runtime_was_closed(tmp_path: Path) -> None:
    descriptors, threads = set(os.listdir(HERE)), set(threading.enumerate())
    pids = set(run_map(where_am_i, range(100)))
    assert set(threading.enumerate()) <= threads
    assert len(os.listdir(HERE)) <= len(descriptors)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_closed_runner_can_be_opened_again() -> None:
    runner = ProcessPoolTaskRunner(1)

    async def main() -> int:
        result: int = await double.submit(2)
        return result

    assert [in_runtime(main, runner), in_runtime(main, runner)] == [4, 4]
    asyncio.run(runner.close())


def test_cancelling_a_queue_of_runs_ends_all_of_them() -> None:
    @task
    def hang(_: int) -> None:
        time.sleep(1000)

    async def main() -> list[Any]:
        async with Runtime(task_runner=ProcessPoolTaskRunner(2)):
            futures = hang.map(range(2000))
            while not futures[0].state.is_running():
                await asyncio.sleep(0.005)
        return futures

    futures = asyncio.run(main())
    assert {str(future.state.type.value) for future in futures} == {"CANCELLED"}
    with pytest.raises(CancelledRun):
        futures[0].result()


def test_a_child_knows_the_flow_run_as_its_own_process_does() -> None:
    @flow(version="3")
    def inner(values: list[int], by: Any = Point) -> tuple[Any, Any]:
        return whose_flow_is_it(), whose_flow_is_it.submit().result()

    @flow(task_runner=ProcessPoolTaskRunner(1))
    def outer(by: Any = Point) -> tuple[Any, Any]:
        with tags("around"):
            return inner([1, 2], by)

    here, there = outer()
    assert here == there
    assert there["parameters"] == {"values": [1, 2], "by": Point}
    assert there["tags"] == ["around"]
    with pytest.raises(MissingContextError, match="Give the task what it needs as an argument"):
        outer(threading.Lock())
