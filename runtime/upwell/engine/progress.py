"""Progress bars for map and stream: drawn from counters that somebody else keeps, ten times a second.

A run pays nothing for it: one thread reads the counters and draws, for all bars of the process together. On a
terminal the bars that are under way stand at its bottom, and a bar that is over stays above them; anywhere
else each bar is one line when it begins and one when it ends.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Self, TextIO

from upwell.engine import terminal
from upwell.engine.loggers import ENGINE
from upwell.engine.prints import take_print_over
from upwell.engine.progress_lines import Counts, Renderer, best_renderer, plain_lines, summary, terminal_width

SECONDS_BETWEEN_DRAWS: Final = 0.1
RATE_SAMPLES: Final = 50
"""The rate shown is that of so many draws: the last five seconds."""

_ERASE_LINE = "\r\x1b[2K"
_ERASE_LINE_ABOVE = "\x1b[1A\x1b[2K"


class ProgressHandle:
    """One bar. `close()` draws how it ended, from any thread, and may be called twice."""

    def __init__(
        self,
        board: Board,
        title: str,
        total: int | None,
        done: Callable[[], int],
        failed: Callable[[], int] | None,
    ) -> None:
        self.title = " ".join(title.split())
        self.total = total
        self._board = board
        self._done = done
        self._failed = failed
        self._began = board.now()
        self._samples: deque[tuple[float, int]] = deque([(self._began, 0)], RATE_SAMPLES)

    def close(self) -> None:
        """It is over: take the bar from the display and leave its last line."""
        self._board.close(self)

    @property
    def samples(self) -> int:
        """How often it was looked at, lately, its beginning included."""
        return len(self._samples)

    def counts(self, over: bool = False) -> Counts:
        """How far it is, now."""
        now = self._board.now()
        done = self._done()
        failed = self._failed() if self._failed is not None else 0
        before, done_before = (self._began, 0) if over else self._samples[0]
        if not over:
            self._samples.append((now, done))
        rate = (done - done_before) / (now - before) if now > before and done > done_before else None
        return Counts(self.title, done, self.total, failed, rate, now - self._began, over)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ProgressHandle {self.title!r} {self._done()}/{'?' if self.total is None else self.total}>"


class Board:
    """All bars that are shown together, on one stream.

    stream: where to; `sys.stderr` as it is when the first bar begins, unless said.
    sampled: whether a thread, the `sampler`, calls `tick`; a test calls it itself.
    """

    def __init__(
        self, stream: TextIO | None = None, now: Callable[[], float] = time.monotonic, sampled: bool = True
    ) -> None:
        self.now = now
        self._stream = stream
        self._sampled = sampled
        self._out: TextIO | None = None
        self._bars: list[ProgressHandle] = []
        self._renderer: Renderer = plain_lines
        self._is_chosen = False
        self._lines: list[str] = []
        self._drawn = 0
        self.sampler: threading.Thread | None = None
        self._wake = threading.Event()

    # --- from any thread --------------------------------------------------------------------------------

    def add(
        self, title: str, total: int | None, done: Callable[[], int], failed: Callable[[], int] | None = None
    ) -> ProgressHandle:
        """A new bar; it is drawn from the next tick on."""
        bar = ProgressHandle(self, title, total, done, failed)
        with terminal.LOCK:
            if not self._bars:
                self._out = self._stream or sys.stderr
                self._renderer, self._is_chosen = plain_lines, False
            self._bars.append(bar)
            if terminal.is_capable(self._out):
                take_print_over()
                terminal.set_foot(self)
            else:
                self._write(f"{bar.title}: {'' if total is None else f'{total:,} '}to do\n")
            if self._sampled and self.sampler is None:
                self.sampler = threading.Thread(target=self._sample, name="upwell-progress", daemon=True)
                self.sampler.start()
        return bar

    def tick(self) -> None:
        """Read all counters and draw; a bar whose total is reached is closed."""
        with terminal.LOCK:
            bars, out = list(self._bars), self._out
            draws = terminal.is_capable(out)
        if draws and out is not None and not self._is_chosen and _is_worth_a_look(bars):
            self._renderer, self._is_chosen = best_renderer(out), True
        counts: list[Counts] = []
        for bar in bars:  # without the lock: the counters are code of others
            now = self._counts(bar)
            if now is None or (now.total is not None and now.done >= now.total):
                self.close(bar)
            else:
                counts.append(now)
        if counts and draws and out is not None:
            lines = self._renderer(counts, terminal_width(out))
            with terminal.LOCK:
                if self._bars:
                    self._lines = lines
                    self.erase()
                    self.draw()

    def close(self, bar: ProgressHandle) -> None:
        """End one bar, or do nothing if it has ended."""
        with terminal.LOCK:
            if bar not in self._bars:
                return
            self._bars.remove(bar)
            others = list(self._bars)
        counts = self._counts(bar, over=True)
        out = self._out
        draws = terminal.is_capable(out)
        lines: list[str] = []
        if counts is not None and out is not None:
            lines = self._renderer([counts], terminal_width(out)) if draws else [summary(counts)]
        other_lines: list[str] = []
        if draws and out is not None and others:
            seen = [other for other in map(self._counts, others) if other is not None]
            other_lines = self._renderer(seen, terminal_width(out))
        with terminal.LOCK:
            if draws:
                self.erase()
                self._lines = other_lines if self._bars else []
            self._write("".join(f"{line}\n" for line in lines))
            if draws:
                self.draw()
            if not self._bars:
                terminal.set_foot(None)
                self._wake.set()

    def close_all(self) -> None:
        """End every bar: the process ends."""
        for bar in list(self._bars):
            self.close(bar)

    def forget(self) -> None:
        """In a forked child: the bars are the parent's."""
        self._bars, self._lines, self._drawn, self.sampler = [], [], 0, None
        self._wake = threading.Event()

    # --- the bottom of the terminal (terminal.Foot); with the lock held -----------------------------------

    def erase(self) -> None:
        """Take the bars away."""
        if self._drawn:
            self._write(_ERASE_LINE + _ERASE_LINE_ABOVE * (self._drawn - 1))
            self._drawn = 0

    def draw(self) -> None:
        """Draw the bars as they were at the last tick; the cursor stays at the end of the last."""
        if self._lines:
            self._write("\n".join(self._lines))
            self._drawn = len(self._lines)

    # --- inside -------------------------------------------------------------------------------------------

    def _write(self, text: str) -> None:
        out = self._out
        if out is None or not text:
            return
        try:
            out.write(text)
            out.flush()
        except UnicodeEncodeError:  # a terminal that cannot show what rich draws
            self._renderer, self._lines = plain_lines, []
        except (OSError, ValueError):  # nobody looks any more
            self._out = None

    def _counts(self, bar: ProgressHandle, over: bool = False) -> Counts | None:
        try:
            return bar.counts(over)
        except Exception:
            if not over:
                ENGINE.exception("The progress bar %r is taken away, for its counter failed", bar.title)
            return None

    def _sample(self) -> None:
        while True:
            self._wake.wait(SECONDS_BETWEEN_DRAWS)
            with terminal.LOCK:
                self._wake.clear()
                if not self._bars:
                    self.sampler = None
                    return
            self.tick()


def _is_worth_a_look(bars: list[ProgressHandle]) -> bool:
    """Whether there is a bar that a person has time to look at, so that rich is worth its loading time."""
    return any(bar.samples > 1 for bar in bars)


BOARD = Board()
"""The bars of this process."""

atexit.register(BOARD.close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=BOARD.forget)


def with_progress(
    title: str,
    total: int | None,
    done: Callable[[], int],
    failed: Callable[[], int] | None = None,
) -> ProgressHandle:
    """Show a progress bar from now on, until `close()`, or until `done()` reaches the total.

    total: how many there will be; None: nobody knows.
    done, failed: how many have ended, and ended badly, so far; called from another thread, so they must be
    quick and need no lock.
    """
    return BOARD.add(title, total, done, failed)
