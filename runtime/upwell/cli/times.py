"""Moments and spans as people write them: `15m`, `2h30m`, `3d`, `2026-01-31`, `2026-01-31T08:00+01:00`."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from upwell.cli.output import UsageError

_UNITS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(min|[smhdw])")


def span(text: str) -> dt.timedelta:
    """A span of time: `90s`, `15m`, `2h30m`, `3d`, `1w`.

    Raises:
        UsageError: it is none.
    """
    plain = text.strip().lower()
    if not plain or _SPAN.sub("", plain).strip():
        raise UsageError(f"{text!r} is no span of time. Write it like 90s, 15m, 2h30m, 3d or 1w.")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _SPAN.findall(plain))
    try:
        return dt.timedelta(seconds=seconds)
    except OverflowError:
        raise UsageError(f"{text!r} is too long.") from None


def at(text: str) -> dt.datetime:
    """A moment: a date, or a date and a time; of this machine's time zone unless it says another.

    Raises:
        UsageError: it is none.
    """
    try:
        return dt.datetime.fromisoformat(text.strip()).astimezone(dt.UTC)
    except (ValueError, OverflowError):  # the latter at the edges of what years there are
        raise UsageError(f"{text!r} is no date or time. Write it like 2026-01-31 or 2026-01-31T08:00+01:00.") from None


def ago_or_at(text: str | None) -> dt.datetime | None:
    """A moment that has passed: so long ago (`2h`), or at a date.

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return None
    if _SPAN.match(text.strip().lower()) and "-" not in text:
        try:
            return now() - span(text)
        except OverflowError:
            raise UsageError(f"{text!r} ago is too long ago.") from None
    return at(text)


def now() -> dt.datetime:
    from upwell.engine.clock import clock, moment  # here: help needs no asyncio

    return moment(clock().time())
