"""What a row of the benchmarks is: sides that do the same work, its size, and what is to be reached."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

LOOPS: Final = ("asyncio", "uvloop")

Run = Callable[[], object]
"""One run of one side; timed from outside, unless it returns a `Measured`."""


class Measured(float):
    """What a run has measured itself, in seconds: a child process's own time, say."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a side is opened with: how many items it shall work on, and on which event loop."""

    size: int
    loop: str = "asyncio"

    def run(self, coroutine: Coroutine[Any, Any, object]) -> object:
        """Run on an event loop of its own; the loop's start and end are part of the time."""
        if self.loop == "uvloop":
            import uvloop  # not there on Windows

            return uvloop.run(coroutine)
        return asyncio.run(coroutine)


Opened = Callable[[Setting], AbstractContextManager[Run]]


@dataclass(frozen=True, slots=True)
class Side:
    """One contender. Give it an `async def` or a `def` of the size, or, where something is to be opened before
    and closed after all runs (a pool, say), a context manager of the `Setting` that gives the run."""

    name: str
    work: Callable[..., Any]

    def open(self, setting: Setting) -> AbstractContextManager[Run]:
        """What makes runs, until it is closed."""
        work = self.work
        if inspect.iscoroutinefunction(work):
            return nullcontext(lambda: setting.run(work(setting.size)))
        if inspect.isgeneratorfunction(inspect.unwrap(work)):
            return work(setting)  # type: ignore[no-any-return]  # made by contextlib.contextmanager
        return nullcontext(lambda: work(setting.size))


@dataclass(frozen=True, slots=True)
class Rival(Side):
    """A side that upwell is compared with. most: what upwell's cost may be of this one's; None is no target."""

    most: float | None = None


class Unit(Enum):
    """What the numbers of a row are: their name, how many of them a second or a byte is, and if per item."""

    MICROSECONDS = ("us", 1e6, True)
    MILLISECONDS = ("ms", 1e3, False)
    KIB = ("KiB", 1 / 1024, True)
    MIB = ("MiB", 1 / 1024**2, False)
    COUNT = ("", 1.0, False)

    def of(self, raw: float, size: int) -> float:
        """The number in this unit of raw seconds or bytes that `size` items took."""
        _, scale, per_item = self.value
        return raw * scale / (size if per_item else 1)

    @property
    def label(self) -> str:
        name, _, per_item = self.value
        return f"{name}/item" if per_item else name

    @property
    def is_memory(self) -> bool:
        return self in (Unit.KIB, Unit.MIB)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    Args:
        measures, leaves_out: for a reader who wants to know what a number means, and what it does not.
        size, quick_size: how many items one run works on, and with `--quick`.
        most: what upwell's own number may be, in the row's unit, where the target is not a ratio.
        on_loops: whether it is measured on each event loop.
        rounds: how often each side runs; after one run that is not counted, where `warm_up`.
        peak: whether the peak memory of each side is measured too, in a process of its own.
    """

    name: str
    measures: str
    leaves_out: str
    ours: Side
    rivals: tuple[Rival, ...] = ()
    size: int
    quick_size: int
    unit: Unit = Unit.MICROSECONDS
    most: float | None = None
    on_loops: bool = False
    rounds: int = 5
    warm_up: bool = True
    peak: bool = True

    @property
    def sides(self) -> tuple[Side, ...]:
        return (self.ours, *self.rivals)
