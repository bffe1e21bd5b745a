"""`print` inside runs: with `log_prints` it becomes a line of the run's log; a progress bar is never garbled."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from io import StringIO
from typing import Any, Final

from upwell.engine.logs import current_run_logger
from upwell.engine.terminal import has_foot, is_terminal, print_above
from upwell.settings import current as settings

_LOG_PRINTS: ContextVar[bool | None] = ContextVar("upwell_log_prints", default=None)
_BY_CALLER: Final = 2  # whose line of code a record names: that of `print`'s caller

_print = builtins.print


@contextmanager
def printing_to_log(enabled: bool | None, context: Context | None = None) -> Iterator[None]:
    """Inside, or in that context, `print` writes to the log of the run whose code calls it.

    None inherits: from the flow or task around, else from the setting `logging_log_prints`.
    """
    if enabled is None:
        yield
        return
    take_print_over()
    if context is not None:
        context.run(_LOG_PRINTS.set, enabled)
        yield
        return
    token = _LOG_PRINTS.set(enabled)
    try:
        yield
    finally:
        _LOG_PRINTS.reset(token)


def prints_are_logged() -> bool:
    """Whether `print` here goes to the log of the run whose code this is."""
    wanted = _LOG_PRINTS.get()
    return settings().logging_log_prints if wanted is None else wanted


def take_print_over() -> None:
    """Replace `print` by ours, once for the process and for good.

    Ours asks a context variable, and so is right for every run in whatever thread; code that does not ask
    for anything sees no difference.
    """
    if builtins.print is not _print_as_wanted:
        builtins.print = _print_as_wanted


def _print_as_wanted(*values: Any, **options: Any) -> None:
    file = options.get("file")
    to_stdout = file is None or file is sys.stdout
    logger = current_run_logger() if to_stdout and prints_are_logged() else None
    above = logger is None and has_foot() and is_terminal(sys.stdout if file is None else file)
    if logger is None and not above:
        _print(*values, **options)
        return
    text = StringIO()
    _print(*values, **{**options, "file": text})
    if logger is None:
        line = text.getvalue()
        print_above(sys.stdout if file is None else file, line if line.endswith("\n") else line + "\n")
        return
    token = _LOG_PRINTS.set(False)  # a handler that prints must not log what it prints
    try:
        logger.info("%s", text.getvalue().removesuffix("\n"), stacklevel=_BY_CALLER)
    finally:
        _LOG_PRINTS.reset(token)
