"""Streams that are left before their end: the rest is cancelled, the source closed, and nobody waits for them."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from tests.runtime.given import Run, double, double_later
from tests.runtime.test_streams import Counted, after

from upwell import Runtime, flow, task
from upwell.core.errors import RuntimeClosedError
from upwell.testing import run_virtual, virtual_clock

pytestmark = pytest.mark.usefixtures("reads_all_at_once")


# --- leaving early ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
def test_leaving_early_cancels_what_is_under_way_and_closes_the_source(ordered: bool) -> None:
    ended: list[str] = []

    @task
    async def stay(x: int) -> int:
        try:
            await asyncio.sleep(0 if x == 0 else 60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return x

    async def main() -> None:
        source = Counted()
        stream: Any = stay.stream(source.__aiter__(), max_at_once=4, ordered=ordered).__aiter__()
        assert await anext(stream) == 0
        await asyncio.sleep(0.1)
        await stream.aclose()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with virtual_clock() as clock:
        clock.run(main())
        assert clock.elapsed < 1
    assert ended
    assert set(ended) == {"cancelled"}


def test_leaving_a_sync_loop_early_cancels_the_rest() -> None:
    with virtual_clock() as clock:

        @flow
        def around() -> None:
            for x in after.stream([0, 1000, 1000]):
                assert x == 0
                break

        around()
        assert clock.elapsed < 1


def test_a_flow_that_leaves_a_stream_early_completes(run: Run) -> None:
    @flow
    async def around() -> int:
        async for x in double_later.stream(itertools.count(1)):
            return x
        raise AssertionError("never empty")

    assert run(around()) == 2


# --- streams that nobody takes to their end -------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_a_flow_ends_although_somebody_keeps_a_stream_that_it_left_open(ordered: bool, fails: bool, run: Run) -> None:
    kept: list[Any] = []

    @flow
    def leaves() -> None:
        kept.append(iter(double.stream(itertools.count(), max_at_once=4, ordered=ordered)))
        next(kept[0])
        if fails:
            raise KeyError("mine")

    @flow
    async def leaves_later() -> None:
        kept.append(aiter(after.stream(Counted(), max_at_once=4, ordered=ordered)))
        await anext(kept[1])
        if fails:
            raise KeyError("mine")

    assert leaves(return_state=True).is_failed() is fails
    with pytest.raises(
        RuntimeClosedError, match=f"stream of double: flow run .* {'failed' if fails else 'has returned'}"
    ):
        list(kept[0])

    async def main() -> None:
        assert (await leaves_later(return_state=True)).is_failed() is fails
        await kept[1].aclose()

    run_virtual(main())


def test_a_runtime_closes_although_somebody_keeps_a_stream_that_was_left_open(run: Run) -> None:
    async def main() -> None:
        async with Runtime():
            kept = aiter(double_later.stream(Counted(), max_at_once=4))
            await anext(kept)
        with pytest.raises(RuntimeClosedError, match="The runtime was closed"):
            async for _ in kept:
                pass

    run(main())


def test_what_a_left_stream_cancels_is_not_logged_as_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async for _ in after.stream([0, 60, 60], max_at_once=3):
            break

    run_virtual(main())
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_failures_of_what_was_not_taken_any_more_do_not_fail_the_flow(run: Run) -> None:
    async def odd(number: int) -> int:
        if number:
            raise ValueError(number)
        return number

    @flow
    async def leaves() -> int:
        async for number in task(odd).stream(range(100), max_at_once=50):
            return number
        raise AssertionError

    assert run(leaves()) == 0
