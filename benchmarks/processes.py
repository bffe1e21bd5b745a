"""Sync tasks on processes, beside the standard library's pools; large arguments, beside copies of memory.

All pools are warm: they are made before, and have as many workers as there are processors. The standard
library's are spawned, as upwell's children are, so that nobody inherits anything.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.rows import Rival, Row, Run, Setting, Side, Unit
from upwell import Runtime, Task, task

CHUNK: Final = 100
"""Items a message in the chunked map of `ProcessPoolExecutor`; by default it sends one."""
LARGE_MIB: Final = 100

Array = NDArray[np.float64]
Number = Callable[[int], int]


def square(number: int) -> int:
    """No work to speak of."""
    return number * number


def short(number: int) -> int:
    """About 3 us."""
    return sum(range(number % 7 + 300))


def longer(number: int) -> int:
    """About 20 us."""
    return sum(range(number % 7 + 1600))


def same(array: Array) -> Array:
    return array


on_processes = task(task_runner="processes")

square_task = on_processes(square)
short_task = on_processes(short)
longer_task = on_processes(longer)
same_task = on_processes(same)


def upwell_map(task: Task[[int], int]) -> Callable[[Setting], Any]:
    @contextmanager
    def opened(setting: Setting) -> Generator[Run]:
        with Runtime():
            yield lambda: task.map(range(setting.size)).result()

    return opened


def pool_map(function: Number) -> Callable[[Setting], Any]:
    @contextmanager
    def opened(setting: Setting) -> Generator[Run]:
        with multiprocessing.get_context("spawn").Pool() as pool:
            yield lambda: pool.map(function, range(setting.size))

    return opened


def executor_submit(function: Number) -> Callable[[Setting], Any]:
    @contextmanager
    def opened(setting: Setting) -> Generator[Run]:
        with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:

            def run() -> list[int]:
                futures = [pool.submit(function, number) for number in range(setting.size)]
                return [future.result() for future in futures]

            yield run

    return opened


def executor_map(function: Number) -> Callable[[Setting], Any]:
    @contextmanager
    def opened(setting: Setting) -> Generator[Run]:
        with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
            yield lambda: list(pool.map(function, range(setting.size), chunksize=CHUNK))

    return opened


def _array(mebibytes: int) -> Array:
    return np.arange(mebibytes * 2**20 // 8, dtype=np.float64)


@contextmanager
def upwell_array(setting: Setting) -> Generator[Run]:
    array = _array(setting.size)
    with Runtime():

        def run() -> None:
            back = same_task.submit(array).result()
            assert back[-1] == array[-1]

        yield run


@contextmanager
def two_copies(setting: Setting) -> Generator[Run]:
    """Two copies into new memory, and a round trip of a number."""
    array = _array(setting.size)
    with Runtime():

        def run() -> None:
            there = array.copy()
            square_task.submit(1).result()
            back = there.copy()
            assert back[-1] == array[-1]

        yield run


@contextmanager
def two_copies_in_place(setting: Setting) -> Generator[Run]:
    """Two copies into memory that is there already, and a round trip of a number."""
    array = _array(setting.size)
    there, back = array.copy(), array.copy()
    with Runtime():

        def run() -> None:
            np.copyto(there, array)
            square_task.submit(1).result()
            np.copyto(back, there)

        yield run


@contextmanager
def pool_array(setting: Setting) -> Generator[Run]:
    array = _array(setting.size)
    with multiprocessing.get_context("spawn").Pool() as pool:
        yield lambda: pool.apply(same, (array,))


def tiny(name: str, what: str, task: Task[[int], int]) -> Row:
    function = task.fn
    return Row(
        name=name,
        measures=f"10,000 tasks of {what} on a warm pool of processes, each a tracked run, and all results.",
        leaves_out=f"Starting the pool; large arguments. {os.cpu_count()} workers on each side.",
        ours=Side("map", upwell_map(task)),
        rivals=(
            Rival("multiprocessing.Pool.map", pool_map(function), most=1.5),
            Rival("ProcessPoolExecutor.submit", executor_submit(function), most=1 / 50 if what == "x * x" else None),
            Rival(f"ProcessPoolExecutor.map, chunks of {CHUNK}", executor_map(function)),
        ),
        size=10_000,
        quick_size=10_000,
        rounds=9,
        peak=False,
    )


ROWS = [
    tiny("processes", "x * x", square_task),
    tiny("processes-3us", "about 3 us", short_task),
    tiny("processes-20us", "about 20 us", longer_task),
    Row(
        name="array",
        measures=f"A numpy array of {LARGE_MIB} MiB to a process and back, on a warm pool.",
        leaves_out="Doing anything with it there; starting the pool.",
        ours=Side("submit", upwell_array),
        rivals=(
            Rival("two copies to new memory + round trip", two_copies, most=1.5),
            Rival("two copies in place + round trip", two_copies_in_place),
            Rival("multiprocessing.Pool.apply", pool_array),
        ),
        size=LARGE_MIB,
        quick_size=LARGE_MIB,
        unit=Unit.MILLISECONDS,
        rounds=9,
        peak=False,
    ),
]
