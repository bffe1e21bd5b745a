"""Logging in flows and tasks: `get_run_logger()` gives the logger of the run whose code asks."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

from upwell.core.errors import MissingContextError
from upwell.engine.console import ensure_configured
from upwell.engine.loggers import RunLogger
from upwell.engine.logs import DISABLED, current_run_logger, flow_run_logger, task_run_logger

__all__ = [
    "RunLogger",
    "disable_run_logger",
    "flow_run_logger",
    "get_logger",
    "get_run_logger",
    "task_run_logger",
]


def get_run_logger(**extra: object) -> RunLogger:
    """The logger of the task run or flow run whose code this is; `extra` becomes attributes of its records.

    Raises:
        MissingContextError: outside of runs.
    """
    logger = current_run_logger()
    if logger is None:
        raise MissingContextError(
            "There is no task run or flow run here whose logger this could be. Call get_run_logger() inside "
            "of a flow or task; elsewhere use get_logger(), and in tests of a bare function "
            "`with disable_run_logger():`."
        )
    logger.extra = extra or None
    return logger


def get_logger(name: str | None = None) -> logging.Logger:
    """A logger below "upwell", shown on the console like those of runs: "upwell.reports" for "reports"."""
    ensure_configured()
    if name is None or name == "upwell":
        return logging.getLogger("upwell")
    return logging.getLogger(name if name.startswith("upwell.") else f"upwell.{name}")


@contextmanager
def disable_run_logger() -> Generator[None]:
    """Inside, `get_run_logger()` gives a logger that discards everything, in runs and outside of them."""
    token = DISABLED.set(True)
    try:
        yield
    finally:
        DISABLED.reset(token)
