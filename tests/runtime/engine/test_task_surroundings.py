"""Timeouts, groups, cancel scopes and generators behave in a run as in an asyncio Task."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import anyio
import anyio.to_thread
import pytest


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def _time_out_by_timeout() -> None:
    async with asyncio.timeout(0.001):
        await _for_ever()


async def _time_out_at() -> None:
    async with asyncio.timeout_at(asyncio.get_running_loop().time()):
        await _for_ever()


async def _time_out_by_wait_for() -> None:
    await asyncio.wait_for(_for_ever(), 0.001)


async def _time_out_nested() -> None:
    async with asyncio.timeout(0.001):
        async with asyncio.timeout(60):
            await _for_ever()


@pytest.mark.parametrize("suspended", [False, True])
@pytest.mark.parametrize("wait", [_time_out_by_timeout, _time_out_at, _time_out_by_wait_for, _time_out_nested])
def test_timeouts_end_the_wait_and_leave_no_cancellation_behind(world: Any, suspended: bool, wait: Any) -> None:
    async def time_out() -> int:
        if suspended:
            await asyncio.sleep(0)
        own = asyncio.current_task()
        assert own is not None
        with pytest.raises(TimeoutError):
            await wait()
        assert not own.cancelling()
        await asyncio.sleep(0)
        return 1

    async def main() -> None:
        for _ in range(3):
            assert await world.start(time_out) == 1

    world.run(main)


def test_a_timeout_that_is_not_reached_leaves_nothing_that_fires_later(world: Any) -> None:
    async def be_quick() -> None:
        with suppress(TimeoutError):  # on a machine that stands still; it has fired then
            async with asyncio.timeout(0.1):
                await asyncio.sleep(0)

    async def last() -> str:
        await asyncio.sleep(0.12)
        return "undisturbed"

    async def main() -> None:
        for _ in range(3):
            await world.start(be_quick)
        assert await world.start(last) == "undisturbed"

    world.run(main)


@pytest.mark.parametrize("suspended", [False, True])
def test_a_task_group_cancels_its_children_and_groups_their_errors(world: Any, suspended: bool) -> None:
    ended: list[str] = []

    async def sibling() -> None:
        try:
            await _for_ever()
        except asyncio.CancelledError:
            ended.append("sibling")
            raise

    async def fail(error: Exception) -> None:
        raise error

    async def gather() -> str:
        if suspended:
            await asyncio.sleep(0)
        own = asyncio.current_task()
        assert own is not None
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012  # the group is what raises
            async with asyncio.TaskGroup() as group:
                group.create_task(sibling())
                group.create_task(fail(KeyError("a")))
                group.create_task(fail(ValueError("b")))
                try:
                    await _for_ever()
                except asyncio.CancelledError:
                    ended.append("body")
                    raise
        assert not own.cancelling()
        await asyncio.sleep(0)
        return " ".join(type(error).__name__ for error in caught.value.exceptions)

    async def main() -> None:
        assert await world.start(gather) == "KeyError ValueError"
        assert sorted(ended) == ["body", "sibling"]

    world.run(main)


def test_an_exception_group_leaves_a_run_whole(world: Any) -> None:
    async def fail(error: Exception) -> None:
        raise error

    async def gather() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(KeyError("a")))
            group.create_task(fail(ValueError("b")))

    async def main() -> None:
        seen: list[type] = []
        try:
            await world.start(gather)
        except* KeyError:
            seen.append(KeyError)
        except* ValueError:
            seen.append(ValueError)
        assert seen == [KeyError, ValueError]

    world.run(main)


def test_what_is_shielded_goes_on_when_the_run_is_cancelled(world: Any) -> None:
    kept: list[asyncio.Task[Any]] = []
    finished: list[int] = []

    async def inner() -> None:
        await asyncio.sleep(0.001)
        finished.append(1)

    async def shield() -> None:
        own = asyncio.current_task()
        assert own is not None
        kept.append(own)
        work = asyncio.ensure_future(inner())
        try:
            await asyncio.shield(work)
        finally:
            await work

    async def main() -> None:
        future = world.start(shield)
        await world.turns(2)
        kept[0].cancel()
        assert await world.was_cancelled(future)

    world.run(main)
    assert finished == [1]


# --- anyio, sniffio -----------------------------------------------------------------------------------------


async def _move_on() -> str:
    with anyio.move_on_after(0.001) as scope:
        await anyio.sleep(10)
    return f"cancelled: {scope.cancelled_caught}"


async def _fail_after() -> str:
    try:
        with anyio.fail_after(0.001):
            await anyio.sleep(10)
    except TimeoutError:
        return "timed out"
    return "not timed out"


async def _cancel_own_scope() -> str:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anyio.sleep(10)
    await anyio.sleep(0)
    return f"cancelled: {scope.cancelled_caught}"


async def _shield_in_scope() -> str:
    heard: list[str] = []
    with anyio.CancelScope() as outer:
        with anyio.CancelScope(shield=True):
            outer.cancel()
            await anyio.sleep(0.001)
            heard.append("shielded")
        await anyio.sleep(10)
        heard.append("not cancelled")
    return " ".join(heard)


async def _task_group() -> str:
    event, heard = anyio.Event(), list[str]()

    async def child(name: str) -> None:
        await event.wait()
        heard.append(name)
        if name == "c":
            await anyio.sleep(10)

    async with anyio.create_task_group() as group:
        for name in "abc":
            group.start_soon(child, name)
        await anyio.lowlevel.checkpoint()
        event.set()
        await anyio.sleep(0.001)
        group.cancel_scope.cancel()
    return "".join(sorted(heard))


async def _task_group_fails() -> str:
    async def fail() -> None:
        raise KeyError("a")

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            await anyio.sleep(10)
    except ExceptionGroup as error:
        return repr(error.exceptions)
    return "no error"


async def _limiter() -> str:
    limiter, most = anyio.CapacityLimiter(2), [0]

    async def use() -> None:
        async with limiter:
            most.append(int(limiter.borrowed_tokens))
            await anyio.sleep(0)

    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(use)
        async with limiter:
            await anyio.sleep(0)
    return f"at most {max(most)}"


async def _to_thread() -> str:
    return await anyio.to_thread.run_sync(lambda: f"in {threading.main_thread() is threading.current_thread()}")


async def _who() -> str:
    return str(anyio.get_current_task().id == id(asyncio.current_task()))


@pytest.mark.parametrize("suspended", [False, True])
@pytest.mark.parametrize(
    ("scenario", "answer"),
    [
        (_move_on, "cancelled: True"),
        (_fail_after, "timed out"),
        (_cancel_own_scope, "cancelled: True"),
        (_shield_in_scope, "shielded"),
        (_task_group, "abc"),
        (_task_group_fails, "(KeyError('a'),)"),
        (_limiter, "at most 2"),
        (_to_thread, "in False"),
        (_who, "True"),
    ],
)
def test_anyio_works_inside_a_run(world: Any, scenario: Any, answer: str, suspended: bool) -> None:
    async def use() -> str:
        if suspended:
            await asyncio.sleep(0)
        own = asyncio.current_task()
        assert own is not None
        answer: str = await scenario()
        assert not own.cancelling()
        return answer

    async def main() -> None:
        first = world.start(use)
        others = [world.start(use) for _ in range(3)]
        assert [await future for future in (first, *others)] == [answer] * 4

    world.run(main)


def test_a_capacity_limiter_keeps_runs_that_share_it_apart(world: Any) -> None:
    async def use(limiter: anyio.CapacityLimiter) -> float:
        async with limiter:
            await anyio.sleep(0)
            return limiter.borrowed_tokens

    async def main() -> None:
        limiter = anyio.CapacityLimiter(3)
        futures = [world.start(use, limiter) for _ in range(10)]
        assert max([await future for future in futures]) <= 3

    world.run(main)


@pytest.mark.parametrize("suspended", [False, True])
def test_sniffio_finds_asyncio(world: Any, suspended: bool) -> None:
    sniffio = pytest.importorskip("sniffio")

    async def look() -> str:
        if suspended:
            await asyncio.sleep(0)
        return str(sniffio.current_async_library())

    async def main() -> None:
        assert await world.start(look) == "asyncio"

    world.run(main)


# --- tasks, executors, generators of its own ------------------------------------------------------------------


def test_a_run_can_create_tasks_of_its_own_that_outlast_a_suspension(world: Any) -> None:
    async def child(number: int) -> int:
        await asyncio.sleep(0)
        return number

    async def parent() -> list[int]:
        children = [asyncio.create_task(child(number)) for number in range(5)]
        await asyncio.sleep(0)
        assert asyncio.current_task() not in children
        return await asyncio.gather(*children)

    async def main() -> None:
        assert await world.start(parent) == [0, 1, 2, 3, 4]

    world.run(main)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_tasks_created_in_a_run_leave_the_current_task_as_it_was(world: Any, loop_name: str) -> None:
    if loop_name == "uvloop":
        pytest.skip("uvloop hands arguments to task factories that the eager one of some Pythons does not take")

    async def child(suspended: bool) -> Any:
        if suspended:
            await asyncio.sleep(0)
        return asyncio.current_task()

    async def parent() -> None:
        own = asyncio.current_task()
        for suspended in (False, True, False):
            eager = asyncio.create_task(child(suspended))
            assert asyncio.current_task() is own
            assert await eager is eager

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory", None))
        await world.start(parent)
        await world.start(parent)

    world.run(main)


def test_run_in_executor_works_inside_a_run(world: Any) -> None:
    async def away() -> bool:
        return await asyncio.get_running_loop().run_in_executor(None, threading.current_thread) is not (
            threading.current_thread()
        )

    async def main() -> None:
        assert await world.start(away)

    world.run(main)


def test_an_abandoned_async_generator_is_closed_by_the_loop(world: Any) -> None:
    closed: list[str] = []

    async def numbers(name: str) -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(name)

    async def abandon(suspended: bool) -> int:
        async for number in numbers("dropped"):
            if suspended:
                await asyncio.sleep(0)
            return number
        return 0

    async def close() -> None:
        generator = numbers("closed")
        await anext(generator)
        await generator.aclose()

    async def main() -> None:
        await world.start(close)
        for suspended in (False, True):
            assert await world.start(abandon, suspended) == 1
        gc.collect()
        await world.turns(20)
        assert sorted(closed) == ["closed", "dropped", "dropped"]

    world.run(main)


@pytest.mark.parametrize("warm", [False, True])
def test_nothing_complains_in_debug_mode(world: Any, warm: bool, recwarn: pytest.WarningsRecorder) -> None:
    async def wait(number: int) -> int:
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
        await asyncio.create_task(asyncio.sleep(0))
        return number

    async def main() -> None:
        assert asyncio.get_running_loop().get_debug()
        futures = [world.start(wait, number) for number in range(20)]
        assert [await future for future in futures] == list(range(20))

    world.run(main, debug=True)
    gc.collect()
    assert not recwarn.list
