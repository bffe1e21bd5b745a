"""Large maps of coroutines in durable flows, whose runs are columns: nobody can tell, nor can the next process."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.runtime.durability.given import die_once, ran, switches
from tests.runtime.durability.killed import Killed, ask, killed

from upwell import flow, task
from upwell.core.errors import SerializationError
from upwell.runtime import task_run

MANY = 600

T = TypeVar("T")


def killed_and_again(home: Path, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What the flow returns to a second process, after one that was killed in it."""
    with killed(home):
        asyncio.run(call())
    return asyncio.run(call())


VALUES: list[Any] = [
    None, True, 7, -(2**63), 2**64, 10**30, 0.5, float("inf"), "short", "\ud800", "é" * 20, "x" * 61, "x" * 500,
    b"few", b"\0" * 20_000, [1, (2, {3})], {"a": None}, (), 1 + 2j,
]  # fmt: skip  # results of all kinds, which go different ways into the store


@task
async def given_back(x: int) -> Any:
    ran["given back", x] += 1
    return VALUES[x % len(VALUES)]


@flow(durable=True)
async def values_of_all_kinds() -> list[Any]:
    values: list[Any] = await given_back.map(range(MANY))
    die_once()
    return values


def test_results_of_all_kinds_are_taken_as_they_were(home: Path) -> None:
    assert killed_and_again(home, values_of_all_kinds) == [VALUES[x % len(VALUES)] for x in range(MANY)]
    assert set(ran.values()) == {1}
    assert ask(home, "SELECT count(*), count(durable_key) FROM task_run_results") == [(MANY, MANY)]


class Unstorable:
    """As a result it cannot be stored."""

    def __reduce__(self) -> str:
        raise TypeError("This stays here.")


@task
async def unstorable_at(x: int) -> Any:
    return Unstorable() if x in (0, 300, 599) else x


@flow(durable=True)
async def some_unstorable() -> list[int]:
    futures: Any = unstorable_at.map(range(MANY))
    with pytest.raises(SerializationError):
        await futures  # and no run is looked at before, or it would be an object
    await asyncio.gather(*futures, return_exceptions=True)
    failed = [place for place, future in enumerate(futures) if not future.state.is_completed()]
    assert all("cannot be stored" in str(futures[place].state.message) for place in failed)
    return failed


def test_a_result_that_cannot_be_stored_fails_its_run_alone() -> None:
    assert asyncio.run(some_unstorable()) == [0, 300, 599]


@task
async def dies_at(x: int) -> int:
    ran["dies at", x] += 1
    if x == 450 and ran["dies at", x] == 1:
        raise Killed
    return x


@flow(durable=True)
async def dies_amid() -> int:
    return sum(await dies_at.map(range(MANY)))


def test_what_had_ended_of_a_map_that_was_killed_amid_is_not_run_again(home: Path) -> None:
    assert killed_and_again(home, dies_amid) == sum(range(MANY))
    assert [key for key, times in ran.items() if times > 1] == [("dies at", 450)]


@flow(durable=True)
async def changed() -> list[int]:
    inputs = list(range(MANY)) if "die" in switches else list(range(100, MANY + 100))
    values: list[int] = await dies_later.map(inputs)
    die_once()
    return values


@task
async def dies_later(x: int) -> int:
    ran["changed", x] += 1
    return x


def test_each_is_known_by_its_inputs(home: Path) -> None:
    assert killed_and_again(home, changed) == list(range(100, MANY + 100))
    assert set(ran.values()) == {1}
    assert len(ran) == MANY + 100


@task
async def inner(x: int) -> int:
    ran["inner", x] += 1
    return x


@task
async def calls_another(x: int) -> int:
    ran["outer", x] += 1
    value = await inner.submit(x)
    if x == 500 and ran["outer", x] == 1:
        raise Killed
    return value


@flow(durable=True)
async def calling() -> int:
    return sum(await calls_another.map(range(MANY)))


def test_what_a_run_has_called_counts_when_that_is_run_again(home: Path) -> None:
    assert killed_and_again(home, calling) == sum(range(MANY))
    assert ran["outer", 500] == 2
    assert not [key for key, times in ran.items() if key[0] == "inner" and times > 1]


@task
async def added(*values: int) -> int:
    ran["added", values] += 1
    return sum(values)


@flow(durable=True)
async def with_dependants() -> int:
    futures: Any = dies_later.map(range(MANY))
    if "after" in switches:
        await futures
    value: int = await added.submit(futures[0], futures[-1])
    value += await added.submit(futures[300])
    die_once()
    return value


