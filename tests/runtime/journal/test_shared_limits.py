"""Limits of the store: they hold across processes, in order, and no slot is ever lost or had twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.journal.hosts import Host, hosts

from upwell.core.errors import ConcurrencySlotAcquisitionError
from upwell.engine.limits import Ticket
from upwell.journal.database import Database, StoreUnavailable
from upwell.journal.limit_store import LimitChange, LimitRow, next_in_line
from upwell.journal.processes import Process, this_process

MakeDatabase = Callable[[], Database]
ROOT = Path(__file__).parents[3]


def make_limit(host: Host, name: str, slots: int, decay: float = 0.0) -> None:
    assert host.limits.create(LimitRow(name, slots, decay, True)).result(10)


def settled(host: Host, expected: list[tuple[Any, ...]]) -> None:
    """What is given back is so within a moment."""
    until = time.monotonic() + 10
    while (found := host.leases()) != expected and time.monotonic() < until:
        time.sleep(0.005)
    assert found == expected


async def is_waiting(taking: asyncio.Task[Ticket], seconds: float = 0.05) -> bool:
    await asyncio.sleep(seconds)
    return not taking.done()


async def in_line(host: Host, many: int) -> None:
    """Until so many wait in the store."""
    while sum(1 for _, _, state in host.leases() if state == "waiting") != many:
        await asyncio.sleep(0.005)


def soon(main: Coroutine[Any, Any, None]) -> None:
    """Run this, which ends soon or never will."""

    async def body() -> None:
        async with asyncio.timeout(30):
            await main

    asyncio.run(body())


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

            waiting = []
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

        began = time.perf_counter()
        soon(body())
        assert most <= 50
        assert time.perf_counter() - began < 10  # a transaction each would take longer
        settled(host, [])


def test_a_process_that_wants_very_much_does_not_starve_one_that_wants_little(make_database: MakeDatabase) -> None:
    with hosts(make_database, 2) as (greedy, modest):
        make_limit(greedy, "db", 1)
        done = 0

        async def hold(host: Host) -> None:
            nonlocal done
            ticket = await host.take("db")
            done += host is greedy
            host.give_back("db", ticket)

        async def body() -> None:
            many = [asyncio.create_task(hold(greedy)) for _ in range(1000)]
            await asyncio.sleep(0.02)
            await hold(modest)
            assert done < 1000
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
        make_limit(one, "api", 10, 2.0)

        async def body() -> None:
            held = await other.take("db", 2)
            waiting = asyncio.create_task(one.take("db", 2))
            await in_line(one, 1)
            await one.take("api", 4)
            api, db = one.limits.in_use().result(10)
            assert db == ("db", 3, 0.0, True, 2, 1)
            assert api[:4] == ("api", 10, 2.0, True) and 3 < api.taken <= 4
            other.give_back("db", held)
            one.give_back("db", await waiting)

        soon(body())


# --- rates --------------------------------------------------------------------------------------------------------


def test_a_rate_holds_across_processes(make_database: MakeDatabase) -> None:
    with hosts(make_database, 2) as all_:
        make_limit(all_[0], "api", 5, 50.0)  # bursts of 5, then 50 a second

        async def body() -> None:
            began = time.monotonic()
            await asyncio.gather(*(all_[number % 2].take("api") for number in range(25)))
            assert time.monotonic() - began >= 20 / 50 - 0.02

        soon(body())
        settled(all_[0], [])


def test_slots_of_a_rate_that_were_not_used_are_given_back(make_database: MakeDatabase) -> None:
    with hosts(make_database, 1) as (host,):
        make_limit(host, "api", 1, 0.01)

        async def body() -> None:
            await host.take("api")
            with pytest.raises(TimeoutError):
                await host.take("api", timeout=0.1)

        soon(body())
        until = time.monotonic() + 10
        while host.limits.in_use().result(10)[0].taken > 1 and time.monotonic() < until:
            time.sleep(0.005)
        assert 0.9 < host.limits.in_use().result(10)[0].taken <= 1


@pytest.mark.parametrize("day", [86_400.0, -86_400.0])
def test_a_clock_that_is_set_gives_one_burst_at_most_and_no_long_wait(
    make_database: MakeDatabase, day: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from upwell.engine.clock import SystemClock

    with hosts(make_database, 1) as (host,):
        make_limit(host, "api", 2, 1.0)
        limits = SqlLimitsOf(host)
        assert [limits.level(1.0) for _ in range(3)][-1] == pytest.approx(3.0, abs=0.5)
        if "postgres" in host.store.place:  # it is the server's clock that counts
            at = "UPDATE limits SET level_at = level_at - :day RETURNING name"
            assert host.fetch(at, day=int(day * 1e6))
        else:
            shifted = time.time
            monkeypatch.setattr(SystemClock, "time", staticmethod(lambda: shifted() + day))
        before = limits.level(1.0)
        assert 1.0 <= before <= 4.5
        assert limits.level(1.0) == pytest.approx(before + 1, abs=0.5)  # it goes on from there, at the usual rate


class SqlLimitsOf:
    """Levels of the limit `api`, straight from the store."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def level(self, slots: float) -> float:
        async def reserve(store: Any) -> float:
            from upwell.journal.limit_store import SqlLimits

            reserved = await SqlLimits(store.database).reserve(self._host.process.id, "api", int(slots))
            assert reserved is not None
            return reserved[1]

        return float(self._host.do(reserve))


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
def test_the_slots_of_a_dead_process_are_free_within_seconds(make_database: MakeDatabase, state: str) -> None:
    with hosts(make_database, 1) as (host,):
        make_limit(host, "db", 1)
        put_lease(host, dead_process(host), state)

        async def body() -> None:
            began = time.monotonic()
            host.give_back("db", await host.take("db"))
            assert time.monotonic() - began < 5

        soon(body())
        settled(host, [])


