"""Cached results: found again, computed once, computed anew when they should be."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from upwell import flow, task
from upwell.cache_policies import INPUTS, NO_CACHE, RUN_ID, TASK_SOURCE, CachePolicy
from upwell.composition import close_journal
from upwell.core.errors import ConfigurationError
from upwell.engine.caching import IN_THIS_PROCESS
from upwell.settings import temporary_settings


@pytest.fixture(params=["on", "memory", "off"], autouse=True)
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Every promise holds with a journal in a file, with one in memory, and with none."""
    with temporary_settings(journal=request.param, home=str(tmp_path / "home")):
        yield request.param
        close_journal()
        IN_THIS_PROCESS.clear()


class Counted:
    """Counts how often it was called, and with what."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __call__(self, value: Any) -> Any:
        self.calls.append(value)
        return [value]


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def count(counted: Counted) -> Callable[[Any], Any]:
    """A plain function that is counted."""

    def count(value: Any) -> Any:
        return counted(value)

    return count


def same_key(context: Any, parameters: dict[str, Any]) -> str:
    return "same"


def key_by_value(context: Any, parameters: dict[str, Any]) -> str:
    return f"k{parameters['value']}"


def no_key(context: Any, parameters: dict[str, Any]) -> None:
    return None


def broken_key(context: Any, parameters: dict[str, Any]) -> str:
    raise ZeroDivisionError


def test_a_second_call_takes_the_result_of_the_first(counted: Counted) -> None:
    @task(cache_policy=INPUTS)
    def compute(value: int) -> Any:
        return counted(value)

    assert compute(1) == compute(1) == [1]
    state: Any = compute(1, return_state=True)
    assert (state.name, state.is_completed(), counted.calls) == ("Cached", True, [1])


def test_runs_on_every_runner_and_in_async_code_share_results(counted: Counted, count: Callable[[Any], Any]) -> None:
    @task(cache_key_fn=key_by_value)
    async def compute(value: int) -> Any:
        return counted(value)

    @flow
    async def main() -> list[Any]:
        first = await compute(1)
        mapped = compute.map([1, 2, 2])
        threads = task(cache_key_fn=key_by_value, task_runner="threads")(count)
        return [first, *[await one for one in mapped], await threads.submit(2)]

    assert asyncio.run(main()) == [[1], [1], [2], [2], [2]]
    assert sorted(counted.calls) == [1, 2]


def test_many_runs_of_one_key_compute_it_once(counted: Counted) -> None:
    @task(cache_policy=INPUTS)
    async def compute(value: int) -> Any:
        await asyncio.sleep(0.01)
        return counted(value)

    @flow
    async def main() -> list[str]:
        runs = compute.map([1, 2] * 50)
        assert [await run for run in runs] == [[1], [2]] * 50
        return sorted(run.state.name for run in runs)

    assert asyncio.run(main()) == ["Cached"] * 98 + ["Completed"] * 2
    assert sorted(counted.calls) == [1, 2]


def test_threads_that_call_at_once_compute_once(counted: Counted) -> None:
    ready = threading.Barrier(8)

    @task(cache_policy=INPUTS)
    def compute(value: int) -> Any:
        return counted(value)

    def call() -> None:
        ready.wait()
        assert compute(5) == [5]

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted.calls == [5]


def test_if_the_first_fails_the_next_computes(counted: Counted) -> None:
    @task(cache_policy=INPUTS)
    async def compute(value: int) -> Any:
        counted(value)
        await asyncio.sleep(0)
        if len(counted.calls) < 3:
            raise ValueError("not yet")
        return value

    @flow
    async def main() -> list[str]:
        runs = compute.map([1] * 5)
        await asyncio.gather(*runs, return_exceptions=True)
        return [run.state.name for run in runs]

    assert sorted(asyncio.run(main())) == ["Cached", "Cached", "Completed", "Failed", "Failed"]
    assert len(counted.calls) == 3


def test_a_retry_keeps_others_waiting_and_its_result_counts(counted: Counted) -> None:
    @task(cache_policy=INPUTS, retries=2)
    async def compute(value: int) -> int:
        counted(value)
        if len(counted.calls) < 3:
            raise ValueError("not yet")
        return value

    @flow
    async def main() -> list[str]:
        runs = compute.map([1] * 3)
        assert [await run for run in runs] == [1, 1, 1]
        return [run.state.name for run in runs]

    assert asyncio.run(main()) == ["Completed", "Cached", "Cached"]


def test_a_task_that_calls_itself_with_the_same_key_does_not_wait_for_itself(ends: Callable[..., Any]) -> None:
    @task(cache_key_fn=same_key)
    def outer(depth: int) -> int:
        return 0 if depth == 0 else 1 + outer(depth - 1)

    assert ends(outer, 3) == 3


def test_what_has_expired_is_computed_again(counted: Counted, count: Callable[[Any], Any]) -> None:
    compute = task(cache_policy=NO_CACHE + INPUTS, cache_expiration=dt.timedelta(microseconds=1))(count)
    compute(1)
    compute(1)
    assert counted.calls == [1, 1]
    kept = compute.with_options(cache_expiration=dt.timedelta(hours=1))
    kept(1)
    kept(1)
    assert counted.calls == [1, 1, 1]


def test_refresh_computes_anew_for_those_that_come_after(counted: Counted) -> None:
    @task(cache_policy=INPUTS)
    def compute(value: int) -> Any:
        counted(value)
        return len(counted.calls)

    assert [compute(1), compute.with_options(refresh_cache=True)(1), compute(1)] == [1, 2, 2]
    with temporary_settings(tasks_refresh_cache=True):

        @flow
        def main() -> list[Any]:
            return [compute.submit(1).result(), compute.with_options(refresh_cache=False)(1)]

        assert main() == [3, 3]


def test_each_who_takes_a_result_has_one_of_their_own() -> None:
    @task(cache_policy=INPUTS)
    def compute(value: int) -> list[int]:
        return [value]

    compute(1).append(7)
    found = compute(1)
    found.append(8)
    assert compute(1) == [1]


def test_a_flow_run_that_is_retried_reuses_what_was_completed(counted: Counted) -> None:
    @task(persist_result=True)
    def step(value: int) -> Any:
        return counted(value)

    @flow(retries=1)
    def main() -> list[Any]:
        done = [step(1), step.submit(2).result()]
        if len(counted.calls) == 2:
            step(3)
            raise ValueError("once")
        return done

    assert main() == [[1], [2]]
    assert counted.calls == [1, 2, 3]
    main()
    assert counted.calls == [1, 2, 3, 1, 2]  # another flow run: DEFAULT counts the run


def test_nothing_is_cached_that_did_not_ask(counted: Counted, count: Callable[[Any], Any]) -> None:
    @task
    def compute(value: int) -> Any:
        return counted(value)

    @flow
    def main() -> None:
        compute(1)
        compute(1)
        task(persist_result=True, cache_policy=NO_CACHE)(count)(1)
        task(persist_result=False, cache_policy=INPUTS, name="not")(count)(1)

    main()
    assert counted.calls == [1, 1, 1, 1]


def test_an_argument_that_cannot_be_hashed_is_said_once_and_the_run_goes_on(
    count: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    compute = task(name="odd", cache_policy=INPUTS)(count)
    assert len([compute(object()), compute(object())]) == 2
    warnings = [record.getMessage() for record in caplog.records if "not cached" in record.getMessage()]
    assert len(warnings) == 1
    assert "'odd'" in warnings[0]
    assert "argument 'value'" in warnings[0]


def test_a_key_function_that_gives_none_or_raises_does_not_cache(counted: Counted, count: Callable[[Any], Any]) -> None:
    for key_fn in (no_key, broken_key):
        compute = task(cache_key_fn=key_fn, name="odd")(count)
        compute(1)
        compute(1)
    assert counted.calls == [1, 1, 1, 1]


def test_a_damaged_or_missing_file_is_a_miss(
    counted: Counted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "results"

    @task(cache_policy=INPUTS, result_storage=folder, result_storage_key="{parameters[value]}.bin")
    def compute(value: int) -> Any:
        return counted(value)

    @flow
    def main() -> tuple[Any, str]:
        run = compute.submit(1)
        return run.result(), run.state.name

    assert main() == ([1], "Completed")
    assert main() == ([1], "Cached")
    (folder / "1.bin").unlink()
    assert main() == ([1], "Completed")
    (folder / "1.bin").write_bytes(b"other")
    assert compute(1) == [1]
    assert counted.calls == [1, 1, 1]
    assert "1.bin" in caplog.text


def test_a_cancelled_computation_lets_the_next_one_compute(counted: Counted) -> None:
    @task(cache_policy=INPUTS, timeout_seconds=0.05)
    async def compute(value: int) -> Any:
        counted(value)
        await asyncio.sleep(10 if len(counted.calls) == 1 else 0)
        return value

    @flow
    async def main() -> list[str]:
        first, second = compute.submit(1), compute.submit(1)
        await asyncio.gather(first, second, return_exceptions=True)
        return [first.state.name, second.state.name]

    assert asyncio.run(main()) == ["TimedOut", "Completed"]


def test_explain_cache_says_hit_or_miss_and_why(counted: Counted, count: Callable[[Any], Any]) -> None:
    @task(cache_policy=INPUTS + TASK_SOURCE, cache_expiration=dt.timedelta(hours=1))
    def compute(value: object) -> Any:
        return counted(value)

    before = compute.explain_cache(1)
    assert (before.hit, before.stored) == (False, None)
    assert "never computed" in str(before)
    compute(1)
    after = compute.explain_cache(1)
    assert after.hit
    assert after.key == before.key
    assert [part.name for part in after.parts] == ["task", "argument 'value'", "task source"]
    assert "expires: 2" in str(after)
    assert after.stored_by is not None
    assert "argument 'value'" in compute.explain_cache(object()).why
    assert "refresh_cache" in compute.with_options(refresh_cache=True).explain_cache(1).why
    assert "NO_CACHE" in compute.with_options(cache_policy=NO_CACHE, persist_result=True).explain_cache(1).why
    assert "flow run" in compute.with_options(cache_policy=RUN_ID).explain_cache(1).why
    assert "not persisted" in task(count).explain_cache(1).why
    assert counted.calls == [1]


def test_explain_cache_takes_futures_by_their_results() -> None:
    go_on = threading.Event()

    @task
    def one(fails: bool) -> int:
        go_on.wait()
        if fails:
            raise ValueError
        return 1

    @task(cache_policy=INPUTS)
    def compute(values: Any) -> int:
        return sum(values)

    future, failed = one.submit(False), one.submit(True)
    assert "has not ended" in compute.explain_cache([future]).why
    go_on.set()
    future.wait()
    failed.wait()
    compute([1])
    assert compute.explain_cache([future]).hit
    assert "did not complete" in compute.explain_cache([failed]).why
    assert "NO_CACHE" in compute.with_options(cache_policy=NO_CACHE).explain_cache([1]).why


def test_a_policy_of_ones_own_sees_the_call() -> None:
    seen: list[Any] = []

    class ByName(CachePolicy):
        def compute_key(self, task_ctx: Any, inputs: Any, flow_parameters: Any, **kwargs: Any) -> str:
            seen.append((task_ctx.task.name, inputs, flow_parameters, task_ctx.task_run.task_name))
            return "key"

    @task(name="mine", cache_policy=ByName())
    def compute(value: int = 3) -> int:
        return value

    @flow
    def main(day: int) -> list[int]:
        return [compute.submit().result(), compute(4)]

    assert main(9) == [3, 3]
    assert seen == [("mine", {"value": 3}, {"day": 9}, "mine"), ("mine", {"value": 4}, {"day": 9}, "mine")]


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"cache_policy": "INPUTS"}, TypeError),
        ({"cache_key_fn": "key"}, TypeError),
        ({"cache_expiration": 60}, TypeError),
        ({"cache_expiration": dt.timedelta(0)}, ConfigurationError),
        ({"refresh_cache": "yes"}, TypeError),
        ({"persist_result": 1}, TypeError),
        ({"cache_result_in_memory": 0}, TypeError),
        ({"result_storage": 5}, ConfigurationError),
        ({"result_storage_key": "{task_run}"}, ConfigurationError),
        ({"result_storage_key": "{parameters[nothing]}"}, ConfigurationError),
        ({"result_serializer": "nothing"}, ValueError),
        ({"cache_policy": INPUTS, "cache_key_fn": same_key}, ConfigurationError),
    ],
    ids=lambda part: str(part).partition(" at 0x")[0],
)
def test_an_option_that_cannot_work_is_refused_at_decoration(option: dict[str, Any], error: type[Exception]) -> None:
    def compute(value: int) -> int:
        return value

    with pytest.raises(error):
        task(**option)(compute)
