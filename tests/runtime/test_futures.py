"""One future: its result, states and callbacks; futures of one's own, and of another runtime."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from tests.runtime.given import Run, after, double, fail

from upwell import (
    Runtime,
    State,
    TaskFuture,
    as_completed,
    first_async,
    flow,
    runtime,
    task,
)
from upwell.core.errors import CancelledRun, ForeignFutureError, NotReadyRun
from upwell.states import Completed, Failed, Running
from upwell.testing import run_virtual, virtual_clock


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
    assert ended.wait(60)


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
        may_end = asyncio.Event()
        future = task(may_end.wait).submit()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await future
        assert not future.is_done()
        may_end.set()
        assert await future

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


def test_a_callback_is_called_where_it_was_added() -> None:
    seen: list[tuple[Any, Any]] = []

    @flow
    async def around() -> None:
        here = runtime.flow_run.name
        future = after.submit(1)
        future.add_done_callback(lambda _: seen.append((here, runtime.flow_run.name)))
        await after(2)

    async def main() -> None:
        async with Runtime():
            await asyncio.gather(*(around() for _ in range(3)))

    run_virtual(main())
    assert len(seen) == 3
    assert all(added == called for added, called in seen)


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