def test_who_is_stopped_while_it_is_its_turn_does_not_hold_up_the_others(make_database: MakeDatabase) -> None:
    with hosts(make_database, 1) as (host,):
        make_limit(host, "db", 1)
        here = this_process(30.0)  # is there, and will never take its turn
        put_lease(host, here, "waiting")

        async def body() -> None:
            began = time.monotonic()
            host.give_back("db", await host.take("db"))
            assert 1 < time.monotonic() - began < 6

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
            assert await is_waiting(waiting[0], 0.2) and not waiting[1].done()
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


@pytest.mark.parametrize("fails", ["before", "after"])
def test_a_transaction_of_which_nobody_knows_whether_it_was_carried_out(make_database: MakeDatabase, fails: str) -> None:
    from contextlib import asynccontextmanager

    with hosts(make_database, 2) as (host, other):
        make_limit(host, "db", 2)
        database = host.store.database
        transaction, turns = database.transaction, 0

        @asynccontextmanager
        async def doubtful() -> Any:
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


# --- real processes, killed ---------------------------------------------------------------------------------------


def test_eight_processes_killed_at_random_never_hold_six_of_five(
    make_database: MakeDatabase, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The ledger is the witness: what is written there was written while a slot was held."""
    seconds = request.config.getoption("--hammer-seconds", 4.0)
    seed = request.config.getoption("--first-seed", 0)
    random_ = random.Random(seed)
    with hosts(make_database, 1) as (host,):
        make_limit(host, "db", 5)
        database: Any = host.store.database
        url = str(database.path) if hasattr(database, "path") else database._url
        ledger_path = tmp_path / "ledger"
        ledger = os.open(ledger_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.runtime.journal.hammer", url, str(ledger_path), "3"],
                cwd=ROOT, env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'runtime'}"},
            )  # fmt: skip

        def kill(child: subprocess.Popen[bytes]) -> None:
            os.kill(child.pid, signal.SIGSTOP)
            os.waitpid(child.pid, os.WUNTRACED)
            os.write(ledger, f"{child.pid} x 0\n".encode())  # what it held it holds no more
            child.kill()
            child.wait()

        children = [start() for _ in range(8)]
        try:
            wait_for_all(children, ledger_path)
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(random_.uniform(0.05, 0.8))
                place = random_.randrange(8)
                assert children[place].poll() is None, "a child has failed"
                kill(children[place])
                children[place] = start()
        finally:
            for child in children:
                kill(child)
            os.close(ledger)
        most, turns = witnessed(ledger_path.read_text())
        assert most == 5, f"{most} slots held at once, seed {seed}"
        assert len(turns) > 8

        async def body() -> None:
            held = [await host.take("db") for _ in range(5)]  # all of them are free: none has leaked
            for ticket in held:
                host.give_back("db", ticket)

        soon(body())
        settled(host, [])


def wait_for_all(children: list[subprocess.Popen[bytes]], ledger: Path) -> None:
    until = time.monotonic() + 60
    wanted = {str(child.pid) for child in children}
    while time.monotonic() < until:
        if wanted <= {line.split()[0] for line in ledger.read_text().splitlines()}:
            return
        time.sleep(0.05)
    raise AssertionError("not every process has had a slot within a minute: it starves")


def witnessed(ledger: str) -> tuple[int, Counter[str]]:
    """How many slots were held at once, at most, and how often each process had one."""
    held: defaultdict[str, set[str]] = defaultdict(set)
    most, turns = 0, Counter[str]()
    for line in ledger.splitlines():
        pid, what, name = line.split()
        if what == "+":
            held[pid].add(name)
            turns[pid] += 1
        elif what == "-":
            held[pid].discard(name)
        else:
            held.pop(pid, None)
        most = max(most, sum(len(names) for names in held.values()))
    return most, turns
