"""Durable flows: what a resumed run takes from the store, what it runs again, and that it comes out the same."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.durability.given import die_once, double, ran, switches
from tests.runtime.durability.killed import ask, change, killed

from upwell import allow_failure, flow, task, unmapped
from upwell.runtime import task_run


@task
async def add(x: int, y: int = 1) -> int:
    ran["add", x, y] += 1
    return x + y


@task
def roll(sides: int) -> float:
    """Never the same twice."""
    ran["roll"] += 1
    return random.random() * sides


@task
def same(value: Any) -> Any:
    ran["same"] += 1
    return value


def once() -> bool:
    """Whether everything was run once."""
    return set(ran.values()) == {1}


@flow(durable=True)
def sync_flow() -> list[int]:
    first = double(1)
    second = double.submit(first)
    third = add.map(range(5), unmapped(7))
    fourth = double.map(third)
    total = [second.result(), *fourth.result()]
    die_once()
    return [*total, double(100)]


def test_what_a_sync_flow_has_finished_is_not_run_again(home: Path) -> None:
    with killed(home):
        sync_flow()
    assert sync_flow() == [4, 14, 16, 18, 20, 22, 200]
    assert once()
    assert ask(home, "SELECT state, crashes, run_count FROM flow_runs") == [("COMPLETED", 1, 2)]


@flow(durable=True)
async def async_flow() -> list[int]:
    direct = await asyncio.gather(*(add(x) for x in range(4)))
    submitted = [add.submit(x, y=5) for x in direct]
    mapped = await add.map(submitted)
    streamed = [value async for value in add.stream(range(50, 150))]
    die_once()
    return [*mapped, sum(streamed), await add(0, y=99)]


def test_what_an_async_flow_has_finished_is_not_run_again(home: Path) -> None:
    with killed(home):
        asyncio.run(async_flow())
    assert asyncio.run(async_flow()) == [7, 8, 9, 10, 10050, 99]
    assert once()


@flow(durable=True)
def two_of_each() -> tuple[list[float], list[float]]:
    rolled = [roll.submit(6) for _ in range(3)]
    kept = [same.submit(one) for one in rolled]
    values = [one.result() for one in rolled], [one.result() for one in kept]
    switches.add(repr(values))
    die_once()
    return values


def test_equal_calls_keep_each_its_own_result_and_their_dependants_keep_theirs(home: Path) -> None:
    with killed(home):
        two_of_each()
    values = two_of_each()
    assert values[0] == values[1]
    assert len(set(values[0])) == 3
    assert switches == {repr(values)}
    assert (ran["roll"], ran["same"]) == (3, 3)


def test_of_equal_calls_of_which_one_had_not_finished_each_dependant_sees_its_own(home: Path) -> None:
    with killed(home):
        two_of_each()
    change(home, "DELETE FROM task_runs WHERE number = 0")  # the first roll, and what was made of it
    values = two_of_each()
    assert values[0] == values[1]
    assert (ran["roll"], ran["same"]) == (4, 4)


@task
def outer(x: int) -> int:
    ran["outer", x] += 1
    inner = double(x)
    if x == 2:
        die_once()
    return inner + 1


@flow(durable=True)
def tasks_in_tasks() -> list[int]:
    return [outer(1), double(1), outer(2), double(2)]


def test_what_a_task_has_called_is_not_taken_for_what_the_flow_calls(home: Path) -> None:
    with killed(home):
        tasks_in_tasks()
    assert tasks_in_tasks() == [3, 2, 5, 4]
    assert ran["outer", 2] == 2  # its process died inside of it
    assert ran["double", 2] == 2  # once in the task, once in the flow: what the task had called was not run again
    assert ran["double", 1] == 2
    assert ran["outer", 1] == 1


seen: list[float] = []
"""What a task has got from another that it called."""


@task
def calls_late() -> float:
    time.sleep(0.1 if seen else 0)
    seen.append(roll(1))
    die_once()
    return seen[-1]


@flow(durable=True)
def calls_the_same() -> list[float]:
    called = calls_late.submit()
    if "die" in switches:
        called.result()
    return [roll(1), called.result()]


def test_what_a_task_had_called_waits_for_that_task(home: Path) -> None:
    seen.clear()
    with killed(home):
        calls_the_same()
    own, of_task = calls_the_same()
    assert own != of_task
    assert [of_task] * 2 == seen


@task
def twice_inside(x: int) -> float:
    ran["twice_inside"] += 1
    rolled = roll(x)
    if ran["twice_inside"] == 2:
        die_once()
    return rolled


@flow(durable=True)
def equal_callers() -> list[float]:
    return [twice_inside(1), twice_inside(1)]


def test_what_equal_task_runs_have_called_is_each_its_own(home: Path) -> None:
    with killed(home):
        equal_callers()
    values = equal_callers()
    assert values[0] != values[1]
    assert (ran["twice_inside"], ran["roll"]) == (3, 2)


@task
def fails(x: int) -> int:
    ran["fails"] += 1
    if "fail" in switches:
        raise ValueError(x)
    return x


@flow(durable=True)
def depends() -> list[Any]:
    failed = fails.submit(1)
    after = same.submit(allow_failure(failed))
    later = double.submit(5, wait_for=[after])
    values = [str(after.result()), later.result()]
    die_once()
    return values


def test_what_failed_is_run_again_and_takes_its_dependants_along(home: Path) -> None:
    switches.add("fail")
    with killed(home):
        depends()
    switches.discard("fail")
    assert depends() == ["1", 10]
    assert (ran["fails"], ran["same"], ran["double", 5]) == (2, 2, 2)


def test_what_waits_for_finished_runs_only_is_not_run_again(home: Path) -> None:
    with killed(home):
        depends()
    assert depends() == ["1", 10]
    assert (ran["fails"], ran["same"], ran["double", 5]) == (1, 1, 1)


def who(future: Any) -> str:
    """What a future says of its run."""
    return f"{future.task_run_id} {future.name}"


@task
def says_who() -> str:
    ran["says_who"] += 1
    return f"{task_run.id} {task_run.name}"


@flow(durable=True)
def identities(many: int) -> list[tuple[str, str]]:
    futures = [says_who.submit() for _ in range(many)]
    found = [(future.result(), who(future)) for future in futures]
    die_once()
    return found


def test_ids_and_names_of_finished_runs_are_as_they_were(home: Path) -> None:
    with killed(home):
        identities(3)
    for said, is_now in identities(3):
        assert said == is_now
    assert ran["says_who"] == 3


@pytest.mark.parametrize("runner", ["threads", "processes", "sequential"])
def test_task_runners_make_no_difference(runner: str, home: Path) -> None:
    here = flow(name="here", durable=True, task_runner=runner)(_doubled)
    with killed(home):
        here()
    assert here() == [0, 2, 4]
    assert ask(home, "SELECT count(*) FROM task_runs") == [(3,)]


def _doubled() -> list[int]:
    values = double.map(range(3)).result()
    die_once()
    return values


class Shop:
    def __init__(self, name: str) -> None:
        self.name = name

    @flow(durable=True)
    def sell(self, price: int) -> str:
        value = double(price)
        die_once()
        return f"{self.name} {value}"


def test_a_flow_that_is_a_method_is_resumed_for_its_object(home: Path) -> None:
    with killed(home):
        Shop("a").sell(3)
    assert Shop("b").sell(3) == "b 6"
    assert Shop("a").sell(3) == "a 6"
    assert ran["double", 3] == 2


@task(persist_result=True)
def cached(x: int) -> int:
    ran["cached", x] += 1
    return x


@flow(durable=True)
def of_cached() -> list[int]:
    values = [cached(1), cached.submit(1).result(), *cached.map([1] * 70).result()]
    after = double.submit(cached.submit(1)).result()
    die_once()
    return [sum(values), after]


def test_runs_whose_results_were_cached_are_finished_too(home: Path) -> None:
    with killed(home):
        of_cached()
    change(home, "DELETE FROM cache_records")
    assert of_cached() == [72, 2]
    assert once()


@task(cache_result_in_memory=False, persist_result=True)
def not_in_memory(x: int) -> int:
    ran["not_in_memory", x] += 1
    return x


@flow(durable=True)
def of_what_is_not_in_memory() -> list[int]:
    values = [not_in_memory(1), not_in_memory.submit(2).result(), double.submit(not_in_memory.submit(3)).result()]
    die_once()
    return values


def test_results_that_are_not_kept_in_memory_are_kept_in_the_store(home: Path) -> None:
    with killed(home):
        of_what_is_not_in_memory()
    assert of_what_is_not_in_memory() == [1, 2, 6]
    assert once()


@task
def counts_to(x: int) -> Iterator[int]:
    ran["counts_to"] += 1
    yield from range(x)


@flow(durable=True)
def of_generators() -> list[Any]:
    values = [list(counts_to(3)), counts_to.submit(4).result()]
    die_once()
    return values


def test_a_generator_that_is_called_is_run_again_and_one_that_is_submitted_is_not(home: Path) -> None:
    with killed(home):
        of_generators()
    assert of_generators() == [[0, 1, 2], [0, 1, 2, 3]]
    assert ran["counts_to"] == 3


def make_scaler(factor: int) -> Any:
    @task(name="scale")
    def scale(x: int) -> int:
        ran["scale", factor] += 1
        return x * factor

    return scale


@flow(durable=True)
def of_lookalikes() -> list[int]:
    values = [make_scaler(2)(1)]
    die_once()
    return [*values, make_scaler(3)(1), make_scaler(2)(1)]


def test_tasks_that_differ_by_what_is_around_them_are_not_taken_for_each_other(home: Path) -> None:
    with killed(home):
        of_lookalikes()
    assert of_lookalikes() == [2, 3, 2]


@flow(durable=True)
def of_options() -> list[list[int]]:
    other = double.with_options(retries=2)
    futures = [other.map(range(3)), double.map(range(3, 6))] if "swap" in switches else None
    if futures is None:
        futures = [double.map(range(3, 6)), other.map(range(3))]
    values = sorted(list(some.result()) for some in futures)
    die_once()
    return values


def test_it_does_not_matter_which_of_two_copies_of_a_task_comes_first(home: Path) -> None:
    with killed(home):
        of_options()
    switches.add("swap")
    assert of_options() == [[0, 2, 4], [6, 8, 10]]
    assert once()


EXACT = [1, 2**63, 2**64, -(2**70), 1.5, float("inf"), True, None, "text", "x" * 70, "y" * 40_000, "\ud800", b"bytes"]


@flow(durable=True)
async def gives_all(values: list[Any]) -> list[Any]:
    echoed = await echo.map(values)
    die_once()
    return [*echoed, *await echo.map(echoed)]


@task
async def echo(value: Any) -> Any:
    ran["echo"] += 1
    return value


def test_short_results_of_every_kind_come_back_exactly(home: Path) -> None:
    with killed(home):
        asyncio.run(gives_all(EXACT))
    found = asyncio.run(gives_all(EXACT))
    assert [(type(value), value) for value in found] == [(type(value), value) for value in EXACT] * 2
    assert ran["echo"] == 2 * len(EXACT)
