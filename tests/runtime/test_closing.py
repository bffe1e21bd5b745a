"""Runtimes that are closed from inside, and what is called in one that was closed."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from upwell import Runtime, flow, task
from upwell.core.errors import CancelledRun, RuntimeClosedError

PATIENCE_SECONDS = 60.0
"""What has not ended by then never will."""


@task
async def stay() -> None:
    await asyncio.sleep(1000)


@task
def one() -> int:
    return 1


@flow
def submits() -> int:
    return one.submit().result()


@flow
def calls() -> int:
    return one()


@flow
def returns() -> int:
    return 1


@flow
async def returns_later() -> int:
    return 1


def outcome_in_thread(call: Callable[[], Any]) -> BaseException | None:
    """What it raises in another thread, which must end."""
    raised: list[BaseException | None] = []

    def outcome() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)
        else:
            raised.append(None)

    thread = threading.Thread(target=outcome, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert raised
    return raised[0]


@pytest.mark.parametrize("called", [submits, calls, returns])
def test_a_sync_flow_in_the_context_of_a_closed_runtime_is_refused(called: Any) -> None:
    with Runtime():
        context = contextvars.copy_context()
    for _ in range(2):
        assert isinstance(outcome_in_thread(lambda: context.run(called)), RuntimeClosedError)


def test_an_async_flow_is_refused_there_too() -> None:
    async def main() -> None:
        closed = asyncio.Event()

        async def later() -> None:
            await closed.wait()
            with pytest.raises(RuntimeClosedError):
                await returns_later()

        async with Runtime():
            running = asyncio.create_task(later())
        closed.set()
        await running

    asyncio.run(main())


def test_a_flow_whose_runtime_is_closed_while_it_runs_comes_to_its_end() -> None:
    begun, closed = threading.Event(), threading.Event()
    caught: list[BaseException] = []

    @flow
    def outlasts() -> int:
        begun.set()
        assert closed.wait(PATIENCE_SECONDS)
        for _ in range(2):
            with pytest.raises(RuntimeClosedError) as error:
                one.submit()
            caught.append(error.value)
        return 1

    with Runtime():
        context = contextvars.copy_context()
        ended: list[int] = []
        thread = threading.Thread(target=lambda: ended.append(context.run(outlasts)), daemon=True)
        thread.start()
        assert begun.wait(PATIENCE_SECONDS)
    closed.set()
    thread.join(PATIENCE_SECONDS)
    assert ended == [1]
    assert len(caught) == 2


async def closed_from(rt: Runtime, work: Any, others: list[Any]) -> Any:
    """How a run ends that closes its own runtime."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            return await work
        except CancelledRun as error:
            return str(error)
        finally:
            assert repr(rt) == "<Runtime closed>"
            await rt.aclose()
            assert all(other.state.is_cancelled() for other in others)


@pytest.mark.parametrize("kind", [task, flow])
def test_a_run_that_closes_its_own_runtime_is_cancelled_with_the_others(kind: Any) -> None:
    async def main() -> Any:
        async with Runtime() as rt:

            async def closes() -> None:
                await rt.aclose()

            others = [rt.submit(stay)]
            return await closed_from(rt, rt.submit(kind(closes)), others)

    assert "The runtime was closed" in asyncio.run(main())


def test_a_task_of_a_run_may_close_its_runtime() -> None:
    async def main() -> Any:
        async with Runtime() as rt:

            async def closes() -> None:
                async with asyncio.TaskGroup() as group:
                    group.create_task(rt.aclose())
                    group.create_task(asyncio.sleep(1000))

            return await closed_from(rt, rt.submit(flow(closes)), [])

    assert "The runtime was closed" in asyncio.run(main())


def test_a_hook_is_told_not_to_close_its_runtime(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> Any:
        async with Runtime() as rt:

            async def closes(*_: Any) -> None:
                await rt.aclose()

            async with asyncio.timeout(PATIENCE_SECONDS):
                await rt.submit(task(on_completion=[closes])(one.fn))
            assert repr(rt) == "<Runtime open>"

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert "cannot be closed from a hook" in caplog.text
