"""Runs the sides of a row in turns, A B C A B C, in one process, and compares them round by round.

What else the machine does hits neighbours in time alike, so the ratio is taken within each round, and the
median of the rounds' ratios is what counts; the quartiles say how far to trust it. The garbage collector is
left as a user has it, and what the other side has left behind is collected before each run.
"""

from __future__ import annotations

import gc
import io
import statistics
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import dataclass

from benchmarks import memory
from benchmarks.rows import Measured, Rival, Row, Run, Setting, Side

Clock = Callable[[], float]
"""Seconds: of the day (`perf_counter`), or of this process on a processor (`process_time`)."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of some numbers, and the quartiles around it (the extremes, of fewer than four numbers)."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Upwell beside one rival (or alone) in one row, on one loop; numbers in the row's unit, memory in MiB."""

    row: str
    loop: str
    size: int
    rounds: int
    unit: str
    ours: Spread
    ours_peak: float | None = None
    rival: str | None = None
    theirs: Spread | None = None
    theirs_peak: float | None = None
    ratio: Spread | None = None
    most: float | None = None
    met: bool | None = None


def spread(numbers: Sequence[float]) -> Spread:
    """The median and quartiles of at least one number."""
    if len(numbers) < 4:
        return Spread(statistics.median(numbers), min(numbers), max(numbers))
    low, median, high = statistics.quantiles(numbers, n=4, method="inclusive")
    return Spread(median, low, high)


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """The spread of the ratios of numbers that were measured one right after the other."""
    return spread([a / b if b else float("inf") for a, b in zip(ours, theirs, strict=True)])


def measured(run: Run, clock: Clock = time.perf_counter) -> float:
    """One run's seconds."""
    gc.collect()
    start = clock()
    outcome = run()
    seconds = clock() - start
    return float(outcome) if isinstance(outcome, Measured) else seconds


def alternate(
    runs: Sequence[Run], rounds: int, *, warm_up: bool, clock: Clock = time.perf_counter
) -> list[list[float]]:
    """Seconds of each run in each round, in the order of the runs."""
    if warm_up:
        for run in runs:
            measured(run)
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, own in zip(runs, seconds, strict=True):
            own.append(measured(run, clock))
    return seconds


def measure(
    row: Row,
    size: int,
    loop: str = "asyncio",
    rounds: int | None = None,
    *,
    peaks: bool = True,
    clock: Clock = time.perf_counter,
) -> list[Result]:
    """Run a row, and compare upwell with each rival in it; one result for each, or one if it has none."""
    rounds = rounds or row.rounds
    setting = Setting(size, loop)
    if row.unit.is_memory:
        raw = [[float(memory.peak_in_child(row.name, i, setting))] for i in range(len(row.sides))]
        rounds = 1
    else:
        with ExitStack() as stack, _quiet():
            # The rivals' pools come first: a process that is forked while upwell's threads run is not theirs to bear.
            runs = {side.name: stack.enter_context(side.open(setting)) for side in reversed(row.sides)}
            raw = alternate([runs[side.name] for side in row.sides], rounds, warm_up=row.warm_up, clock=clock)
    found: list[int | None] = [None] * len(row.sides)
    if peaks and row.peak and not row.unit.is_memory:
        found = [memory.peak_in_child(row.name, i, setting) for i in range(len(row.sides))]
    return list(_compared(row, setting, raw, found))


def _compared(row: Row, setting: Setting, raw: list[list[float]], peaks: list[int | None]) -> Iterator[Result]:
    numbers = [[row.unit.of(number, setting.size) for number in side] for side in raw]
    mebibytes = [None if peak is None else peak / 1024**2 for peak in peaks]
    ours = spread(numbers[0])

    def result(rival: Side | None, theirs: list[float], peak: float | None) -> Result:
        ratio = paired_ratio(numbers[0], theirs) if rival else None
        most = rival.most if isinstance(rival, Rival) else row.most
        reached = ratio.median if ratio else ours.median
        return Result(
            row=row.name,
            loop=setting.loop if row.on_loops else "",
            size=setting.size,
            rounds=len(numbers[0]),
            unit=row.unit.label,
            ours=ours,
            ours_peak=mebibytes[0],
            rival=rival.name if rival else None,
            theirs=spread(theirs) if rival else None,
            theirs_peak=peak,
            ratio=ratio,
            most=most,
            met=None if most is None else reached <= most,
        )

    if not row.rivals or row.most is not None:
        yield result(None, [], None)
    for rival, theirs, peak in zip(row.rivals, numbers[1:], mebibytes[1:], strict=True):
        yield result(rival, theirs, peak)


@contextmanager
def _quiet() -> Generator[None]:
    """Log lines are formatted and written as ever, but not to the terminal; shown if something goes wrong."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            yield
    except BaseException:
        sys.stderr.write(said.getvalue()[-10_000:])
        raise
