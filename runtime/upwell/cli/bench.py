"""`upwell bench`: what a task run costs on this machine, beside bare asyncio and the standard pools, in ten seconds."""

from __future__ import annotations

import asyncio
import gc
import tempfile
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Final

from msgspec import Struct

from upwell.cli.group import group
from upwell.cli.output import note, show

if TYPE_CHECKING:
    from cyclopts import Parameter

    from upwell.cli.options import Output

app = group(
    "bench",
    "upwell bench",
    "upwell bench --seconds 30 -o json",
    more="Each row is the best of several rounds; a busy machine makes all of them slower.",
)

RUNS: Final = 10_000
POOLED_RUNS: Final = 2_000
LEAST_ROUNDS: Final = 2

Work = Callable[[int], Awaitable[Any]]


class Measured(Struct, frozen=True, kw_only=True):
    """One row. ratio: how many times as long as the rival took."""

    what: str
    runs: int
    microseconds_per_run: float
    runs_per_second: float
    rival: str
    rival_microseconds_per_run: float
    ratio: float


@app.default
def bench(
    *, seconds: Annotated[float, Parameter(help="About how long it may take.")] = 10.0, output: Output = "table"
) -> None:
    """Measure what a task run costs on this machine, beside bare asyncio and the standard pools."""
    from upwell.settings import temporary_settings

    rows: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="upwell-bench-") as folder, _closing_the_journal():
        with temporary_settings(journal="off", logging_level="ERROR"):
            rows += _of_coroutines(seconds * 0.5)
            rows += _of_threads(seconds * 0.25)
        with temporary_settings(journal="on", home=folder, database_url=None, api_url=None, logging_level="ERROR"):
            rows += _recorded(seconds * 0.25)
    show(
        rows,
        [
            ("what", lambda row: row.what),
            ("runs", lambda row: f"{row.runs:,}"),
            ("each", lambda row: f"{row.microseconds_per_run:.1f} \N{MICRO SIGN}s"),
            ("a second", lambda row: f"{row.runs_per_second:,.0f}"),
            ("beside", lambda row: row.rival),
            ("its each", lambda row: f"{row.rival_microseconds_per_run:.1f} \N{MICRO SIGN}s"),
            ("ratio", lambda row: f"{row.ratio:.2f}"),
        ],
        output,
    )
    note("A ratio below 1: faster than what stands beside it.")


def _of_coroutines(seconds: float) -> list[Measured]:
    from upwell import flow, task

    noop = task(_coroutine)

    @flow
    async def flow_of_noops(runs: int) -> int:
        return len(await noop.map(range(runs)))

    async def gather(runs: int) -> None:
        await asyncio.gather(*[_coroutine(number) for number in range(runs)])

    async def sleeps(runs: int) -> None:
        await asyncio.gather(*[_sleep(0.0) for _ in range(runs)])

    async def mapped_sleeps(runs: int) -> None:
        await task(_sleep).map([0.0] * runs)

    part = seconds / 2
    return [
        _row("coroutines in a flow", flow_of_noops, "asyncio.gather", gather, RUNS, part),
        _row("coroutines that suspend", mapped_sleeps, "asyncio.gather", sleeps, RUNS, part),
    ]


def _of_threads(seconds: float) -> list[Measured]:
    from upwell import task

    on_threads = task(task_runner="threads")(_function)

    async def mapped(runs: int) -> None:
        await on_threads.map(range(runs))

    with ThreadPoolExecutor() as pool:

        async def in_executor(runs: int) -> None:
            loop = asyncio.get_running_loop()
            await asyncio.gather(*[loop.run_in_executor(pool, _function, number) for number in range(runs)])

        return [_row("functions on threads", mapped, "run_in_executor", in_executor, POOLED_RUNS, seconds)]


def _recorded(seconds: float) -> list[Measured]:
    """The same flow, with every run of it in a SQLite file when it returns."""
    from upwell import flow, task

    noop = task(_coroutine)

    @flow
    async def recorded(runs: int) -> int:
        return len(await noop.map(range(runs)))

    async def gather(runs: int) -> None:
        await asyncio.gather(*[_coroutine(number) for number in range(runs)])

    return [_row("the same, all recorded", recorded, "asyncio.gather", gather, RUNS, seconds)]


async def _coroutine(number: int) -> int:
    return number


async def _sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


def _function(number: int) -> int:
    return number


def _row(what: str, ours: Work, rival: str, theirs: Work, runs: int, seconds: float) -> Measured:
    """Both in turns, so that what slows the machine slows both; the best round of each counts."""
    best_ours = best_theirs = float("inf")
    rounds, until = 0, perf_counter() + seconds
    with asyncio.Runner() as runner:
        while rounds < LEAST_ROUNDS or perf_counter() < until:
            best_theirs = min(best_theirs, _timed(runner, theirs, runs))
            best_ours = min(best_ours, _timed(runner, ours, runs))
            rounds += 1
    return Measured(
        what=what,
        runs=runs,
        microseconds_per_run=best_ours / runs * 1e6,
        runs_per_second=runs / best_ours,
        rival=rival,
        rival_microseconds_per_run=best_theirs / runs * 1e6,
        ratio=best_ours / best_theirs,
    )


def _timed(runner: asyncio.Runner, work: Work, runs: int) -> float:
    async def measured() -> float:
        began = perf_counter()
        await work(runs)
        return perf_counter() - began

    gc.collect()
    return runner.run(measured())


@contextmanager
def _closing_the_journal() -> Generator[None]:
    from upwell.composition import close_journal

    try:
        yield
    finally:
        close_journal()
