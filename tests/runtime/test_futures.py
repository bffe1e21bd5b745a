"""Futures: results and states, waits for one and for several, in the order of their end; futures of one's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID

import pytest

from upwell import (
    Runtime,
    State,
    TaskFuture,
    as_completed,
    first,
    first_async,
    flow,
    task,
    wait,
    wait_async,
)
from upwell.core.errors import BlockingWaitError, CancelledRun, ForeignFutureError, NotReadyRun
from upwell.futures import FutureList, resolve_futures_to_results, resolve_futures_to_states
from upwell.states import Completed, Failed, Running
from upwell.testing import run_virtual, virtual_clock

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@task
async def after(seconds: float, value: Any = None) -> Any:
    await asyncio.sleep(seconds)
    return seconds if value is None else value


@task
def double(x: int) -> int:
    return 2 * x


@task
def fail(message: str = "boom") -> int:
    raise ValueError(message)


class OwnFuture(TaskFuture[int]):
    """A future that somebody else brings."""

    name = "own"

    def __init__(self) -> None:
        self._state: State = Running()
        self._ended = threading.Event()
        self._callbacks: list[Callable[[TaskFuture[Any]], object]] = []

    def end(self, state: State) -> None:
        self._state = state
        self._ended.set()
        for callback in self._callbacks:
            callback(self)

    @property
    def state(self) -> State:
        return self._state

    def wait(self, timeout: float | None = None) -> None:
        self._ended.wait(timeout)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> int:
        if not self._ended.wait(timeout):
            raise TimeoutError
        result: int = self._state.result(raise_on_failure)
        return result

    def add_done_callback(self, fn: Callable[[TaskFuture[Any]], object]) -> None:
        if self._ended.is_set():
            fn(self)
        else:
            self._callbacks.append(fn)


# --- one future ------------------------------------------------------------------------------------------------


def test_a_future_can_be_awaited_and_asked_again_and_again(run: Run) -> None:
    async def main() -> None:
        future = after.submit(0, "value")
        assert await future == "value"
        assert await future == "value"
        assert future.result() == "value"
        assert future.state.result() == "value"

    run(main())


def test_several_may_await_one_future(run: Run) -> None:
    async def main() -> None:
        future = after.submit(0.001, "value")

        async def ask() -> Any:
            return await future

        assert await asyncio.gather(*(ask() for _ in range(10))) == ["value"] * 10

    run(main())


def test_a_waiter_that_is_cancelled_does_not_cancel_the_run(run: Run) -> None:
    async def main() -> None:
        future = after.submit(0.005, "value")

        async def ask() -> Any:
            return await future

        asking = asyncio.create_task(ask())
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await future == "value"

    run(main())


def test_result_of_a_failed_run_can_be_asked_for_without_raising() -> None:
    future = fail.submit("mine")
    error: Any = future.result(raise_on_failure=False)
    assert isinstance(error, ValueError)
    assert str(error) == "mine"
    assert future.state.is_failed()


def test_a_future_has_a_name_and_an_id_and_shows_its_state() -> None:
    future: Any = double.submit(2)
    assert isinstance(future.task_run_id, UUID)
    assert future.task_run_id.version == 7
    assert future.task_run_id == future.task_run_id
    assert future.name.startswith("double-")
    future.wait()
    assert repr(future) == f"<TaskFuture {future.name!r} Completed()>"


def test_ids_differ_between_runs_and_are_in_the_order_of_submission() -> None:
    ids = [future.task_run_id for future in double.map(range(100))]  # type: ignore[attr-defined]  # of upwell's own runs
    assert len(set(ids)) == 100  # pyright: ignore[reportUnknownArgumentType]  # a lambda needs no annotations here
    assert ids == sorted(ids)  # pyright: ignore[reportUnknownArgumentType]  # a lambda needs no annotations here


def test_the_repr_of_a_future_is_no_look_at_its_outcome() -> None:
    @flow
    def around() -> None:
        future = fail.submit()
        wait_for_end(future)
        repr(future)

    state = around(return_state=True)
    assert state.is_failed()


def wait_for_end(future: Any) -> None:
    """Wait without looking at the outcome."""
    ended = threading.Event()
    future.watch(lambda _: ended.set())  # pyright: ignore[reportUnknownLambdaType]  # a lambda needs no annotations here
    assert ended.wait(5)


def test_a_wait_with_a_timeout_returns_and_a_result_raises() -> None:
    with virtual_clock() as clock:
        future = after.submit(60, "value")
        future.wait(timeout=1)
        assert not future.is_done()
        assert clock.elapsed == pytest.approx(1, abs=0.01)
        with pytest.raises(TimeoutError, match="has not ended within 2 seconds; it goes on"):
            future.result(timeout=2)
        assert clock.elapsed == pytest.approx(3, abs=0.01)
        assert future.result(timeout=100) == "value"
        assert clock.elapsed == pytest.approx(60, abs=0.01)


def test_a_timeout_of_zero_looks_and_does_not_wait() -> None:
    with virtual_clock():
        future = after.submit(10)
        with pytest.raises(TimeoutError):
            future.result(timeout=0)
        future.wait()
        assert future.result(timeout=0) == 10


def test_a_timeout_of_the_callers_own_bounds_an_await(run: Run) -> None:
    async def main() -> None:
        future = after.submit(0.05, "value")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await future
        assert not future.is_done()

    run(main())


def test_a_future_may_be_awaited_on_another_loop_than_its_own(run: Run) -> None:
    future = after.submit(0.002, "value")  # on the loop beside sync code

    async def main() -> Any:
        return await future

    assert run(main()) == "value"


# --- callbacks ---------------------------------------------------------------------------------------------------


def test_a_callback_gets_the_future_once_it_has_ended(run: Run) -> None:
    async def main() -> None:
        called: list[Any] = []
        future = after.submit(0.001, "value")
        future.add_done_callback(called.append)
        assert called == []
        await future
        assert called == [future]
        future.add_done_callback(called.append)
        assert called == [future, future]

    run(main())


def test_callbacks_are_called_in_the_order_they_were_added() -> None:
    with virtual_clock():
        called: list[int] = []
        future = after.submit(1)
        for i in range(5):
            future.add_done_callback(lambda _, i=i: called.append(i))  # type: ignore[misc]
        future.result()
        assert called == [0, 1, 2, 3, 4]


def test_a_callback_that_raises_is_logged_and_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with virtual_clock():
        called: list[Any] = []
        future = after.submit(1, "value")

        def broken(_: Any) -> None:
            raise KeyError("mine")

        future.add_done_callback(broken)
        future.add_done_callback(called.append)
        assert future.result() == "value"
        assert called == [future]
    assert any("callback" in record.getMessage() and record.levelname == "ERROR" for record in caplog.records)


# --- several futures ----------------------------------------------------------------------------------------------


def test_a_map_gives_a_list_of_futures_with_all_results_in_order(run: Run) -> None:
    futures = double.map(range(5))
    assert isinstance(futures, FutureList)
    assert isinstance(futures, list)
    futures.wait()
    assert futures.result() == [0, 2, 4, 6, 8]

    async def main() -> list[int]:
        return await double.map(range(5))

    assert run(main()) == [0, 2, 4, 6, 8]


def test_a_future_list_raises_the_first_failure_in_order_or_gives_it(run: Run) -> None:
    futures = fail.map(["a", "b"])
    with pytest.raises(ValueError, match=r"^a$"):
        futures.result()
    assert [str(error) for error in futures.result(raise_on_failure=False)] == ["a", "b"]

    async def main() -> None:
        with pytest.raises(ValueError, match=r"^a$"):
            await fail.map(["a", "b"])

    run(main())


def test_one_timeout_is_for_all_results_together() -> None:
    with virtual_clock() as clock:
        futures = after.map([4, 8, 12])
        with pytest.raises(TimeoutError):
            futures.result(timeout=10)
        assert clock.elapsed == pytest.approx(10, abs=0.01)
        futures.wait()
        assert clock.elapsed == pytest.approx(12, abs=0.01)


def test_wait_says_which_have_ended() -> None:
    with virtual_clock():
        futures = after.map([30, 1, 2])
        done, not_done = wait(futures, timeout=10)
        assert done == [futures[1], futures[2]]
        assert not_done == [futures[0]]
        assert wait(futures).not_done == []
    assert wait([]) == ([], [])


def test_wait_async_says_which_have_ended() -> None:
    async def main() -> None:
        futures = after.map([30, 1, 2])
        done, not_done = await wait_async(futures, timeout=10)
        assert done == [futures[1], futures[2]]
        assert not_done == [futures[0]]
        assert (await wait_async(futures)).not_done == []
        assert await wait_async([]) == ([], [])

    run_virtual(main())


def test_as_completed_gives_them_in_the_order_of_their_end() -> None:
    with virtual_clock():
        futures = after.map([3, 1, 2])
        assert [future.result() for future in as_completed(futures)] == [1, 2, 3]
        assert sorted(future.result() for future in as_completed(futures)) == [1, 2, 3]


def test_as_completed_gives_them_in_the_order_of_their_end_on_a_loop() -> None:
    async def main() -> None:
        futures = after.map([3, 1, 2])
        assert [future.result() async for future in as_completed(futures)] == [1, 2, 3]

    run_virtual(main())


def test_as_completed_says_how_many_were_late() -> None:
    with virtual_clock():
        futures = after.map([1, 100, 200])
        seen: list[Any] = []
        with pytest.raises(TimeoutError, match=r"^2 \(of 3\) futures unfinished after 5 seconds$"):  # noqa: PT012  # the loop, or the block, is what raises
            for future in as_completed(futures, timeout=5):
                seen.append(future)
        assert seen == [futures[0]]

    async def main() -> None:
        futures = after.map([1, 100, 200])
        with pytest.raises(TimeoutError, match=r"^2 \(of 3\) futures unfinished after 5 seconds$"):
            async for _ in as_completed(futures, timeout=5):
                pass

    run_virtual(main())


def test_a_future_that_is_given_twice_comes_twice() -> None:
    future = double.submit(1)
    assert [each.result() for each in as_completed([future, future])] == [2, 2]


def test_first_is_the_one_that_ends_first_well_or_badly() -> None:
    with virtual_clock():
        futures = after.map([3, 1, 2])
        assert first(futures) is futures[1]
        bad = fail.submit()
        assert first([futures[0], bad]) is bad

    async def main() -> None:
        futures = after.map([3, 1, 2])
        assert await first_async(futures) is futures[1]
        with pytest.raises(TimeoutError):
            await first_async([futures[0]], timeout=0.5)

    run_virtual(main())


def test_there_is_no_first_of_no_futures(run: Run) -> None:
    with pytest.raises(ValueError, match="no first"):
        first([])

    async def main() -> None:
        with pytest.raises(ValueError, match="no first"):
            await first_async([])

    run(main())


def test_first_in_time_or_a_timeout() -> None:
    with virtual_clock() as clock:
        future = after.submit(100)
        with pytest.raises(TimeoutError):
            first([future], timeout=5)
        assert clock.elapsed == pytest.approx(5, abs=0.01)


def test_blocking_waits_on_the_loops_own_thread_are_refused(run: Run) -> None:
    async def main() -> None:
        futures = after.map([0.001])
        for blocking in (wait, first, lambda futures: list(as_completed(futures))):  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType, reportUnknownVariableType]  # a lambda needs no annotations here
            with pytest.raises(BlockingWaitError):
                blocking(futures)
        with pytest.raises(BlockingWaitError):
            futures.result()
        await futures
        assert wait(futures).done == futures
        assert first(futures) is futures[0]

    run(main())


@pytest.mark.parametrize("count", [1, 5])
def test_a_task_on_a_pool_of_one_may_wait_in_every_way_for_its_own_submits(count: int) -> None:
    from upwell.task_runners import ThreadPoolTaskRunner  # loaded here, for it loads the runners

    @task
    def parent(n: int) -> list[int]:
        return [
            sum(double.map(range(n)).result()),
            sum(future.result() for future in as_completed(double.map(range(n)))),
            sum(future.result() for future in wait(double.map(range(n))).done),
            first(double.map([n])).result(),
            sum(double.stream(range(n))),
            sum(double.stream(range(n), ordered=False)),
        ]

    @flow(task_runner=ThreadPoolTaskRunner(1))
    def around() -> list[list[int]]:
        return parent.map([3] * count).result()

    assert around() == [[6, 6, 6, 6, 6, 6]] * count


# --- resolving --------------------------------------------------------------------------------------------------


def test_futures_in_any_structure_can_be_resolved_to_results_and_states() -> None:
    value = {"a": [double.submit(1), (double.submit(2), 3)], "b": "text"}
    assert resolve_futures_to_results(value) == {"a": [2, (4, 3)], "b": "text"}
    states = resolve_futures_to_states([double.submit(1), fail.submit()])
    assert [state.is_completed() for state in states] == [True, False]
    with pytest.raises(ValueError, match="boom"):
        resolve_futures_to_results([fail.submit()])


# --- futures of one's own ---------------------------------------------------------------------------------------


def test_a_future_of_ones_own_is_waited_for_and_resolved(run: Run) -> None:
    @flow
    async def around() -> tuple[Any, Any]:
        own = OwnFuture()
        plain = double.submit(own)
        deep = after.submit(0, [own, {"k": own}])
        asyncio.get_running_loop().call_later(0.002, own.end, Completed(data=21))
        return await plain, await deep

    assert run(around()) == (42, [21, {"k": 21}])


def test_a_future_of_ones_own_may_end_in_another_thread(run: Run) -> None:
    @flow
    async def around() -> int:
        own = OwnFuture()
        waiting = double.submit(own)
        threading.Timer(0.002, own.end, [Completed(data=4)]).start()
        return await waiting

    assert run(around()) == 8

    @flow
    def sync_around() -> int:
        own = OwnFuture()
        waiting = double.submit(own)
        own.end(Completed(data=5))
        return waiting.result() + double(own)  # type: ignore[call-overload, no-any-return]  # a future in the place of its result

    assert sync_around() == 20


def test_a_failed_future_of_ones_own_is_named_by_those_it_held_up() -> None:
    @flow
    def around() -> Any:
        own = OwnFuture()
        waiting = double.submit(own)
        own.end(Failed("no luck"))
        return waiting.result(raise_on_failure=False)

    error = around()
    assert isinstance(error, NotReadyRun)
    assert "'own'" in str(error)


def test_a_future_of_ones_own_can_be_awaited_and_waited_for(run: Run) -> None:
    async def main() -> None:
        own = OwnFuture()
        asyncio.get_running_loop().call_later(0.001, own.end, Completed(data=7))
        assert await own == 7
        assert [future async for future in as_completed([own])] == [own]
        assert await first_async([own]) is own

    run(main())


# --- futures and runtimes ---------------------------------------------------------------------------------------


def test_an_unfinished_future_of_another_runtime_is_refused_and_a_finished_one_is_a_value(run: Run) -> None:
    future = after.submit(0.02, 3)  # of the loop beside sync code

    async def main() -> None:
        with pytest.raises(ForeignFutureError, match="another runtime"):
            double.submit(future)
        with pytest.raises(ForeignFutureError):
            after.submit(0, [future])
        await future
        assert await double.submit(future) == 6

    run(main())


def test_a_run_cancelled_with_its_runtime_says_so(run: Run) -> None:
    async def main() -> None:
        async with Runtime() as runtime:
            future = runtime.submit(after, 60)
            await asyncio.sleep(0)
        assert future.state.is_cancelled()
        with pytest.raises(CancelledRun, match="The runtime was closed"):
            await future

    run(main())
