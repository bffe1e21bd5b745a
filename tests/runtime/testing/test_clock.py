from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from upwell import Runtime, flow, task
from upwell.concurrency import remove_limit, set_limit
from upwell.concurrency.sync import concurrency, rate_limit
from upwell.engine.clock import Gate
from upwell.testing import DeadlockError, run_virtual, virtual_clock
from upwell.testing.clock import VirtualClock
from upwell_runners.threads import _Worker  # pyright: ignore[reportPrivateUsage]  # to begin late

MACHINE_SECONDS = 50.0
"""Less than what is waited for in virtual time, and more than a machine stands still."""


@pytest.fixture(autouse=True)
def _takes_no_time() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]  # by pytest
    began = time.monotonic()
    yield
    assert time.monotonic() - began < MACHINE_SECONDS


@task
async def rest(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@task(retries=3, retry_delay_seconds=60)
def fourth_time_lucky(attempts: list[int]) -> int:
    attempts.append(1)
    if len(attempts) < 4:
        raise ValueError(len(attempts))
    return len(attempts)


def test_an_hour_of_sleep_takes_no_time() -> None:
    async def main() -> list[float]:
        return await rest.map([1, 60, 3600])

    with virtual_clock() as clock:
        assert clock.run(main()) == [1, 60, 3600]
        assert clock.elapsed == 3600


def test_run_virtual_runs_one_coroutine() -> None:
    async def main() -> float:
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(90)
        return asyncio.get_running_loop().time() - began

    assert run_virtual(main()) == 90


def test_asyncio_run_inside_is_virtual_too() -> None:
    with virtual_clock() as clock:
        asyncio.run(asyncio.sleep(86_400 * 3))
        assert clock.elapsed == 86_400 * 3


def test_the_time_of_day_goes_along() -> None:
    with virtual_clock(start=1_000.0) as clock:
        asyncio.run(asyncio.sleep(50))
        assert clock.time() == 1_050.0


def test_retries_of_a_submitted_run_wait_virtually() -> None:
    async def main() -> int:
        return await fourth_time_lucky.submit([])

    with virtual_clock() as clock:
        assert clock.run(main()) == 4
        assert clock.elapsed == 180


def test_a_sync_flow_waits_virtually() -> None:
    @flow
    def slow() -> Any:
        future = rest.submit(100)
        assert clock.elapsed == 0, "nobody waits yet"
        fourth_time_lucky([])
        assert clock.elapsed == 180
        assert future.is_done()
        return fourth_time_lucky.submit([]).result()

    with virtual_clock() as clock:
        assert slow() == 4
        assert clock.elapsed == 360


def test_retries_inside_more_threads_than_there_are_workers_wait_virtually(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upwell.testing.clock.CROWDED_SECONDS", 0.25)  # a thread may be slow to begin

    @task(task_runner="threads")
    def outer(_: int) -> int:
        return fourth_time_lucky([])

    with virtual_clock() as clock:
        assert outer.map(range(40)).result() == [4] * 40
        assert clock.elapsed == 360, "32 threads, so two rounds"


def test_that_nothing_moved_while_the_machine_stood_still_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    workers, begun, looks = list[Any](), list[int](), list[int]()
    has_stood_still, work = threading.Event(), _Worker.work

    def begin_late(worker: _Worker) -> None:
        workers.append(worker)
        if len(workers) == 2:
            has_stood_still.wait()
        work(worker)

    def monotonic() -> float:
        if len(begun) == 2:
            return time.monotonic() + 2000
        looks.append(1)
        if len(looks) <= 20:  # until then the first one has come to where it waits
            return 0.0
        has_stood_still.set()
        return 1000.0

    @task(task_runner="threads")
    def outer(number: int) -> int:
        begun.append(number)
        return fourth_time_lucky([])

    monkeypatch.setattr(_Worker, "work", begin_late)
    monkeypatch.setattr("upwell.testing.clock.time", SimpleNamespace(monotonic=monotonic, time=time.time))
    with virtual_clock() as clock:
        assert outer.map(range(2)).result() == [4] * 2
        assert clock.elapsed == 180


def test_timeouts_come_at_their_time() -> None:
    @task(timeout_seconds=3600)
    async def endless() -> None:
        await asyncio.Event().wait()

    @flow(timeout_seconds=7200)
    async def waits_longer() -> None:
        await rest(10_000)

    async def main() -> list[str]:
        task_state = endless.submit()
        with pytest.raises(TimeoutError):
            await task_state
        flow_state: Any = await waits_longer(return_state=True)
        return [task_state.state.name, flow_state.name]

    with virtual_clock() as clock:
        assert clock.run(main()) == ["TimedOut", "TimedOut"]
        assert clock.elapsed == 3600 + 7200


def test_the_timeout_of_a_sync_flow_interrupts_its_waits() -> None:
    @flow(timeout_seconds=3600)
    def impatient() -> float:
        return rest.submit(7200).result()

    with virtual_clock() as clock:
        state: Any = impatient(return_state=True)
        assert state.name == "TimedOut"
        assert clock.elapsed == 3600


def test_a_wait_with_a_timeout_ends_at_its_time() -> None:
    with virtual_clock() as clock:
        future = rest.submit(100)
        with pytest.raises(TimeoutError):
            future.result(timeout=40)
        assert clock.elapsed == 40
        assert future.result() == 100
        assert clock.elapsed == 100


def test_a_pace_is_kept_in_virtual_time() -> None:
    async def main() -> list[float]:
        return await rest.map([0] * 5, max_per_second=0.1)

    with virtual_clock() as clock:
        clock.run(main())
        assert clock.elapsed == pytest.approx(40)


def test_rate_limits_and_slots_in_threads_wait_virtually() -> None:
    set_limit("calls", 1, slot_decay_per_second=0.1)
    set_limit("places", 1)

    @task
    def call(number: int) -> int:
        rate_limit("calls")
        with concurrency("places"):
            return number

    try:
        with virtual_clock() as clock:
            assert call.map(range(4)).result() == [0, 1, 2, 3]
            assert clock.elapsed == pytest.approx(30)
    finally:
        remove_limit("calls")
        remove_limit("places")


def test_time_stands_still_while_a_thread_works() -> None:
    @task
    def work() -> float:
        time.sleep(0.05)
        return clock.elapsed

    async def main() -> tuple[float, float]:
        future = work.submit()
        return await rest(1), await future

    with virtual_clock() as clock:
        assert clock.run(main()) == (1, 0)


def test_time_stands_still_while_the_loops_executor_works() -> None:
    async def main() -> float:
        ticking = asyncio.create_task(asyncio.sleep(60))
        await asyncio.to_thread(time.sleep, 0.05)
        elapsed = clock.elapsed
        await ticking
        return elapsed

    with virtual_clock() as clock:
        assert clock.run(main()) == 0
        assert clock.elapsed == 60


@contextmanager
def elsewhere(clock: VirtualClock, wait: Callable[[], object]) -> Generator[list[float]]:
    """A thread of this clock that waits; when it went on, once it has."""
    went_on: list[float] = []
    counts = threading.Event()

    def work() -> None:
        clock.join()
        counts.set()
        wait()
        went_on.append(clock.elapsed)
        clock.leave()

    thread = threading.Thread(target=work)
    thread.start()
    counts.wait()
    yield went_on
    thread.join()


def test_time_stands_still_until_a_thread_that_may_go_on_has_noticed() -> None:
    gate = Gate()
    acquire, waits = gate.acquire, threading.Event()

    def notices_late(blocking: bool = True, timeout: float = -1) -> bool:
        if blocking:
            waits.set()
        acquired = acquire(blocking, timeout)
        if acquired:
            time.sleep(0.05)
        return acquired

    gate.acquire = notices_late
    with virtual_clock() as clock:
        with elsewhere(clock, gate.wait) as went_on:
            waits.wait()
            gate.open()
            clock.sleep(100)
        assert went_on == [0]
        assert clock.elapsed == 100


def test_time_stands_still_for_a_loop_that_was_called_as_it_began_to_wait() -> None:
    def called_before(timeout: float) -> Any:
        time.sleep(0.05)
        return ["a call"]

    with virtual_clock() as clock:
        loop = clock.new_loop()
        with elsewhere(clock, lambda: clock.wait_in_loop(loop, 200, called_before)) as went_on:
            clock.sleep(100)
        loop.close()
        assert went_on == [0]


def test_a_deadlock_says_who_waits_and_where() -> None:
    @task
    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    @flow
    async def stuck() -> None:
        await waits_for_ever.submit()

    with virtual_clock() as clock, pytest.raises(DeadlockError) as caught:
        clock.run(stuck())
    assert "task run 'waits-for-ever-0' in test_a_deadlock_says_who_waits_and_where" in str(caught.value)
    assert __file__ in str(caught.value)


def test_a_deadlock_of_a_sync_flow_is_raised_in_it() -> None:
    @task
    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    @flow
    def stuck() -> None:
        waits_for_ever.submit().wait()

    with virtual_clock(), pytest.raises(DeadlockError) as caught:
        stuck()
    assert "thread 'MainThread' in test_a_deadlock_of_a_sync_flow_is_raised_in_it.<locals>.stuck" in str(caught.value)


def test_two_loops_share_the_time() -> None:
    async def main() -> float:
        async with Runtime() as runtime:
            await runtime.call(rest, 30)
        return await asyncio.to_thread(lambda: rest.submit(20).result())

    with virtual_clock() as clock:
        assert clock.run(main()) == 20
        assert clock.elapsed == 50


def test_a_running_loop_refuses_the_clock() -> None:
    async def main() -> None:
        with virtual_clock():
            pass

    with pytest.raises(RuntimeError, match=r"clock\.run\(main\(\)\)"):
        asyncio.run(main())


def test_the_machines_time_is_back_afterwards() -> None:
    with virtual_clock():
        pass
    began = time.monotonic()
    asyncio.run(asyncio.sleep(0.01))
    assert time.monotonic() - began >= 0.01
