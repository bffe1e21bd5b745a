"""`task.stream`: inputs are read as there is room, endless ones too; leaving early cancels the rest."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.runtime.given import Run, double, double_later

from upwell import flow, task, unmapped
from upwell.core.errors import BlockingWaitError, ConfigurationError, ParameterBindError
from upwell.testing import run_virtual, virtual_clock

pytestmark = pytest.mark.usefixtures("reads_all_at_once")


@task
async def after(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


class Counted:
    """An endless iterable that knows how many items were taken from it, and whether it was closed."""

    def __init__(self) -> None:
        self.taken = 0
        self.closed = False

    def __iter__(self) -> Iterator[int]:
        for i in itertools.count():
            self.taken += 1
            yield i

    async def __aiter__(self) -> AsyncIterator[int]:
        try:
            for i in itertools.count():
                self.taken += 1
                yield i
                await asyncio.sleep(0)
        finally:
            self.closed = True


async def items(*values: int) -> AsyncIterator[int]:
    for value in values:
        await asyncio.sleep(0)
        yield value


# --- what comes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("it", [double, double_later], ids=["sync", "async"])
@pytest.mark.parametrize("ordered", [True, False])
def test_every_input_gives_one_result(it: Any, ordered: bool, run: Run) -> None:
    expected = [2 * i for i in range(1_000)]
    assert sorted(it.stream(range(1_000), ordered=ordered)) == expected

    @flow
    def sync_flow() -> list[int]:
        return list(it.stream(range(1_000), ordered=ordered))

    @flow
    async def async_flow() -> list[int]:
        return [x async for x in it.stream(range(1_000), ordered=ordered)]

    for results in (sync_flow(), run(async_flow())):
        assert sorted(results) == expected
        if ordered:
            assert results == expected


def test_ordered_results_come_in_the_order_of_inputs_and_others_as_they_are_ready() -> None:
    async def main(ordered: bool) -> list[float]:
        return [x async for x in after.stream([3, 1, 2], ordered=ordered)]

    assert run_virtual(main(True)) == [3, 1, 2]
    assert run_virtual(main(False)) == [1, 2, 3]


def test_the_same_in_sync_code() -> None:
    with virtual_clock():
        assert list(after.stream([3, 1, 2])) == [3, 1, 2]
        assert list(after.stream([3, 1, 2], ordered=False)) == [1, 2, 3]


@pytest.mark.parametrize("ordered", [True, False])
def test_an_async_iterable_is_streamed(ordered: bool, run: Run) -> None:
    async def main() -> list[int]:
        return [x async for x in double_later.stream(items(1, 2, 3), ordered=ordered)]

    assert sorted(run(main())) == [2, 4, 6]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("window", [1, 2, 7])
def test_any_window_will_do(ordered: bool, window: int, run: Run) -> None:
    async def main() -> list[int]:
        plain = [x async for x in double_later.stream(range(50), ordered=ordered, max_at_once=window)]
        asynchronous = [x async for x in double_later.stream(items(*range(50)), ordered=ordered, max_at_once=window)]
        assert sorted(plain) == sorted(asynchronous)
        return plain

    assert sorted(run(main())) == [2 * i for i in range(50)]


@pytest.mark.parametrize("inputs", [[], (), range(0), iter([])])
def test_no_inputs_give_no_results(inputs: Any, run: Run) -> None:
    assert list(double.stream(inputs)) == []

    async def main() -> None:
        assert [x async for x in double.stream(inputs)] == []
        assert [x async for x in double.stream(items())] == []

    run(main())


def test_a_stream_over_futures_takes_their_results(run: Run) -> None:
    @flow
    async def around() -> list[int]:
        return [x async for x in double_later.stream([double.submit(i) for i in range(5)])]

    assert run(around()) == [0, 4, 8, 12, 16]


def test_results_come_while_a_slow_source_is_read() -> None:
    async def slow() -> AsyncIterator[int]:
        for i in range(3):
            await asyncio.sleep(10)
            yield i

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        return [round(loop.time() - begun) async for _ in double_later.stream(slow())]

    assert run_virtual(main()) == [10, 20, 30]


# --- back-pressure ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("asynchronous", [True, False])
def test_inputs_are_not_read_further_ahead_than_the_window(ordered: bool, asynchronous: bool, run: Run) -> None:
    async def main() -> None:
        source = Counted()
        inputs: Any = source.__aiter__() if asynchronous else iter(source)
        taken = 0
        async for _ in double_later.stream(inputs, max_at_once=10, ordered=ordered):
            taken += 1
            for _ in range(5):
                await asyncio.sleep(0)
            assert source.taken - taken <= 11
            if taken == 100:
                break

    run(main())


def test_no_more_than_max_at_once_are_under_way() -> None:
    now = most = 0

    @task
    async def stay(x: int) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(1)
        now -= 1

    async def main() -> None:
        async for _ in stay.stream(range(30), max_at_once=4, ordered=False):
            pass

    run_virtual(main())
    assert most == 4


def test_starts_of_a_stream_are_paced() -> None:
    async def main() -> None:
        assert [x async for x in double_later.stream(range(11), max_per_second=10)] == [2 * i for i in range(11)]

    with virtual_clock() as clock:
        clock.run(main())
        assert clock.elapsed == pytest.approx(1, abs=0.05)


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
def test_a_failed_run_raises_its_exception_at_its_place(ordered: bool, run: Run) -> None:
    @task
    async def odd(x: int) -> int:
        if x == 3:
            raise ValueError("three")
        return x

    got: list[int] = []

    async def main() -> None:
        with pytest.raises(ValueError, match="three"):  # noqa: PT012  # the loop, or the block, is what raises
            async for x in odd.stream(range(10), ordered=ordered):
                got.append(x)

    run(main())
    if ordered:
        assert got == [0, 1, 2]

    sync_got: list[int] = []
    with pytest.raises(ValueError, match="three"):  # noqa: PT012  # the loop, or the block, is what raises
        for x in odd.stream(range(10)):
            sync_got.append(x)
    assert sync_got == [0, 1, 2]


def test_an_exception_of_the_source_reaches_the_consumer_after_the_results_of_what_came_before(run: Run) -> None:
    taken: list[int] = []

    def broken() -> Iterator[int]:
        yield 1
        raise KeyError("source")

    async def broken_later() -> AsyncIterator[int]:
        yield 1
        raise KeyError("source")

    with pytest.raises(KeyError, match="source"):  # noqa: PT012  # the loop is what raises
        for result in double.stream(broken()):
            taken.append(result)

    async def main() -> None:
        for inputs in (broken(), broken_later()):
            with pytest.raises(KeyError, match="source"):  # noqa: PT012
                async for result in double.stream(inputs):
                    taken.append(result)

    run(main())
    assert taken == [2, 2, 2]


def test_what_cannot_be_streamed_is_refused_at_once() -> None:
    for wrong in ("text", b"bytes", 3, None):
        with pytest.raises(TypeError, match="iterable"):
            double.stream(wrong)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ConfigurationError):
        double.stream([1], max_at_once=0)
    with pytest.raises(TypeError, match="async for"):
        list(double.stream(items(1)))


def test_a_task_that_takes_not_just_one_argument_is_refused_before_anything_is_read() -> None:
    @task
    def pair(a: int, b: int) -> None: ...

    with pytest.raises(ParameterBindError, match="missing a required argument: 'b'"):
        pair.stream(iter([1]))


def test_a_blocking_loop_on_the_loops_own_thread_is_refused(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(BlockingWaitError, match="async for"):
            list(double.stream([1]))

    run(main())


def test_retries_and_other_options_hold_in_a_stream(run: Run) -> None:
    attempts: dict[int, int] = {}

    @task(retries=2)
    async def flaky(x: int) -> int:
        attempts[x] = attempts.get(x, 0) + 1
        if attempts[x] < 3:
            raise ValueError("again")
        return x

    async def main() -> list[int]:
        return [x async for x in flaky.stream(range(5))]

    assert run(main()) == [0, 1, 2, 3, 4]
    assert set(attempts.values()) == {3}


def test_a_stream_inside_a_task_and_two_at_once(run: Run) -> None:
    @task
    async def inner(n: int) -> int:
        return sum([x async for x in double_later.stream(range(n))])

    @task
    def inner_sync(n: int) -> int:
        return sum(double_later.stream(range(n)))

    @flow
    async def around() -> list[int]:
        both: list[int] = []
        async for a in double_later.stream([1, 2]):
            async for b in double_later.stream([10, 20]):
                both.append(a + b)
        return [*both, await inner.submit(4), await inner_sync.submit(4)]

    assert run(around()) == [22, 42, 24, 44, 12, 12]


def test_a_long_stream_keeps_no_runs(run: Run) -> None:
    import gc

    def runs_alive() -> int:
        return sum(type(each).__name__ == "RunFuture" for each in gc.get_objects())

    async def main() -> None:
        before = runs_alive()
        async for x in double_later.stream(range(5_000), max_at_once=50):
            if x == 2 * 4_000:
                assert runs_alive() < before + 500

    run(main())


# --- as many at once as there may be --------------------------------------------------------------------------------


def waiting_for_the_last(count: int, first_returns: bool = False) -> Any:
    """A task whose runs wait until so many have begun; the first may return at once."""
    all_begun = asyncio.Event()

    @task
    async def together(number: int) -> int:
        if number == count - 1:
            all_begun.set()
        if number or not first_returns:
            await all_begun.wait()
        return number

    return together


@pytest.mark.parametrize("ordered", [True, False])
def test_a_slow_source_is_read_on_while_runs_are_under_way(ordered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upwell.streams.READING_SECONDS", -1.0)  # each item takes long

    async def main() -> None:
        together = waiting_for_the_last(5)
        assert sorted([number async for number in together.stream(range(5), ordered=ordered)]) == list(range(5))

    run_virtual(asyncio.wait_for(main(), 60))


@pytest.mark.parametrize("ordered", [True, False])
def test_a_place_that_is_free_is_taken_at_once(ordered: bool) -> None:
    async def main() -> None:
        together = waiting_for_the_last(5, first_returns=True)
        found = [number async for number in together.stream(range(5), ordered=ordered, max_at_once=4)]
        assert sorted(found) == list(range(5))

    run_virtual(asyncio.wait_for(main(), 60))


def test_a_slow_source_of_sync_code_is_read_on_while_runs_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upwell.streams.READING_SECONDS", -1.0)
    all_begun = threading.Barrier(3)

    @task
    def together(number: int) -> int:
        all_begun.wait(60)
        return number

    assert sorted(together.stream(range(3))) == [0, 1, 2]


@task
def quotient(number: int, by: int, *, plus: int = 0) -> int:
    return number // by + plus


def test_all_runs_of_a_stream_are_given_the_same_constants(run: Run) -> None:
    @flow
    async def main() -> list[int]:
        return [result async for result in quotient.stream([4, 6], by=2, plus=unmapped(1))]

    assert run(main()) == [3, 4]
    assert list(quotient.stream(range(3), by=1)) == [0, 1, 2]


def test_constants_of_a_stream_are_refused_that_no_run_could_be_given() -> None:
    with pytest.raises(ParameterBindError, match="by"):
        quotient.stream([1], plus=1)
    with pytest.raises(ParameterBindError, match="wait_for"):
        quotient.stream([1], by=1, wait_for=[])

    @flow
    def main() -> None:
        with pytest.raises(TypeError, match="'by', and that cannot hold futures"):
            quotient.stream([1], by=double.submit(1))

    main()


@pytest.mark.parametrize("ordered", [True, False])
def test_a_stream_of_states_raises_nothing(ordered: bool, run: Run) -> None:
    @flow
    async def main() -> list[str]:
        taken = [state async for state in quotient.stream([1, 2], by=0, return_state=True, ordered=ordered)]
        taken += [state async for state in quotient.stream([1], by=1, return_state=True)]
        return [state.name for state in taken]

    assert run(main()) == ["Failed", "Failed", "Completed"]
    assert [state.name for state in quotient.stream([1, 2], by=0, return_state=True)] == ["Failed", "Failed"]


def test_a_stream_is_taken_once(run: Run) -> None:
    taken = double.stream([1, 2])
    assert list(taken) == [2, 4]
    with pytest.raises(RuntimeError, match="has been taken already"):
        list(taken)

    async def twice() -> None:
        later = double_later.stream([1])
        assert [result async for result in later] == [2]
        with pytest.raises(RuntimeError, match="has been taken already"):
            async for _ in later:
                pass

    run(twice())
