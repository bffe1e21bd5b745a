"""Kill -9, at any time and at each named place: what was safe is not done again, and it all comes out as if nothing had
happened.

A parent starts a real program again and again, kills it, and compares the program's ledger with the store:
what was said to be safe is in the store; what is in the store as completed is never run again; nothing is run more than
once for each kill; nothing is left Running; the result is that of a program which nobody killed.
`pytest tests/oracle --long --first-seed 1000` goes on for longer.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.noted_ends import noted_ends
from tests.oracle.program import expected, plan
from tests.postgres import PostgresServer

from upwell.testing.crash_points import CRASH_POINTS

ROOT = Path(__file__).parents[2]
KILLS_PER_BATCH = 5
SECONDS = 60

COMPLETED = """
SELECT t.inputs FROM task_runs t JOIN task_run_results r ON r.series = t.series AND r.number = t.number
WHERE t.state = 'COMPLETED' AND r.durable_key IS NOT NULL
"""
LEFT_OPEN = """
SELECT 'flow', state FROM flow_runs WHERE ended IS NULL
UNION ALL SELECT 'task', state FROM task_runs WHERE ended IS NULL
"""

Ask = Callable[[str], list[tuple[Any, ...]]]


class Oracle:
    """One program that is killed, and what must be true of it."""

    def __init__(self, seed: int, home: Path, ask: Ask, **settings: str) -> None:
        self._seed = seed
        self._home = home
        self._ask = ask
        self._settings = settings
        self._ledger = home / "ledger"
        self.kills = 0
        self.counts: Counter[str] = Counter()

    def environment(self, crash_at: str = "") -> dict[str, str]:
        return {
            **os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'runtime'}:{ROOT / 'runners'}", "UPWELL_JOURNAL": "on",
            "UPWELL_HOME": str(self._home), "UPWELL_LOGGING_LEVEL": "CRITICAL", "UPWELL_CRASH_AT": crash_at,
            "UPWELL_DURABLE_MAX_CRASHES": "1000", **self._settings,
        }  # fmt: skip

    def start(self, crash_at: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.oracle.program", str(self._seed), str(self._ledger)]
        return subprocess.Popen(
            command, cwd=ROOT, env=self.environment(crash_at),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *, crash_at: str = "", kill_after: float | None = None) -> str | None:
        """Run it, until it ends or dies; what it printed, if it came to its end."""
        safe = self._safe() if self._ledger.exists() else set[str]()
        before = self._lines()
        child = self.start(crash_at)
        try:
            if kill_after is not None:
                try:
                    child.wait(kill_after)
                except subprocess.TimeoutExpired:
                    child.kill()
            printed, said = child.communicate(timeout=SECONDS)
        finally:
            child.kill()
            child.wait()
        assert child.returncode in (0, -9), said
        since = self._lines()[len(before) :]
        self._check(safe, since)
        if child.returncode == 0:
            return printed.strip()
        if self._ask("SELECT 1 FROM flow_runs WHERE flow = 'outermost' AND state = 'COMPLETED'"):
            return ""  # killed when all was over
        self.kills += 1
        acknowledged = {line.removeprefix("ok ") for line in since if line.startswith("ok ")}
        assert acknowledged <= self._safe(), "It was said to be safe, and is not in the store."
        return None

    def _check(self, safe: set[str], since: list[str]) -> None:
        ran = Counter(line.split()[0] for line in since if not line.startswith("ok "))
        again = safe & ran.keys()
        assert not again, f"In the store as completed, and run again: {again}"
        attempts = Counter(line for line in since if not line.startswith("ok "))
        assert set(attempts.values()) <= {1}, "Run twice by one process."
        self.counts.update(attempts)

    def check_the_end(self, printed: str) -> None:
        assert printed in ("", str(expected(plan(self._seed), 1)))
        assert max(self.counts.values()) <= 1 + self.kills
        assert self._ask(LEFT_OPEN) == []
        states = Counter(state for (state,) in self._ask("SELECT state FROM flow_runs"))
        assert set(states) == {"COMPLETED"}
        assert self._ask("SELECT count(*) FROM leases") == [(0,)]

    def _lines(self) -> list[str]:
        return self._ledger.read_text().splitlines() if self._ledger.exists() else []

    def _safe(self) -> set[str]:
        """The labels of what the store knows as completed: in its tables, or as it was written at once."""
        known = [inputs for (inputs,) in self._ask(COMPLETED)]
        known += [run[-1] for run in noted_ends(self._home / "upwell.db")]
        return {re.findall(r"label='([^']*)'", inputs)[0] for inputs in known if "label=" in inputs}


def sqlite(home: Path) -> Ask:
    def ask(query: str) -> list[tuple[Any, ...]]:
        file = home / "upwell.db"
        if not file.exists():
            return []
        connection = sqlite3.connect(file, timeout=30)
        try:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'flow_runs'").fetchall():
                return []
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    return ask


def kill_at_random(oracle: Oracle, dice: random.Random, kills: int) -> None:
    """Kill it so often at random times, unless it comes to its end before; then let it."""
    printed = None
    while printed is None:
        printed = oracle.run(kill_after=dice.uniform(0.25, 0.7) if oracle.kills < kills else None)
    oracle.check_the_end(printed)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "batch" in metafunc.fixturenames:
        metafunc.parametrize("batch", range(max(1, metafunc.config.option.kills // KILLS_PER_BATCH)))


def test_killed_at_any_time_nothing_that_was_safe_is_done_again(
    batch: int, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    kills, seed = 0, pytestconfig.option.first_seed + 1000 * batch
    while kills < KILLS_PER_BATCH:
        home = tmp_path / str(seed)
        home.mkdir()
        oracle = Oracle(seed, home, sqlite(home))
        kill_at_random(oracle, random.Random(seed), KILLS_PER_BATCH - kills)
        kills += oracle.kills
        seed += 1


PLACES = [*CRASH_POINTS, "before execution", "after execution", "after acknowledgement"]


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_a_named_place(place: str, tmp_path: Path) -> None:
    seed = SEED_WITH_ALL
    settings = {"UPWELL_LEASE_SECONDS": "1", "ORACLE_PAUSE_SECONDS": "0.1"} if place == "mid renewal" else {}
    oracle = Oracle(seed, tmp_path, sqlite(tmp_path), **settings)
    for time_of_death in ("1",) if "claim" in place or "renewal" in place else ("1", "2"):
        if oracle.run(crash_at=f"{place}:{time_of_death}") is not None:
            pytest.fail(f"It was not killed at {place}:{time_of_death}")
    printed = oracle.run()
    assert printed is not None
    oracle.check_the_end(printed)


@pytest.mark.parametrize(
    ("sent", "state", "name"), [(signal.SIGTERM, "SCHEDULED", "AwaitingResume"), (signal.SIGINT, "CANCELLED", None)]
)
def test_terminated_it_can_be_resumed_and_interrupted_it_is_cancelled(
    sent: signal.Signals, state: str, name: str | None, tmp_path: Path
) -> None:
    ask = sqlite(tmp_path)
    oracle = Oracle(SEED_WITH_ALL, tmp_path, ask)
    child = oracle.start()
    while not ask("SELECT 1 FROM task_runs"):
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(sent)
    child.communicate(timeout=SECONDS)
    look = "import upwell; print(upwell.resume_all())"
    subprocess.run([sys.executable, "-c", look], cwd=ROOT, env=oracle.environment(), check=True, timeout=SECONDS)
    assert ask("SELECT state, state_name FROM flow_runs WHERE flow = 'outermost'") == [(state, name)]
    assert ask("SELECT state FROM task_runs WHERE state = 'RUNNING'") == []


ALWAYS = {"large", "large map", "columns", "safe"}
SEED_WITH_ALL = next(seed for seed in range(1, 1000) if seed % 5 and {one.kind for one in plan(seed)} >= ALWAYS)


@pytest.mark.parametrize("number", range(2))
def test_the_same_in_postgres(number: int, postgres: PostgresServer, tmp_path: Path) -> None:
    import asyncio

    import asyncpg

    with postgres.database() as url:

        def ask(query: str) -> list[tuple[Any, ...]]:
            async def asked() -> list[tuple[Any, ...]]:
                connection: asyncpg.Connection[Any] = await asyncpg.connect(url)
                try:
                    if not await connection.fetch("SELECT 1 FROM pg_tables WHERE tablename = 'flow_runs'"):
                        return []
                    return [tuple(row) for row in await connection.fetch(query)]
                finally:
                    await connection.close()

            return asyncio.run(asked())

        oracle = Oracle(SEED_WITH_ALL + number, tmp_path, ask, UPWELL_DATABASE_URL=url)
        kill_at_random(oracle, random.Random(number), 3)
