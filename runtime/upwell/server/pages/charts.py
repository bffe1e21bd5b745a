"""The geometry of small charts: activity over time, the last runs of something. Places across are in per cent."""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from upwell.core.model import StateCounts
from upwell.core.states import StateType
from upwell.journal.views import LastRun
from upwell.server.pages.shown import STATE_ORDER, exact, kind_of, seconds_between, took

HEIGHT: Final = 132
LEAST_HEIGHT: Final = 2.0
"""What happened can be seen, however much more happened elsewhere."""

TICKS: Final = 6
STRIP_RUNS: Final = 30


class Part(Struct, frozen=True):
    """One state's part of a column."""

    kind: str
    y: float
    height: float


class Column(Struct, frozen=True):
    """One span of time. x: where the pointer finds it; left: where its bar begins."""

    x: float
    left: float
    title: str
    address: str
    parts: list[Part]


class Line(Struct, frozen=True):
    y: float
    value: int


class Tick(Struct, frozen=True):
    x: float
    moment: dt.datetime
    text: str
    anchor: str


class Chart(Struct, frozen=True):
    """Stacked bars. step: from one to the next; width: of one."""

    height: int
    step: float
    width: float
    columns: list[Column]
    lines: list[Line]
    ticks: list[Tick]


class Bar(Struct, frozen=True):
    """One run in a strip of the last ones: as high as it was long."""

    id: str
    kind: str
    title: str
    x: float
    y: float
    width: float
    height: float


def activity(spans: Sequence[StateCounts], address: Callable[[dt.datetime, dt.datetime], str]) -> Chart:
    """Stacked bars of how many runs were created when."""
    step = 100 / max(len(spans), 1)
    width = step * 0.78
    top = nice_ceiling(max((span.total for span in spans), default=0))
    columns = [
        Column(
            x=round(place * step, 3),
            left=round(place * step + (step - width) / 2, 3),
            title=_title(span),
            address=address(span.start, span.end),
            parts=_parts(span, top),
        )
        for place, span in enumerate(spans)
        if span.total
    ]
    values = [top] if top < 4 else [top, top // 2]
    lines = [Line(round(HEIGHT - HEIGHT * value / top, 1), value) for value in values if value] if top else []
    return Chart(HEIGHT, round(step, 3), round(width, 3), columns, lines, _ticks(spans))


def nice_ceiling(value: int) -> int:
    """A round number that is not less, whose half is round, too: 1, 2, 4, 6, 8, 10, 12, 16, 20, 40, ..."""
    if value <= 2:
        return max(value, 0)
    size: int = 10 ** int(math.log10(value))
    between = (size * 12 // 10, size * 16 // 10) if size > 1 else ()
    rounds: tuple[int, ...] = (size, *between, *(size * factor for factor in (2, 4, 6, 8, 10)))
    return next(number for number in rounds if number >= value)


def _title(span: StateCounts) -> str:
    counts = ", ".join(f"{span.states[kind]:,} {kind.lower()}" for kind in STATE_ORDER if span.states.get(kind))
    return f"{span.start:%H:%M} to {span.end:%H:%M} UTC, {span.start.day} {span.start:%b}: {counts or 'nothing'}"


def _parts(span: StateCounts, top: int) -> list[Part]:
    parts: list[Part] = []
    y = float(HEIGHT)
    for kind in STATE_ORDER:
        if not span.states.get(kind):
            continue
        height = max(HEIGHT * span.states[kind] / top, LEAST_HEIGHT)
        y = max(y - height, 0.0)
        parts.append(Part(kind_of(kind), round(y, 1), round(height, 1)))
    return parts


def _ticks(spans: Sequence[StateCounts]) -> list[Tick]:
    if not spans:
        return []
    every = max(len(spans) // TICKS, 1)
    long = (spans[-1].end - spans[0].start) > dt.timedelta(days=2)
    return [
        Tick(
            x=round(100 * place / len(spans), 2),
            moment=span.start,
            text=f"{span.start.day} {span.start:%b}" if long else f"{span.start:%H:%M}",
            anchor="start",
        )
        for place, span in enumerate(spans)
        if place % every == 0 and place <= len(spans) - every // 2
    ]


def strip(runs: Sequence[LastRun], now: dt.datetime) -> list[Bar]:
    """The last runs of something, the oldest first: bars of one width, as high as the run was long."""
    shown = [run for run in runs if run.start_time is not None or run.state.is_final()][:STRIP_RUNS][::-1]
    lengths = [seconds_between(run.start_time, run.end_time or now) or 0.0 for run in shown]
    longest = max(lengths, default=0.0) or 1.0
    step = 100 / STRIP_RUNS
    first = STRIP_RUNS - len(shown)
    bars: list[Bar] = []
    for place, (run, seconds) in enumerate(zip(shown, lengths, strict=True), start=first):
        height = 22 + 78 * math.sqrt(seconds / longest)
        title = f"{run.name}: {run.state.name}, {took(seconds)}, {exact(run.created)}"
        left, high = round(place * step, 2), round(height, 1)
        bars.append(Bar(run.id, kind_of(run.state), title, left, round(100 - high, 1), round(step * 0.72, 2), high))
    return bars


def happened(spans: Sequence[StateCounts]) -> list[StateCounts]:
    """Without what is only scheduled: it is made ahead of its time."""
    return [
        StateCounts(
            start=span.start,
            end=span.end,
            states={kind: number for kind, number in span.states.items() if kind is not StateType.SCHEDULED},
        )
        for span in spans
    ]


def sums(spans: Sequence[StateCounts]) -> Counter[StateType]:
    """How many runs are in which state, over all spans."""
    total: Counter[StateType] = Counter()
    for span in spans:
        total.update(span.states)
    return total


__all__ = ["Bar", "Chart", "activity", "happened", "nice_ceiling", "strip", "sums"]
