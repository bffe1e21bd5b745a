"""How times, durations, numbers and states are said to people. Pure functions; the pages' scripts say them alike."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from upwell.core.states import State, StateType

MINUTE: Final = 60
HOUR: Final = 3_600
DAY: Final = 86_400

STATE_ORDER: Final = (
    StateType.COMPLETED,
    StateType.RUNNING,
    StateType.FAILED,
    StateType.CRASHED,
    StateType.CANCELLING,
    StateType.CANCELLED,
    StateType.PAUSED,
    StateType.PENDING,
    StateType.SCHEDULED,
)
"""In which order states stand in bars and legends."""

_KINDS: Final = {kind: kind.value.lower() for kind in StateType}
_SIZES: Final = ("kB", "MB", "GB", "TB")
_PREFIX: Final = re.compile(r"^(?:Flow|Task) run encountered an exception: ")
_UPSTREAM: Final = re.compile(
    r"Upstream task run '([^']+)' did not reach a 'COMPLETED' state: it ended \w+\((['\"])(.*)\2\)", re.S
)


def took(seconds: float | None) -> str:
    """How long something took: `84 ms`, `1.3 s`, `42 s`, `3 min 12 s`, `2 h 5 min`, `1 d 3 h`."""
    if seconds is None:
        return ""
    seconds = max(seconds, 0.0)
    if seconds < 0.9995:
        return f"{round(seconds * 1000)} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    for unit, below, name, small in ((HOUR, MINUTE, "min", "s"), (DAY, HOUR, "h", "min")):
        if whole < unit:
            large, rest = divmod(whole, below)
            rest = rest if small == "s" else rest // MINUTE
            return f"{large} {name} {rest} {small}" if rest else f"{large} {name}"
    days, rest = divmod(whole, DAY)
    return f"{days} d {rest // HOUR} h" if rest >= HOUR else f"{days} d"


def ago(moment: dt.datetime, now: dt.datetime) -> str:
    """How long ago, or in how long: `just now`, `42 s ago`, `in 5 min`, `3 h ago`, `2 d ago`, `12 Mar`."""
    seconds = (now - moment).total_seconds()
    size = abs(seconds)
    if size < 1:
        return "just now" if seconds >= 0 else "now"
    if size >= 7 * DAY:
        return f"{moment.day} {moment:%b}" if moment.year == now.year else f"{moment.day} {moment:%b %Y}"
    unit, name = next(
        (unit, name) for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (1, "s")) if size >= unit
    )
    said = f"{int(size // unit)} {name}"
    return f"{said} ago" if seconds > 0 else f"in {said}"


def exact(moment: dt.datetime) -> str:
    """The moment to the millisecond, in UTC."""
    text = moment.astimezone(dt.UTC).isoformat(" ", "milliseconds")
    return f"{text.removesuffix('+00:00')} UTC"


def seconds_between(start: dt.datetime | None, end: dt.datetime | None) -> float | None:
    """How many seconds lie between; None where one is not known."""
    return None if start is None or end is None else (end - start).total_seconds()


def number(value: float) -> str:
    """`100,000`."""
    return f"{value:,}"


def several(value: int, one: str, many: str | None = None) -> str:
    """`1 run`, `2 runs`, `1,000 boxes`. many: the plural, where it is not the singular with an s."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def short_number(value: int) -> str:
    """`950`, `1.2k`, `100k`, `3.4M`: where there is little room."""
    for unit, name in ((1_000_000, "M"), (1_000, "k")):
        if value >= unit:
            part = value / unit
            return f"{part:.1f}{name}" if part < 9.95 and round(part, 1) % 1 else f"{round(part)}{name}"
    return str(value)


def size(number_of_bytes: int) -> str:
    """`812 bytes`, `14.2 kB`, `3.1 MB`."""
    if number_of_bytes < 1_000:
        return f"{number_of_bytes} bytes"
    power = min((len(str(number_of_bytes)) - 1) // 3, len(_SIZES))
    return f"{number_of_bytes / 1_000**power:.1f} {_SIZES[power - 1]}"


def kind_of(state: State | StateType) -> str:
    """The shape and colour that a state has: that of its type, but for late runs."""
    if isinstance(state, State):
        return "late" if state.name == "Late" else _KINDS[state.type]
    return _KINDS[state]


def brief(message: str) -> str:
    """Why a run ended, from the first cause: what failed upstream says more than that it was waited for."""
    while (found := _UPSTREAM.search(message)) is not None:
        name, _, inner = found.groups()
        message = f"{name}: {_without_prefix(inner)}" if _UPSTREAM.search(inner) is None else inner
    return _without_prefix(message)


def _without_prefix(message: str) -> str:
    return _PREFIX.sub("", message)


def level_kind(level: int) -> str:
    """The look of a log line's level."""
    for least, name in ((50, "critical"), (40, "error"), (30, "warning"), (20, "info")):
        if level >= least:
            return name
    return "debug"


__all__ = [
    "STATE_ORDER",
    "ago",
    "brief",
    "exact",
    "kind_of",
    "level_kind",
    "number",
    "seconds_between",
    "several",
    "short_number",
    "size",
    "took",
]
