"""The loggers of runs: their records know their run, and what happens to a line never hurts the run."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from contextvars import Context, ContextVar
from typing import Any, Final

from upwell.settings import current as settings

Facts = Callable[[Any], dict[str, Any]]
"""What the records of a run say about it, by attribute; asked for only when a record is made."""

_MIDDLE_MAN: Final = 1  # `RunLogger.log` itself, between the caller and the logger


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records carry their run: `run_kind` ("Task run"), `run_name`, and its ids and names.

    It is made in no time: nothing about the run is computed before a record is made. A handler that raises is
    reported on stderr, as `logging` does with those that fail politely, and the caller goes on.
    """

    def __init__(
        self,
        logger: logging.Logger,
        facts: Facts | None = None,
        run: Any = None,
        given: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(logger, given)
        self._facts = facts
        self._run = run

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        facts = self._facts(self._run) if self._facts is not None else {}
        kwargs["extra"] = {**facts, **(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Make a record of this level, if anybody wants it."""
        if not self.logger.isEnabledFor(level):
            return
        try:
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + _MIDDLE_MAN
            msg, kwargs = self.process(msg, kwargs)  # type: ignore[assignment]  # a MutableMapping is a dict here
            self.logger.log(level, msg, *args, **kwargs)
        except Exception:
            _report()

    def forward(self, level: int, message: str, logger: str = "", timestamp: float = 0.0) -> None:
        """A record that was made elsewhere, by a logger of this name (else the run's) and at this time."""
        target = logging.getLogger(logger) if logger else self.logger
        if not target.isEnabledFor(level):
            return
        try:
            _, kwargs = self.process(message, {})
            record = target.makeRecord(target.name, level, "(elsewhere)", 0, message, (), None, extra=kwargs["extra"])
            if timestamp:
                record.created = timestamp
                record.msecs = (timestamp - int(timestamp)) * 1000
            target.handle(record)
        except Exception:
            _report()

    def getChild(self, suffix: str) -> RunLogger:  # as loggers call it
        """The same run's logger, one name further down."""
        return RunLogger(self.logger.getChild(suffix), self._facts, self._run, self.extra)


def _report() -> None:
    """Say that a line could not be handled, where `logging` says so, if it does."""
    stderr = sys.stderr
    if not logging.raiseExceptions or not stderr:
        return
    try:
        stderr.write("--- A log handler raised; the run goes on ---\n" + traceback.format_exc())
    except (OSError, ValueError):  # stderr is closed: nobody listens
        pass


ENGINE: Final = RunLogger(logging.getLogger("upwell"))
"""For what upwell itself has to say."""


LOG_PRINTS: Final[ContextVar[bool | None]] = ContextVar("upwell_log_prints", default=None)
"""Whether `print` goes to the log of the run whose code this is; None: nobody around has said."""


def prints_are_logged(own: bool | None = None, context: Context | None = None) -> bool:
    """What holds for a run with this `log_prints`, started here or in this context.

    A run that does not say inherits from the one around it, else from the setting `logging_log_prints`.
    """
    wanted = own
    if wanted is None:
        wanted = LOG_PRINTS.get() if context is None else context.get(LOG_PRINTS)
    return settings().logging_log_prints if wanted is None else wanted
