"""Limits of the store when things go wrong: processes that die or stop, a store that is away or in doubt."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.runtime.journal.hosts import Host, hosts, in_line, is_waiting, make_limit, settled, soon

from upwell.core.errors import ConcurrencySlotAcquisitionError
from upwell.journal import shared_limit
from upwell.journal.database import Database, Session, StoreDamaged, StoreUnavailable
from upwell.journal.processes import Process, this_process

MakeDatabase = Callable[[], Database]


# --- processes that die, or stop ----------------------------------------------------------------------------------


def dead_process(host: Host) -> Process:
    """One that is not there any more."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return Process(f"dead-{random.random()}", host.process.host, ended.pid, "1", 30.0)


def put_lease(host: Host, process: Process, state: str, place: int = 0) -> None:
    async def put(store: Any) -> None:
        await store.database.fetch(
            "register_process", id=process.id, host=process.host, pid=process.pid, pid_started=process.pid_started,
            seen=0, lease_until=30_000_000,
        )  # fmt: skip
        await store.database.fetch_text(
            "INSERT INTO leases (id, limit_name, process_id, holder, slots, state, place, since)"
            " VALUES (:id, 'db', :process_id, NULL, 1, :state, :place, 0)",
            id=f"{process.id}/1", process_id=process.id, state=state, place=place,
        )  # fmt: skip

    host.do(put)


@pytest.mark.parametrize("state", ["held", "waiting"])
def test_the_slots_of_a_dead_process_are_free_as_soon_as_others_look(make_database: MakeDatabase, state: str) -> None:
    with hosts(make_database, 1) as (host,):
        make_limit(host, "db", 1)
        put_lease(host, dead_process(host), state)

        async def body() -> None:
            host.give_back("db", await host.take("db"))

        soon(body())
        settled(host, [])


def test_who_is_stopped_while_it_is_its_turn_does_not_hold_up_the_others(
    make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_limit, "ABSENT_SECONDS", 0.5)
    with hosts(make_database, 1) as (host,):
        make_limit(host, "db", 1)
        here = this_process(30.0)  # is there, and will never take its turn
        put_lease(host, here, "waiting")

        async def body() -> None:
            began = time.monotonic()
            host.give_back("db", await host.take("db"))
            assert time.monotonic() - began > 0.4, "it had its turn"

        soon(body())


def test_a_process_that_was_declared_dead_gets_no_slots(make_database: MakeDatabase) -> None:
    with hosts(make_database, 2) as (one, zombie):
        make_limit(one, "db", 1)
        one.fetch("UPDATE processes SET state = 'lost' WHERE id = :id", id=zombie.process.id)

        async def body() -> None:
            with pytest.raises(ConcurrencySlotAcquisitionError, match="declared dead"):
                await zombie.take("db")

        soon(body())
        settled(one, [])


def test_a_process_that_ends_as_it_should_leaves_no_slots(make_database: MakeDatabase) -> None:
    with hosts(make_database, 2) as (one, other):
        make_limit(one, "db", 2)

        async def body() -> None:
            await other.take("db", 2)
            waiting = asyncio.create_task(other.take("db"))
            await in_line(one, 1)
            await asyncio.to_thread(other.close)
            with pytest.raises(ConcurrencySlotAcquisitionError, match="ended"):
                await waiting

        soon(body())
        settled(one, [])


def test_while_the_store_is_away_nobody_is_let_through_and_then_all_goes_on(make_database: MakeDatabase) -> None:
    with hosts(make_database, 1) as (host,):
        make_limit(host, "db", 1)
        database = host.store.database
        transaction, away = database.transaction, True

        def failing() -> Any:
            if away:
                raise StoreUnavailable("it is away")
            return transaction()

        database.transaction = failing  # type: ignore[method-assign]

        async def body() -> None:
            nonlocal away
            waiting = [asyncio.create_task(host.take("db")) for _ in range(2)]
            assert await is_waiting(waiting[0], 0.2)
            assert not waiting[1].done()
            away = False
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) == 1
            away = True
            host.give_back("db", done.pop().result())
            assert await is_waiting(next(task for task in waiting if not task.done()), 0.2)
            away = False
            for task in waiting:
                host.give_back("db", await task)

        soon(body())
        settled(host, [])


def test_a_store_that_refuses_for_good_fails_those_who_wait_and_keeps_no_slot(
    make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_limit, "LAST_RETRY_SECONDS", 0.05)
    with hosts(make_database, 2) as (host, other):
        make_limit(host, "db", 1)
        database = host.store.database
        transaction = database.transaction

        def damaged() -> Any:
            raise StoreDamaged("it is damaged")

        async def body() -> None:
            held = await host.take("db")
            database.transaction = damaged  # type: ignore[method-assign]
            with pytest.raises(ConcurrencySlotAcquisitionError, match="it is damaged"):
                await host.take("db")
            host.give_back("db", held)
            database.transaction = transaction  # type: ignore[method-assign]
            other.give_back("db", await other.take("db"))

        soon(body())
        settled(host, [])


def test_of_two_that_want_the_last_slot_at_the_same_moment_one_has_it(make_database: MakeDatabase) -> None:
    with hosts(make_database, 2) as all_:
        make_limit(all_[0], "db", 1)
        for host in all_:
            slow_to_commit(host)

        async def body() -> None:
            wanting = [asyncio.create_task(host.take("db")) for host in all_]
            _, others = await asyncio.wait(wanting, return_when=asyncio.FIRST_COMPLETED)
            (other,) = others
            assert await is_waiting(other, 0.5)
            other.cancel()

        soon(body())


def slow_to_commit(host: Host) -> None:
    database = host.store.database
    transaction = database.transaction

    @asynccontextmanager
    async def slow() -> AsyncGenerator[Session]:
        async with transaction() as session:
            yield session
            await asyncio.sleep(0.1)

    database.transaction = slow  # type: ignore[method-assign]


@pytest.mark.parametrize("fails", ["before", "after"])
def test_a_transaction_of_which_nobody_knows_whether_it_was_carried_out(
    make_database: MakeDatabase, fails: str
) -> None:
    with hosts(make_database, 2) as (host, other):
        make_limit(host, "db", 2)
        database = host.store.database
        transaction, turns = database.transaction, 0

        @asynccontextmanager
        async def doubtful() -> AsyncGenerator[Session]:
            nonlocal turns
            turns += 1
            async with transaction() as session:
                yield session
                if turns % 2 and fails == "before":
                    raise StoreUnavailable("the connection was lost")
            if turns % 2:
                raise StoreUnavailable("the connection was lost")

        database.transaction = doubtful  # type: ignore[method-assign]
        holding = most = 0

        async def one(where: Host) -> None:
            nonlocal holding, most
            ticket = await where.take("db")
            holding += 1
            most = max(most, holding)
            await asyncio.sleep(0.002)
            holding -= 1
            where.give_back("db", ticket)

        async def body() -> None:
            await asyncio.gather(*(one(host if number % 2 else other) for number in range(30)))

        soon(body())
        assert most <= 2
        settled(other, [])
