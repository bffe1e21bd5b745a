"""Durable flows in flows, tried again, asleep: what finished counts, and time that was waited is not waited again."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.noted_ends import noted_ends
from tests.runtime.durability.given import die_once, double, ran, switches
from tests.runtime.durability.killed import ask, change, killed, look_killed

from upwell import flow, task
from upwell.composition import flush_journal
from upwell.durability import sleep, sleep_async
from upwell.engine.durable_records import waiting_record
from upwell.runtime import flow_run
from upwell.testing import virtual_clock

# --- subflows -----------------------------------------------------------------------------------------------


@flow
def inner(x: int, dies: bool = False) -> tuple[str, int]:
    ran["inner", x] += 1
    value = double(x)
    if dies:
        die_once()
    return str(flow_run.id), value + double(x + 1000)


@flow(durable=True)
def calls_flows(dies: str) -> list[Any]:
    answers = [inner(1), inner.submit(2).result(), *inner.map([3, 4]).result()]
    answers += [inner(1)]
    if dies == "outside":
        die_once()
    answers += [inner.submit(5, dies == "inside").result()]
    answers += [inner(6, dies == "directly inside")]
    return answers


@pytest.mark.parametrize("dies", ["outside", "inside", "directly inside"])
def test_subflows_that_finished_are_not_run_again_and_keep_their_ids(dies: str, home: Path) -> None:
    with killed(home):
        calls_flows(dies)
    before = dict(ask(home, "SELECT id, created FROM flow_runs"))
    answers = calls_flows(dies)
    assert [value for _, value in answers] == [2004, 2008, 2012, 2016, 2004, 2020, 2024]
    ids = [identity for identity, _ in answers]
    assert len(set(ids)) == 7
    assert set(ids[:5]) <= set(before)
    assert [ran["inner", x] for x in (1, 2, 3, 4)] == [2, 1, 1, 1]
    assert [ran["double", x] for x in (1, 2, 3, 4, 5, 6, 1006)] == [2, 1, 1, 1, 1, 1, 1]
    assert ask(home, "SELECT DISTINCT state FROM flow_runs") == [("COMPLETED",)]


@flow(durable=False)
def not_durable(x: int) -> int:
    ran["not_durable"] += 1
    return double(x)


@flow(durable=True)
def calls_another_kind() -> list[int]:
    values = [not_durable(1), not_durable.submit(2).result()]
    die_once()
    return values


def test_a_subflow_that_is_not_durable_begins_anew_but_what_was_submitted_is_a_step(home: Path) -> None:
    with killed(home):
        calls_another_kind()
    assert calls_another_kind() == [2, 4]
    assert (ran["not_durable"], ran["double", 1], ran["double", 2]) == (3, 2, 1)


@flow(durable=True)
def durable_inside() -> int:
    value = double(1)
    die_once()
    return value


@flow
def ordinary() -> int:
    return durable_inside()


def test_a_durable_flow_in_an_ordinary_one_goes_on_when_it_is_called_again(home: Path) -> None:
    with killed(home):
        ordinary()
    change(home, "UPDATE flow_runs SET state = 'CRASHED', state_name = NULL, ended = 1 WHERE flow = 'ordinary'")
    assert ordinary() == 2
    assert ran["double", 1] == 1


class Odd:
    """What cannot be stored."""

    def __reduce__(self) -> Any:
        raise TypeError("an Odd cannot be pickled")


@flow
def gives_odd(x: int) -> Odd:
    double(x)
    return Odd()


@flow(durable=True)
def takes_odd() -> str:
    kinds = {type(gives_odd(1)), type(gives_odd.submit(2).result())}
    die_once()
    return kinds.pop().__name__


def test_a_subflow_whose_result_cannot_be_stored_is_told_again_out_of_its_runs(home: Path) -> None:
    with killed(home):
        takes_odd()
    assert takes_odd() == "Odd"
    assert (ran["double", 1], ran["double", 2]) == (1, 1)


# --- attempts ------------------------------------------------------------------------------------------------


@flow(durable=True, retries=3)
def tries() -> list[Any]:
    ran["tries"] += 1
    values = [double(1), *double.map([2, 3]).result(), inner(7)[1]]
    if ran["tries"] < 3:
        raise ValueError("again")
    return values


def test_what_an_attempt_has_finished_counts_for_the_next(home: Path) -> None:
    assert tries() == [2, 4, 6, 2028]
    assert (ran["tries"], ran["double", 1], ran["double", 2], ran["inner", 7]) == (3, 1, 1, 1)


@flow(durable=True, retries=1)
def tries_after_death() -> int:
    ran["tries"] += 1
    value = double(1) + inner(7)[1]
    if "fail" in switches:
        switches.discard("fail")
        raise ValueError
    return value


def test_what_was_restored_counts_for_the_next_attempt_too(home: Path) -> None:
    tries_after_death()
    look_killed(home, "COMPLETED")
    change(home, "UPDATE flow_runs SET state = 'COMPLETED', state_name = NULL, ended = 5 WHERE flow = 'inner'")
    switches.add("fail")
    assert tries_after_death() == 2030
    assert (ran["tries"], ran["double", 1], ran["inner", 7]) == (3, 1, 1)


@flow
def fails_inside() -> int:
    value = double(1)
    die_once()
    return value


@flow(durable=True, retries=1)
def around_failing() -> int:
    return fails_inside()


def test_a_subflow_that_failed_takes_over_what_it_had_finished(home: Path) -> None:
    assert around_failing() == 2
    assert ran["double", 1] == 1


@flow(durable=True, retries=1, retry_delay_seconds=1000)
def waits_long() -> int:
    ran["tries"] += 1
    if ran["tries"] == 1:
        raise ValueError("not yet")
    return double(1)


def test_the_wait_between_two_attempts_of_a_flow_goes_on_in_the_next_process(home: Path) -> None:
    with virtual_clock() as clock:
        assert waits_long() == 2
        assert clock.elapsed >= 1000
        ran.clear()
        ran["tries"] = 1
        change_due = int((clock.time() + 400) * 1e6)
        look_killed(home, "COMPLETED")
        change(
            home, f"UPDATE flow_runs SET due = {change_due}, run_count = 1, crashes = 0; DELETE FROM task_run_results"
        )
        began = clock.elapsed
        assert waits_long() == 2
        assert 399 <= clock.elapsed - began <= 401
    assert ran["tries"] == 2


@task(retries=3, retry_delay_seconds=1000)
def flaky(x: int) -> int:
    ran["flaky"] += 1
    if ran["flaky"] < 3:
        raise ValueError("again")
    return x


@flow(durable=True)
def retries_tasks(kind: str) -> int:
    return flaky(1) if kind == "direct" else flaky.submit(1).result()


def look_as_if_flaky_waited(home: Path, due: float) -> None:
    """Have the process look killed while the task waited for its third attempt."""
    look_killed(home, "COMPLETED")
    change(
        home,
        f"""UPDATE task_runs SET state = 'CRASHED', run_count = 2;
        UPDATE task_run_results SET record = x'{waiting_record(2, due).hex()}'
        WHERE series IN (SELECT key FROM series WHERE task = 'flaky');""",
    )
    ran.clear()
    ran["flaky"] = 2


@pytest.mark.parametrize("kind", ["direct", "submitted"])
def test_the_wait_of_a_task_run_goes_on_and_its_attempts_count(kind: str, home: Path) -> None:
    with virtual_clock() as clock:
        retries_tasks(kind)
        look_as_if_flaky_waited(home, clock.time() + 300)
        began = clock.elapsed
        assert retries_tasks(kind) == 1
        assert 299 <= clock.elapsed - began <= 301
    assert ran["flaky"] == 3


@task
async def look_at_states(home: str, after_seconds: float) -> list[tuple[str, str, int]]:
    """What the store says of the task that is tried again, some time later."""
    await asyncio.sleep(after_seconds)
    await asyncio.to_thread(flush_journal)
    connection = sqlite3.connect(Path(home, "upwell.db"))
    try:
        query = "SELECT t.state, t.state_name, t.run_count FROM task_runs t JOIN series s ON s.key = t.series"
        return connection.execute(f"{query} WHERE s.task = 'flaky' ORDER BY t.number").fetchall()
    finally:
        connection.close()


@flow(durable=True)
def is_looked_at(kind: str, home: str, after_seconds: float) -> list[tuple[str, str, int]]:
    seen = look_at_states.submit(home, after_seconds + ran["flaky"])
    assert (flaky(1) if kind == "direct" else flaky.submit(1).result()) == 1
    return seen.result()


@pytest.mark.parametrize("kind", ["direct", "submitted"])
def test_a_task_run_that_goes_on_waiting_is_seen_to_wait(kind: str, home: Path) -> None:
    with virtual_clock() as clock:
        is_looked_at(kind, str(home), 1)
        look_as_if_flaky_waited(home, clock.time() + 300)
        seen = is_looked_at(kind, str(home), 1)
    assert seen == [("CRASHED", None, 2), ("SCHEDULED", "AwaitingRetry", 2)]


# --- sleep -----------------------------------------------------------------------------------------------------


@flow(durable=True)
def sleeps() -> str:
    sleep(1000)
    die_once()
    sleep(1000)
    return "awake"


@flow(durable=True)
async def sleeps_async() -> str:
    await sleep_async(1000)
    die_once()
    await sleep_async(1000)
    return "awake"


def test_a_sleep_that_is_over_is_not_slept_again(home: Path) -> None:
    with virtual_clock() as clock:
        with killed(home):
            sleeps()
        assert 1000 <= clock.elapsed < 1100
        assert sleeps() == "awake"
        assert 2000 <= clock.elapsed < 2100


def test_nor_in_async_code(home: Path) -> None:
    with virtual_clock() as clock:
        with killed(home):
            clock.run(sleeps_async())
        assert clock.run(sleeps_async()) == "awake"
        assert 2000 <= clock.elapsed < 2100


def test_outside_of_durable_flows_it_is_a_sleep(home: Path) -> None:
    with virtual_clock() as clock:
        sleep(10)
        clock.run(sleep_async(10))
        assert 20 <= clock.elapsed < 21


# --- strict ------------------------------------------------------------------------------------------------------


@task
def counts(home: str, needs: Any = None) -> int:
    """How many ends the store has: in their table, or written at once."""
    import sqlite3

    connection = sqlite3.connect(Path(home) / "upwell.db")
    try:
        found = set(connection.execute("SELECT series, number FROM task_runs WHERE state = 'COMPLETED'"))
        found |= {row[:2] for row in noted_ends(Path(home) / "upwell.db")}
        return len(found)
    finally:
        connection.close()


@flow(durable="strict")
def strictly(home: str) -> list[int]:
    first = counts(home)
    second = counts.submit(home)
    third = counts.submit(home, second)
    fourth = counts.submit(home, wait_for=[third])
    return [first, second.result(), third.result(), fourth.result()]


def test_in_a_strict_flow_each_run_begins_when_those_before_it_are_safe(home: Path) -> None:
    assert strictly(str(home)) == [0, 1, 2, 3]


@flow(durable="strict")
def strict_around(home: str) -> list[int]:
    return strictly_inside(home)


@flow
def strictly_inside(home: str) -> list[int]:
    return [counts(home), counts(home, 1), counts(home, 2)]


def test_and_so_it_is_in_its_subflows(home: Path) -> None:
    assert strict_around(str(home)) == [0, 1, 2]
