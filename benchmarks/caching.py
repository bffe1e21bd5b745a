"""Cached results: what it costs to find them, beside what it costs to compute nothing."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.rows import Rival, Row, Run, Setting, Side
from upwell import flow, task
from upwell.cache_policies import INPUTS
from upwell.composition import close_journal
from upwell.settings import temporary_settings


@task(cache_policy=INPUTS)
async def cached(number: int) -> int:
    return number


@flow
async def all_cached(size: int) -> int:
    runs = cached.map(range(size))
    return [await run for run in runs][-1]


async def noop(number: int) -> int:
    return number


async def gather(size: int) -> list[int]:
    return await asyncio.gather(*[noop(number) for number in range(size)])


@contextmanager
def hits(setting: Setting) -> Generator[Run]:
    """All results are in the file before the first run begins; nothing is kept in memory of them."""
    with tempfile.TemporaryDirectory() as folder, temporary_settings(journal="on", home=str(Path(folder) / "home")):
        setting.run(all_cached(setting.size))
        close_journal()
        yield lambda: setting.run(all_cached(setting.size))
        close_journal()


ROWS = [
    Row(
        name="cache-hits",
        measures="A flow that maps a cached task over 100,000 inputs whose results are in the SQLite file: keys are "
        "computed, records read and checked, and each run is recorded.",
        leaves_out="Large arguments and results. What computing them would have cost.",
        ours=Side("map", hits),
        rivals=(Rival("gather of no-ops", gather, most=0.7),),
        size=100_000,
        quick_size=20_000,
        rounds=5,
        peak=False,
    )
]
