"""Much of everything: depth, breadth and size end as they should, within the default recursion limit."""

# Lambdas and options of every kind are passed on: what they are is what the tests are about.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportFunctionMemberAccess=false
from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from upwell import Runtime, flow, task
from upwell.core.errors import NotReadyRun
from upwell.engine.current import close_portal

Ends = Callable[..., Any]
DEPTH = 500
DIRECT_DEPTH = 500 if sys.version_info[:2] != (3, 12) else 200  # what C code may recurse cannot be raised there
MANY = 10_000


@task
async def acount(x: int) -> int:
    return x + 1


@task
async def acount_later(x: int) -> int:
    await asyncio.sleep(0)
    return x + 1


@task
def count(x: int) -> int:
    return x + 1


@task
def size(x: Any) -> int:
    return len(x)


@task
def fail(x: Any = None) -> None:
    raise KeyError("boom")


@pytest.fixture(autouse=True)
def fresh_portal() -> Iterator[None]:
    """Hundreds of threads need not stay for the next test."""
    yield
    close_portal()


@pytest.fixture
def high_limit() -> Iterator[None]:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(50_000)
    yield
    sys.setrecursionlimit(limit)


# --- depth --------------------------------------------------------------------------------------------------


@task
def submit_deeper(depth: int) -> int:
    return submit_deeper.submit(depth - 1).result() + 1 if depth else 0


@task
async def submit_deeper_async(depth: int) -> int:
    return await submit_deeper_async.submit(depth - 1) + 1 if depth else 0


@task
def call_deeper(depth: int) -> int:
    return call_deeper(depth - 1) + 1 if depth else 0


@task
async def call_deeper_async(depth: int) -> int:
    return await call_deeper_async(depth - 1) + 1 if depth else 0


@flow
def flow_deeper(depth: int) -> int:
    return flow_deeper(depth - 1) + 1 if depth else 0


def test_sync_tasks_that_submit_each_other_may_go_deep(ends: Ends) -> None:
    assert ends(flow(lambda: submit_deeper.submit(DEPTH).result())) == DEPTH


def test_async_tasks_that_submit_each_other_may_go_deep(ends: Ends) -> None:
    @flow
    async def run() -> int:
        return await submit_deeper_async.submit(DEPTH)

    assert ends(asyncio.run, run()) == DEPTH


@pytest.mark.usefixtures("high_limit")
def test_direct_calls_may_go_as_deep_as_python_lets_them(ends: Ends) -> None:
    assert ends(flow(lambda: call_deeper(DIRECT_DEPTH))) == DIRECT_DEPTH

    @flow
    async def run() -> int:
        return await call_deeper_async(DIRECT_DEPTH)

    assert ends(asyncio.run, run()) == DIRECT_DEPTH


@pytest.mark.usefixtures("high_limit")
def test_flows_in_flows_may_go_deep(ends: Ends) -> None:
    assert ends(flow_deeper, 100) == 100


@pytest.mark.parametrize("deeper", [call_deeper, flow_deeper])
@pytest.mark.usefixtures("quiet")
def test_too_deep_is_the_users_own_recursion_error_and_the_next_run_is_sound(ends: Ends, deeper: Any) -> None:
    with pytest.raises(RecursionError):
        ends(flow(lambda: deeper(5_000)))
    assert ends(flow(lambda: count.submit(1).result())) == 2


def test_a_task_that_recurses_for_ever_fails_with_its_recursion_error(ends: Ends) -> None:
    def for_ever(x: int) -> int:
        return for_ever(x + 1)

    async def for_ever_async(x: int) -> int:
        return await for_ever_async(x + 1)

    @flow
    def run(fn: Any) -> None:
        task(fn).submit(1).result()

    for fn in (for_ever, for_ever_async):
        with pytest.raises(RecursionError):
            ends(run, fn)
    assert ends(flow(lambda: acount.submit(1).result())) == 2


def test_arguments_may_be_nested_deep(ends: Ends) -> None:
    @flow
    def run() -> Any:
        nested: Any = [count.submit(1)]
        for _ in range(200):
            nested = [{"in": (nested,)}]
        found: Any = task(lambda x: x).submit(nested).result()
        for _ in range(200):
            found = found[0]["in"][0]
        return found[0]

    assert ends(run) == 2


def test_an_argument_that_contains_itself_is_passed_or_refused_but_never_hangs(ends: Ends) -> None:
    endless: list[Any] = [1]
    endless.append(endless)

    @flow
    def run() -> Any:
        try:
            return task(lambda x: x is endless).submit(endless).result()
        except (ValueError, RecursionError):
            return True

    assert ends(run)


