"""`task.map`: what is mapped, what is constant, how many run at once, how fast they start, what a failure stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from itertools import pairwise
from typing import Any

import pytest
from tests.runtime.given import Crowd, Run

from upwell import allow_failure, flow, quote, task, unmapped
from upwell.core.errors import BlockingWaitError, ConfigurationError, ParameterBindError
from upwell.testing import run_virtual, virtual_clock


@task
def show(x: Any, y: Any = "default") -> Any:
    return x, y


@task
async def identity(x: Any) -> Any:
    return x


@task
def fail(message: str) -> Any:
    raise ValueError(message)


# --- inputs -------------------------------------------------------------------------------------------------------


def test_iterables_are_taken_together_and_constants_go_to_every_run() -> None:
    assert show.map([1, 2], ["a", "b"]).result() == [(1, "a"), (2, "b")]
    assert show.map([1, 2], "ab").result() == [(1, "ab"), (2, "ab")]
    assert show.map([1, 2], {"k": 1}).result() == [(1, {"k": 1}), (2, {"k": 1})]
    assert show.map([1, 2], b"ab").result() == [(1, b"ab"), (2, b"ab")]
    assert show.map([1, 2], 5).result() == [(1, 5), (2, 5)]
    assert show.map([1, 2], unmapped([3, 4])).result() == [(1, [3, 4]), (2, [3, 4])]


def test_keywords_are_mapped_like_positions() -> None:
    assert show.map(x=[1, 2], y=["a", "b"]).result() == [(1, "a"), (2, "b")]
    assert show.map([1, 2], y=unmapped([0])).result() == [(1, [0]), (2, [0])]


def test_defaults_are_not_mapped() -> None:
    @task
    def with_list(x: int, more: list[int] = [1, 2, 3]) -> tuple[int, list[int]]:  # noqa: B006  # what is tested
        return x, more

    assert with_list.map([7, 8]).result() == [(7, [1, 2, 3]), (8, [1, 2, 3])]


def test_generators_ranges_and_sets_can_be_mapped_over() -> None:
    def generate() -> Iterator[int]:
        yield from (1, 2, 3)

    assert identity.map(generate()).result() == [1, 2, 3]
    assert identity.map(range(3)).result() == [0, 1, 2]
    assert sorted(identity.map({3, 1, 2}).result()) == [1, 2, 3]
    assert identity.map({"a": 1}.keys()).result() == ["a"]


def test_a_constant_is_shared_by_reference() -> None:
    shared: list[int] = []
    results = show.map([1, 2], unmapped(shared)).result()
    assert all(y is shared for _, y in results)


def test_a_quoted_item_is_passed_as_it_is() -> None:
    @flow
    def around() -> bool:
        future = show.submit(1)
        (got,) = identity.map([quote(future)]).result()
        return got is future

    assert around()


def test_a_map_over_futures_starts_each_as_its_own_ends() -> None:
    order: list[Any] = []

    @task
    async def after(seconds: int) -> int:
        await asyncio.sleep(seconds)
        return seconds

    @task
    async def note(x: int) -> int:
        order.append((x, asyncio.get_running_loop().time()))
        return x

    @flow
    async def around() -> list[int]:
        return await note.map(after.map([3, 1, 2]))

    assert run_virtual(around()) == [3, 1, 2]
    assert [x for x, _ in order] == [1, 2, 3]


def test_a_map_over_the_future_of_a_list_waits_for_it(run: Run) -> None:
    @task
    def listed() -> list[int]:
        return [1, 2, 3]

    @flow
    def sync_flow() -> list[Any]:
        return identity.map(listed.submit()).result()

    assert sync_flow() == [1, 2, 3]

    @flow
    async def async_flow() -> list[Any]:
        future = listed.submit()
        with pytest.raises(BlockingWaitError, match="Await it first"):
            identity.map(future)
        return await identity.map(await future)

    assert run(async_flow()) == [1, 2, 3]


def test_a_failure_in_a_map_stops_nobody_else() -> None:
    @task
    def odd(x: int) -> int:
        if x == 2:
            raise ValueError(f"bad {x}")
        return x

    @flow
    def around() -> list[Any]:
        return odd.map(range(4)).result(raise_on_failure=False)

    results = around()
    assert results[:2] == [0, 1]
    assert isinstance(results[2], ValueError)
    assert results[3] == 3


def test_a_map_over_failed_futures_holds_up_only_their_dependants() -> None:
    @flow
    def around() -> list[str]:
        inputs = [show.submit(1), fail.submit("no"), show.submit(3)]
        held_up = [state.name for state in identity.map(inputs, return_state=True)]
        let_in = [state.name for state in identity.map(allow_failure(inputs), return_state=True)]
        return held_up + let_in  # pyright: ignore[reportUnknownVariableType]  # a lambda needs no annotations here

    assert around() == ["Completed", "NotReady", "Completed"] + ["Completed"] * 3


def test_a_parameter_may_have_the_name_of_an_option_of_map() -> None:
    @task
    def takes(max_at_once: int) -> int:
        return max_at_once

    assert takes.map(max_at_once=[1, 2, 3]).result() == [1, 2, 3]


# --- how many at once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 3, 10, 50])
def test_no_more_than_max_at_once_run_and_no_place_is_left_empty(width: int) -> None:
    crowd = Crowd()
    stay = crowd.for_seconds

    @flow
    async def around() -> None:
        await stay.map([1.0] * 20, max_at_once=width)

    with virtual_clock() as clock:
        clock.run(around())
        assert crowd.most == min(width, 20)
        assert clock.elapsed == pytest.approx(-(-20 // width), abs=0.01)


def test_a_place_is_taken_again_as_soon_as_it_is_free() -> None:
    crowd = Crowd()
    stay = crowd.for_seconds

    with virtual_clock() as clock:
        clock.run(flow(stay_with(stay))())
        assert crowd.most == 2
        assert clock.elapsed == pytest.approx(10, abs=0.01)  # nine short ones pass by one long one


def stay_with(stay: Any) -> Callable[[], Coroutine[Any, Any, None]]:
    async def around() -> None:
        await stay.map([10.0, *[1.0] * 9], max_at_once=2)

    return around


def test_a_bounded_map_of_sync_tasks_is_bounded_too() -> None:
    inside: list[int] = []
    most: list[int] = []

    @task
    def stay(x: int) -> int:
        inside.append(x)
        most.append(len(inside))
        inside.remove(x)
        return x

    assert stay.map(range(200), max_at_once=1).result() == list(range(200))
    assert max(most) == 1


def test_runs_of_a_bounded_map_start_in_order() -> None:
    started: list[int] = []

    @task
    async def note(x: int) -> None:
        started.append(x)
        await asyncio.sleep(0)

    note.map(range(50), max_at_once=4).result()
    assert started == list(range(50))


def test_each_map_has_places_of_its_own() -> None:
    crowd = Crowd()
    stay = crowd.for_seconds

    @flow
    async def around() -> None:
        first, second = stay.map([1.0] * 6, max_at_once=2), stay.map([1.0] * 6, max_at_once=3)
        await first
        await second

    run_virtual(around())
    assert crowd.most == 5


def test_a_run_that_waits_for_another_gives_its_place_to_the_next() -> None:
    @task
    async def child(x: int) -> int:
        await asyncio.sleep(1)
        return x

    @task
    async def parent(x: int) -> int:
        return await child.submit(x)

    @flow
    async def around() -> list[int]:
        return await parent.map(range(5), max_at_once=1)

    with virtual_clock() as clock:
        assert clock.run(around()) == [0, 1, 2, 3, 4]
        assert clock.elapsed == pytest.approx(1, abs=0.01)


def test_a_run_that_waits_for_its_place_says_for_which() -> None:
    @task
    async def stay() -> None:
        await asyncio.sleep(1)

    @task
    async def stay_for(x: int) -> None:
        await asyncio.sleep(x)

    @flow
    async def around() -> Any:
        futures = stay_for.map([1, 1], max_at_once=1)
        await asyncio.sleep(0.5)
        return futures[1].state.name, futures[1].state.message

    assert run_virtual(around()) == ("AwaitingConcurrencySlot", "Waits for one of the 1 places of the map of stay-for.")


# --- how fast ---------------------------------------------------------------------------------------------------------


def test_starts_are_spaced_by_max_per_second() -> None:
    crowd = Crowd()
    stay = crowd.for_seconds

    @flow
    async def around() -> None:
        await stay.map([0.0] * 11, max_per_second=10)

    with virtual_clock() as clock:
        clock.run(around())
        assert clock.elapsed == pytest.approx(1, abs=0.02)
    starts = [at for _, at in crowd.came]
    gaps = [later - sooner for sooner, later in pairwise(starts)]
    assert all(gap == pytest.approx(0.1, abs=0.01) for gap in gaps)


def test_both_bounds_hold_together() -> None:
    crowd = Crowd()
    stay = crowd.for_seconds

    @flow
    async def around() -> None:
        await stay.map([1.0] * 10, max_at_once=2, max_per_second=100)

    with virtual_clock() as clock:
        clock.run(around())
        assert crowd.most == 2
        assert clock.elapsed == pytest.approx(5, abs=0.1)


@pytest.mark.parametrize("bounds", [{"max_at_once": 0}, {"max_at_once": -1}, {"max_per_second": 0}])
def test_a_bound_that_lets_nobody_through_is_refused(bounds: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(bounds))):
        identity.map([1], **bounds)


@pytest.mark.parametrize("bounds", [{"max_at_once": "2"}, {"max_at_once": 1.5}, {"max_per_second": "fast"}])
def test_a_bound_of_the_wrong_type_is_refused(bounds: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(bounds))):
        identity.map([1], **bounds)


def test_an_unknown_keyword_is_an_argument_that_does_not_fit() -> None:
    with pytest.raises(ParameterBindError, match="max_per_minute"):
        identity.map([1], max_per_minute=3)
