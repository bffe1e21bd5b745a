"""Durable flows: what it costs to keep every result, to take them up again, and to wait for each to be safe.

The store is a new SQLite file for each side. Results are small. What is left out: large results, which are files; other
processes that write at the same time; PostgreSQL.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.coroutines import gather
from benchmarks.rows import Measured, Rival, Row, Run, Setting, Side
from upwell import flow, task
from upwell.composition import close_journal
from upwell.settings import temporary_settings

_FINISHED: Final = """
SELECT r.series, r.number, r.durable_key, r.record, t.started, t.ended
FROM series s
JOIN task_run_results r ON r.series = s.key
JOIN task_runs t ON t.series = r.series AND t.number = r.number
WHERE s.flow_run_id = ? AND t.state = 'COMPLETED' AND r.durable_key IS NOT NULL
ORDER BY r.series, r.number
"""

_AS_IF_IT_HAD_DIED: Final = "UPDATE flow_runs SET state = 'SCHEDULED', state_name = 'AwaitingResume', ended = NULL"


@task
async def same(number: int) -> int:
    return number


@flow(durable=True)
async def durable_map(size: int, attempt: float) -> int:
    return len(await same.map(range(size)))


@task
def step(number: int) -> int:
    return number + 1


@flow(durable="strict")
def one_after_the_other(size: int, attempt: float) -> int:
    number = 0
    for _ in range(size):
        number = step(number)
    return number


@contextmanager
def journal(synchronous: str = "NORMAL") -> Iterator[Path]:
    """A journal in a new file, closed at the end."""
    with (
        tempfile.TemporaryDirectory() as home,
        temporary_settings(journal="on", home=home, database_synchronous=synchronous, logging_level="ERROR"),
    ):
        try:
            yield Path(home) / "upwell.db"
        finally:
            close_journal()


@contextmanager
def kept(setting: Setting) -> Iterator[Run]:
    with journal():
        yield lambda: setting.run(durable_map(setting.size, time.time()))


@contextmanager
def resumed(setting: Setting) -> Iterator[Run]:
    """A run with everything finished is resumed again and again; less the time to read the rows."""

    def resume() -> Measured:
        with sqlite3.connect(file) as connection:
            connection.execute(_AS_IF_IT_HAD_DIED)
            (identity,) = connection.execute("SELECT id FROM flow_runs").fetchone()
            connection.commit()
            began = time.perf_counter()
            rows = connection.execute(_FINISHED, (identity,)).fetchall()
            reading = time.perf_counter() - began
        assert len(rows) == setting.size
        del rows
        connection.close()
        began = time.perf_counter()
        setting.run(durable_map(setting.size, 0.0))
        return Measured(time.perf_counter() - began - reading)

    with journal() as file:
        asyncio.run(durable_map(setting.size, 0.0))
        yield resume


def _strict(synchronous: str) -> Side:
    @contextmanager
    def strict(setting: Setting) -> Iterator[Run]:
        with journal(synchronous):
            yield lambda: one_after_the_other(setting.size, time.time())

    return Side(f"strict, {synchronous}", strict)


def _commits(synchronous: str) -> Rival:
    @contextmanager
    def commits(setting: Setting) -> Iterator[Run]:
        """As many transactions of one row, one after the other, in this thread, by the `sqlite3` module."""
        with tempfile.TemporaryDirectory() as folder:
            connection = sqlite3.connect(Path(folder) / "bare.db", isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            connection.execute("CREATE TABLE rows (number INTEGER, started REAL, ended REAL, state TEXT)")

            def run() -> None:
                for number in range(setting.size):
                    connection.execute("BEGIN IMMEDIATE")
                    connection.execute("INSERT INTO rows VALUES (?, 1.0, 2.0, 'COMPLETED')", (number,))
                    connection.execute("COMMIT")

            yield run
            connection.close()

    return Rival(f"commits, {synchronous}", commits, most=1.25)


ROWS = [
    Row(
        name="durable-map",
        measures="A map of 100,000 coroutines in a durable flow, every result in the file when the flow returns.",
        leaves_out="Results of more than a few bytes.",
        ours=Side("durable flow", kept),
        rivals=(Rival("asyncio.gather", gather, most=0.8),),
        size=100_000,
        quick_size=20_000,
        on_loops=True,
        rounds=5,
    ),
    Row(
        name="durable-resume",
        measures="Resuming such a flow with everything finished, a run, less the time to read its rows.",
        leaves_out="The start of the process; maps whose inputs have changed, whose runs are known by their keys.",
        ours=Side("resume", resumed),
        size=100_000,
        quick_size=20_000,
        rounds=5,
        most=1.0,
    ),
    *(
        Row(
            name=f"durable-strict-{synchronous.lower()}",
            measures="Task runs one after the other, each safe in the file before the next, beside bare commits.",
            leaves_out="Other processes that write to the file.",
            ours=_strict(synchronous),
            rivals=(_commits(synchronous),),
            size=2_000,
            quick_size=300,
            rounds=3,
        )
        for synchronous in ("NORMAL", "FULL")
    ),
]
