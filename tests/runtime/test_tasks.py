"""`@task`: what calling, submitting and mapping a task gives, in sync and async code, in and outside of flows."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import Any

import pytest
from tests.runtime.given import Run, fail, fail_later, square, square_later

from upwell import Runtime, State, Task, flow, tags, task, unmapped
from upwell.core.errors import (
    BlockingWaitError,
    MappingLengthMismatch,
    MappingMissingIterable,
    ParameterBindError,
    RuntimeClosedError,
)


@task
def thread_name() -> str:
    return threading.current_thread().name


# --- direct calls -------------------------------------------------------------------------------------------


def test_a_direct_call_returns_the_value_outside_of_flows() -> None:
    assert square(3) == 9
    assert square(x=3) == 9


def test_a_direct_call_runs_in_the_callers_own_thread() -> None:
    @task
    def here() -> int:
        return threading.get_ident()

    @flow
    def around() -> int:
        return here()

    assert here() == threading.get_ident()
    assert around() == threading.get_ident()


def test_a_direct_call_of_an_async_task_gives_a_coroutine(run: Run) -> None:
    async def main() -> int:
        coroutine = square_later(4)
        assert asyncio.iscoroutine(coroutine)
        return await coroutine

    assert run(main()) == 16


def test_an_async_direct_call_stays_in_its_callers_task(run: Run) -> None:
    @task
    async def current() -> asyncio.Task[Any] | None:
        return asyncio.current_task()

    async def main() -> None:
        assert await current() is asyncio.current_task()

    run(main())


def test_direct_calls_can_be_gathered(run: Run) -> None:
    @flow
    async def around() -> list[int]:
        return await asyncio.gather(*(square_later(i) for i in range(20)))

    assert run(around()) == [i * i for i in range(20)]


def test_a_direct_call_raises_the_tasks_own_exception_with_its_traceback(run: Run) -> None:
    with pytest.raises(ValueError, match=r"^boom$") as sync:
        fail()
    assert sync.traceback[-1].name == "fail"
    with pytest.raises(ValueError, match=r"^boom$") as later:
        run(fail_later())
    assert later.traceback[-1].name == "fail_later"


def test_a_direct_call_with_futures_gets_their_results(run: Run) -> None:
    @flow
    def sync_flow() -> int:
        return square(square.submit(2))  # type: ignore[call-overload, no-any-return]  # a future in the place of its result

    @flow
    async def async_flow() -> int:
        return await square_later(square.submit(2))  # type: ignore[call-overload, no-any-return]  # a future in the place of its result

    assert sync_flow() == 16
    assert run(async_flow()) == 16


def test_return_state_gives_the_final_state_and_raises_nothing(run: Run) -> None:
    done = square(3, return_state=True)
    assert done.is_completed()
    assert done.result() == 9
    failed = fail("no", return_state=True)
    assert failed.is_failed()
    assert failed.message == "Task run encountered an exception: ValueError: no"
    assert isinstance(failed.result(raise_on_failure=False), ValueError)

    async def main() -> tuple[State, State]:
        return await square_later(3, return_state=True), await fail_later(return_state=True)

    done, failed = run(main())
    assert done.result() == 9
    assert failed.is_failed()


def test_a_direct_call_waits_for_what_it_is_told_to(run: Run) -> None:
    order: list[str] = []

    @task
    async def before() -> None:
        await asyncio.sleep(0.001)
        order.append("before")

    @task
    def after() -> None:
        order.append("after")

    @task
    async def after_later() -> None:
        order.append("after")

    @flow
    def sync_flow() -> None:
        after(wait_for=[before.submit()])

    @flow
    async def async_flow() -> None:
        await after_later(wait_for=[before.submit()])

    sync_flow()
    run(async_flow())
    assert order == ["before", "after"] * 2


# --- submit ---------------------------------------------------------------------------------------------------


@flow
def submit_in_sync_flow(it: Task[[int], Any], x: int) -> Any:
    return it.submit(x).result()


@flow
async def submit_in_async_flow(it: Task[[int], Any], x: int) -> Any:
    return await it.submit(x)


@pytest.mark.parametrize("it", [square, square_later], ids=["sync", "async"])
def test_submit_gives_a_future_of_the_value(it: Task[[int], Any], run: Run) -> None:
    assert submit_in_sync_flow(it, 5) == 25
    assert run(submit_in_async_flow(it, 5)) == 25


@pytest.mark.parametrize("it", [square, square_later], ids=["sync", "async"])
def test_submit_and_map_work_outside_of_flows(it: Task[[int], Any], run: Run) -> None:
    assert it.submit(5).result() == 25
    assert it.map(range(4)).result() == [0, 1, 4, 9]

    async def main() -> Any:
        return await it.submit(5), await it.map(range(4))

    assert run(main()) == (25, [0, 1, 4, 9])


@pytest.mark.parametrize("it", [fail, fail_later], ids=["sync", "async"])
def test_a_submitted_failure_is_raised_where_the_result_is_asked_for(it: Task[..., Any], run: Run) -> None:
    @flow
    def sync_flow() -> None:
        future = it.submit("mine")
        with pytest.raises(ValueError, match=r"^mine$") as caught:
            future.result()
        assert caught.traceback[-1].name == it.fn.__name__

    @flow
    async def async_flow() -> None:
        with pytest.raises(ValueError, match=r"^mine$") as caught:
            await it.submit("mine")
        assert caught.traceback[-1].name == it.fn.__name__

    sync_flow()
    run(async_flow())


def test_a_failure_that_is_asked_for_twice_does_not_grow_its_traceback() -> None:
    @flow
    def ask() -> list[int]:
        future = fail.submit()
        lengths: list[int] = []
        for _ in range(3):
            with pytest.raises(ValueError, match="boom") as caught:
                future.result()
            lengths.append(len(caught.traceback))
        return lengths

    assert len(set(ask())) == 1


def test_submit_with_return_state_gives_the_final_state(run: Run) -> None:
    @flow
    def sync_flow() -> None:
        state: Any = square.submit(3, return_state=True)
        assert state.is_completed()
        assert state.result() == 9
        states: Any = square.map([1, 2], return_state=True)
        assert [state.result() for state in states] == [1, 4]
        failed: Any = fail.submit(return_state=True)
        assert failed.is_failed()

    @flow
    async def async_flow() -> None:
        waiting: Any = square_later.submit(3, return_state=True)
        assert (await waiting).result() == 9
        states: Any = fail_later.map(["a", "b"], return_state=True)
        assert [str(state.result(raise_on_failure=False)) for state in await states] == ["a", "b"]

    sync_flow()
    run(async_flow())


def test_sync_tasks_are_submitted_to_threads_and_do_not_block_the_loop(run: Run) -> None:
    gate = threading.Event()

    @task
    def blocks() -> str:
        assert gate.wait(30)
        return "ended"

    @flow
    async def around() -> str:
        future = blocks.submit()
        await asyncio.sleep(0)
        gate.set()
        return await future

    assert run(around()) == "ended"


def test_a_mistake_in_the_arguments_is_raised_by_the_call_itself(run: Run) -> None:
    with pytest.raises(ParameterBindError, match="x"):
        square()  # type: ignore[call-overload]  # the mistake
    with pytest.raises(ParameterBindError):
        square.submit(1, 2)
    with pytest.raises(ParameterBindError):
        square.map([1], y=2)

    async def main() -> None:
        with pytest.raises(ParameterBindError):
            await square_later(y=1)  # type: ignore[call-overload]  # the mistake

    run(main())


def test_context_variables_are_inherited_from_the_submitter_and_isolated_between_runs(run: Run) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="unset")

    @task
    async def change(value: str) -> tuple[str, str]:
        before = variable.get()
        variable.set(value)
        await asyncio.sleep(0)
        return before, variable.get()

    @task
    def change_sync(value: str) -> tuple[str, str]:
        before = variable.get()
        variable.set(value)
        return before, variable.get()

    @flow
    async def around() -> None:
        variable.set("outer")
        assert await change.map(["a", "b"]) == [("outer", "a"), ("outer", "b")]
        assert await change_sync.map(["a", "b"]) == [("outer", "a"), ("outer", "b")]
        assert variable.get() == "outer"

    run(around())


# --- tasks in tasks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runner", ["sequential", "concurrent", "threads"])
def test_tasks_may_call_submit_and_map_tasks(runner: str, run: Run) -> None:
    @task
    def parent(n: int) -> int:
        return square(n) + square.submit(n).result() + sum(square_later.map(range(n)).result())

    @task
    async def parent_later(n: int) -> int:
        return await square_later(n) + await square.submit(n) + sum(await square_later.map(range(n)))

    @flow(task_runner=runner)
    def sync_flow() -> list[int]:
        return [parent(3), parent.submit(3).result(), parent_later.submit(3).result()]

    @flow(task_runner=runner)
    async def async_flow() -> list[int]:
        return [await parent_later(3), await parent_later.submit(3), await parent.submit(3)]

    assert sync_flow() == [9 + 9 + 5] * 3
    assert run(async_flow()) == [9 + 9 + 5] * 3


def test_what_a_task_starts_belongs_to_its_flow_and_is_waited_for(run: Run) -> None:
    ended: list[str] = []

    @flow
    async def around() -> None:
        may_end = asyncio.Event()

        @task
        async def child() -> None:
            await may_end.wait()
            ended.append("child")

        @task
        async def parent() -> None:
            child.submit()

        await parent.submit()
        assert not ended
        may_end.set()

    run(around())
    assert ended == ["child"]


def test_a_task_may_call_a_flow(run: Run) -> None:
    @flow
    def inner(x: int) -> int:
        return square.submit(x).result()

    @flow
    async def inner_later(x: int) -> int:
        return await square_later.submit(x)

    @task
    def calls(x: int) -> int:
        return inner(x)

    @task
    async def calls_later(x: int) -> int:
        return await inner_later(x)

    @flow
    async def outer() -> list[int]:
        return [await calls.submit(2), await calls_later.submit(3), await calls_later(4)]

    assert run(outer()) == [4, 9, 16]
    assert calls(5) == 25


# --- map ------------------------------------------------------------------------------------------------------------


def test_a_map_over_unequal_lengths_starts_nothing() -> None:
    started: list[Any] = []

    @task
    def pair(a: int, b: int) -> None:
        started.append((a, b))

    with pytest.raises(MappingLengthMismatch):
        pair.map([1, 2], [1, 2, 3])
    with pytest.raises(MappingMissingIterable):
        pair.map(1, 2)
    with pytest.raises(MappingMissingIterable):
        square.map("text")
    with pytest.raises(MappingMissingIterable):
        pair.map(unmapped([1, 2]), 1)
    assert started == []


def test_an_empty_map_is_an_empty_list(run: Run) -> None:
    assert square.map([]).result() == []

    async def main() -> Any:
        return await square_later.map([])

    assert run(main()) == []


# --- where a blocking wait cannot end -------------------------------------------------------------------------------


def test_a_blocking_result_on_the_loops_own_thread_says_await_it(run: Run) -> None:
    async def main() -> int:
        future = square_later.submit(2)
        with pytest.raises(BlockingWaitError, match="await future"):
            future.result()
        with pytest.raises(BlockingWaitError):
            future.wait()
        return await future

    assert run(main()) == 4


def test_a_background_task_that_submits_after_its_flow_has_ended_is_told_so(run: Run) -> None:
    async def main() -> None:
        late: list[asyncio.Task[Any]] = []
        go_on = asyncio.Event()

        async def background() -> None:
            await go_on.wait()
            await square_later.submit(1)

        @flow
        async def leaves_it() -> None:
            late.append(asyncio.create_task(background()))

        await leaves_it()
        go_on.set()
        with pytest.raises(RuntimeClosedError, match="has ended"):
            await late[0]

    run(main())


def test_the_tags_of_a_future_are_the_tasks_and_those_around() -> None:
    tagged = square.with_options(tags=["own"])
    with tags("outer"), tags("inner"):
        future = tagged.submit(1)
    assert future.tags == {"own", "outer", "inner"}  # type: ignore[attr-defined]  # of the runs that upwell makes
    future.wait()


def test_a_runtime_is_where_the_tasks_of_its_block_run(run: Run) -> None:
    async def main() -> Any:
        async with Runtime() as runtime:
            futures = square_later.map(range(3))
            return await futures, await runtime.submit(square, 4), await runtime.map(square, [5])

    assert run(main()) == ([0, 1, 4], 16, [25])


def test_a_function_may_have_a_parameter_that_is_called_self() -> None:
    @task
    def of(self: int) -> int:  # as where a method is taken out of its class
        return self

    @flow
    def around(self: int) -> list[int]:
        return [of(self=self), of.submit(self=self).result(), *of.map(self=[self]).result()]

    assert around(self=3) == [3, 3, 3]
    assert around.submit(self=4).result() == [4, 4, 4]
