"""Rates of the store: so many a second, whoever asks, whatever the clocks do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.runtime.journal.hosts import Host, hosts, make_limit, settled, soon

from upwell.engine.clock import SystemClock
from upwell.journal.database import Database
from upwell.journal.limit_store import SqlLimits

MakeDatabase = Callable[[], Database]


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
    with hosts(make_database, 1) as (host,):
        make_limit(host, "api", 2, 10.0)
        limits = SqlLimitsOf(host)
        filled = time.monotonic()
        full = limits.level(60)
        if "postgres" in host.store.place:  # it is the server's clock that counts
            at = "UPDATE limits SET level_at = level_at - :day RETURNING name"
            assert host.fetch(at, day=int(day * 1e6))
        else:
            system = time.time
            monkeypatch.setattr(SystemClock, "time", staticmethod(lambda: system() + day))
        began = time.monotonic()
        before = limits.level(0)
        was_read = time.monotonic()
        assert before == 0 if day > 0 else full - 10 * (was_read - filled) - 1 < before <= full
        time.sleep(0.3)
        read_again = time.monotonic()
        level = limits.level(20)
        most, least = (10 * seconds for seconds in (time.monotonic() - began, read_again - was_read))
        assert max(before - most, 0) - 1 < level - 20 < max(before - least, 0) + 1  # it sinks on at the usual rate


class SqlLimitsOf:
    """Levels of the limit `api`, straight from the store."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def level(self, slots: int) -> float:
        async def reserve(store: Any) -> float:
            reserved = await SqlLimits(store.database).reserve(self._host.process.id, "api", slots)
            assert reserved is not None
            return reserved[1]

        return float(self._host.do(reserve))