@pytest.mark.parametrize("looked_at", ["before", "after"])
def test_dependants_know_what_they_are_fed_again(looked_at: str, home: Path) -> None:
    switches.add(looked_at)
    assert killed_and_again(home, with_dependants) == 599 + 300
    assert set(ran.values()) == {1}


@task
async def fed(x: int) -> int:
    ran["fed", x] += 1
    return x


@flow(durable=True)
async def fed_by_long_results() -> int:
    """A long result is known by its digest where it is an input."""
    texts: Any = long_text.map(range(MANY))
    await texts
    value = await length.submit(texts[300])
    die_once()
    return value


@task
async def long_text(x: int) -> str:
    return "x" * x


@task
async def length(text: str) -> int:
    ran["length", len(text)] += 1
    return len(text)


def test_dependants_of_long_results_too(home: Path) -> None:
    assert killed_and_again(home, fed_by_long_results) == 300
    assert set(ran.values()) == {1}


@flow(durable=True)
async def map_over_futures() -> int:
    """What is mapped over futures waits for others, and is known by their results."""
    futures: Any = fed.map(range(MANY))
    total = sum(await fed.map(futures))
    die_once()
    return total


def test_a_map_over_the_futures_of_a_map(home: Path) -> None:
    assert killed_and_again(home, map_over_futures) == sum(range(MANY))
    assert set(ran.values()) == {2}


@task
async def who(_: int) -> str:
    return f"{task_run.id} {task_run.name}"


@flow(durable=True)
async def identities() -> list[bool]:
    futures: Any = who.map(range(MANY))
    said = await futures
    die_once()
    return [told == f"{future.task_run_id} {future.name}" for told, future in zip(said, futures, strict=True)]


def test_who_they_are_stays_as_their_code_saw_it(home: Path) -> None:
    assert all(killed_and_again(home, identities))


@flow(durable=True, retries=1)
async def tried_again() -> int:
    total = sum(await inner.map(range(MANY)))
    if "die" in switches:
        switches.discard("die")
        raise RuntimeError("Once more.")
    return total


def test_a_flow_that_is_tried_again_takes_what_its_attempt_before_has_finished() -> None:
    assert asyncio.run(tried_again()) == sum(range(MANY))
    assert set(ran.values()) == {1}


@flow(durable=True)
async def streamed() -> list[int]:
    values = [value async for value in inner.stream(range(MANY))]
    die_once()
    return values


def test_streams_too(home: Path) -> None:
    assert killed_and_again(home, streamed) == list(range(MANY))
    assert set(ran.values()) == {1}


@task
async def stored_results(file: str) -> int:
    """Asks the store itself, beside the journal."""
    with closing(sqlite3.connect(file)) as connection:
        (number,) = connection.execute("SELECT count(*) FROM task_run_results").fetchone()
    return int(number)


@flow(durable="strict")
async def strictly(file: str) -> int:
    await inner.map(range(MANY))
    stored: int = await stored_results.submit(file)
    die_once()
    return stored


def test_those_of_a_strict_flow_are_safe_before_anything_else_begins(home: Path) -> None:
    assert killed_and_again(home, lambda: strictly(str(home / "upwell.db"))) == MANY
    assert set(ran.values()) == {1}


@task(task_runner="processes")
def in_a_process(x: int) -> int:
    return x + 1


@flow(durable=True)
async def in_processes() -> int:
    return sum(await in_a_process.map(range(MANY)))


def test_those_of_other_processes_are_stored_too(home: Path) -> None:
    assert asyncio.run(in_processes()) == sum(range(1, MANY + 1))
    assert ask(home, "SELECT count(*), count(durable_key) FROM task_run_results") == [(MANY, MANY)]


@flow(durable=True)
async def times_of() -> list[tuple[float, float]]:
    futures: Any = inner.map(range(MANY))
    await futures
    seen.append([(future.started, future.state.timestamp.timestamp()) for future in futures])
    die_once()
    return []


seen: list[list[tuple[float, float]]] = []


def test_times_in_the_file_are_those_of_the_runs(home: Path) -> None:
    seen.clear()
    with killed(home):
        asyncio.run(times_of())
    stored = ask(home, "SELECT started, ended FROM task_runs ORDER BY number")
    for (started, ended), run in zip(stored, seen[0], strict=True):
        assert (started / 1e6, ended / 1e6) == pytest.approx(run, abs=2e-6)
