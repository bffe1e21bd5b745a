"""Upwell: a flow that maps a coroutine, every run and its states in a SQLite file when it returns."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from upwell import flow, task
from upwell.composition import close_journal
from upwell.settings import temporary_settings


@task
async def noop(number: int) -> int:
    return number


@flow
def run_all(size: int) -> list[Any]:
    return [future.result() for future in noop.map(range(size))]


@contextmanager
def opened() -> Generator[Callable[[int], list[Any]]]:
    with TemporaryDirectory() as home, temporary_settings(journal="on", home=home, logging_level="ERROR"):
        yield run_all
        close_journal()
