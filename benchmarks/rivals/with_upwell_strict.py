"""Upwell: a durable flow of task runs, each in its SQLite file before the next begins."""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from upwell import flow, task
from upwell.composition import close_journal
from upwell.settings import temporary_settings


@task
def noop(number: int) -> int:
    return number


@flow(durable="strict")
def run_all(size: int, attempt: str) -> list[Any]:
    return [noop(number) for number in range(size)]


@contextmanager
def opened() -> Generator[Callable[[int], list[Any]]]:
    with TemporaryDirectory() as home, temporary_settings(journal="on", home=home, logging_level="ERROR"):
        yield lambda size: run_all(size, os.urandom(8).hex())  # other parameters, so that nothing is resumed
        close_journal()
