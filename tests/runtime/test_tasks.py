"""`@task`: what calling, submitting and mapping a task gives, in sync and async code, in and outside of flows."""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from upwell import Runtime, State, Task, flow, tags, task, unmapped
from upwell.core.errors import (
    BlockingWaitError,
    MappingLengthMismatch,
    MappingMissingIterable,
    ParameterBindError,
    RuntimeClosedError,
)
from upwell.tasks import BoundTask

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@task
def square(x: int) -> int:
    """The square."""
    return x * x


@task
async def square_later(x: int) -> int:
    await asyncio.sleep(0)
    return x * x


@task
def thread_name() -> str:
    return threading.current_thread().name


@task
def fail(message: str = "boom") -> int:
    raise ValueError(message)


@task
async def fail_later(message: str = "boom") -> int:
    await asyncio.sleep(0)
    raise ValueError(message)


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
        assert gate.wait(5)
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

    @task
    async def child() -> None:
        await asyncio.sleep(0.002)
        ended.append("child")

    @task
    async def parent() -> None:
        child.submit()

    @flow
    async def around() -> None:
        await parent.submit()
        assert not ended

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


# --- generators ---------------------------------------------------------------------------------------------------


@task
def count(n: int) -> Iterator[int]:
    yield from range(n)


@task
async def count_later(n: int) -> AsyncIterator[int]:
    for i in range(n):
        await asyncio.sleep(0)
        yield i


def test_a_generator_task_called_directly_streams_what_it_yields() -> None:
    taken: list[str] = []

    @task
    def steps() -> Iterator[int]:
        for i in range(3):
            taken.append(f"made {i}")
            yield i

    for i in steps():
        taken.append(f"got {i}")
    assert taken == ["made 0", "got 0", "made 1", "got 1", "made 2", "got 2"]


def test_an_async_generator_task_called_directly_streams_what_it_yields(run: Run) -> None:
    async def main() -> list[int]:
        return [i async for i in count_later(3)]

    assert run(main()) == [0, 1, 2]


def test_a_generator_task_takes_what_is_sent_and_returns_its_value() -> None:
    @task
    def echo() -> Any:
        got: Any = yield "ready"  # pyright: ignore[reportUnknownVariableType]  # a lambda needs no annotations here
        return f"got {got}"

    generator: Any = echo()
    assert next(generator) == "ready"
    with pytest.raises(StopIteration) as stop:
        generator.send("it")
    assert stop.value.value == "got it"


def test_a_generator_that_is_left_early_is_closed(run: Run) -> None:
    closed: list[str] = []

    @task
    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append("sync")

    @task
    async def endless_later() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append("async")

    generator: Any = endless()
    next(generator)
    generator.close()

    async def main() -> None:
        generator: Any = endless_later()
        await anext(generator)
        await generator.aclose()

    run(main())
    assert closed == ["sync", "async"]


def test_an_exception_in_a_generator_reaches_the_caller_as_itself() -> None:
    @task
    def breaks() -> Iterator[int]:
        yield 1
        raise KeyError("mine")

    generator = breaks()
    assert next(generator) == 1
    with pytest.raises(KeyError, match="mine"):
        next(generator)


def test_a_direct_generator_resolves_futures_among_its_arguments(run: Run) -> None:
    @flow
    def around() -> list[int]:
        return list(count(square.submit(2)))  # type: ignore[call-overload]  # a future in the place of its result

    @flow
    async def around_later() -> list[int]:
        return [i async for i in count_later(square.submit(2))]  # type: ignore[call-overload]  # likewise

    assert around() == [0, 1, 2, 3]
    assert run(around_later()) == [0, 1, 2, 3]


@pytest.mark.parametrize("runner", ["concurrent", "threads"])
def test_a_submitted_generator_gives_a_list(runner: str, run: Run) -> None:
    @flow(task_runner=runner)
    def sync_flow() -> list[Any]:
        return [count.submit(3).result(), count_later.submit(3).result()]

    @flow(task_runner=runner)
    async def async_flow() -> list[Any]:
        return [await count.submit(3), await count_later.submit(3)]

    assert sync_flow() == [[0, 1, 2]] * 2
    assert run(async_flow()) == [[0, 1, 2]] * 2


# --- methods --------------------------------------------------------------------------------------------------------


class Shop:
    rate = 3

    def __init__(self, base: int) -> None:
        self.base = base

    @task
    def add(self, x: int) -> int:
        return self.base + x

    @task
    async def add_later(self, x: int) -> int:
        await asyncio.sleep(0)
        return self.base + x

    @task
    @classmethod
    def scaled(cls, x: int) -> int:
        return cls.rate * x

    @classmethod
    @task
    def scaled_too(cls, x: int) -> int:
        return cls.rate * x

    @task
    @staticmethod
    def double(x: int) -> int:
        return 2 * x

    @staticmethod
    @task
    def double_too(x: int) -> int:
        return 2 * x


