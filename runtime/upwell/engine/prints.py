"""`print` inside runs: with `log_prints` a line of the run's log; beside a progress bar, a line above it."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import Context
from io import StringIO
from typing import Any, Final

from upwell.engine.loggers import LOG_PRINTS, prints_are_logged
from upwell.engine.logs import current_run_logger
from upwell.engine.terminal import has_foot, is_terminal, print_above

_BY_CALLER: Final = 2  # whose line of code a record names: that of `print`'s caller

_print = builtins.print


@contextmanager
def printing_to_log(enabled: bool | None, context: Context | None = None) -> Generator[None]:
    """Inside, or in that context, `print` writes to the log of the run whose code calls it.

    None inherits: from the flow or task around, else from the setting `logging_log_prints`.
    """
    if enabled is None:
        yield
        return
    take_print_over()
    if context is not None:
        context.run(LOG_PRINTS.set, enabled)
        yield
        return
    token = LOG_PRINTS.set(enabled)
    try:
        yield
    finally:
        LOG_PRINTS.reset(token)


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
    options["file"] = text
    _print(*values, **options)
    if logger is None:
        line = text.getvalue()
        print_above(sys.stdout if file is None else file, line if line.endswith("\n") else line + "\n")
        return
    token = LOG_PRINTS.set(False)  # a handler that prints must not log what it prints
    try:
        logger.info("%s", text.getvalue().removesuffix("\n"), stacklevel=_BY_CALLER)
    finally:
        LOG_PRINTS.reset(token)
