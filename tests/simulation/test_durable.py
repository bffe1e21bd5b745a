"""Durable flows in a simulated world, by seed: processes die and stop at any step, the store fails in any way.

`pytest tests/simulation --long --first-seed 5000` goes on for longer; a failure says its seed.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
import random
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from upwell import flow, task
from upwell.testing import simulation
from upwell.testing.simulation import FAULTS, SimulatedProcess, Simulation, simulate


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]  # by pytest
    """Thousands of deaths would take longer to print than to happen."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


SEEDS_PER_TEST = 100

WHERE: ContextVar[tuple[World, SimulatedProcess]] = ContextVar("where")


class World:
    """What is to be seen from outside: who ran what, and what was said to be safe."""

    def __init__(self, world: Simulation) -> None:
        self.world = world
        self.runs: Counter[str] = Counter()
        self.deaths = 0
        self.safe_at_deaths: set[str] = set()
        self.asleep: set[SimulatedProcess] = set()  # and do not know, when they wake up, what others have done

    def safe(self) -> set[str]:
        """The labels of what the store knows as completed."""
        rows = self.world.ask(
            """SELECT t.inputs FROM task_runs t JOIN task_run_results r ON r.series = t.series AND r.number = t.number
            WHERE t.state = 'COMPLETED' AND r.durable_key IS NOT NULL"""
        )
        return {inputs.split("'")[1] for (inputs,) in rows if inputs and "'" in inputs}

    def dies(self) -> None:
        self.deaths += 1
        self.safe_at_deaths = self.safe()


def began(label: str) -> None:
    world, process = WHERE.get()
    assert process in world.asleep or label not in world.safe_at_deaths, f"{label} was safe, and is run again"
    world.runs[label] += 1


@task
async def step(label: str, value: int = 0) -> int:
    began(label)
    await asyncio.sleep(random.uniform(0, 0.3))
    return value * 3 + len(label)


@task(retries=1)
async def flaky(label: str, value: int) -> int:
    began(label)
    await asyncio.sleep(0.01)
    if random.random() < 0.2:
        raise ValueError
    return value + 1


@task
async def nested(label: str, value: int) -> int:
    began(label)
    return await step(f"{label}a", value) + await step.submit(f"{label}b", value)


@flow
async def inner(value: int) -> int:
    return await step("inner 1", value) + await nested("inner 2", value)


@flow(durable=True)
async def whole(dice: int) -> int:
    value = await step("first")
    mapped = await step.map([f"mapped {n}" for n in range(3)], value)
    value += sum(mapped) + await step.submit("after", step.submit("before", value))
    world, _ = WHERE.get()
    value += sum(await asyncio.gather(*(step(f"gathered {n}", n) for n in range(3))))
    value += await inner.submit(value) if dice % 2 else await inner(value)
    if dice % 3 == 0:
        value += await nested.submit("nested", value)
    assert world is not None
    return value


def expected(dice: int) -> int:
    def one(label: str, value: int = 0) -> int:
        return value * 3 + len(label)

    value = one("first")
    value += sum(one(f"mapped {n}", value) for n in range(3)) + one("after", one("before", value))
    value += sum(one(f"gathered {n}", n) for n in range(3))
    value += one("inner 1", value) + one("inner 2a", value) + one("inner 2b", value)
    if dice % 3 == 0:
        value += one("nesteda", value) + one("nestedb", value)
    return value


async def one_after_the_other(sim: Simulation) -> World:
    """Processes call the flow, each until it is killed, or stopped and taken for dead; the last one ends it."""
    world, dice = World(sim), sim.dice
    answers: list[int] = []
    tasks: list[asyncio.Task[int]] = []

    def begin(harm: str) -> SimulatedProcess:
        process = sim.new_process()
        durable = whole.with_options(durable="strict") if sim.seed % 4 == 0 else whole

        async def run() -> int:
            WHERE.set((world, process))
            call: Callable[..., Any] = durable
            value: int = await call(sim.seed, idempotency_key="the one")
            answers.append(value)
            return value

        steps = dice.randint(1, 250)
        if harm == "kill":
            sim.loop.after_steps(steps, process.kill)
        elif harm == "stop":
            sim.loop.after_steps(steps, functools.partial(setattr, process, "is_stopped", True))
        elif harm:
            first = 1 if harm == "fault" else 10
            process.faults = {first + dice.randint(0, 20): dice.choice(FAULTS) for _ in range(4)}
        tasks.append(process.do(run()))
        return process

    for _ in range(dice.randint(1, 4)):
        process = begin(dice.choice(["kill", "kill", "stop", "fault", "late fault"]))
        while not (process.is_dead or process.is_stopped or answers):
            await asyncio.sleep(0.1)
        if answers:
            break
        world.dies()
        if process.is_stopped:
            world.asleep.add(process)
        if process.is_stopped and dice.random() < 0.8:  # it wakes up when others do its work, or have done it
            wake_up = functools.partial(setattr, process, "is_stopped", False)
            sim.loop.call_later(dice.uniform(0, 12), wake_up)
    last = begin("")
    while not answers:
        await asyncio.sleep(0.1)
    while not tasks[-1].done():
        await asyncio.sleep(0.1)
    assert not last.is_dead
    await asyncio.sleep(15)  # who was asleep wakes up
    assert tasks[-1].result() == expected(sim.seed)
    assert set(answers) == {expected(sim.seed)}
    return world


def check(world: World) -> None:
    sim = world.world
    assert max(world.runs.values()) <= 2 + 2 * world.deaths
    assert sim.ask("SELECT state FROM flow_runs WHERE flow = 'whole'") == [("COMPLETED",)]
    assert sim.ask("SELECT count(*) FROM flow_run_states WHERE state = 'COMPLETED'") == sim.ask(
        "SELECT count(*) FROM flow_runs WHERE state = 'COMPLETED'"
    )
    kinds = sim.ask("SELECT flow FROM flow_runs")
    assert sorted(kinds) == [("inner",), ("whole",)]


async def main(sim: Simulation) -> None:
    check(await one_after_the_other(sim))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "batch" in metafunc.fixturenames:
        metafunc.parametrize("batch", range(max(1, metafunc.config.option.seeds // SEEDS_PER_TEST)))


def test_whatever_dies_the_flow_comes_out_the_same_and_nothing_safe_is_run_again(
    batch: int, pytestconfig: pytest.Config
) -> None:
    first = pytestconfig.option.first_seed + batch * SEEDS_PER_TEST

    def simulate_all() -> None:
        for seed in range(first, first + SEEDS_PER_TEST):
            simulate(main, seed)

    if pytestconfig.option.long:
        in_a_child(simulate_all)
    else:
        simulate_all()


def in_a_child(work: Callable[[], None]) -> None:
    """For very many worlds: who dies in one cleans nothing up, and that adds up in a process."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "what went wrong was printed"


def test_a_seed_gives_the_same_run() -> None:
    async def steps(sim: Simulation) -> tuple[int, float, Counter[str]]:
        world = await one_after_the_other(sim)
        return sim.loop.steps, sim.loop.time(), world.runs

    assert simulate(steps, 11) == simulate(steps, 11)


def test_what_the_dead_had_under_way_is_let_go() -> None:
    def tasks() -> int:
        simulation._let_go_of_the_dead()  # pyright: ignore[reportPrivateUsage]  # as after many worlds
        return sum(isinstance(thing, asyncio.Task) for thing in gc.get_objects())

    before = tasks()
    for seed in range(5):
        simulate(main, seed)
    assert tasks() - before < 25
