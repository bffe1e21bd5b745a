"""Log lines as records: a handler that gives the journal what runs log, beside the console's.

A line is recorded if it is of a run: the loggers of runs say which, and for extra loggers the run around does. What
upwell says on its own behalf, the journal's own warnings among it, is not.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from upwell.engine.console import BesideConsole, ensure_configured
from upwell.engine.logs import RunFilter
from upwell.engine.recorder import Recorder

MOST_CHARACTERS: Final = 64 * 1024
"""Of one line, with its traceback; of longer ones the beginning and the end are kept."""

ROOM: Final = 100_000
"""How many lines may wait to be written; beyond that they are counted only."""

_FORMATTER: Final = logging.Formatter()  # for tracebacks


class RunLines(BesideConsole):
    """Appends the lines of runs to a recorder. Never raises, whatever a record holds."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder
        self._left_out = 0
        self.addFilter(RunFilter())

    def createLock(self) -> None:
        """None is needed: a line is appended in one step."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Without the lock that there is not."""
        try:
            self.filter(record)
            self.emit(record)
        except Exception:
            self.handleError(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        facts = record.__dict__
        flow_run_id, task_run_id = facts.get("flow_run_id"), facts.get("task_run_id")
        if flow_run_id is None and task_run_id is None:
            return
        recorder = self._recorder
        if len(recorder.logs) >= ROOM:
            self._left_out += 1
            return
        if self._left_out:
            self._say_left_out(record.created, flow_run_id, task_run_id)
        row = (flow_run_id, task_run_id, _micros(record.created), record.levelno, record.name, text_of(record))
        recorder.logs.append(row)
        recorder.wake()

    def _say_left_out(self, at: float, flow_run_id: Any, task_run_id: Any) -> None:
        left_out, self._left_out = self._left_out, 0
        message = f"{left_out} log lines were left out here: they came faster than they could be written."
        self._recorder.logs.append((flow_run_id, task_run_id, _micros(at), logging.WARNING, "upwell", message))


def text_of(record: logging.LogRecord) -> str:
    """The message with its traceback, bounded; what cannot be formatted is given as it is."""
    try:
        text = record.getMessage()
        if record.exc_info and not record.exc_text:
            record.exc_text = _FORMATTER.formatException(record.exc_info)
        if record.exc_text:
            text = f"{text}\n{record.exc_text}"
        if record.stack_info:
            text = f"{text}\n{record.stack_info}"
    except Exception as error:  # the arguments do not fit, or raise when they are shown
        text = f"{record.msg!s:.1000} (cannot be shown: {type(error).__name__})"
    if len(text) > MOST_CHARACTERS:
        half = MOST_CHARACTERS // 2
        text = f"{text[:half]}\n... {len(text) - 2 * half:,} characters left out ...\n{text[-half:]}"
    return text


def _micros(seconds: float) -> int:
    return int(seconds * 1e6)


_handler: RunLines | None = None
_listens_to: dict[str, logging.Logger] = {}


def record_in(recorder: Recorder, extra_loggers: tuple[str, ...]) -> None:
    """Record the lines of runs here from now on, those of these loggers included."""
    global _handler
    remove()
    ensure_configured()  # which sets the loggers' levels
    _handler = RunLines(recorder)
    for name in sorted({"upwell", *extra_loggers}, key=len):
        logger = logging.getLogger(None if name == "root" else name)
        if not _is_heard(logger):
            _listens_to[name] = logger
            logger.addHandler(_handler)


def remove() -> None:
    """Record no lines any more."""
    global _handler
    for logger in _listens_to.values():
        if _handler is not None:
            logger.removeHandler(_handler)
    _listens_to.clear()
    _handler = None


def _is_heard(logger: logging.Logger | None) -> bool:
    """Whether the handler gets this logger's records already."""
    while logger is not None:
        if _handler in logger.handlers:
            return True
        logger = logger.parent if logger.propagate else None
    return False