@pytest.mark.parametrize(
    ("method", "expected"),
    [("add", 14), ("scaled", 12), ("scaled_too", 12), ("double", 8), ("double_too", 8)],
)
def test_methods_of_every_kind_are_tasks_in_either_order_of_decorators(method: str, expected: int) -> None:
    on_object: Any = getattr(Shop(10), method)
    assert on_object(4) == expected
    if method == "scaled_too" and sys.version_info >= (3, 13):
        return  # classmethod does not pass on what it wraps any more: only the call is left
    assert on_object(x=4) == expected
    assert on_object.submit(4).result() == expected
    assert on_object.map([4, 4]).result() == [expected] * 2
    assert list(on_object.stream([4, 4])) == [expected] * 2
    assert on_object.with_options(name="renamed").submit(4).result() == expected
    if not method.startswith("add"):
        on_class: Any = getattr(Shop, method)
        assert on_class(4) == expected
        assert on_class.submit(4).result() == expected


def test_an_async_method_is_a_task(run: Run) -> None:
    async def main() -> list[Any]:
        shop: Any = Shop(1)
        streamed = [x async for x in shop.add_later.stream([3])]
        return [await shop.add_later(1), await shop.add_later.submit(2), *streamed]

    assert run(main()) == [2, 3, 4]


def test_a_method_asked_of_its_class_is_the_task_itself() -> None:
    assert isinstance(Shop.add, Task)
    bound: Any = Shop(1).add
    assert isinstance(bound, BoundTask)
    assert "add" in repr(bound)
    assert Shop.add(Shop(2), 3) == 5


def test_a_class_method_of_a_subclass_gets_the_subclass() -> None:
    class Dear(Shop):
        rate = 100

    cls: Any = Dear
    assert cls.scaled(2) == 200
    assert cls.scaled.submit(2).result() == 200
    assert cls.scaled_too(2) == 200


# --- options of the object ------------------------------------------------------------------------------------------


def test_a_task_looks_like_its_function() -> None:
    named: Any = square
    assert named.__name__ == "square"
    assert square.__doc__ == "The square."
    assert square.description == "The square."
    assert square.fn(3) == 9
    assert repr(square) == "<Task 'square'>"


def test_version_description_and_tags_are_kept_on_the_task() -> None:
    @task(version="1.2", description="For people.", tags=["b", "a"])
    def documented() -> None:
        """Not this."""

    assert documented.version == "1.2"
    assert documented.description == "For people."
    assert documented.tags == frozenset({"a", "b"})


def test_with_options_makes_a_changed_copy_and_leaves_the_original() -> None:
    original = task(retries=2, name="first", tags=["x"])(square.fn)
    copy = original.with_options(name="second", tags=["y"])
    assert (original.name, set(original.tags)) == ("first", {"x"})
    assert (copy.name, set(copy.tags)) == ("second", {"y"})
    assert copy(3) == 9


def test_with_options_keeps_hooks_unless_it_names_them() -> None:
    heard: list[str] = []
    original = task(on_completion=[lambda *_: heard.append("option")])(square.fn)  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]  # a lambda needs no annotations here

    @original.on_completion
    def added(*_: Any) -> None:
        heard.append("added")

    original.with_options(retries=1)(1)
    assert heard == ["option", "added"]
    original.with_options(on_completion=[])(1)
    assert heard == ["option", "added"]


def test_a_hook_added_to_a_copy_is_not_heard_by_the_original() -> None:
    heard: list[str] = []
    original = task(square.fn)
    copy = original.with_options(retries=1)

    @copy.on_completion
    def added(*_: Any) -> None:
        heard.append("copy")

    original(1)
    assert heard == []


def test_with_options_can_say_zero() -> None:
    attempts: list[int] = []

    @task(retries=3)
    def flaky() -> None:
        attempts.append(1)
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        flaky.with_options(retries=0)()
    assert len(attempts) == 1


def test_partials_and_callable_objects_are_tasks(run: Run) -> None:
    class Adder:
        def __call__(self, x: int) -> int:
            return x + 1

    class AdderLater:
        async def __call__(self, x: int) -> int:
            return x + 1

    assert task(functools.partial(lambda a, b: a + b, 1))(2) == 3  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]  # a lambda needs no annotations here
    assert task(functools.partial(lambda a, b: a + b, 1)).submit(2).result() == 3  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]  # a lambda needs no annotations here
    assert task(Adder()).submit(1).result() == 2
    assert run(task(AdderLater())(1)) == 2
    assert task(AdderLater()).submit(1).result() == 2


def test_a_sync_task_that_returns_an_awaitable_gives_it_back_as_it_is() -> None:
    @task
    def makes() -> Any:
        return square_later(2)

    coroutine = makes()
    assert asyncio.run(coroutine) == 4


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


def test_what_prefects_users_import_from_tasks_is_there() -> None:
    import upwell.tasks
    from upwell.cache_policies import task_input_hash
    from upwell.core.retries import exponential_backoff

    assert upwell.tasks.task_input_hash is task_input_hash
    assert upwell.tasks.exponential_backoff is exponential_backoff
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        upwell.tasks.nothing  # noqa: B018  # the look is what raises
