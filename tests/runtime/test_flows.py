"""`@flow`: calls, submits and maps, flows in flows, validated parameters, options, many at once."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

import pytest
from tests.runtime.given import Run, double, double_later

from upwell import Flow, flow, runtime, task
from upwell.core.errors import NotReadyRun, ParameterBindError, ParameterTypeError


@flow
def quadruple(x: int) -> int:
    """Four times."""
    return double.submit(double.submit(x)).result()


@flow
async def quadruple_later(x: int) -> int:
    return await double_later.submit(double_later.submit(x))


# --- calls --------------------------------------------------------------------------------------------------------


def test_a_flow_returns_its_functions_value(run: Run) -> None:
    assert quadruple(3) == 12
    assert run(quadruple_later(3)) == 12
    assert quadruple.fn(3) == 12


def test_a_sync_flow_runs_in_the_callers_thread() -> None:
    assert flow(threading.get_ident)() == threading.get_ident()


def test_a_sync_flow_without_submits_needs_no_loop_beside_it() -> None:
    from upwell.engine.current import close_portal

    close_portal()
    before = threading.active_count()

    @flow
    def plain(x: int) -> int:
        return double(x)

    assert plain(2) == 4
    assert threading.active_count() == before


def test_return_state_gives_the_final_state(run: Run) -> None:
    state = quadruple(3, return_state=True)
    assert state.is_completed()
    assert state.result() == 12
    assert run(quadruple_later(3, return_state=True)).result() == 12


def test_a_flow_waits_for_what_it_is_told_to_and_for_its_arguments(run: Run) -> None:
    order: list[str] = []

    @task
    async def before(fails: bool = False) -> int:
        await asyncio.sleep(0.001)
        order.append("before")
        if fails:
            raise ValueError("boom")
        return 1

    @flow
    def after(x: int = 0) -> int:
        order.append("after")
        return x

    @flow
    async def after_later(x: int = 0) -> int:
        order.append("after")
        return x

    @flow
    def sync_flow() -> None:
        assert after(wait_for=[before.submit()]) == 0
        assert after(before.submit()) == 1  # type: ignore[call-overload]  # a future in the place of its result
        assert after.submit(before.submit()).result() == 1

    @flow
    async def async_flow() -> None:
        assert await after_later(wait_for=[before.submit()]) == 0
        assert await after_later(before.submit()) == 1  # type: ignore[call-overload]  # likewise
        assert await after_later.submit(before.submit()) == 1
        state = await after_later(before.submit(True), return_state=True)
        assert state.is_not_ready()
        assert "before-" in (state.message or "")
        with pytest.raises(NotReadyRun):
            await after_later(wait_for=[before.submit(True)])

    sync_flow()
    assert order == ["before", "after"] * 3
    order.clear()
    run(async_flow())
    assert order == ["before", "after"] * 3 + ["before"] * 2


# --- submit and map -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("it", [quadruple, quadruple_later], ids=["sync", "async"])
def test_flows_are_submitted_and_mapped(it: Flow[[int], Any], run: Run) -> None:
    assert it.submit(3).result() == 12
    assert it.map([1, 2, 3]).result() == [4, 8, 12]

    @flow
    def sync_flow() -> Any:
        return it.submit(1).result(), it.map([1, 2]).result()

    @flow
    async def async_flow() -> Any:
        return await it.submit(1), await it.map([1, 2])

    assert sync_flow() == (4, [4, 8])
    assert run(async_flow()) == (4, [4, 8])


def test_submitted_flows_run_at_the_same_time(run: Run) -> None:
    @flow
    async def meet(barrier: asyncio.Barrier) -> None:
        async with asyncio.timeout(30):
            await barrier.wait()

    @flow
    def meet_in_threads(barrier: threading.Barrier) -> None:
        barrier.wait(30)

    async def main() -> None:
        barrier = asyncio.Barrier(3)
        await meet.with_options(validate_parameters=False).map([barrier] * 3)
        threads = threading.Barrier(3)
        await meet_in_threads.with_options(validate_parameters=False).map([threads] * 3)

    run(main())


def test_a_submitted_flows_future_holds_up_and_feeds_its_dependants(run: Run) -> None:
    @flow
    def bad() -> int:
        raise ValueError("boom")

    @flow
    async def around() -> Any:
        good: Any = quadruple.submit(1)
        result = await double.submit(good)
        with pytest.raises(NotReadyRun, match="bad-0"):
            await double.submit(bad.submit())
        return result

    assert run(around()) == 8


def test_a_submitted_flow_that_fails_raises_its_own_exception(run: Run) -> None:
    @flow
    async def bad() -> None:
        raise KeyError("mine")

    async def main() -> None:
        future = bad.submit()
        with pytest.raises(KeyError, match="mine"):
            await future
        assert future.state.is_failed()

    run(main())


# --- flows in flows -----------------------------------------------------------------------------------------------


def test_every_kind_of_flow_calls_every_other(run: Run) -> None:
    @flow
    def sync_in_sync(x: int) -> int:
        return quadruple(x)

    @flow
    def async_in_sync(x: int) -> int:
        return asyncio.run(quadruple_later(x)) + quadruple_later.submit(x).result()

    @flow
    async def sync_in_async(x: int) -> int:
        return quadruple(x) + await quadruple.submit(x)

    @flow
    async def async_in_async(x: int) -> list[int]:
        return [await quadruple_later(x), *await asyncio.gather(*(quadruple_later(i) for i in range(3)))]

    assert sync_in_sync(1) == 4
    assert async_in_sync(1) == 8
    assert run(sync_in_async(1)) == 8
    assert run(async_in_async(1)) == [4, 0, 4, 8]


def test_a_sync_flow_may_be_called_from_coroutines_on_the_loop_beside_sync_code() -> None:
    @task
    async def by_coroutine(x: int, depth: int) -> int:
        return quadruple(x) if not depth else nested(x, depth - 1)

    @task(task_runner="threads")
    async def by_coroutine_on_a_thread(x: int) -> int:
        return quadruple(x)

    @flow
    def nested(x: int, depth: int) -> int:
        on_a_thread = by_coroutine_on_a_thread.submit(x)
        return by_coroutine.submit(x, depth).result() + on_a_thread.result()

    @flow
    async def leaves_it_under_way(x: int) -> str:
        return started(x)

    @flow
    def started(x: int) -> str:
        double_later.submit(x)
        return "started"

    assert nested(1, 2) == 16
    assert leaves_it_under_way.submit(1).result() == "started"


def test_a_subflows_exception_passes_through_its_parent_as_itself(run: Run) -> None:
    @flow
    def inner() -> None:
        raise KeyError("mine")

    @flow
    def outer() -> str:
        with pytest.raises(KeyError, match="mine"):
            inner()
        return "handled"

    assert outer() == "handled"

    @flow
    def passes() -> None:
        inner()

    with pytest.raises(KeyError, match="mine") as caught:
        passes()
    assert [entry.name for entry in caught.traceback][-1] == "inner"


def test_flows_may_be_deep(run: Run) -> None:
    @flow
    async def deep(n: int) -> int:
        return 0 if n == 0 else 1 + await deep(n - 1)

    @flow
    async def deep_submits(n: int) -> int:
        return 0 if n == 0 else 1 + await deep_submits.submit(n - 1)

    assert run(deep(30)) == 30
    assert run(deep_submits(30)) == 30


def test_the_task_runner_of_a_flow_is_that_of_its_subflows_unless_they_say() -> None:
    names: dict[str, str] = {}

    @task
    def where(key: str) -> None:
        names[key] = runner_of_here()

    @flow
    def inherits() -> None:
        where.submit("inherits").wait()

    @flow(task_runner="concurrent")
    def says() -> None:
        where.submit("says").wait()

    @flow(task_runner="sequential")
    def outer() -> None:
        where.submit("outer").wait()
        inherits()
        says()
        where.with_options(task_runner="threads").submit("task").wait()

    outer()
    assert names == {
        "outer": "SequentialTaskRunner",
        "inherits": "SequentialTaskRunner",
        "says": "ConcurrentTaskRunner",
        "task": "ThreadPoolTaskRunner",
    }


def runner_of_here() -> str:
    from upwell.engine.future import CURRENT_RUN

    run: Any = CURRENT_RUN.get()
    return type(run.call.runner).__name__


# --- many at once -------------------------------------------------------------------------------------------------


def test_fifty_flows_at_once_on_one_loop(run: Run) -> None:
    async def main() -> list[int]:
        return await asyncio.gather(*(quadruple_later(i) for i in range(50)))

    assert run(main()) == [4 * i for i in range(50)]


def test_fifty_sync_flows_at_once_in_one_runtime(run: Run) -> None:
    assert quadruple.map(range(50)).result() == [4 * i for i in range(50)]


def test_sync_flows_in_several_threads_at_once() -> None:
    results: dict[int, int] = {}

    def work(i: int) -> None:
        results[i] = sum(quadruple(j) for j in range(i, i + 5))

    threads = [threading.Thread(target=work, args=[i]) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {i: sum(4 * j for j in range(i, i + 5)) for i in range(8)}


def test_async_flows_on_several_loops_in_several_threads_at_once(run: Run) -> None:
    results: dict[int, int] = {}

    def work(i: int) -> None:
        results[i] = run(quadruple_later(i))

    threads = [threading.Thread(target=work, args=[i]) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {i: 4 * i for i in range(6)}


# --- parameters ---------------------------------------------------------------------------------------------------


@dataclass
class Config:
    name: str
    size: int


def test_parameters_are_converted_to_their_annotations() -> None:
    @flow
    def convert(n: int, config: Config, names: list[str] | None = None) -> Any:
        return n, config, names

    converted = convert("4", {"name": "a", "size": "3"}, ["x"])  # type: ignore[call-overload]  # converted
    assert converted == (4, Config("a", 3), ["x"])
    assert runtime.flow_run.id is None


def test_one_error_lists_every_bad_parameter(run: Run) -> None:
    @flow
    def strict(n: int, m: float, s: str = "") -> None:
        raise AssertionError("never runs")

    with pytest.raises(ParameterTypeError) as caught:
        strict("four", "x")  # type: ignore[call-overload]  # the mistake
    assert "n" in str(caught.value)
    assert "m" in str(caught.value)
    state = strict("four", "x", return_state=True)
    assert state.is_failed()
    assert (state.message or "").startswith("Validation of flow parameters failed with error: ParameterTypeError: ")
    with pytest.raises(ParameterTypeError):
        strict.submit("four", "x").result()


def test_validation_can_be_switched_off() -> None:
    @flow(validate_parameters=False)
    def loose(n: int) -> Any:
        return n

    assert loose("4") == "4"  # type: ignore[call-overload]  # as it is


def test_tasks_do_not_convert() -> None:
    assert double("ab") == "abab"  # type: ignore[call-overload]  # not what the annotation says


def test_arguments_that_do_not_fit_fail_the_run_and_are_named() -> None:
    with pytest.raises(ParameterBindError, match="y"):
        quadruple(x=1, y=2)  # type: ignore[call-overload]  # the mistake
    with pytest.raises(ParameterBindError):
        quadruple.submit()


def test_a_flow_looks_like_its_function_and_keeps_what_was_said_of_it() -> None:
    named: Any = quadruple
    assert named.__name__ == "quadruple"
    assert quadruple.description == "Four times."
    assert repr(quadruple) == "<Flow 'quadruple'>"
    said = flow(name="said", version="2", description="For people.")(quadruple.fn)
    assert (said.name, said.version, said.description) == ("said", "2", "For people.")
    assert said.with_options(version="3").version == "3"
    assert said.version == "2"


def test_with_options_of_a_flow_keeps_hooks_unless_it_names_them() -> None:
    heard: list[str] = []
    original = flow(quadruple.fn)

    @original.on_completion
    def added(*_: Any) -> None:
        heard.append("added")

    original.with_options(retries=1)(1)
    original.with_options(on_completion=[])(1)
    assert heard == ["added"]


def test_a_hook_added_after_a_submit_is_heard_by_the_next() -> None:
    heard: list[str] = []
    it = flow(quadruple.fn)
    it.submit(1).result()

    @it.on_completion
    def added(*_: Any) -> None:
        heard.append("added")

    it.submit(1).result()
    assert heard == ["added"]


@pytest.mark.parametrize(
    "options", [{"retries": -1}, {"retries": "1"}, {"colour": "red"}, {"task_runner": 3}, {"version": 3}]
)
@pytest.mark.parametrize("decorator", [task, flow])
def test_an_option_that_cannot_work_is_refused_at_decoration(decorator: Any, options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        decorator(**options)(quadruple.fn)
