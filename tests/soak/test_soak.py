"""RELIABILITY T12: a process that runs all kinds of things for long takes no more of anything than it did before.

`pytest tests/soak --long --first-seed 7` goes on for longer. What it saw is printed.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import pytest
from tests.soak.program import LOOKS, RUNS_A_SECOND, Seen

ROOT: Final = Path(__file__).parents[2]

MOST_BLOCKS_A_RUN: Final = 0.5
"""Leaving one object behind for each run is more than that; what is made once, such as a module, is not."""

MOST_STORED_A_RUN: Final = 8 * 1024
"""Bytes: a run of the program is several task runs, with states, logs and results."""


def soak(seconds: float, seed: int, home: Path) -> list[Seen]:
    """What the program saw of itself; its begin, when everything is loaded, is left out."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'runtime'}:{ROOT / 'runners'}",
        "UPWELL_JOURNAL": "on",
        "UPWELL_HOME": str(home),
        "UPWELL_LOGGING_LEVEL": "CRITICAL",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak.program", str(seconds), str(seed)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    print(done.stdout)
    return msgspec.json.decode(f"[{','.join(done.stdout.splitlines())}]", type=list[Seen])[LOOKS // 3 :]


def test_nothing_grows(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    option = pytestconfig.option
    seen = soak(option.soak_seconds, option.first_seed, tmp_path)
    before, after = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    for of in ("files", "threads", "tasks"):
        assert min(getattr(one, of) for one in after) <= max(getattr(one, of) for one in before), of

    def grown(measure: Callable[[Seen], float]) -> float:
        return statistics.median(map(measure, after)) - statistics.median(map(measure, before))

    runs = grown(lambda one: one.runs)
    assert runs > option.soak_seconds * RUNS_A_SECOND / 4
    assert grown(lambda one: one.blocks) < MOST_BLOCKS_A_RUN * runs + 500
    assert grown(lambda one: one.resident) < 2 + 0.0002 * runs
    assert grown(lambda one: one.stored) * 2**20 < MOST_STORED_A_RUN * runs
