from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from upwell.concurrency import get_limit, remove_limit, set_limit
from upwell.concurrency.asyncio import concurrency
from upwell.engine.slots import take_all
from upwell.engine.steps import live_async
from upwell.testing import LeakError, cancel_everywhere


async def tidy() -> None:
    for _ in range(3):
        await asyncio.sleep(60)


def test_each_suspension_point_is_cancelled_as_often_as_asked() -> None:
    cancelled_at: list[int] = []

    async def scenario() -> None:
        passed = 0
        try:
            for _ in range(3):
                await asyncio.sleep(60)
                passed += 1
        except asyncio.CancelledError:
            cancelled_at.append(passed)
            raise

    assert cancel_everywhere(scenario) == 3
    assert cancelled_at == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_clean_up_is_cancelled_again() -> None:
    interrupted: list[int] = []

    async def scenario() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                interrupted.append(1)
                raise

    cancel_everywhere(scenario, times=(2,))
    assert interrupted


def test_the_check_is_made_after_each_run() -> None:
    checks: list[int] = []
    cancel_everywhere(tidy, times=(1,), check=lambda: checks.append(1))
    assert len(checks) == 1 + 3 + 1, "uncancelled, at each point, and where there is no point any more"


def _outliving() -> Any:
    async def scenario() -> None:
        left = asyncio.create_task(asyncio.sleep(1_000), name="child")
        await asyncio.sleep(60)
        left.cancel()

    return scenario()


def _never_awaited() -> Any:
    async def scenario() -> None:
        work = asyncio.sleep(1)
        await asyncio.sleep(60)
        await work

    return scenario()


def _leaving_a_slot() -> Any:
    async def scenario() -> None:
        await live_async(take_all("scenario", 1, None, True))
        await asyncio.sleep(60)
        limit = get_limit("scenario")
        assert limit is not None
        limit.give_back(limit.ticket(lambda: None))

    return scenario()


def _leaving_a_thread() -> Any:
    async def scenario() -> None:
        stop = threading.Event()
        threading.Thread(target=stop.wait, args=(4,), daemon=True).start()
        await asyncio.sleep(60)
        stop.set()

    return scenario()


def _failing() -> Any:
    async def scenario() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("turned into something else") from None

    return scenario()


def _unending() -> Any:
    async def scenario() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    return scenario()


@pytest.mark.parametrize(
    ("scenario", "words"),
    [
        (_outliving, "outlived the scenario: asyncio task 'child'"),
        (_never_awaited, "was never awaited"),
        (_leaving_a_slot, "limit 'scenario': 1 of 5 taken"),
        (_leaving_a_thread, "thread"),
        (_failing, "it ended with ValueError"),
        (_unending, "it never ended"),
    ],
)
def test_what_goes_wrong_is_said(scenario: Callable[[], Any], words: str) -> None:
    set_limit("scenario", 5)
    try:
        with pytest.raises(LeakError, match=words) as caught:
            cancel_everywhere(scenario, times=(1,))
    finally:
        remove_limit("scenario")
    assert "cancelled 1 time(s), first at point 1: in " in str(caught.value)
    assert __file__ in str(caught.value)


def test_a_scenario_that_holds_slots_gives_them_back() -> None:
    set_limit("scenario", 1)

    async def scenario() -> None:
        async with concurrency("scenario"):
            await asyncio.sleep(60)

    try:
        assert cancel_everywhere(scenario) == 1
    finally:
        remove_limit("scenario")
