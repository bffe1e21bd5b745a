"""Context variables: inherited from where a run was started, its own from then on, and let go with it."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from contextvars import ContextVar
from typing import Any

import pytest

from upwell import flow, task
from upwell.engine.scope import CURRENT_SCOPE

VAR: ContextVar[str] = ContextVar("var", default="default")


@pytest.mark.parametrize("suspended", [False, True])
def test_context_variables_are_inherited_from_where_a_run_was_started(world: Any, suspended: bool) -> None:
    async def read() -> str:
        if suspended:
            await asyncio.sleep(0)
        return VAR.get()

    async def main() -> None:
        VAR.set("at the start")
        future = world.start(read)
        VAR.set("later")
        assert await future == "at the start"

    world.run(main)


@pytest.mark.parametrize("suspended", [False, True])
def test_what_a_run_sets_no_other_run_sees(world: Any, suspended: bool) -> None:
    async def change(name: str) -> str:
        before = VAR.get()
        VAR.set(name)
        if suspended:
            await asyncio.sleep(0)
        assert VAR.get() == name
        return before

    async def main() -> None:
        futures = [world.start(change, name) for name in "abcdef"]
        assert {await future for future in futures} == {"default"}
        assert VAR.get() == "default"

    world.run(main)


def test_the_runs_of_a_map_are_isolated_from_each_other(runs_only: Any) -> None:
    async def change(number: int) -> str:
        before = VAR.get()
        VAR.set(str(number))
        if number % 2:
            await asyncio.sleep(0)
        assert VAR.get() == str(number)
        return before

    async def main() -> None:
        VAR.set("of main")
        assert set(await task(change).map(range(100))) == {"of main"}

    runs_only.run(main)


def test_a_context_variable_can_be_reset_after_suspensions(world: Any) -> None:
    async def change() -> str:
        token = VAR.set("mine")
        for _ in range(3):
            await asyncio.sleep(0)
        VAR.reset(token)
        return VAR.get()

    async def main() -> None:
        for _ in range(3):
            assert await world.start(change) == "default"

    world.run(main)


def test_child_tasks_threads_and_callbacks_inherit_the_context_of_the_run(world: Any) -> None:
    async def child() -> str:
        return VAR.get()

    async def parent() -> tuple[str, ...]:
        VAR.set("of parent")
        loop = asyncio.get_running_loop()
        called: asyncio.Future[str] = loop.create_future()
        loop.call_soon(lambda: called.set_result(VAR.get()))
        return await asyncio.create_task(child()), await asyncio.to_thread(VAR.get), await called

    async def main() -> None:
        assert await world.start(parent) == ("of parent",) * 3

    world.run(main)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio.Task.get_context came with Python 3.12")
@pytest.mark.parametrize("suspended", [False, True])
def test_the_context_of_a_run_is_its_own_and_not_that_of_its_task(world: Any, suspended: bool) -> None:
    """A difference that docs/tasks.md states: the Task lends its name, the run brings its context."""

    async def look() -> Any:
        VAR.set("mine")
        if suspended:
            await asyncio.sleep(0)
        own: Any = asyncio.current_task()
        return own.get_context().get(VAR)

    async def main() -> None:
        assert await world.start(look) == ("mine" if world.manner == "plainly" else None)

    world.run(main)


def test_a_context_is_let_go_with_its_run(runs_only: Any) -> None:
    class Held:
        pass

    async def hold() -> None:
        held: ContextVar[Any] = ContextVar("held")
        held.set(Held())
        await asyncio.sleep(0)

    async def main() -> int:
        await task(hold).submit()
        await runs_only.turns()
        gc.collect()
        return sum(isinstance(found, Held) for found in gc.get_objects())

    assert runs_only.run(main) == 0


def test_a_flow_run_is_let_go_with_all_that_it_submitted(runs_only: Any) -> None:
    @task
    async def step(number: int) -> int:
        return number

    kept: list[weakref.ref[Any]] = []

    @flow
    async def main() -> None:
        kept.append(weakref.ref(CURRENT_SCOPE.get()))
        await step.submit(await step.submit(1))
        await step.submit(number=1)

    runs_only.run(main)
    gc.collect()
    assert [one() for one in kept] == [None]
