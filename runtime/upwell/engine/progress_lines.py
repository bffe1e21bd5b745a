"""What a progress bar looks like: from counts to lines of text, with rich where it is installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TextIO

BAR_WIDTH: Final = 24
MINUTE, HOUR = 60, 3600


class Counts(NamedTuple):
    """One bar at one moment. rate: per second, lately; None while nobody can know."""

    title: str
    done: int
    total: int | None
    failed: int
    rate: float | None
    elapsed: float
    over: bool = False

    @property
    def share(self) -> float | None:
        """How much of it is done, from 0 to 1."""
        if self.total is None:
            return None
        return min(self.done / self.total, 1.0) if self.total else 1.0

    @property
    def seconds_left(self) -> float | None:
        if self.total is None or not self.rate or self.over:
            return None
        return max(self.total - self.done, 0) / self.rate


Renderer = Callable[[Sequence[Counts], int], list[str]]
"""From bars and the terminal's width in characters to lines that fit into it."""


def plain_lines(bars: Sequence[Counts], width: int) -> list[str]:
    """`parse  1,234/5,000  24% [=====>        ]  812/s  0:00:05 left`, cut where the terminal ends."""
    return [_plain_line(bar)[: max(width - 1, 1)] for bar in bars]


def summary(bar: Counts) -> str:
    """How it ended, in one line: `parse  5,000/5,000 in 0:00:06, 812/s, 3 failed`."""
    return f"{bar.title}  {_count(bar)} in {duration(bar.elapsed)}{_rate(bar, ', ')}{_failed(bar, ', ')}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: `0:00:05`."""
    whole = round(seconds)
    return f"{whole // HOUR}:{whole % HOUR // MINUTE:02d}:{whole % MINUTE:02d}"


def best_renderer(stream: TextIO) -> Renderer:
    """Lines in colour by rich, where it is installed; else plain ones."""
    try:
        return _rich_renderer(stream)
    except ImportError:
        return plain_lines


def terminal_width(stream: TextIO) -> int:
    """How many characters fit into a line."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _plain_line(bar: Counts) -> str:
    parts = [f"{bar.title}  {_count(bar)}"]
    share = bar.share
    if share is not None:
        filled = int(share * BAR_WIDTH)
        drawn = "=" * filled + (">" if filled < BAR_WIDTH else "")
        parts.append(f"{int(share * 100):3d}% [{drawn:<{BAR_WIDTH}}]")
    return f"{'  '.join(parts)}{_rate(bar)}  {_time(bar)}{_failed(bar)}"


def _count(bar: Counts) -> str:
    if bar.total is None:
        return f"{bar.done:,}"
    total = f"{bar.total:,}"
    return f"{bar.done:>{len(total)},}/{total}"


def _rate(bar: Counts, between: str = "  ") -> str:
    if bar.rate is None:
        return ""
    return f"{between}{bar.rate:,.0f}/s" if bar.rate >= 10 else f"{between}{bar.rate:.1f}/s"


def _time(bar: Counts) -> str:
    left = bar.seconds_left
    return duration(bar.elapsed) if left is None else f"{duration(left)} left"


def _failed(bar: Counts, between: str = "  ") -> str:
    return f"{between}{bar.failed:,} failed" if bar.failed else ""


def _rich_renderer(stream: TextIO) -> Renderer:
    # Only here, and only when a bar is drawn: rich takes its time to load, and need not be installed.
    from rich.console import Console
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream, force_terminal=True, highlight=False, markup=False, emoji=False)

    def lines(bars: Sequence[Counts], width: int) -> list[str]:
        table = Table.grid(padding=(0, 2, 0, 0))
        for bar in bars:
            drawn = ProgressBar(
                total=bar.total,
                completed=bar.done,
                width=BAR_WIDTH,
                pulse=bar.total is None and not bar.over,
                animation_time=bar.elapsed,
            )
            table.add_row(
                Text(bar.title, no_wrap=True, overflow="ellipsis"),
                drawn if bar.total is not None or not bar.over else Text(),
                Text(_count(bar), style="progress.download", no_wrap=True),
                Text("" if bar.share is None else f"{int(bar.share * 100):3d}%", style="progress.percentage"),
                Text(_rate(bar, ""), style="progress.data.speed", no_wrap=True),
                Text(_time(bar), style="progress.remaining", no_wrap=True),
                Text(_failed(bar, ""), style="red", no_wrap=True),
            )
        with console.capture() as captured:
            console.print(table, width=max(width - 1, 1))
        return captured.get().splitlines()

    return lines
