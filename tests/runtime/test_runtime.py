"""`upwell.Runtime`: embedded in a service, several in one process, from other threads, closed with work in flight."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.runtime.given import Run, double, double_later

from upwell import Runtime, flow, runtime, task
from upwell.core.errors import (
    CancelledRun,
    ConfigurationError,
    FlowRunTimeoutError,
    RuntimeClosedError,
    UnknownTaskRunnerError,
)
from upwell.engine.clock import SystemClock
from upwell.engine.current import close_portal, portal
from upwell.settings import temporary_settings
from upwell.testing import run_virtual, virtual_clock


@task
async def stay() -> None:
    await asyncio.sleep(1000)


@flow
async def nested(x: int) -> int:
    return await double_later.submit(x) + await double.submit(x)


@flow
def nested_sync(x: int) -> int:
    return double_later.submit(x).result() + double.submit(x).result()


# --- what it runs -------------------------------------------------------------------------------------------------


def test_tasks_and_flows_run_in_the_runtime_around_them(run: Run) -> None:
    async def main() -> Any:
        async with Runtime() as rt:
            future: Any = double_later.submit(1)
            assert future.call.scope.engine is rt.engine
            return (
                await future,
                await double_later.map(range(3)),
                await nested(2),
                await nested.submit(3),
                await nested_sync.submit(4),
                [x async for x in double.stream([5])],
            )

    assert run(main()) == (2, [0, 2, 4], 8, 12, 16, [10])


def test_a_runtime_is_told_what_to_run(run: Run) -> None:
    async def main() -> Any:
        async with Runtime() as rt:
            return (
                await rt.submit(double, 1),
                await rt.map(double_later, [1, 2]),
                await rt.call(nested, 2),
                await rt.call(nested_sync, 2),
                (await rt.map(nested, [1, 2], return_state=True))[1].result(),
            )

    assert run(main()) == (2, [2, 4], 8, 8, 8)


def test_what_is_no_task_is_refused(run: Run) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            with pytest.raises(TypeError, match="tasks and flows"):
                rt.submit(print, 1)

    run(main())


def test_a_runtime_has_a_task_runner_for_those_who_name_none(run: Run) -> None:
    @task
    async def thread() -> int:
        return threading.get_ident()

    async def main() -> None:
        async with Runtime(task_runner="threads") as rt:
            assert await rt.submit(thread) != threading.get_ident()
            assert await rt.submit(thread.with_options(task_runner="concurrent")) == threading.get_ident()
        async with Runtime() as rt:
            assert await rt.submit(thread) == threading.get_ident()

    run(main())


def test_an_unknown_task_runner_is_named_with_those_there_are(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(UnknownTaskRunnerError, match=r"nowhere.*known: .*threads"):
            Runtime(task_runner="nowhere")
        async with Runtime() as rt:
            with pytest.raises(UnknownTaskRunnerError, match=r"nowhere.*known: .*threads"):
                rt.submit(double.with_options(task_runner="nowhere"), 1)
        with pytest.raises(TypeError, match="task_runner"):
            Runtime(task_runner=3)

    run(main())


def test_several_runtimes_in_one_process_keep_apart(run: Run) -> None:
    async def main() -> None:
        async with Runtime() as outer, Runtime() as inner:
            first, second = outer.submit(double_later, 1), inner.submit(double_later, 2)
            assert (await first, await second) == (2, 4)
            await inner.aclose()
            assert await outer.submit(double_later, 3) == 6
            with pytest.raises(RuntimeClosedError):
                inner.submit(double_later, 4)

    run(main())


def test_code_in_tasks_made_inside_the_block_belongs_to_the_runtime(run: Run) -> None:
    async def main() -> None:
        async with Runtime() as rt:

            async def handler(x: int) -> Any:
                future: Any = double_later.submit(x)
                assert future.call.scope.engine is rt.engine
                return await future

            assert await asyncio.gather(*(asyncio.create_task(handler(i)) for i in range(5))) == [0, 2, 4, 6, 8]

    run(main())


# --- other threads ------------------------------------------------------------------------------------------------


def test_other_threads_submit_to_a_runtime_and_wait(run: Run) -> None:
    async def main() -> None:
        async with Runtime() as rt:

            def work(x: int) -> Any:
                return (
                    rt.submit(double_later, x).result(30),
                    rt.map(double, [x]).result(30),
                    rt.submit(nested, x).result(30),
                )

            answers = await asyncio.gather(*(asyncio.to_thread(work, i) for i in range(8)))
            assert answers == [(2 * i, [2 * i], 4 * i) for i in range(8)]

    run(main())


def test_threads_that_submit_at_the_same_time_lose_nothing(run: Run) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            futures: list[Any] = []

            def work() -> None:
                for i in range(200):
                    futures.append(rt.submit(double_later, i))

            await asyncio.gather(*(asyncio.to_thread(work) for _ in range(4)))
            results = [await future for future in futures]
            assert sorted(results) == sorted([2 * i for i in range(200)] * 4)
            assert len({future.name for future in futures}) == 800
            assert len({future.task_run_id for future in futures}) == 800

    run(main())


def test_in_sync_code_a_runtime_runs_beside_its_caller() -> None:
    with Runtime(task_runner="threads") as rt:
        assert double.submit(1).result() == 2
        assert rt.submit(double_later, 2).result() == 4
        assert rt.map(nested_sync, [1, 2]).result() == [4, 8]
        assert nested_sync(3) == 12
        assert list(double.stream([4])) == [8]
    with pytest.raises(RuntimeClosedError):
        rt.submit(double, 1)
    assert double.submit(5).result() == 10


# --- closing ------------------------------------------------------------------------------------------------------


def test_leaving_the_block_cancels_what_is_under_way_and_says_why() -> None:
    ended: list[str] = []

    @task
    async def tidy() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1)
            ended.append("tidy")

    async def main() -> list[Any]:
        async with Runtime() as rt:
            futures: list[Any] = [
                rt.submit(tidy),
                rt.submit(stay),
                rt.submit(nested_stay),
                *rt.map(stay_each, [1, 2], max_at_once=1),
            ]
            futures.append(rt.submit(double, futures[1]))
            await asyncio.sleep(1)
        assert ended == ["tidy"]
        return futures

    with virtual_clock() as clock:
        futures = clock.run(main())
        assert clock.elapsed < 10
    for future in futures:
        assert future.state.is_cancelled(), future
        assert future.state.message
        with pytest.raises(CancelledRun):
            future.result()


def test_what_a_program_leaves_under_way_at_its_end_is_named(caplog: pytest.LogCaptureFixture) -> None:
    close_portal()
    futures = [stay.submit(), *stay_each.map([1, 2], max_at_once=1)]
    portal().close_at_exit()
    assert all(future.state.is_cancelled() for future in futures)
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said.startswith(
        "The program has ended, and nobody waited for what it had started. Cancelled 3 task run(s): "
    )
    assert "stay-each-0" in said


@task
async def stay_each(x: int) -> None:
    await asyncio.sleep(1000)


@flow
async def nested_stay() -> None:
    stay.submit()
    await asyncio.sleep(1000)


def test_closing_twice_or_before_anything_ran_is_fine(run: Run) -> None:
    async def main() -> None:
        rt = Runtime()
        await rt.aclose()
        async with Runtime() as rt:
            pass
        await rt.aclose()
        await rt.aclose()
        async with Runtime() as rt:
            await rt.submit(double, 1)
            await rt.aclose()

    run(main())
    with Runtime():
        pass


def test_a_closed_runtime_refuses_work_and_says_so(run: Run) -> None:
    async def main() -> None:
        async with Runtime() as rt:
            assert repr(rt) == "<Runtime open>"
        assert repr(rt) == "<Runtime closed>"
        for refused in (lambda: rt.submit(double, 1), lambda: rt.map(double, [1]), lambda: rt.engine):
            with pytest.raises(RuntimeClosedError, match=r"async with"):
                refused()
        with pytest.raises(RuntimeClosedError, match="once"):
            async with rt:
                pass
        assert await double_later.submit(1) == 2  # the loop's own engine

    run(main())
    unopened = Runtime()
    assert repr(unopened) == "<Runtime not open>"
    with pytest.raises(RuntimeClosedError):
        unopened.submit(double, 1)


def test_an_exception_in_the_block_closes_the_runtime_and_passes(run: Run) -> None:
    async def main() -> None:
        future: Any = None
        with pytest.raises(KeyError, match="mine"):  # noqa: PT012  # the loop, or the block, is what raises
            async with Runtime() as rt:
                future = rt.submit(stay)
                await asyncio.sleep(0)
                raise KeyError("mine")
        assert future.state.is_cancelled()

    run(main())


def test_runs_that_end_in_cancellation_do_not_keep_the_runtime_from_closing(run: Run) -> None:
    @task
    async def stubborn() -> str:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            return "finished anyway"
        return "never"

    async def main() -> Any:
        async with Runtime() as rt:
            future = rt.submit(stubborn)
            await asyncio.sleep(0.001)
        return future.state

    assert run(main()).is_final()


# --- what it leaves behind ------------------------------------------------------------------------------------------


def test_the_engine_of_a_loop_ends_with_the_loop(run: Run) -> None:
    before = set(threading.enumerate())

    async def main() -> Any:
        await double.map(range(20))
        return double_later.submit(1), stay.submit()

    done, left = run(main())
    assert left.state.is_cancelled()
    assert left.state.message
    assert done.is_done()
    assert [t for t in threading.enumerate() if t not in before and not t.daemon] == []


def test_work_after_the_loop_has_ended_is_refused_where_a_runtime_was_kept() -> None:
    kept: list[Runtime] = []

    async def main() -> None:
        rt = Runtime()
        await rt.__aenter__()
        kept.append(rt)
        rt._end()  # pyright: ignore[reportPrivateUsage]  # no public way to look at it

    asyncio.run(main())
    with pytest.raises(RuntimeClosedError):
        kept[0].submit(double_later, 1)


def test_one_loop_after_another_may_use_upwell(run: Run) -> None:
    for i in range(5):
        assert run(nested(i)) == 4 * i


def test_a_runtime_forgets_failed_runs_that_nobody_holds(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("upwell"), "disabled", True)  # a kept log record keeps its exception
    monkeypatch.setattr(logging.getLogger("upwell.task_runs"), "disabled", True)

    class Boom(Exception):
        pass

    @task
    async def bad() -> None:
        raise Boom

    async def main() -> None:
        async with Runtime() as rt:
            errors: list[weakref.ref[Boom]] = []
            for _ in range(3):
                try:
                    await rt.submit(bad)
                except Boom as error:
                    errors.append(weakref.ref(error))
            await asyncio.sleep(0)
            gc.collect()
            assert [error() for error in errors] == [None] * 3

    run(main())


def test_where_am_i_in_a_runtime_outside_of_flows(run: Run) -> None:
    @task
    async def look() -> Any:
        return runtime.task_run.name, runtime.flow_run.id

    async def main() -> Any:
        async with Runtime() as rt:
            return await rt.submit(look)

    assert run(main()) == ("look-0", None)


def test_runtimes_follow_a_virtual_clock() -> None:
    async def main() -> None:
        async with Runtime() as rt:
            await rt.submit(stay)

    with virtual_clock() as clock:
        clock.run(main())
        assert clock.elapsed == pytest.approx(1000, abs=0.01)
    run_virtual(main())


def test_a_runtime_that_owns_its_loop_raises_the_collectors_threshold_while_it_is_open() -> None:
    before = gc.get_threshold()
    with temporary_settings(gc_threshold=before[0] + 1_000):
        with Runtime():
            assert gc.get_threshold() == (before[0] + 1_000, *before[1:])
        assert gc.get_threshold() == before


@pytest.mark.parametrize("setting", [None, 0])
def test_unless_it_is_set_the_collector_is_left_alone(setting: int | None) -> None:
    before = gc.get_threshold()
    with temporary_settings(gc_threshold=setting), Runtime():
        assert gc.get_threshold() == before


def test_a_runtime_in_somebody_elses_loop_leaves_the_collector_alone(run: Run) -> None:
    before = gc.get_threshold()

    async def main() -> None:
        async with Runtime():
            assert gc.get_threshold() == before

    with temporary_settings(gc_threshold=before[0] + 1_000):
        run(main())


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (3, "slots by name"),
        ({3: 1}, "texts"),
        ({"db": "5"}, "whole number"),
        ({"db": -1}, "whole number"),
        ({"db": (1,)}, "slot_decay_per_second"),
        ({"db": (1, -1)}, "decay"),
        ({"db": (1, "2")}, "decay"),
    ],
)
def test_wrong_limits_are_refused_where_they_are_said(limits: Any, says: str) -> None:
    with pytest.raises((TypeError, ConfigurationError), match=says):
        Runtime(limits=limits)


def test_a_portal_that_cannot_begin_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ConfigurationError("it cannot be")

    monkeypatch.setattr("upwell.engine.current.Engine", refuse)
    with pytest.raises(ConfigurationError, match="it cannot be"), Runtime():
        pass


@pytest.mark.timeout(0)  # pytest-timeout would take the alarm
@pytest.mark.parametrize("in_thread", [False, True])
def test_a_timeout_that_is_up_while_the_portal_begins_leaves_no_half_of_it(
    monkeypatch: pytest.MonkeyPatch, in_thread: bool
) -> None:
    loops: list[asyncio.AbstractEventLoop] = []
    new_loop = SystemClock.new_loop

    def begin_slowly(clock: SystemClock) -> asyncio.AbstractEventLoop:
        loops.append(new_loop(clock))
        end = time.monotonic() + 0.05  # past the timeout
        while time.monotonic() < end:
            pass
        return loops[-1]

    @flow(timeout_seconds=0.02)
    def hasty() -> None:
        while True:
            stay.submit().result()

    monkeypatch.setattr(SystemClock, "new_loop", begin_slowly)
    close_portal()
    with ThreadPoolExecutor(1) as pool, pytest.raises(FlowRunTimeoutError):
        _ = pool.submit(hasty).result() if in_thread else hasty()
    assert [portal().loop] == loops


def test_a_runtime_that_is_open_in_sync_code_cannot_be_opened_again() -> None:
    threads = threading.active_count()
    with Runtime() as runtime:
        with pytest.raises(RuntimeClosedError, match="opened once"):
            runtime.__enter__()
        assert threading.active_count() <= threads + 1
