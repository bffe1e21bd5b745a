"""Maps in durable flows that are resumed: what fits is taken, as it was, and the rest is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.runtime.durability.given import die_once, double, ran, switches
from tests.runtime.durability.killed import Killed, ask, killed

from upwell import flow, task
from upwell.runtime import task_run


@flow(durable=True)
def map_of(size: int) -> list[int]:
    futures = double.map(range(int(next(iter(switches - {"die"})))))
    values = futures.result()
    die_once()
    return values


@pytest.mark.parametrize(("before", "after"), [(10, 11), (100, 101), (100, 99), (5, 200)])
def test_a_map_that_has_changed_keeps_what_fits(before: int, after: int, home: Path) -> None:
    switches.add(str(before))
    with killed(home):
        map_of(0)
    switches.clear()
    switches.add(str(after))
    assert map_of(0) == [2 * x for x in range(after)]
    assert set(ran.values()) == {1}
    assert sum(ran.values()) == max(before, after)


@task
def mapped(x: int) -> int:
    ran["mapped", x] += 1
    if x in (30, 60, 90) and ran["mapped", x] == 1:
        raise Killed
    return x


@flow(durable=True)
def large_map() -> int:
    return sum(mapped.map(range(100)).result())


@flow(durable=True)
def small_map() -> int:
    return sum(mapped.map(range(25, 35)).result())


def test_a_map_may_be_resumed_again_and_again(home: Path) -> None:
    with killed(home):
        large_map()
    assert large_map() == sum(range(100))
    assert ran["mapped", 30] == 2
    assert ran["mapped", 31] <= 2
    assert ask(home, "SELECT count(*) FROM task_runs WHERE state = 'COMPLETED'") == [(100,)]


def test_a_small_map_too(home: Path) -> None:
    with killed(home):
        small_map()
    assert small_map() == sum(range(25, 35))
    assert ran["mapped", 25] == 1


@task
def many_at_once(_: int) -> str:
    return f"{task_run.id} {task_run.name}"


@flow(durable=True)
def mapped_identities(many: int) -> list[tuple[str, str]]:
    futures: Any = many_at_once.map(range(many))
    found = [(future.result(), f"{future.task_run_id} {future.name}") for future in futures]
    die_once()
    return found


@pytest.mark.parametrize("many", [3, 100])
def test_ids_and_names_of_mapped_runs_are_as_they_were(many: int, home: Path) -> None:
    with killed(home):
        mapped_identities(many)
    assert all(said == is_now for said, is_now in mapped_identities(many))


times_seen: list[list[tuple[float, float]]] = []


@flow(durable=True)
def mapped_times() -> None:
    futures: Any = double.map(range(100))
    futures.wait()
    times_seen.append([(future.started, future.state.timestamp.timestamp()) for future in futures])
    die_once()


def test_mapped_runs_have_begun_and_ended_when_they_did(home: Path) -> None:
    times_seen.clear()
    with killed(home):
        mapped_times()
    mapped_times()
    before, after = times_seen
    for then, now in zip(before, after, strict=True):
        assert now == pytest.approx(then, abs=2e-6)  # the store keeps whole microseconds


@flow(durable=True)
def bar_of_nothing() -> list[int]:
    values = double.map(range(3), progress=True).result()
    die_once()
    return values


def test_the_bar_of_a_map_that_was_finished_closes_itself(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with killed(home):
        bar_of_nothing()
    assert bar_of_nothing() == [0, 2, 4]
    assert "3/3" in capsys.readouterr().err.splitlines()[-1]
