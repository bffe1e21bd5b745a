"""Limits of the store as users have them: by name, by tag and as rates, made in one process and held in all."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tests.runtime.journal.hosts import Host, make_limit

from upwell import flow, task
from upwell.composition import close_journal
from upwell.concurrency import asyncio as on_loop
from upwell.concurrency import get_limit, remove_limit, set_limit
from upwell.concurrency.sync import concurrency, create_limit, delete_limit, list_limits, rate_limit, update_limit
from upwell.core.errors import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    ConfigurationError,
)
from upwell.futures import wait_async
from upwell.journal.sqlite import SqliteDatabase
from upwell.settings import temporary_settings
from upwell.testing import cancel_everywhere


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A store of the test's own, for the whole process."""
    with temporary_settings(journal="on", home=str(tmp_path)):
        yield tmp_path
        close_journal()


@pytest.fixture
def other(home: Path) -> Iterator[Host]:
    """Another process that shares it."""
    host = Host(lambda: SqliteDatabase(home / "upwell.db"))
    yield host
    host.close()


def taken(name: str) -> float:
    return {limit.name: limit.taken for limit in list_limits()}[name]


def free_again(name: str) -> None:
    until = time.monotonic() + 10
    while taken(name) and time.monotonic() < until:
        time.sleep(0.005)
    assert taken(name) == 0


def none_left(limit: str) -> Callable[[], None]:
    return lambda: free_again(limit)


# --- making them ------------------------------------------------------------------------------------------------------


def test_limits_are_made_changed_listed_and_removed(home: Path) -> None:
    create_limit("db", 5)
    create_limit("api", 10, slot_decay_per_second=2.0, active=False)
    assert [limit[:4] for limit in list_limits()] == [("api", 10, 2.0, False), ("db", 5, 0.0, True)]
    update_limit("db", 7)
    update_limit("api", slot_decay_per_second=0, active=True)
    assert [limit[:4] for limit in list_limits()] == [("api", 10, 0.0, True), ("db", 7, 0.0, True)]
    delete_limit("api")
    assert [limit.name for limit in list_limits()] == ["db"]


