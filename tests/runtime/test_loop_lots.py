"""Large maps of coroutines: their runs are objects while they are stepped; nobody can tell that they are none after."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Generator
from contextlib import contextmanager
from contextvars import Context, copy_context
from pathlib import Path
from typing import Any

import pytest

import upwell
from upwell import Runtime, flow, history, task
from upwell.composition import close_journal
from upwell.core.states import StateType
from upwell.engine.future import CURRENT_RUN, RunFuture
from upwell.engine.loop_lot import LoopLot
from upwell.engine.lot import PART
from upwell.engine.settle import complete_columns
from upwell.futures import FutureList, LotFutures, wait_async
from upwell.settings import temporary_settings

MANY = 3 * PART + 7


@task
async def double(number: int) -> int:
    return 2 * number


def of_a_lot(futures: FutureList[Any]) -> bool:
    return type(futures) is LotFutures


@contextmanager
def recorded(home: Path) -> Generator[None]:
    with temporary_settings(journal="on", home=str(home)):
        try:
            yield
        finally:
            close_journal()


def test_runs_that_return_and_that_nobody_looks_at_are_no_objects_any_more() -> None:
    with Runtime():
        futures = double.map(range(MANY))
        assert futures.result() == [2 * n for n in range(MANY)]
        assert of_a_lot(futures)
        gc.collect()
        assert sum(type(one) is RunFuture for one in gc.get_objects()) < PART
        assert [future.result() for future in futures[-3:]] == [2 * n for n in range(MANY - 3, MANY)]


def test_few_runs_are_objects_from_the_start() -> None:
    with Runtime():
        futures = double.map(range(20))
        assert not of_a_lot(futures)
        assert futures.result() == [2 * n for n in range(20)]


def test_a_run_whose_code_keeps_its_context_stays_itself() -> None:
    contexts: dict[int, Context] = {}

    @task
    async def keeps(number: int) -> int:
        if number % 100 == 0:
            contexts[number] = copy_context()
        return number

    with Runtime():
        futures = keeps.map(range(MANY))
        assert futures.result() == list(range(MANY))
        assert of_a_lot(futures)
        assert all(context[CURRENT_RUN] is futures[number] for number, context in contexts.items())


def test_a_run_that_somebody_knows_before_it_begins_is_that_which_begins() -> None:
    @flow
    async def knowing() -> tuple[list[int], str]:
        futures: Any = double.map(range(MANY))
        one = futures.lot[PART + 3]
        results = await futures
        assert futures[PART + 3] is one
        return results, one.state.name

    assert asyncio.run(knowing()) == ([2 * n for n in range(MANY)], "Completed")


def test_code_that_looks_at_its_own_run_and_at_others_sees_them_as_they_are() -> None:
    futures: FutureList[Any] = FutureList()

    @task
    async def looks(number: int) -> tuple[str, str, str] | None:
        if number != PART + 100:
            return None
        run = CURRENT_RUN.get()
        assert futures[number] is run
        return futures[number - 1].state.name, futures[number].state.name, futures[number + 1].state.name

    @flow
    async def looking() -> Any:
        nonlocal futures
        futures = looks.map(range(MANY))
        return await futures

    assert asyncio.run(looking())[PART + 100] == ("Completed", "Running", "Pending")
    assert [future.state.name for future in futures] == ["Completed"] * MANY


def test_who_waits_for_another_of_the_same_map_gets_its_result() -> None:
    futures: FutureList[int] = FutureList()

    @task
    async def waits(number: int) -> int:
        return number + (await futures[number + PART + 1] if number == 3 else 0)

    @flow
    async def waiting() -> list[int]:
        nonlocal futures
        futures = waits.map(range(MANY))
        return await futures

    expected = list(range(MANY))
    expected[3] += 3 + PART + 1
    assert asyncio.run(waiting()) == expected


@pytest.mark.parametrize("every", [1, 2, 40, 2000])
def test_runs_that_suspend_return_like_the_others(every: int) -> None:
    @task
    async def pauses(number: int) -> int:
        if number % every == 0:
            await asyncio.sleep(0)
        return number

    @flow
    async def pausing() -> list[int]:
        return await pauses.map(range(MANY))

    assert asyncio.run(pausing()) == list(range(MANY))


@task
async def refuses_some(number: int) -> int:
    if number in (5, PART + 5, MANY - 1):
        raise ValueError(f"not {number}")
    return number


def test_failures_are_raised_and_the_others_have_their_results() -> None:
    @flow
    async def failing() -> Any:
        futures = refuses_some.map(range(MANY))
        with pytest.raises(ValueError, match="not 5"):
            await futures
        return [future.state.name for future in (await wait_async(futures)).done]

    names = asyncio.run(failing())
    assert [number for number, name in enumerate(names) if name == "Failed"] == [5, PART + 5, MANY - 1]
    assert names.count("Completed") == MANY - 3


def test_failures_outside_of_a_flow_are_told_to_whoever_waits() -> None:
    with Runtime():
        futures = refuses_some.map(range(MANY))
        futures.wait()
        for future in futures:
            future.wait()
        assert [future.state.name for future in futures].count("Failed") == 3


def test_a_run_that_has_cancelled_itself_and_returns_is_cancelled() -> None:
    @task
    async def cancels_itself(number: int) -> int:
        if number == 7:
            current = asyncio.current_task()
            assert current is not None
            current.cancel()
        return number

    with Runtime():
        futures = cancels_itself.map(range(MANY))
        futures.wait()
        assert [n for n, future in enumerate(futures) if future.state.is_cancelled()] == [7]


def test_whoever_looks_between_the_end_of_a_run_and_its_being_let_go_sees_it_ended() -> None:
    @flow
    async def looks_meanwhile() -> Any:
        futures: Any = double.map(range(PART))
        lot: LoopLot = futures.lot
        lot.next = 1
        run: RunFuture[int] = RunFuture(lot.call, lot.first, 0)
        lot.stepped = run
        lot.values[0], lot.started[0], lot.ended[0] = 0, 1.0, 2.0
        assert lot[0] is run
        assert not lot.stays(run)
        lot.have_ended(0, [])
        complete_columns(lot, 0, 1, [])
        assert await futures == [2 * n for n in range(PART)]
        return run.state.name

    assert asyncio.run(looks_meanwhile()) == "Completed"


def test_whoever_waits_for_a_first_step_is_told_when_all_are_objects() -> None:
    told: list[str] = []

    @flow
    async def waits_for_one() -> list[int]:
        futures: Any = double.map(range(PART))
        lot: LoopLot = futures.lot
        lot.when_stepped(3, lambda: told.append("stepped"))
        runs = lot.rest()
        assert told == ["stepped"]
        lot.call.scope.engine.dispatcher.extend(runs)  # type: ignore[attr-defined]
        results: list[int] = await futures
        return results

    assert asyncio.run(waits_for_one()) == [2 * n for n in range(PART)]


def test_a_failure_that_nobody_looks_at_fails_the_flow() -> None:
    @flow
    async def careless() -> None:
        refuses_some.map(range(MANY))

    state = asyncio.run(_state_of(careless))
    assert state.type is StateType.FAILED
    assert "3" in str(state.message)


async def _state_of(some_flow: Any) -> Any:
    return await some_flow(return_state=True)


def test_runs_that_fail_are_tried_again() -> None:
    tried: list[int] = []

    @task(retries=2)
    async def unsteady(number: int) -> int:
        if number % 300 == 0:
            tried.append(number)
            if tried.count(number) < 3:
                raise ValueError(number)
        return number

    @flow
    async def steady() -> Any:
        futures = unsteady.map(range(MANY))
        return await futures, [futures[number].run_count for number in (0, 1, 300)]  # type: ignore[attr-defined]

    assert asyncio.run(steady()) == (list(range(MANY)), [3, 1, 3])


def test_what_is_recorded_is_what_happened(tmp_path: Path) -> None:
    @task
    async def various(number: int) -> int:
        if number == 700:
            raise ValueError("not this one")
        if number == 900:
            await asyncio.sleep(0)
        if number == 1000:
            upwell.get_run_logger().info("a thousand")
        return number

    @flow
    async def variety() -> None:
        await wait_async(various.map(range(MANY)))

    with recorded(tmp_path):
        asyncio.run(_state_of(variety))
        run = history.flow_runs().items[0]
        counted = {state: len(_all(state)) for state in ("COMPLETED", "FAILED")}
        assert counted == {"COMPLETED": MANY - 1, "FAILED": 1}
        assert {one.inputs for one in _all("COMPLETED")} == {f"number={n}" for n in range(MANY) if n != 700}
        assert all(one.start_time <= one.end_time for one in _all("COMPLETED"))
        assert [line.message for line in history.logs(run.id) if line.message == "a thousand"] == ["a thousand"]


def test_it_is_recorded_without_anybody_looking(tmp_path: Path) -> None:
    @flow
    async def plain() -> int:
        return sum(await double.map(range(MANY)))

    with recorded(tmp_path):
        assert asyncio.run(plain()) == MANY * (MANY - 1)
        runs = _all("COMPLETED")
        assert {one.inputs for one in runs} == {f"number={n}" for n in range(MANY)}
        assert {one.run_count for one in runs} == {1}


def _all(state: str) -> list[Any]:
    found: list[Any] = []
    after = None
    while True:
        page = history.task_runs(state=state, limit=500, after=after)
        found += page.items
        after = page.next
        if after is None:
            return found


def test_a_flow_that_is_cancelled_cancels_those_that_have_not_begun() -> None:
    begun = threading.Event()
    futures: FutureList[int] = FutureList()

    @task
    async def stops_at(number: int) -> int:
        if number == PART + 50:
            begun.set()
            await asyncio.sleep(3600)
        return number

    @flow
    async def endless() -> None:
        nonlocal futures
        futures = stops_at.map(range(MANY))
        await futures

    async def main() -> None:
        running = asyncio.create_task(endless())
        while not begun.is_set():
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    names = [future.state.name for future in futures]
    assert set(names) == {"Completed", "Cancelled"}
    assert names[PART + 50] == "Cancelled"


@pytest.mark.parametrize("part", [slice(None), slice(700, 900)])
def test_threads_may_look_while_the_runs_are_stepped(part: slice) -> None:
    def look(futures: FutureList[int], seen: list[list[Any]]) -> None:
        seen.append(futures[part])

    with Runtime():
        for _ in range(5):
            futures = double.map(range(MANY))
            seen: list[list[Any]] = []
            threads = [threading.Thread(target=look, args=(futures, seen)) for _ in range(3)]
            for thread in threads:
                thread.start()
            results = futures.result()
            for thread in threads:
                thread.join()
            assert results == [2 * n for n in range(MANY)]
            assert all(one == seen[0] for one in seen)  # the same objects
            assert [future.result() for future in seen[0]] == results[part]


def test_a_lot_is_let_go_with_its_futures() -> None:
    made: list[weakref.ref[Any]] = []

    @flow
    async def forgetful() -> int:
        futures = double.map(range(MANY))
        assert isinstance(futures, LotFutures)
        assert isinstance(futures.lot, LoopLot)
        made.append(weakref.ref(futures.lot))
        return len(await futures)

    gc.disable()
    try:
        assert asyncio.run(forgetful()) == MANY
    finally:
        gc.enable()
    gc.collect()
    assert made[0]() is None


def test_a_loop_that_awaits_elsewhere_gets_the_results() -> None:
    async def elsewhere(futures: Awaitable[list[int]]) -> list[int]:
        return await futures

    with Runtime():
        assert asyncio.run(elsewhere(double.map(range(MANY)))) == [2 * n for n in range(MANY)]
