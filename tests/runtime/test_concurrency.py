"""Named limits: `concurrency`, `rate_limit`; first come, first served; decay; those of a runtime."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.runtime.given import Crowd, Run

from upwell import Runtime, flow, task
from upwell.concurrency import asyncio as async_limits
from upwell.concurrency import get_limit, remove_limit, set_limit
from upwell.concurrency import sync as sync_limits
from upwell.core.errors import (
    AcquireConcurrencySlotTimeoutError,
    BlockingWaitError,
    ConcurrencySlotAcquisitionError,
    ConfigurationError,
)
from upwell.testing import run_virtual, virtual_clock


@pytest.fixture(autouse=True)
def _limits() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]  # by pytest
    yield
    for name in ("db", "api", "other", "tag:narrow", "tag:wide"):
        remove_limit(name)


# --- concurrency --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_no_more_hold_a_slot_than_there_are_and_none_stays_free(limit: int) -> None:
    set_limit("db", limit)
    crowd = Crowd()

    async def use(i: int) -> None:
        async with async_limits.concurrency("db"):
            await crowd.stay(i)

    async def main() -> None:
        await asyncio.gather(*(use(i) for i in range(10)))

    with virtual_clock() as clock:
        clock.run(main())
        assert clock.elapsed == pytest.approx(10 / limit, abs=0.01)
    assert crowd.most == limit
    assert [name for name, _ in crowd.came] == list(range(10))


def test_a_big_wish_is_not_overtaken_by_small_ones() -> None:
    set_limit("db", 2)
    crowd = Crowd()

    async def use(name: str, slots: int) -> None:
        async with async_limits.concurrency("db", occupy=slots):
            await crowd.stay(name)

    async def main() -> None:
        await asyncio.gather(use("a", 1), use("big", 2), use("b", 1), use("c", 1))

    run_virtual(main())
    assert [name for name, _ in crowd.came] == ["a", "big", "b", "c"]


def test_slots_are_given_back_whatever_happens(run: Run) -> None:
    limit = set_limit("db", 2)

    async def main() -> None:
        with pytest.raises(KeyError):  # noqa: PT012  # the loop, or the block, is what raises
            async with async_limits.concurrency("db", occupy=2):
                assert limit.taken == 2
                raise KeyError
        assert limit.taken == 0

        async def hold() -> None:
            async with async_limits.concurrency("db", occupy=2):
                await asyncio.sleep(60)

        holding = [asyncio.create_task(hold()) for _ in range(3)]
        await asyncio.sleep(0.001)
        assert limit.taken == 2
        for each in reversed(holding):
            each.cancel()
        await asyncio.gather(*holding, return_exceptions=True)

    run(main())
    assert limit.taken == 0
    with pytest.raises(KeyError), sync_limits.concurrency("db"):
        raise KeyError
    assert limit.taken == 0


def test_a_waiter_that_is_cancelled_lets_the_next_in() -> None:
    set_limit("db", 2)
    came: list[str] = []

    async def use(name: str, slots: int) -> None:
        async with async_limits.concurrency("db", occupy=slots):
            came.append(name)
            await asyncio.sleep(10)

    async def main() -> None:
        first = asyncio.create_task(use("first", 1))
        big = asyncio.create_task(use("big", 2))
        small = asyncio.create_task(use("small", 1))
        await asyncio.sleep(1)
        assert came == ["first"]
        big.cancel()
        await asyncio.sleep(0.1)
        assert came == ["first", "small"]
        await asyncio.gather(first, big, small, return_exceptions=True)

    run_virtual(main())


def test_several_limits_are_held_together_and_order_cannot_deadlock() -> None:
    set_limit("db", 1)
    set_limit("api", 1)
    crowd = Crowd()

    async def use(names: list[str]) -> None:
        async with async_limits.concurrency(names):
            await crowd.stay(names)

    async def main() -> None:
        await asyncio.gather(*(use(names) for names in (["db", "api"], ["api", "db"]) * 5))

    run_virtual(main())
    assert crowd.most == 1


def test_sync_and_async_code_share_a_limit() -> None:
    set_limit("db", 1)
    inside: list[str] = []
    most: list[int] = []

    @task
    def use(i: int) -> None:
        with sync_limits.concurrency("db"):
            inside.append("x")
            most.append(len(inside))
            inside.pop()

    @task
    async def use_later(i: int) -> None:
        async with async_limits.concurrency("db"):
            inside.append("x")
            most.append(len(inside))
            await asyncio.sleep(0)
            inside.pop()

    @flow
    def around() -> None:
        futures = [*use.map(range(20)), *use_later.map(range(20))]
        for future in futures:
            future.result()

    around()
    assert len(most) == 40
    assert max(most) == 1


def test_threads_are_let_in_in_the_order_in_which_they_came() -> None:
    limit = set_limit("db", 1)
    came: list[int] = []

    def use(i: int) -> None:
        with sync_limits.concurrency("db"):
            came.append(i)

    threads: list[threading.Thread] = []
    with sync_limits.concurrency("db"):
        for i in range(5):
            threads.append(threading.Thread(target=use, args=[i]))
            threads[-1].start()
            while len(limit._slots.line) <= i:  # pyright: ignore[reportPrivateUsage]  # no public way to look at it
                pass
    for thread in threads:
        thread.join(30)
    assert came == [0, 1, 2, 3, 4]


def test_a_wait_for_a_slot_may_time_out_and_takes_nothing() -> None:
    limit = set_limit("db", 1)
    set_limit("api", 5)

    async def main() -> None:
        async with async_limits.concurrency("db"):
            with pytest.raises(
                AcquireConcurrencySlotTimeoutError, match="'db' did not become free within 5 s"
            ) as caught:
                async with async_limits.concurrency(["api", "db"], timeout_seconds=5):
                    raise AssertionError("not let in")
            assert isinstance(caught.value, TimeoutError)

    with virtual_clock() as clock:
        clock.run(main())
        assert clock.elapsed == pytest.approx(5, abs=0.01)
    assert limit.taken == 0
    api = get_limit("api")
    assert api is not None
    assert api.taken == 0


def test_a_blocking_wait_for_a_slot_may_time_out() -> None:
    limit = set_limit("db", 1)
    with virtual_clock() as clock, sync_limits.concurrency("db"):
        with (
            pytest.raises(AcquireConcurrencySlotTimeoutError),
            sync_limits.concurrency("db", timeout_seconds=5),
        ):
            raise AssertionError("not let in")
        assert clock.elapsed == pytest.approx(5, abs=0.01)
        assert limit.taken == 1


def test_an_unknown_limit_costs_nothing_unless_strict(run: Run) -> None:
    with sync_limits.concurrency("unknown"):
        pass
    sync_limits.rate_limit("unknown")
    with (
        pytest.raises(ConcurrencySlotAcquisitionError, match="no limit 'unknown'"),
        sync_limits.concurrency("unknown", strict=True),
    ):
        pass

    async def main() -> None:
        async with async_limits.concurrency(["unknown", "other"]):
            pass
        with pytest.raises(ConcurrencySlotAcquisitionError):
            await async_limits.rate_limit("unknown", strict=True)

    run(main())


def test_more_slots_than_there_are_is_a_mistake_that_is_said(run: Run) -> None:
    set_limit("db", 2)
    with pytest.raises(ConfigurationError, match="3 slots of the limit 'db'"), sync_limits.concurrency("db", occupy=3):
        pass


def test_a_blocking_wait_on_a_loop_is_refused_with_the_way_out(run: Run) -> None:
    set_limit("db", 1)

    async def main() -> None:
        with sync_limits.concurrency("db"):  # a free slot is no wait  # noqa: SIM117  # the outer one must stay open
            with pytest.raises(BlockingWaitError, match="async with concurrency"), sync_limits.concurrency("db"):
                pass

    run(main())


def test_whoever_waits_for_a_limit_that_is_removed_is_let_in() -> None:
    set_limit("db", 1)
    crowd = Crowd()

    async def use() -> None:
        async with async_limits.concurrency("db"):
            await crowd.stay(None, 10)

    async def main() -> None:
        using = [asyncio.create_task(use()) for _ in range(4)]
        await asyncio.sleep(1)
        assert crowd.now == 1
        remove_limit("db")
        await asyncio.sleep(1)
        assert crowd.now == 4
        await asyncio.gather(*using)

    with virtual_clock() as clock:
        clock.run(main())


def test_a_limit_can_be_changed_switched_off_and_removed_while_in_use() -> None:
    set_limit("db", 1)
    crowd = Crowd()

    async def use(i: int) -> None:
        async with async_limits.concurrency("db"):
            await crowd.stay(i, 10)

    async def main() -> None:
        using = [asyncio.create_task(use(i)) for i in range(6)]
        await asyncio.sleep(1)
        assert crowd.now == 1
        set_limit("db", 3)
        await asyncio.sleep(1)
        assert crowd.now == 3
        set_limit("db", 3, active=False)
        async with async_limits.concurrency("db"):
            pass
        remove_limit("db")
        async with async_limits.concurrency("db"):
            pass
        await asyncio.gather(*using)

    with virtual_clock() as clock:
        clock.run(main())
        assert clock.elapsed < 35
    assert get_limit("db") is None


@pytest.mark.parametrize("limit", [-1, 1.5, "3", True])
def test_a_limit_that_makes_no_sense_is_refused(limit: Any) -> None:
    with pytest.raises(ConfigurationError, match="db"):
        set_limit("db", limit)


# --- rates --------------------------------------------------------------------------------------------------------


def test_a_rate_lets_a_burst_in_and_then_so_many_a_second() -> None:
    set_limit("api", 3, slot_decay_per_second=2.0)
    moments: list[float] = []

    async def call() -> None:
        await async_limits.rate_limit("api")
        moments.append(asyncio.get_running_loop().time())

    async def main() -> None:
        await asyncio.gather(*(call() for _ in range(9)))

    run_virtual(main())
    assert moments == pytest.approx([0, 0, 0, 0.5, 1, 1.5, 2, 2.5, 3], abs=0.01)


def test_a_rate_in_sync_code() -> None:
    set_limit("api", 1, slot_decay_per_second=0.5)
    with virtual_clock() as clock:
        for _ in range(4):
            sync_limits.rate_limit("api")
        assert clock.elapsed == pytest.approx(6, abs=0.01)


def test_a_rate_may_be_waited_for_only_so_long() -> None:
    set_limit("api", 1, slot_decay_per_second=0.1)
    with virtual_clock() as clock:
        sync_limits.rate_limit("api")
        with pytest.raises(AcquireConcurrencySlotTimeoutError):
            sync_limits.rate_limit("api", timeout_seconds=3)
        assert clock.elapsed <= 3.01
        sync_limits.rate_limit("api")
        assert clock.elapsed == pytest.approx(10, abs=0.01)


def test_a_rate_of_a_limit_that_does_not_decay_is_a_mistake_that_is_said() -> None:
    set_limit("db", 1)
    with pytest.raises(ConfigurationError, match="slot_decay_per_second"):
        sync_limits.rate_limit("db")


def test_slots_that_decay_come_back_with_time_and_not_with_the_end_of_the_block() -> None:
    set_limit("api", 1, slot_decay_per_second=1.0)

    async def main() -> None:
        for _ in range(3):
            async with async_limits.concurrency("api"):
                pass

    with virtual_clock() as clock:
        clock.run(main())
        assert clock.elapsed == pytest.approx(2, abs=0.01)


# --- limits of a runtime --------------------------------------------------------------------------------------------


def test_each_runtime_has_limits_of_its_own(run: Run) -> None:
    crowds = [Crowd(), Crowd()]

    @task(tags=["narrow"])
    async def stay(which: int) -> None:
        await crowds[which].stay(which, 0.001)

    async def main() -> None:
        async with Runtime(limits={"tag:narrow": 1}) as one, Runtime(limits={"tag:narrow": 3}) as three:
            first, second = one.map(stay, [0] * 6), three.map(stay, [1] * 6)
            await first
            await second

    run(main())
    assert [crowd.most for crowd in crowds] == [1, 3]


def test_a_named_limit_of_a_runtime_is_used_by_the_code_inside(run: Run) -> None:
    crowd = Crowd()

    @task
    async def use(i: int) -> None:
        async with async_limits.concurrency("db", strict=True):
            await crowd.stay(i, 0.001)

    async def main() -> None:
        async with Runtime(limits={"db": 2, "api": (5, 100.0)}) as runtime:
            await runtime.map(use, range(6))
            await async_limits.rate_limit("api", strict=True)
        with pytest.raises(ConcurrencySlotAcquisitionError):
            async with async_limits.concurrency("db", strict=True):
                pass

    run(main())
    assert crowd.most == 2
