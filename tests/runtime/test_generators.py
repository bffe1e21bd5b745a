"""Generators that are tasks or flows: they stream to their caller, and the run lasts as long as they do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any

import pytest
from tests.runtime.given import Run, double, double_later, fail, square

from upwell import State, flow, runtime, task
from upwell.concurrency import remove_limit, set_limit
from upwell.core.errors import ConfigurationError, FailedRun, NotReadyRun, RunTimeoutError
from upwell.testing import run_virtual

# --- tasks --------------------------------------------------------------------------------------------------------


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


# --- flows --------------------------------------------------------------------------------------------------------


def test_a_generator_flow_streams_to_its_caller(run: Run) -> None:
    @flow
    def generate(n: int) -> Iterator[int]:
        for i in range(n):
            yield double.submit(i).result()

    @flow
    async def generate_later(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield await double_later.submit(i)

    assert list(generate(3)) == [0, 2, 4]

    async def main() -> Any:
        direct = [i async for i in generate_later(3)]
        return direct, await generate.submit(3), await generate_later.submit(3)

    assert run(main()) == ([0, 2, 4],) * 3
    assert generate.submit(3).result() == [0, 2, 4]  # type: ignore[comparison-overlap]  # it gives something else than it is typed


def test_a_generator_flow_knows_where_it_is_between_its_yields(run: Run) -> None:
    @flow
    def generate() -> Iterator[Any]:
        yield runtime.flow_run.name
        yield runtime.flow_run.name

    seen: list[Any] = []
    for name in generate():
        seen.append(name)
        assert runtime.flow_run.name is None
    assert seen[0] == seen[1]
    assert seen[0] is not None


def test_a_generator_flow_fails_by_what_it_raises_and_by_unseen_failures() -> None:
    @task
    def bad() -> None:
        raise ValueError("boom")

    @flow
    def raises() -> Iterator[int]:
        yield 1
        raise KeyError("mine")

    @flow
    def unseen() -> Iterator[int]:
        bad.submit()
        yield 1

    with pytest.raises(KeyError, match="mine"):
        list(raises())
    with pytest.raises(FailedRun, match="never looked at: bad-0"):
        list(unseen())


# --- what their callers do with both --------------------------------------------------------------------------------


def watched(decorator: Any, states: list[str], fn: Any) -> Any:
    """A task or flow whose runs note how they ended."""

    def note(_: Any, __: Any, state: State) -> None:
        states.append(state.name)

    return decorator(on_completion=[note], on_failure=[note])(fn)


def conversation() -> Generator[str, str, str]:
    """Says back what it is told, until it is told to fail."""
    told = "nothing"
    while True:
        try:
            told = yield told
        except KeyError as error:
            told = f"caught {error}"


async def conversation_later() -> AsyncGenerator[str, str]:
    told = "nothing"
    while True:
        try:
            told = yield told
        except KeyError as error:
            told = f"caught {error}"


def obstinate() -> Iterator[int]:
    try:
        yield 1
    finally:
        raise ValueError("not so")


async def obstinate_later() -> AsyncIterator[int]:
    try:
        yield 1
    finally:
        raise ValueError("not so")


@pytest.mark.parametrize("decorator", [task, flow])
def test_what_is_sent_and_thrown_reaches_the_generator(decorator: Any, run: Run) -> None:
    states: list[str] = []
    talk = watched(decorator, states, conversation)()
    assert [next(talk), talk.send("a"), talk.throw(KeyError("b")), talk.send("c")] == [
        "nothing",
        "a",
        "caught 'b'",
        "c",
    ]
    with pytest.raises(ValueError, match="too much"):
        talk.throw(ValueError("too much"))

    async def main() -> None:
        talk = watched(decorator, states, conversation_later)()
        assert [await anext(talk), await talk.asend("a"), await talk.athrow(KeyError("b"))] == [
            "nothing",
            "a",
            "caught 'b'",
        ]
        with pytest.raises(ValueError, match="too much"):
            await talk.athrow(ValueError("too much"))

    run(main())
    assert states == ["Failed", "Failed"]


@pytest.mark.parametrize("decorator", [task, flow])
def test_a_generator_that_fails_when_it_is_left_has_failed(decorator: Any, run: Run) -> None:
    states: list[str] = []
    left = watched(decorator, states, obstinate)()
    next(left)
    with pytest.raises(ValueError, match="not so"):
        left.close()

    async def main() -> None:
        left = watched(decorator, states, obstinate_later)()
        await anext(left)
        with pytest.raises(ValueError, match="not so"):
            await left.aclose()

    run(main())
    assert states == ["Failed", "Failed"]


@pytest.mark.parametrize("decorator", [task, flow])
def test_a_generator_that_is_left_early_is_closed_and_ends_well(decorator: Any, run: Run) -> None:
    states: list[str] = []
    closed: list[str] = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append("sync")

    async def endless_later() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append("async")

    left = watched(decorator, states, endless)()
    assert next(left) == 1
    left.close()

    async def main() -> None:
        left = watched(decorator, states, endless_later)()
        assert await anext(left) == 1
        await left.aclose()

    run(main())
    assert closed == ["sync", "async"]
    assert states == ["Completed", "Completed"]


def test_a_generator_flow_that_is_collected_on_the_loops_thread_waits_beside_it() -> None:
    may_end, has_ended = threading.Event(), threading.Event()
    states: list[str] = []
    left: list[Iterator[int]] = []

    @task
    def hold() -> None:
        may_end.wait()

    def starts_something() -> Iterator[int]:
        hold.submit()
        yield 1

    def note(_: Any, __: Any, state: State) -> None:
        states.append(state.name)
        has_ended.set()

    @task
    async def collect() -> None:
        left.clear()

    left.append(flow(on_completion=[note])(starts_something)())
    next(left[0])
    collect.submit().result()
    assert states == []
    may_end.set()
    has_ended.wait()
    assert states == ["Completed"]


# --- options of generators that are called directly -------------------------------------------------------------------


@pytest.mark.parametrize("decorator", [task, flow])
def test_a_generators_own_code_is_timed_and_not_its_caller(decorator: Any) -> None:
    def spins() -> Iterator[int]:
        yield 1
        while True:
            pass

    async def naps(seconds: float) -> AsyncIterator[int]:
        for i in range(3):
            await asyncio.sleep(seconds)
            yield i

    with pytest.raises(RunTimeoutError):
        list(decorator(timeout_seconds=0.05)(spins)())

    async def main(seconds: float) -> int:
        taken = 0
        async for _ in decorator(timeout_seconds=10)(naps)(seconds):
            taken += 1
            await asyncio.sleep(60)
        return taken

    assert run_virtual(main(3)) == 3
    with pytest.raises(RunTimeoutError):
        run_virtual(main(4))


@pytest.mark.parametrize("decorator", [task, flow])
def test_a_generator_is_tried_again_until_it_has_given_something(decorator: Any, run: Run) -> None:
    begun: list[int] = []

    def at_last(items: int) -> Iterator[int]:
        begun.append(1)
        yield from range(items)
        if len(begun) < 3:
            raise ValueError("not yet")
        yield len(begun)

    async def at_last_later(items: int) -> AsyncIterator[int]:
        for item in at_last(items):
            yield item

    async def taken(items: int) -> list[int]:
        return [item async for item in decorator(retries=2)(at_last_later)(items)]

    def taken_here(items: int) -> list[int]:
        return list(decorator(retries=2)(at_last)(items))

    def taken_later(items: int) -> Any:
        return run(taken(items))

    for take in (taken_here, taken_later):
        begun.clear()
        assert take(0) == [3]
        begun.clear()
        with pytest.raises(ValueError, match="not yet"):
            take(1)  # else the caller would get the first item twice
        assert len(begun) == 1


def test_a_generator_holds_a_slot_while_its_code_runs_and_not_while_its_caller_is_busy(run: Run) -> None:
    @task(tags=["narrow"])
    def numbers() -> Iterator[int]:
        yield from range(2)

    @task(tags=["narrow"])
    async def numbers_later() -> AsyncIterator[int]:
        for i in range(2):
            inside.append(i)
            await asyncio.sleep(1)
            assert len(inside) == 1
            inside.clear()
            yield i

    @task(tags=["narrow"])
    def keep(number: int) -> int:
        return number

    inside: list[int] = []

    async def both() -> Any:
        async def taken() -> list[int]:
            return [i async for i in numbers_later()]

        return await asyncio.gather(taken(), taken())

    set_limit("tag:narrow", 1)
    try:
        assert [keep(i) for i in numbers()] == [0, 1]
        assert run_virtual(both()) == [[0, 1], [0, 1]]
    finally:
        remove_limit("tag:narrow")


def test_a_generator_waits_for_what_it_is_told_to(run: Run) -> None:
    @flow
    def items() -> Iterator[int]:
        yield 1

    @flow
    async def items_later() -> AsyncIterator[int]:
        yield 1

    async def main() -> None:
        async for _ in items_later(wait_for=[fail.submit()]):
            pass

    for it in (items, task(items.fn)):
        with pytest.raises(NotReadyRun, match="fail-"):
            list(it(wait_for=[fail.submit()]))
    with pytest.raises(NotReadyRun, match="fail-"):
        run(main())


@pytest.mark.parametrize("decorator", [task, flow])
def test_a_generators_state_cannot_be_had_before_its_items(decorator: Any) -> None:
    it = decorator(conversation)
    with pytest.raises(ConfigurationError, match=r"\.submit\(\.\.\., return_state=True\)"):
        it(return_state=True)
    assert decorator(count.fn).submit(2, return_state=True).result() == [0, 1]
