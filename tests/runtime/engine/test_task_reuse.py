"""Tasks that wait for their next run: whoever has taken hold of one through `all_tasks` has hold of no later run."""

from __future__ import annotations

import asyncio
from typing import Any

from upwell import flow, task


@task
async def suspends(_: int) -> asyncio.Task[Any]:
    own = asyncio.current_task()
    assert own is not None
    await asyncio.sleep(0)
    return own


@task
async def gives_nothing(_: int) -> None:
    await asyncio.sleep(0)


async def idle_tasks() -> set[asyncio.Task[Any]]:
    """All tasks but this one, some of which have served runs, and wait for others."""
    await gives_nothing.map(range(20))
    for _ in range(3):
        await asyncio.sleep(0)
    own = asyncio.current_task()
    return {one for one in asyncio.all_tasks() if one is not own}


async def cancel_all() -> None:
    for one in await idle_tasks():
        one.cancel()


def test_a_task_that_somebody_holds_serves_nobody() -> None:
    @flow
    async def holds() -> bool:
        held = await idle_tasks()
        assert len(held) >= 20
        serving = await suspends.map(range(20))
        return held.isdisjoint(serving)

    assert asyncio.run(holds())


def test_a_task_that_was_cancelled_while_it_waited_for_work_serves_nobody() -> None:
    @flow
    async def cancels() -> int:
        await cancel_all()
        return len(await suspends.map(range(20)))

    assert asyncio.run(cancels()) == 20
