"""The journal: what it costs that every run is in a file, or in PostgreSQL, before the flow's caller gets the answer.

Each side of a row has a store of its own, opened before it is measured; it grows by what the rounds write. What is left
out: results that are stored, other processes that write at the same time, a disk that is slow to sync.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.coroutines import flow_of_noops, gather, noop, raised
from benchmarks.durable import journal
from benchmarks.rows import Measured, Rival, Row, Run, Setting, Side, Unit
from upwell import composition, flow
from upwell.engine.recorder import record_with
from upwell.settings import temporary_settings

TICK_SECONDS: Final = 0.001
SMALL: Final = 500
LATEST: Final = 0.999
"""Which of the loop's delays is told: all but one in a thousand are shorter."""


@contextmanager
def recorded(setting: Setting) -> Generator[Run]:
    """A flow that maps no-ops, and has all of it in the file at its end."""
    with journal():
        yield lambda: setting.run(flow_of_noops(setting.size))


@contextmanager
def recorded_raised(setting: Setting) -> Generator[Run]:
    with journal(), raised(flow_of_noops)(setting) as run:
        yield run


@contextmanager
def not_recorded(setting: Setting) -> Generator[Run]:
    """The same flow in the same process, recorded nowhere."""

    def run() -> None:
        with _no_journal():
            setting.run(flow_of_noops(setting.size))

    yield run


@contextmanager
def _no_journal() -> Generator[None]:
    record_with(None)
    try:
        yield
    finally:
        record_with(composition.open_recorder)


@flow
async def flow_of_small_maps(size: int) -> int:
    """As many no-ops, so few at a time that neither to start them nor the collector keeps the loop for long."""
    for _ in range(0, size, SMALL):
        await noop.map(range(SMALL))
    return size


def without_a_processor() -> float:
    """For how many seconds this thread was ready to run, and the machine ran others; Linux tells."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


async def longest_delay(work: Callable[[], Any]) -> float:
    """How late the loop is, for all but a few of many wishes, while it works and what was done is written."""
    delays: list[float] = []
    working = asyncio.create_task(work())
    while not working.done():
        before, began = without_a_processor(), time.perf_counter()
        await asyncio.sleep(TICK_SECONDS)
        late = time.perf_counter() - began - TICK_SECONDS
        delays.append(max(0.0, late - (without_a_processor() - before)))
    await working
    delays.sort()
    return delays[int(len(delays) * LATEST)]


@contextmanager
def delayed(setting: Setting) -> Generator[Run]:
    with journal():
        yield lambda: _longest_delay(setting)


@contextmanager
def delayed_by_itself(setting: Setting) -> Generator[Run]:
    """How late the loop is where nothing is written: what the work does, and the machine."""

    def run() -> Measured:
        with _no_journal():
            return _longest_delay(setting)

    yield run


def _longest_delay(setting: Setting) -> Measured:
    async def several() -> float:
        return await longest_delay(lambda: flow_of_small_maps(setting.size))

    return Measured(setting.run(several()))  # type: ignore[arg-type]  # a float


@contextmanager
def bytes_written(setting: Setting) -> Generator[Run]:
    """The size of a new file after one flow, for each of its task runs."""

    def run() -> Measured:
        with journal() as file:
            setting.run(flow_of_noops(setting.size))
            composition.close_journal()
            with sqlite3.connect(file) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()
            return Measured(file.stat().st_size / setting.size)

    yield run


@contextmanager
def in_postgres(setting: Setting) -> Generator[Run]:
    """A server on this machine, reached through a Unix socket, as its package sets it up."""
    from tests.postgres import postgres_server  # here: only this row needs one

    with (
        postgres_server() as server,
        server.database() as url,
        tempfile.TemporaryDirectory() as home,
        temporary_settings(journal="on", home=str(Path(home)), database_url=url),
    ):
        try:
            yield lambda: setting.run(flow_of_noops(setting.size))
        finally:
            composition.close_journal()


@contextmanager
def in_sqlite(setting: Setting) -> Generator[Run]:
    """A new file for each run, as the other side's journal is open meanwhile."""

    def run() -> Measured:
        with journal():
            setting.run(flow_of_noops(1))  # opens it
            began = time.perf_counter()
            setting.run(flow_of_noops(setting.size))
            return Measured(time.perf_counter() - began)

    yield run


_LEFT_OUT: Final = "Stored results, dependencies, log lines of tasks; other writers."

ROWS = [
    Row(
        name="journal-100k",
        measures="A flow that maps 100,000 no-op coroutines; all runs and states are in the SQLite file at its end.",
        leaves_out=_LEFT_OUT,
        ours=Side("journal on", recorded),
        rivals=(Rival("asyncio.gather", gather, most=0.5), Rival("journal off", not_recorded, most=2.0)),
        size=100_000,
        quick_size=100_000,
        on_loops=True,
    ),
    Row(
        name="journal-100k-raised",
        measures="The same with the garbage collector's thresholds raised on both sides.",
        leaves_out=_LEFT_OUT,
        ours=Side("journal on", recorded_raised),
        rivals=(Rival("asyncio.gather", raised(gather), most=1.0),),
        size=100_000,
        quick_size=100_000,
        on_loops=True,
    ),
    Row(
        name="journal-stall",
        measures="How late the loop is, at the 99.9th percentile of wishes 1 ms apart, while a flow runs so many "
        "no-ops, 500 at a time, and all of that is written.",
        leaves_out="The time in which the loop's thread was ready, and the machine ran others.",
        ours=Side("journal on", delayed),
        rivals=(Rival("journal off", delayed_by_itself),),
        size=400_000,
        quick_size=400_000,
        unit=Unit.MILLISECONDS,
        most=5.0,
        on_loops=True,
        peak=False,
    ),
    Row(
        name="journal-bytes",
        measures="The SQLite file after a flow with so many task runs, indexes included, in bytes a task run.",
        leaves_out="Results, log lines, long names.",
        ours=Side("bytes", bytes_written),
        size=100_000,
        quick_size=100_000,
        unit=Unit.COUNT,
        most=250.0,
        rounds=1,
        warm_up=False,
        peak=False,
    ),
    Row(
        name="journal-100k-postgres",
        measures="The flow of 100,000 no-ops recorded in PostgreSQL on this machine, beside a SQLite file.",
        leaves_out=_LEFT_OUT,
        ours=Side("PostgreSQL", in_postgres),
        rivals=(Rival("SQLite", in_sqlite, most=3.0),),
        size=100_000,
        quick_size=100_000,
        peak=False,
    ),
]
