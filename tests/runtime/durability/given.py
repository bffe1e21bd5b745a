"""What the tests of durable flows run, and how they are told to die."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.runtime.durability.killed import Killed

from upwell import flow, task
from upwell.runtime import flow_run

ran: Counter[Any] = Counter()
"""How often what was run."""

switches: set[str] = set()
"""What the flows are to do."""


def die_once() -> None:
    """Look as if the process had been killed, but not again when the run is gone on with."""
    if "die" in switches:
        switches.discard("die")
        raise Killed


@task
def double(x: int) -> int:
    ran["double", x] += 1
    return x * 2


@flow(durable=True)
def simple(x: int) -> tuple[str, int]:
    """Dies between two task runs; returns its run's id and a sum."""
    value = double(x)
    die_once()
    return str(flow_run.id), value + double(x + 1)
