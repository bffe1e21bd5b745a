"""Limits of the store: they hold across processes, in order, and no slot is ever lost or had twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from tests.runtime.journal.hosts import Host, hosts, in_line, is_waiting, make_limit, settled, soon

from upwell.journal.database import Database
from upwell.journal.limit_store import LimitChange, LimitRow, next_in_line

MakeDatabase = Callable[[], Database]


# --- who is next ------------------------------------------------------------------------------------------------


def test_who_comes_first_is_let_in_first_and_nobody_is_overtaken() -> None:
    limit = LimitRow("db", 3, 0.0, True)
    line = [("a1", "a", 1), ("b1", "b", 1), ("a2", "a", 2), ("a3", "a", 1)]
    assert next_in_line(limit, 0, line, "a", ()) == (["a1"], ["b1"])  # a2 does not fit, and holds a3 up
    assert next_in_line(limit, 0, line, "b", ()) == (["b1"], ["a1"])
    assert next_in_line(limit, 3, line, "a", ()) == ([], [])


def test_who_had_its_turn_and_did_not_take_it_may_be_overtaken() -> None:
    limit = LimitRow("db", 1, 0.0, True)
    line = [("a1", "a", 1), ("b1", "b", 1)]
    assert next_in_line(limit, 0, line, "b", ()) == ([], ["a1"])
    assert next_in_line(limit, 0, line, "b", {"a1"}) == (["b1"], ["a1"])


def test_a_wish_for_more_than_there_is_does_not_hold_up_the_others() -> None:
    line = [("a1", "a", 5), ("b1", "b", 1)]
    assert next_in_line(LimitRow("db", 2, 0.0, True), 0, line, "b", ()) == (["b1"], [])


# --- two processes ------------------------------------------------------------------------------------------------


def test_a_limit_of_the_store_holds_across_processes(make_database: MakeDatabase) -> None:
    with hosts(make_database, 2) as (one, other):
        make_limit(one, "db", 2)

        async def body() -> None:
            first, second = await one.take("db"), await other.take("db")
            third = asyncio.create_task(other.take("db"))
            assert await is_waiting(third)
            one.give_back("db", first)
            other.give_back("db", second)
            other.give_back("db", await third)

        soon(body())
        settled(one, [])


def test_waiters_of_all_processes_come_in_the_order_in_which_they_came(make_database: MakeDatabase) -> None:
    with hosts(make_database, 3) as all_:
        make_limit(all_[0], "db", 1)
        order: list[int] = []

        async def body() -> None:
            held = await all_[0].take("db")

            async def wait(number: int) -> None:
                host = all_[number % 3]
                ticket = await host.take("db")
                order.append(number)
                host.give_back("db", ticket)

            waiting: list[asyncio.Task[None]] = []
            for number in range(9):
                waiting.append(asyncio.create_task(wait(number)))
                await in_line(all_[0], number + 1)
            all_[0].give_back("db", held)
            await asyncio.gather(*waiting)

        soon(body())
        assert order == list(range(9))
        settled(all_[0], [])


def test_many_waiters_of_one_process_share_a_few_transactions(make_database: MakeDatabase) -> None:
    with hosts(make_database, 1) as (host,):
        make_limit(host, "db", 50)
        running = most = 0

        async def one() -> None:
            nonlocal running, most
            ticket = await host.take("db")
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1
            host.give_back("db", ticket)

        async def body() -> None:
            await asyncio.gather(*(one() for _ in range(2000)))

        soon(body())
        assert most <= 50
        settled(host, [])


def test_a_process_that_wants_very_much_does_not_starve_one_that_wants_little(make_database: MakeDatabase) -> None:
    with hosts(make_database, 2) as (greedy, modest):
        make_limit(greedy, "db", 1)

        async def hold(host: Host) -> None:
            host.give_back("db", await host.take("db"))

        async def wants_ever_more() -> None:
            while True:
                await hold(greedy)

        async def body() -> None:
            many = [asyncio.create_task(wants_ever_more()) for _ in range(100)]
            await asyncio.sleep(0.02)
            await hold(modest)
            for one in many:
                one.cancel()
            await asyncio.gather(*many, return_exceptions=True)

        soon(body())
        settled(greedy, [])


def test_several_slots_at_once_are_waited_for_without_being_overtaken(make_database: MakeDatabase) -> None:
    with hosts(make_database, 2) as (one, other):
        make_limit(one, "db", 3)

        async def body() -> None:
            first = await one.take("db")
            three = asyncio.create_task(other.take("db", 3))
            await in_line(one, 1)
            late = asyncio.create_task(one.take("db"))
            assert await is_waiting(late)
            one.give_back("db", first)
            other.give_back("db", await three)
            one.give_back("db", await late)

        soon(body())


def test_a_wait_that_is_given_up_leaves_nothing(make_database: MakeDatabase) -> None:
    with hosts(make_database, 2) as (one, other):
        make_limit(one, "db", 1)

        async def body() -> None:
            held = await one.take("db")
            with pytest.raises(TimeoutError):
                await other.take("db", timeout=0.05)
            one.give_back("db", held)

        soon(body())
        settled(one, [])


def test_a_wait_may_be_cancelled_at_any_moment(make_database: MakeDatabase) -> None:
    with hosts(make_database, 2) as (one, other):
        make_limit(one, "db", 1)

        async def hold(host: Host) -> None:
            ticket = await host.take("db")
            try:
                await asyncio.sleep(0.001)
            finally:
                host.give_back("db", ticket)

        async def body() -> None:
            for step in range(60):
                holding = [asyncio.create_task(hold(host)) for host in (one, other, one)]
                await asyncio.sleep(step * 0.0002)
                holding[step % 3].cancel()
                await asyncio.gather(*holding, return_exceptions=True)

        soon(body())
        settled(one, [])


# --- limits that change -------------------------------------------------------------------------------------------


def test_a_name_without_a_limit_in_the_store_is_none_at_once(make_database: MakeDatabase) -> None:
    with hosts(make_database, 1) as (host,):
        known = host.limits.when_known
        host.ask(lambda _: asyncio.sleep(0)).result(10)
        until = time.monotonic() + 10
        known(lambda: None)
        while not host.limits.are_known() and time.monotonic() < until:
            time.sleep(0.005)
        assert host.limits.get("unknown") is None
        assert not host.limits


def test_a_limit_that_is_raised_deactivated_or_removed_lets_those_in_who_wait(make_database: MakeDatabase) -> None:
    with hosts(make_database, 2) as (one, other):
        make_limit(one, "db", 1)

        async def body() -> None:
            held = [await one.take("db")]
            for change in (
                one.limits.update(LimitChange("db", 2, None, None)),
                one.limits.update(LimitChange("db", None, None, False)),
            ):
                waiting = asyncio.create_task(other.take("db"))
                await asyncio.wrap_future(change)
                held.append(await waiting)
            await asyncio.wrap_future(one.limits.update(LimitChange("db", 1, None, True)))
            waiting = asyncio.create_task(other.take("db"))
            assert await is_waiting(waiting)
            await asyncio.wrap_future(one.limits.delete("db"))
            await waiting

        soon(body())
        settled(one, [])


def test_a_limit_says_how_it_stands(make_database: MakeDatabase) -> None:
    with hosts(make_database, 2) as (one, other):
        make_limit(one, "db", 3)
        make_limit(one, "api", 10, 0.01)

        async def body() -> None:
            held = await other.take("db", 2)
            waiting = asyncio.create_task(one.take("db", 2))
            await in_line(one, 1)
            await one.take("api", 4)
            api, db = one.limits.in_use().result(10)
            assert db == ("db", 3, 0.0, True, 2, 1)
            assert api[:4] == ("api", 10, 0.01, True)
            assert 3 < api.taken <= 4
            other.give_back("db", held)
            one.give_back("db", await waiting)

        soon(body())
