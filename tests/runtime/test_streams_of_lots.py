"""Streams whose inputs come fast: their runs are objects for one step each, and nobody can tell."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from upwell import Runtime, flow, history, task
from upwell.composition import close_journal
from upwell.engine.future import RunFuture
from upwell.settings import temporary_settings

pytestmark = pytest.mark.usefixtures("reads_all_at_once")

SIZE = 5_000


@task
async def double(number: int) -> int:
    return 2 * number


@task
async def sometimes_waits(number: int) -> int:
    if number % 7 == 0:
        await asyncio.sleep(0)
    return 2 * number


@task
async def refuses_one(number: int) -> int:
    if number == 300:
        raise ValueError("not 300")
    return number


def objects() -> int:
    gc.collect()
    return sum(type(one) is RunFuture for one in gc.get_objects())


def test_the_runs_under_way_are_no_objects() -> None:
    most, found = 0, list[int]()

    async def main() -> None:
        nonlocal most
        async for result in double.stream(range(SIZE)):
            found.append(result)
            if result % 1000 == 0:
                most = max(most, objects())

    before = objects()
    asyncio.run(main())
    assert found == [2 * n for n in range(SIZE)]
    assert most - before < 10


@pytest.mark.parametrize("at_once", [16, 100, 256, 10_000])
@pytest.mark.parametrize("slices", [0.002, 0.000_2])
def test_results_come_in_order_whether_runs_wait_or_not(
    at_once: int, slices: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upwell.engine.dispatch.SLICE_SECONDS", slices)

    async def main() -> list[int]:
        return [result async for result in sometimes_waits.stream(range(SIZE), max_at_once=at_once)]

    assert asyncio.run(main()) == [2 * n for n in range(SIZE)]


def test_sync_code_gets_them_too() -> None:
    with Runtime():
        assert list(sometimes_waits.stream(range(SIZE))) == [2 * n for n in range(SIZE)]


def test_what_has_returned_is_given_while_later_ones_wait() -> None:
    async def main() -> list[int]:
        go_on = asyncio.Event()

        @task
        async def waits_from_ten_on(number: int) -> int:
            if number >= 10:
                await go_on.wait()
            return number

        found: list[int] = []
        async for result in waits_from_ten_on.stream(range(200)):
            found.append(result)
            if result == 9:
                go_on.set()
        return found

    assert asyncio.run(main()) == list(range(200))


def test_a_failure_comes_in_its_turn() -> None:
    found: list[int] = []

    @flow
    async def takes() -> None:
        async for result in refuses_one.stream(range(SIZE)):
            found.append(result)

    with pytest.raises(ValueError, match="not 300"):
        asyncio.run(takes())
    assert found == list(range(300))


def test_a_stream_that_is_left_begins_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upwell.engine.dispatch.SLICE_SECONDS", 0.000_01)  # a few runs each
    begun = 0

    @task
    async def counts(number: int) -> int:
        nonlocal begun
        begun += 1
        return number

    @flow
    async def leaves() -> int:
        stream = aiter(counts.stream(range(SIZE)))
        await anext(stream)
        await stream.aclose()
        begun_before = begun
        for _ in range(100):
            await asyncio.sleep(0)
        return begun - begun_before

    assert asyncio.run(leaves()) == 0
    assert begun < 256


def test_every_run_is_recorded(tmp_path: Path) -> None:
    @flow
    async def takes() -> str:
        async for _ in sometimes_waits.stream(range(SIZE)):
            pass
        return "taken"

    assert recorded(tmp_path, takes) == {"Completed": SIZE}


def recorded(home: Path, some_flow: Any) -> Counter[str]:
    """How many task runs of a flow came to which end."""
    with temporary_settings(journal="on", home=str(home)):
        try:
            asyncio.run(some_flow())
            return Counter(run.state.type.value.capitalize() for run in _all_task_runs())
        finally:
            close_journal()


def _all_task_runs() -> Iterator[Any]:
    after = None
    while True:
        page = history.task_runs(limit=500, after=after)
        yield from page.items
        after = page.next
        if after is None:
            return
