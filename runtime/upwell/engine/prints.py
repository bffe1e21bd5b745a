"""`log_prints`: what a run prints becomes a line of its log."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from io import StringIO
from typing import Any

from upwell.engine.logs import current_run_logger

_LOG_PRINTS: ContextVar[bool] = ContextVar("upwell_log_prints", default=False)
_print = builtins.print


@contextmanager
def printing_to_log(enabled: bool | None, context: Context | None = None) -> Iterator[None]:
    """Inside, `print` writes to the log of the run whose code calls it; None inherits from the flow around.

    `print` is replaced once for the process, and asks a context variable: runs that did not ask for it print
    as ever, in whatever thread they are.
    """
    if enabled is None:
        yield
        return
    if builtins.print is not _print_or_log:
        builtins.print = _print_or_log
    if context is not None:
        context.run(_LOG_PRINTS.set, enabled)
        yield
        return
    token = _LOG_PRINTS.set(enabled)
    try:
        yield
    finally:
        _LOG_PRINTS.reset(token)


def _print_or_log(*values: Any, **options: Any) -> None:
    if not _LOG_PRINTS.get() or options.get("file") not in (None, sys.stdout):
        _print(*values, **options)
        return
    logger = current_run_logger()
    if logger is None:
        _print(*values, **options)
        return
    text = StringIO()
    _print(*values, sep=options.get("sep"), end="", file=text)
    logger.info("%s", text.getvalue())
