"""Upwell: a map of a sync task on processes, on a warm runtime."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from upwell import Runtime, task


@task(task_runner="processes")
def noop(number: int) -> int:
    return number


@contextmanager
def opened() -> Generator[Callable[[int], list[int]]]:
    with Runtime() as runtime:
        yield lambda size: runtime.map(noop, range(size)).result()
