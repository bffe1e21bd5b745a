"""Log lines on the console: `12:01:02.345 | INFO    | Task run 'fetch-3' - message`, on stderr.

One handler does it, on the logger "upwell" and on the extra loggers that the settings name. Records rise to
the root logger all the same, so an application that has configured logging itself gets them; as long as the
root logger has handlers, the console handler keeps quiet, and no line appears twice. Levels that the
application has set on these loggers are left alone.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from typing import Final, TextIO

from upwell.engine.logs import RunFilter
from upwell.engine.prints import take_print_over
from upwell.engine.terminal import is_capable, print_above
from upwell.settings import Settings
from upwell.settings import current as settings

LEVEL_WIDTH: Final = 7  # of "WARNING"

_RESET = "\x1b[0m"
_NAME = "\x1b[34m"
_LEVELS = {
    logging.DEBUG: "\x1b[2m",
    logging.INFO: "\x1b[36m",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[1;31m",
}


class ConsoleFormatter(logging.Formatter):
    """Time, level, whose line it is, and the message; a traceback follows on lines of its own."""

    def __init__(self, colors: bool = False) -> None:
        super().__init__()
        self.colors = colors
        self._second, self._clock = -1, ""

    def formatMessage(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        if second != self._second:
            self._clock = time.strftime("%H:%M:%S", time.localtime(second))
            self._second = second
        level = record.levelname.ljust(LEVEL_WIDTH)
        kind, name = getattr(record, "run_kind", None), getattr(record, "run_name", None)
        if self.colors:
            level = f"{_LEVELS.get(record.levelno, '')}{level}{_RESET}"
            name = f"{_NAME}{name}{_RESET}" if name is not None else None
        whose = record.name if name is None else f"{kind or 'Run'} '{name}'"
        return f"{self._clock}.{int(record.msecs):03d} | {level} | {whose} - {record.message}"


class BesideConsole(logging.Handler):
    """A handler of upwell's own that shows nothing to anybody: beside it, the console goes on."""


class ConsoleHandler(logging.Handler):
    """Writes lines to whatever `sys.stderr` is, above a progress bar that stands there."""

    def __init__(self, colors: bool | None = None) -> None:
        super().__init__()
        self._colors = colors
        self._plain, self._colored = ConsoleFormatter(), ConsoleFormatter(colors=True)
        self.addFilter(RunFilter())

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr
        if not stream or _others_listen():
            return
        try:
            formatter = self._colored if self._wants_colors(stream) else self._plain
            print_above(stream, formatter.format(record) + "\n")
        except RecursionError:  # see the same in the standard library: handling it would recurse again
            raise
        except Exception:
            self.handleError(record)

    def _wants_colors(self, stream: TextIO) -> bool:
        if self._colors is not None:
            return self._colors
        return is_capable(stream) and not os.environ.get("NO_COLOR")


_applied: Settings | None = None
_handler: ConsoleHandler | None = None
_levels_before: dict[logging.Logger, int] = {}
_listens_to: list[logging.Logger] = []
_applying = threading.Lock()


def ensure_configured() -> None:
    """Apply the settings of logging to this process, if they are not yet; costs nothing the second time."""
    if settings() is not _applied:
        _apply(settings())


def _apply(wanted: Settings) -> None:
    global _applied, _handler
    with _applying:
        if _applied is wanted:
            return
        _take_back()
        _handler = ConsoleHandler(wanted.logging_colors)
        # Shorter names first: a logger's children are heard through it.
        for name in sorted({"upwell", *wanted.logging_extra_loggers}, key=len):
            logger = logging.getLogger(None if name == "root" else name)
            if logger.level == (logging.WARNING if logger is logging.root else logging.NOTSET):
                _levels_before[logger] = logger.level
                logger.setLevel(wanted.logging_level)
            if not _is_heard(logger):
                _listens_to.append(logger)
                logger.addHandler(_handler)
        if wanted.logging_log_prints:
            take_print_over()
        _applied = wanted


def _take_back() -> None:
    """Undo what was done for other settings."""
    for logger in _listens_to:
        if _handler is not None:
            logger.removeHandler(_handler)
    ours = logging.getLevelNamesMapping()[_applied.logging_level] if _applied is not None else None
    for logger, level in _levels_before.items():
        if logger.level == ours:  # else the application has changed it since
            logger.setLevel(level)
    _listens_to.clear()
    _levels_before.clear()


def _is_heard(logger: logging.Logger | None) -> bool:
    """Whether the console handler gets this logger's records already."""
    while logger is not None:
        if _handler in logger.handlers:
            return True
        logger = logger.parent if logger.propagate else None
    return False


def _others_listen() -> bool:
    """Whether the application has given the root logger handlers of its own."""
    return any(handler is not _handler and not isinstance(handler, BesideConsole) for handler in logging.root.handlers)
