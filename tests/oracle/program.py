"""What the oracle kills: a random durable flow, made of a seed, that says in a ledger what it does.

    python -m tests.oracle.program SEED LEDGER

Each execution of a task adds a line to the ledger before it begins; a line `ok LABEL` says that the journal has said
that this one's end is safe. (A line that was written survives the process; only the power could take it.)
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from upwell import flow, task
from upwell.engine.recorder import recorder
from upwell.runtime import task_run
from upwell.testing.crash_points import crash_point, install_crash_points

PAUSE_SECONDS = float(os.environ.get("ORACLE_PAUSE_SECONDS", "0.01"))
"""The longest that a task run takes."""

LARGE = 60_000
"""Bytes of a result that becomes a file."""


class Step(NamedTuple):
    """kind: what is called, and how. label: tells it from all others. size: of a map."""

    kind: str
    label: str
    size: int = 0
    steps: tuple[Step, ...] = ()


KINDS = (
    "direct", "submit", "chain", "map", "map of futures", "large map", "columns", "nested", "flaky", "large",
    "subflow", "submitted subflow", "safe", "stream",
)  # fmt: skip


def plan(seed: int) -> list[Step]:
    """The steps of a flow."""
    return _steps(random.Random(seed), f"s{seed}", random.Random(seed).randint(20, 40), 0)


def _steps(dice: random.Random, prefix: str, many: int, depth: int) -> list[Step]:
    steps: list[Step] = []
    for index in range(many):
        kind = dice.choice([kind for kind in KINDS if depth == 0 or "subflow" not in kind])
        label = f"{prefix}-{index}"
        inner = tuple(_steps(dice, f"{label}i", dice.randint(1, 3), 1)) if "subflow" in kind else ()
        size = {"large map": 70, "columns": 300, "map": 5, "map of futures": 4, "stream": 6}.get(kind, 0)
        steps.append(Step(kind, label, size, inner))
    return steps


# --- what is done, as tasks and as plain functions ---------------------------------------------------------------

_ledger = -1


def note(line: str) -> None:
    if _ledger >= 0:
        os.write(_ledger, f"{line}\n".encode())


def made_of(label: str, value: Any) -> int:
    return int.from_bytes(hashlib.blake2b(f"{label} {value}".encode(), digest_size=4).digest(), "big")


def work(label: str, value: Any = 0) -> int:
    note(label)
    crash_point("before execution")
    time.sleep(random.uniform(0, PAUSE_SECONDS))
    crash_point("after execution")
    return made_of(label, value)


async def work_async(label: str, value: Any = 0) -> int:
    note(label)
    crash_point("before execution")
    await asyncio.sleep(random.uniform(0, PAUSE_SECONDS))
    crash_point("after execution")
    return made_of(label, value)


async def work_at_once(label: str, value: Any = 0) -> int:
    """Never suspends: the runs of a large map of it are columns."""
    note(label)
    crash_point("before execution")
    crash_point("after execution")
    return made_of(label, value)


step = task(name="step")(work)
step_async = task(name="step-async")(work_async)
step_at_once = task(name="step-at-once")(work_at_once)


@task(retries=2)
def flaky(label: str, value: Any = 0) -> int:
    note(f"{label} {task_run.run_count}")
    if task_run.run_count < 2:
        raise ValueError("the first attempt fails")
    return made_of(label, value)


@task
def large(label: str, value: Any = 0) -> bytes:
    note(label)
    return made_of(label, value).to_bytes(4, "big") * (LARGE // 4)


@task
def nested(label: str, value: Any = 0) -> int:
    note(label)
    return step(f"{label}a", value) + step.submit(f"{label}b", value).result()


def expected(steps: list[Step], value: int) -> int:
    """What a flow of these steps gives, told without any task."""
    for kind, label, size, inner in steps:
        if kind == "chain":
            value = made_of(f"{label}b", made_of(f"{label}a", value))
        elif kind == "map of futures":
            value = sum(made_of(f"{label}b{n}", made_of(f"{label}a{n}", value)) for n in range(size)) % 2**32
        elif size:
            value = sum(made_of(f"{label}m{n}", value if kind == "map" else 0) for n in range(size)) % 2**32
        elif kind == "nested":
            value = made_of(f"{label}a", value) + made_of(f"{label}b", value)
        elif inner:
            value = expected(list(inner), value)
        else:
            value = made_of(label, value)
    return value


def carry_out(steps: list[Step], value: int) -> int:
    """The same by tasks and flows."""
    for one in steps:
        value = CARRIED_OUT[one.kind](one, value)
    return value


def _chain(one: Step, value: int) -> int:
    return step_async.submit(f"{one.label}b", step.submit(f"{one.label}a", value)).result()


def _map(one: Step, value: int) -> int:
    return sum(step.map([f"{one.label}m{n}" for n in range(one.size)], value).result()) % 2**32


def _map_of_futures(one: Step, value: int) -> int:
    first = step_async.map([f"{one.label}a{n}" for n in range(one.size)], value)
    return sum(step.map([f"{one.label}b{n}" for n in range(one.size)], first).result()) % 2**32


def _large_map(one: Step, value: int) -> int:
    return sum(step_async.map([f"{one.label}m{n}" for n in range(one.size)]).result()) % 2**32


def _columns(one: Step, value: int) -> int:
    return sum(step_at_once.map([f"{one.label}m{n}" for n in range(one.size)]).result()) % 2**32


def _stream(one: Step, value: int) -> int:
    return sum(step_async.stream([f"{one.label}m{n}" for n in range(one.size)], ordered=False)) % 2**32


def _safe(one: Step, value: int) -> int:
    value = step(one.label, value)
    found = recorder()
    assert found is not None
    found.journal.flush()
    note(f"ok {one.label}")
    crash_point("after acknowledgement")
    return value


def _inside() -> Any:
    return inside


CARRIED_OUT: dict[str, Callable[[Step, int], int]] = {
    "direct": lambda one, value: step(one.label, value),
    "submit": lambda one, value: step_async.submit(one.label, value).result(),
    "chain": _chain,
    "map": _map,
    "map of futures": _map_of_futures,
    "large map": _large_map,
    "columns": _columns,
    "stream": _stream,
    "nested": lambda one, value: nested.submit(one.label, value).result(),
    "flaky": lambda one, value: flaky(one.label, value),
    "large": lambda one, value: int.from_bytes(large(one.label, value)[:4], "big"),
    "subflow": lambda one, value: _inside()(list(one.steps), value),
    "submitted subflow": lambda one, value: _inside().submit(list(one.steps), value).result(),
    "safe": _safe,
}


@flow(validate_parameters=False)
def inside(steps: list[Step], value: int) -> int:
    return carry_out(steps, value)


def outermost(seed: int) -> int:
    return carry_out(plan(seed), 1)


def main(seed: int, ledger: str) -> None:
    global _ledger
    install_crash_points()
    random.seed()
    _ledger = os.open(ledger, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    here: Any = flow(name="outermost", durable="strict" if seed % 5 == 0 else True)(outermost)
    key: dict[str, Any] = {"idempotency_key": f"seed {seed}"} if seed % 2 else {}  # else it is known by its arguments
    print(here(seed, **key), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