# --- chains -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [acount, acount_later, count])
def test_a_long_chain_gets_to_its_end(ends: Ends, step: Any) -> None:
    @flow
    def run() -> int:
        future = step.submit(0)
        for _ in range(MANY - 1):
            future = step.submit(future)
        return int(future.result())

    assert ends(run) == MANY


@pytest.mark.parametrize("step", [acount, count])
@pytest.mark.usefixtures("quiet")
def test_a_long_chain_whose_head_fails_is_not_ready_to_its_end(ends: Ends, step: Any) -> None:
    length = 5_000

    @flow
    def run() -> Any:
        chain: list[Any] = [fail.submit()]
        for _ in range(length):
            chain.append(step.submit(chain[-1]))
        with pytest.raises(NotReadyRun):
            chain[-1].result()
        return {future.state.name for future in chain[1:]}

    assert ends(run) == {"NotReady"}


@pytest.mark.usefixtures("quiet")
def test_a_long_chain_is_cancelled_to_its_end(ends: Ends) -> None:
    chain: list[Any] = []

    async def main() -> None:
        async with Runtime() as runtime:
            chain.append(runtime.submit(task(asyncio.sleep), 100))
            for _ in range(5_000):
                chain.append(runtime.submit(acount, chain[-1]))
            await asyncio.sleep(0)

    ends(asyncio.run, main())
    assert all(future.is_done() for future in chain)
    assert all(not future.state.is_completed() for future in chain)


# --- breadth ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [acount, count])
def test_many_may_depend_on_one(ends: Ends, step: Any) -> None:
    @flow
    def run() -> Any:
        one = acount_later.submit(0)
        return step.map([one] * MANY).result()

    assert ends(run) == [2] * MANY


@pytest.mark.usefixtures("quiet")
def test_many_dependants_of_a_failure_are_not_ready(ends: Ends) -> None:
    @flow
    def run() -> Any:
        one = fail.submit()
        futures = acount.map([one] * MANY)
        futures.wait()
        return {future.state.name for future in futures}

    assert ends(run) == {"NotReady"}


def test_many_may_await_one_and_be_cancelled(ends: Ends) -> None:
    async def main() -> None:
        async with Runtime() as runtime:
            one = runtime.submit(task(asyncio.sleep), 100)

            async def wait() -> None:
                await one

            waiting = [asyncio.create_task(wait()) for _ in range(MANY)]
            await asyncio.sleep(0)
            for awaiter in waiting:
                awaiter.cancel()
            await asyncio.wait(waiting)

    ends(asyncio.run, main())


def test_many_flows_at_once_in_one_runtime_keep_to_themselves(ends: Ends) -> None:
    @flow
    async def one(number: int) -> int:
        return sum(await acount_later.map([number] * 20)) + await count.submit(number)

    async def main() -> None:
        async with Runtime():
            assert await asyncio.gather(*(one(number) for number in range(50))) == [21 * (n + 1) for n in range(50)]
            assert await one.map(range(50)) == [21 * (n + 1) for n in range(50)]

    ends(asyncio.run, main())


def test_many_sync_flows_at_once_in_one_runtime_keep_to_themselves(ends: Ends) -> None:
    @flow
    def one(number: int) -> int:
        if number == 13:
            raise KeyError("13")
        return sum(count.map([number] * 20).result()) + acount.submit(number).result()

    def main() -> None:
        with Runtime() as runtime:
            futures = runtime.map(one, range(50))
            futures.wait()
            failed = [number for number, future in enumerate(futures) if future.state.is_failed()]
            assert failed == [13]
            assert [f.result() for n, f in enumerate(futures) if n != 13] == [
                21 * (n + 1) for n in range(50) if n != 13
            ]

    ends(main)


# --- size ---------------------------------------------------------------------------------------------------


def test_a_million_elements_in_one_argument(ends: Ends) -> None:
    numbers = list(range(1_000_000))

    @flow
    def run() -> Any:
        return size.submit(numbers).result(), size(numbers), size.submit(x=numbers).result()

    assert ends(run) == (1_000_000,) * 3


def test_a_million_elements_with_a_future_among_them(ends: Ends) -> None:
    @flow
    def run() -> Any:
        mixed: list[Any] = [0] * 1_000_000
        mixed[-1] = count.submit(6)
        return task(lambda x: (len(x), x[-1])).submit(mixed).result()

    assert ends(run) == (1_000_000, 7)