def test_limits_are_made_changed_listed_and_removed_on_a_loop(home: Path) -> None:
    async def main() -> None:
        await on_loop.create_limit("db", 5)
        await on_loop.update_limit("db", 6)
        assert [limit.slots for limit in await on_loop.list_limits()] == [6]
        await on_loop.delete_limit("db")
        assert await on_loop.list_limits() == []

    asyncio.run(main())


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: create_limit("db", 5), "has a limit 'db' already; update_limit"),
        (lambda: update_limit("unknown", 5), "no limit 'unknown'; create_limit"),
        (lambda: delete_limit("unknown"), "no limit 'unknown'"),
        (lambda: create_limit("new", -1), "zero or more"),
        (lambda: update_limit("db", -1), "zero or more"),
        (lambda: create_limit("new", 1, slot_decay_per_second=-1), "cannot decay"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(home: Path, act: Callable[[], None], said: str) -> None:
    create_limit("db", 1)
    with pytest.raises(ConfigurationError, match=said):
        act()
    assert [limit[:2] for limit in list_limits()] == [("db", 1)]


def test_without_a_store_there_are_no_such_limits_and_making_one_says_why() -> None:
    with concurrency("db"):
        rate_limit("api")
    with pytest.raises(ConfigurationError, match="UPWELL_JOURNAL=off"):
        create_limit("db", 5)


# --- by name ----------------------------------------------------------------------------------------------------------


def test_a_slot_that_another_process_holds_is_waited_for(other: Host) -> None:
    create_limit("db", 1)
    held = asyncio.run(other.take("db"))
    with pytest.raises(AcquireConcurrencySlotTimeoutError), concurrency("db", timeout_seconds=0.05):
        pass
    other.give_back("db", held)
    with concurrency("db"):
        assert taken("db") == 1
    free_again("db")


def test_a_limit_that_another_process_makes_is_known_from_the_first_use_on(other: Host) -> None:
    make_limit(other, "db", 1)
    with concurrency("db", strict=True), pytest.raises(AcquireConcurrencySlotTimeoutError):
        asyncio.run(_take_on_loop("db", 0.05))


async def _take_on_loop(name: str, timeout_seconds: float) -> None:
    async with on_loop.concurrency(name, timeout_seconds=timeout_seconds):
        pass


def test_an_unknown_name_lets_everybody_through_unless_strict(home: Path) -> None:
    with concurrency("unknown"):
        pass
    with pytest.raises(ConcurrencySlotAcquisitionError, match="create_limit"), concurrency("unknown", strict=True):
        pass


def test_more_slots_than_there_are_is_refused(home: Path) -> None:
    create_limit("db", 2)
    with pytest.raises(ConfigurationError, match="which has 2"), concurrency("db", 3):
        pass


def test_a_limit_of_the_process_goes_before_one_of_the_store(home: Path) -> None:
    create_limit("db", 1)
    set_limit("db", 2)
    try:
        with concurrency("db"), concurrency("db"):
            assert taken("db") == 0
    finally:
        remove_limit("db")
    assert get_limit("db") is None


def test_rates_of_the_store_are_waited_for(home: Path) -> None:
    create_limit("api", 1, slot_decay_per_second=20)
    began = time.monotonic()
    for _ in range(4):
        rate_limit("api")
    assert time.monotonic() - began >= 0.14
    create_limit("db", 1)
    with pytest.raises(ConfigurationError, match="bounds no rate"):
        rate_limit("db")


def test_a_wait_for_the_store_may_be_cancelled_anywhere(home: Path) -> None:
    create_limit("db", 1)

    async def one(act: Callable[[], Awaitable[None]]) -> None:
        async with on_loop.concurrency("db"):
            await act()

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(one(lambda: asyncio.sleep(0.001)))
        async with on_loop.concurrency("db"):
            await asyncio.sleep(0)

    points = cancel_everywhere(scenario, times=(1, 2), check=none_left("db"), loop_factory=asyncio.new_event_loop)
    assert points >= 3


# --- by tag -----------------------------------------------------------------------------------------------------------


def test_a_tag_limit_of_the_store_bounds_the_task_runs_of_all_processes(other: Host) -> None:
    create_limit("tag:narrow", 2)
    running = most = 0
    both_run = asyncio.Event()
    both_run.set()

    @task(tags=["narrow"])
    async def one(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 2:
            both_run.set()
        await both_run.wait()
        await asyncio.sleep(0.002)
        running -= 1

    @flow
    async def all_of_them() -> None:
        await one.map(range(20))
        await one(1)  # a direct call, too

    async def main() -> None:
        held = await other.take("tag:narrow")  # one is left
        await all_of_them()
        assert most == 1
        other.give_back("tag:narrow", held)
        await asyncio.to_thread(free_again, "tag:narrow")
        both_run.clear()  # from here a run that is let in waits for another beside it
        await all_of_them()

    asyncio.run(main())
    assert most == 2
    free_again("tag:narrow")


def test_a_run_that_can_never_have_its_slot_crashes_and_says_why(other: Host) -> None:
    create_limit("tag:narrow", 1)

    @task(tags=["narrow"])
    async def one(_: int) -> None: ...

    @flow
    async def waits() -> list[tuple[str, str | None]]:
        held = await other.take("tag:narrow")
        futures = one.map(range(3))
        other.fetch("UPDATE processes SET state = 'lost' WHERE id <> :id RETURNING id", id=other.process.id)
        other.give_back("tag:narrow", held)
        await wait_async(futures)
        return [(future.state.name, future.state.message) for future in futures]

    for name, message in asyncio.run(waits()):
        assert name == "Crashed"
        assert re.search("was declared dead|journal of this process has ended", message or "")


def test_a_run_that_waits_for_the_store_is_cancelled_with_its_flow(home: Path) -> None:
    create_limit("tag:narrow", 1)

    @task(tags=["narrow"])
    async def long(_: int) -> None:
        await asyncio.sleep(60)

    @flow(timeout_seconds=0.2)
    async def hasty() -> None:
        await long.map(range(5))

    with pytest.raises(TimeoutError):
        asyncio.run(hasty())
    free_again("tag:narrow")
