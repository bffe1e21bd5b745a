"""Several futures: waits for all, for the first, in the order of their end; results in any structure."""

from __future__ import annotations

from typing import Any

import pytest
from tests.runtime.given import Run, after, double, fail

from upwell import (
    as_completed,
    first,
    first_async,
    flow,
    task,
    wait,
    wait_async,
)
from upwell.core.errors import BlockingWaitError
from upwell.futures import FutureList, resolve_futures_to_results, resolve_futures_to_states
from upwell.testing import run_virtual, virtual_clock

# --- several futures ----------------------------------------------------------------------------------------------


def test_a_map_gives_a_list_of_futures_with_all_results_in_order(run: Run) -> None:
    futures = double.map(range(5))
    assert isinstance(futures, FutureList)
    assert isinstance(futures, list)
    futures.wait()
    assert futures.result() == [0, 2, 4, 6, 8]

    async def main() -> list[int]:
        return await double.map(range(5))

    assert run(main()) == [0, 2, 4, 6, 8]


def test_a_future_list_raises_the_first_failure_in_order_or_gives_it(run: Run) -> None:
    futures = fail.map(["a", "b"])
    with pytest.raises(ValueError, match=r"^a$"):
        futures.result()
    assert [str(error) for error in futures.result(raise_on_failure=False)] == ["a", "b"]

    async def main() -> None:
        with pytest.raises(ValueError, match=r"^a$"):
            await fail.map(["a", "b"])

    run(main())


def test_one_timeout_is_for_all_results_together() -> None:
    with virtual_clock() as clock:
        futures = after.map([4, 8, 12])
        with pytest.raises(TimeoutError, match=r"'after-2' has not ended within 10 seconds; it goes on\."):
            futures.result(timeout=10)
        assert clock.elapsed == pytest.approx(10, abs=0.01)
        futures.wait()
        assert clock.elapsed == pytest.approx(12, abs=0.01)


def test_wait_says_which_have_ended() -> None:
    with virtual_clock():
        futures = after.map([30, 1, 2])
        done, not_done = wait(futures, timeout=10)
        assert done == [futures[1], futures[2]]
        assert not_done == [futures[0]]
        assert wait(futures).not_done == []
    assert wait([]) == ([], [])


def test_wait_async_says_which_have_ended() -> None:
    async def main() -> None:
        futures = after.map([30, 1, 2])
        done, not_done = await wait_async(futures, timeout=10)
        assert done == [futures[1], futures[2]]
        assert not_done == [futures[0]]
        assert (await wait_async(futures)).not_done == []
        assert await wait_async([]) == ([], [])

    run_virtual(main())


def test_as_completed_gives_them_in_the_order_of_their_end() -> None:
    with virtual_clock():
        futures = after.map([3, 1, 2])
        assert [future.result() for future in as_completed(futures)] == [1, 2, 3]
        assert sorted(future.result() for future in as_completed(futures)) == [1, 2, 3]


def test_as_completed_gives_them_in_the_order_of_their_end_on_a_loop() -> None:
    async def main() -> None:
        futures = after.map([3, 1, 2])
        assert [future.result() async for future in as_completed(futures)] == [1, 2, 3]

    run_virtual(main())


def test_as_completed_says_how_many_were_late() -> None:
    with virtual_clock():
        futures = after.map([1, 100, 200])
        seen: list[Any] = []
        with pytest.raises(TimeoutError, match=r"^2 \(of 3\) futures unfinished after 5 seconds$"):  # noqa: PT012  # the loop, or the block, is what raises
            for future in as_completed(futures, timeout=5):
                seen.append(future)
        assert seen == [futures[0]]

    async def main() -> None:
        futures = after.map([1, 100, 200])
        with pytest.raises(TimeoutError, match=r"^2 \(of 3\) futures unfinished after 5 seconds$"):
            async for _ in as_completed(futures, timeout=5):
                pass

    run_virtual(main())


def test_a_future_that_is_given_twice_comes_twice() -> None:
    future = double.submit(1)
    assert [each.result() for each in as_completed([future, future])] == [2, 2]


def test_first_is_the_one_that_ends_first_well_or_badly() -> None:
    with virtual_clock():
        futures = after.map([3, 1, 2])
        assert first(futures) is futures[1]
        bad = fail.submit()
        assert first([futures[0], bad]) is bad

    async def main() -> None:
        futures = after.map([3, 1, 2])
        assert await first_async(futures) is futures[1]
        with pytest.raises(TimeoutError):
            await first_async([futures[0]], timeout=0.5)

    run_virtual(main())


def test_there_is_no_first_of_no_futures(run: Run) -> None:
    with pytest.raises(ValueError, match="no first"):
        first([])

    async def main() -> None:
        with pytest.raises(ValueError, match="no first"):
            await first_async([])

    run(main())


def test_first_in_time_or_a_timeout() -> None:
    with virtual_clock() as clock:
        future = after.submit(100)
        with pytest.raises(TimeoutError):
            first([future], timeout=5)
        assert clock.elapsed == pytest.approx(5, abs=0.01)


def test_a_blocking_first_on_a_loop_names_the_one_to_await(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(BlockingWaitError, match=r"await first_async\("):
            first(after.map([0.001, 0.002]))

    run(main())


def test_blocking_waits_on_the_loops_own_thread_are_refused(run: Run) -> None:
    async def main() -> None:
        futures = after.map([0.001])
        for blocking in (wait, first, lambda futures: list(as_completed(futures))):  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType, reportUnknownVariableType]  # a lambda needs no annotations here
            with pytest.raises(BlockingWaitError):
                blocking(futures)
        with pytest.raises(BlockingWaitError):
            futures.result()
        await futures
        assert wait(futures).done == futures
        assert first(futures) is futures[0]

    run(main())


@pytest.mark.parametrize("count", [1, 5])
def test_a_task_on_a_pool_of_one_may_wait_in_every_way_for_its_own_submits(count: int) -> None:
    from upwell.task_runners import ThreadPoolTaskRunner  # loaded here, for it loads the runners

    @task
    def parent(n: int) -> list[int]:
        return [
            sum(double.map(range(n)).result()),
            sum(future.result() for future in as_completed(double.map(range(n)))),
            sum(future.result() for future in wait(double.map(range(n))).done),
            first(double.map([n])).result(),
            sum(double.stream(range(n))),
            sum(double.stream(range(n), ordered=False)),
        ]

    @flow(task_runner=ThreadPoolTaskRunner(1))
    def around() -> list[list[int]]:
        return parent.map([3] * count).result()

    assert around() == [[6, 6, 6, 6, 6, 6]] * count


# --- resolving --------------------------------------------------------------------------------------------------


def test_futures_in_any_structure_can_be_resolved_to_results_and_states() -> None:
    value = {"a": [double.submit(1), (double.submit(2), 3)], "b": "text"}
    assert resolve_futures_to_results(value) == {"a": [2, (4, 3)], "b": "text"}
    states = resolve_futures_to_states([double.submit(1), fail.submit()])
    assert [state.is_completed() for state in states] == [True, False]
    with pytest.raises(ValueError, match="boom"):
        resolve_futures_to_results([fail.submit()])
