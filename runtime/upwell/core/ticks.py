"""When a schedule is due: the ticks of cron expressions, intervals and recurrence rules, in any time zone.

A tick is an instant, and is told in UTC. How the clocks' changes are met:

- cron: as Debian's cron does it. A fixed time that is left out comes when the clock has jumped; one that comes twice
  counts once; `*` hours and minutes follow the real hours.
- interval: so many seconds, whatever a clock shows; but whole days keep their time of day.
- rrule: by the clock on the wall (RFC 5545). A time that is left out is as much later as the clock jumps; of one that
  comes twice the first counts.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final, Protocol, cast
from zoneinfo import ZoneInfo

from upwell.core.errors import InvalidRequestError, MissingExtraError

if TYPE_CHECKING:
    from dateutil.rrule import rrule, rruleset

DAY_SECONDS: Final = 86_400
LEAST_SECONDS: Final = 1
MOST_SECONDS: Final = 3_650 * DAY_SECONDS
"""Between two ticks of an interval."""

MOST_CHARACTERS: Final = 4_096
"""Of an expression."""

MOST_COUNTED: Final = 10_000
"""Ticks of a rule that says how many."""

FIRST_YEAR: Final = 1970
_FIRST: Final = dt.datetime(FIRST_YEAR, 1, 1, tzinfo=dt.UTC)

ANCHOR: Final = dt.datetime(2020, 1, 1)
"""From when intervals and rules count unless they say; by the clock of their zone."""


class Rhythm(Protocol):
    """What ticks; a ScheduleSpec and a Schedule do. Their fields are explained there."""

    @property
    def kind(self) -> str: ...
    @property
    def expression(self) -> str: ...
    @property
    def timezone(self) -> str: ...
    @property
    def anchor(self) -> dt.datetime | None: ...


def check_rhythm(rhythm: Rhythm) -> None:
    """Whether it can tick at all.

    Raises:
        InvalidRequestError: it cannot be read, or never ticks; says why.
    """
    if len(rhythm.expression) > MOST_CHARACTERS:
        raise InvalidRequestError(f"The schedule is longer than {MOST_CHARACTERS:,} characters.")
    ticks = _KINDS[rhythm.kind](rhythm, zone_of(rhythm.timezone), _LONG_AGO)
    try:
        first = next(ticks, None)
    except Exception:  # such as dateutil's for an hour that no day has
        first = None
    if first is None:
        raise InvalidRequestError(f"The {rhythm.kind} schedule {rhythm.expression!r} has no tick, ever.")


def ticks_after(rhythm: Rhythm, after: dt.datetime) -> Iterator[dt.datetime]:
    """All ticks after this moment, in order.

    Raises:
        InvalidRequestError: the schedule cannot be read.
    """
    last = after
    for tick in _KINDS[rhythm.kind](rhythm, zone_of(rhythm.timezone), after):
        if tick > last:  # what the clocks' changes put at the same moment, or before, is one tick
            last = tick
            yield tick


def next_tick(rhythm: Rhythm, after: dt.datetime) -> dt.datetime | None:
    """The first tick after this moment; None if there is none any more."""
    return next(ticks_after(rhythm, after), None)


def ticks_between(rhythm: Rhythm, since: dt.datetime, until: dt.datetime) -> Iterator[dt.datetime]:
    """The ticks from the one moment to the other, both included."""
    return takewhile(lambda tick: tick <= until, ticks_after(rhythm, max(since, _FIRST) - dt.timedelta(microseconds=1)))


def latest_tick(rhythm: Rhythm, after: dt.datetime, until: dt.datetime) -> dt.datetime | None:
    """The last tick after the one moment and not after the other; None if there is none."""
    span, since = _FIRST_SPAN, until
    while since > after:
        since, found = max(after, until - span), None
        for tick in takewhile(lambda tick: tick <= until, ticks_after(rhythm, since)):
            found = tick
        if found is not None:
            return found
        span *= 4
    return None


def zone_of(name: str) -> dt.tzinfo:
    """The time zone of this name.

    Raises:
        InvalidRequestError: there is none.
    """
    if name == "UTC":
        return dt.UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise InvalidRequestError(
            f"There is no time zone {name!r}: say one of the IANA names, such as Europe/Berlin."
        ) from None


def anchor_of(rhythm: Rhythm, zone: dt.tzinfo) -> dt.datetime:
    """From when it counts, by the clock of its zone; without one, for that is how it is counted."""
    anchor = rhythm.anchor
    if anchor is None:
        return ANCHOR
    return anchor if anchor.tzinfo is None else _wall(anchor, zone)


# --- cron ---------------------------------------------------------------------------------------------------


def _cron_ticks(rhythm: Rhythm, zone: dt.tzinfo, after: dt.datetime) -> Iterator[dt.datetime]:
    try:
        from cronsim import CronSim, CronSimError  # here: few programs have schedules
    except ImportError as error:
        raise _missing("cron", "cronsim") from error
    expression = _NAMED.get(rhythm.expression.strip().lower(), rhythm.expression)
    fields = expression.split()
    is_fixed = len(fields) == 5 and not fields[0].startswith("*") and not fields[1].startswith("*")
    try:
        if is_fixed:  # it knows what Debian's cron does about clocks that change
            return _until_the_calendar_ends(CronSim(expression, after.astimezone(zone)))
        CronSim(expression, _LONG_AGO)
    except CronSimError as error:
        raise InvalidRequestError(
            f"The cron schedule {rhythm.expression!r} cannot be read: {error}. It has five fields (minute, hour, day, "
            "month, day of the week), or six with seconds before them, such as '0 9 * * MON-FRI'."
        ) from error
    return _until_the_calendar_ends(_real_hours(lambda start: CronSim(expression, start), zone, after))


def _real_hours(
    shown_after: Callable[[dt.datetime], Iterator[dt.datetime]], zone: dt.tzinfo, since: dt.datetime
) -> Iterator[dt.datetime]:
    """The moments at which the clock of a zone shows such times: as often as it does."""
    start = _wall(since, zone)
    change: dt.datetime | None = since
    while change is not None:
        offset, change = _offset(change, zone), None
        for shown in shown_after(start):
            tick = (shown - offset).replace(tzinfo=dt.UTC)
            change = _change(since, tick, zone)
            if change is not None:  # the clock is changed before
                since, start = change, _wall(change, zone) - _SECOND
                break
            since = tick
            yield tick


def _change(since: dt.datetime, until: dt.datetime, zone: dt.tzinfo) -> dt.datetime | None:
    """When the clock is changed next between these moments, to the second; None: it is not."""
    before = _offset(since, zone)
    while since < until:  # a day at a time: it may be changed and changed back
        following = min(since + _DAY, until)
        if _offset(following, zone) != before:
            return _change_within(since, following, zone)
        since = following
    return None


def _change_within(since: dt.datetime, until: dt.datetime, zone: dt.tzinfo) -> dt.datetime:
    before = _offset(since, zone)
    while until - since > _SECOND:
        middle = since + (until - since) // 2
        since, until = (middle, until) if _offset(middle, zone) == before else (since, middle)
    return until.replace(microsecond=0)


def _offset(moment: dt.datetime, zone: dt.tzinfo) -> dt.timedelta:
    return moment.astimezone(zone).utcoffset() or _NOTHING


def _wall(moment: dt.datetime, zone: dt.tzinfo) -> dt.datetime:
    """What the clock of the zone shows."""
    return moment.astimezone(zone).replace(tzinfo=None)


_NAMED: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

# --- intervals ----------------------------------------------------------------------------------------------


def _interval_ticks(rhythm: Rhythm, zone: dt.tzinfo, after: dt.datetime) -> Iterator[dt.datetime]:
    try:
        seconds = float(rhythm.expression)
        if not LEAST_SECONDS <= seconds <= MOST_SECONDS:
            raise ValueError
    except ValueError:
        raise InvalidRequestError(
            f"The interval is {rhythm.expression!r}, and must be a number of seconds from {LEAST_SECONDS} to "
            f"{MOST_SECONDS:,}."
        ) from None
    step, anchor = dt.timedelta(seconds=seconds), anchor_of(rhythm, zone)
    if not seconds % DAY_SECONDS:
        passed = (_wall(after, zone) - anchor) // step
        by_the_clock = (anchor + (passed + number) * step for number in range(-1, _ENDLESS))
        return _until_the_calendar_ends(tick.replace(tzinfo=zone) for tick in by_the_clock)
    first = anchor.replace(tzinfo=zone).astimezone(dt.UTC)
    passed = (after - first) // step
    return _until_the_calendar_ends(first + (passed + number) * step for number in range(_ENDLESS))


# --- recurrence rules ---------------------------------------------------------------------------------------

_PART: Final = re.compile(r"(FREQ|INTERVAL|COUNT)=([^;\s]*)", re.IGNORECASE)
_IN_UTC: Final = re.compile(r"((?:UNTIL=|DTSTART:|DTSTART;TZID=[^:]*:))(\d{8}T\d{6})Z", re.IGNORECASE)
_OF_DAYS: Final = re.compile(r"BY(?:MONTH|MONTHDAY|YEARDAY|WEEKNO|DAY|WEEKDAY|EASTER)=[^;\s]*", re.IGNORECASE)
_OFTEN: Final = re.compile(r"FREQ=(?:HOURLY|MINUTELY|SECONDLY)", re.IGNORECASE)
_START: Final = re.compile(r"DTSTART[^:\n]*:(\d{8})", re.IGNORECASE)
_LATE: Final = dt.datetime(9969, 1, 1)
"""Rules that have no tick until the calendar ends are soon through with it from here."""

_STEPS: Final = {
    "WEEKLY": dt.timedelta(weeks=1),
    "DAILY": dt.timedelta(days=1),
    "HOURLY": dt.timedelta(hours=1),
    "MINUTELY": dt.timedelta(minutes=1),
    "SECONDLY": dt.timedelta(seconds=1),
}


def _rrule_ticks(rhythm: Rhythm, zone: dt.tzinfo, after: dt.datetime) -> Iterator[dt.datetime]:
    try:
        from dateutil.rrule import rrule
    except ImportError as error:
        raise _missing("rrule", "python-dateutil") from error
    jumped = _offset(after, zone) - _offset(after - _MORE_THAN_A_DAY, zone)
    since = _wall(after, zone) - max(jumped, _NOTHING)  # what was left out comes after that
    text = _IN_UTC.sub(lambda match: match[1] + _by_the_clock(match[2], zone), rhythm.expression)
    try:
        rule = _rule(text, anchor_of(rhythm, zone))
        if isinstance(rule, rrule):
            rule = _sooner(rule, text, since)
    except InvalidRequestError:
        raise
    except Exception as error:  # of any type: it takes for granted that the text is right
        raise InvalidRequestError(
            f"The rrule {rhythm.expression!r} cannot be read: {error}. It is like 'FREQ=WEEKLY;BYDAY=MO,WE;BYHOUR=9'."
        ) from error
    return _until_the_calendar_ends(_moments(rule.xafter(since), zone))


def _moments(shown: Iterator[dt.datetime], zone: dt.tzinfo) -> Iterator[dt.datetime]:
    """When the clock shows these times. Those that it leaves out are put in order among those that come later."""
    left_out: list[dt.datetime] = []
    for time in shown:
        tick = time.replace(tzinfo=zone).astimezone(dt.UTC)
        if _wall(tick, zone) != time:
            heappush(left_out, tick)
            continue
        while left_out and left_out[0] <= tick:
            yield heappop(left_out)
        yield tick
    yield from sorted(left_out)


def _rule(text: str, anchor: dt.datetime) -> rrule | rruleset:
    from dateutil.rrule import rrule, rrulestr

    if "EXRULE" in text.upper():  # two endless rules may leave no tick, and be compared to the calendar's end
        raise InvalidRequestError("EXRULE is not supported, as RFC 5545 has dropped it. Name the days by EXDATE.")
    for line in text.upper().splitlines():
        if "FREQ=" not in line:
            continue
        parts = dict(_PART.findall(line))
        if not parts.get("INTERVAL", "1").isdigit() or not int(parts.get("INTERVAL", "1")):
            raise InvalidRequestError(f"INTERVAL is {parts['INTERVAL']!r}, and must be 1 or more.")
        if parts.get("COUNT", "1").isdigit() and int(parts.get("COUNT", "1")) > MOST_COUNTED:
            raise InvalidRequestError(f"COUNT is {parts['COUNT']}, and must be {MOST_COUNTED:,} or less.")
        days = ";".join(["FREQ=DAILY", *_OF_DAYS.findall(line)])
        if next(iter(rrulestr(days, dtstart=_LATE)), None) is None:
            raise InvalidRequestError(f"The rrule {text!r} has no tick: there is no such day.")
    rule = rrulestr(text, dtstart=anchor, ignoretz=True)
    if not isinstance(rule, rrule) and _OFTEN.search(text):
        raise InvalidRequestError(
            "Rules with RDATE or EXDATE are counted one by one, so they cannot be HOURLY, MINUTELY or SECONDLY."
        )
    if min([anchor, *map(_written, _START.findall(text))]).year < FIRST_YEAR and not isinstance(rule, rrule):
        raise InvalidRequestError(f"Rules with RDATE or EXDATE cannot begin before {FIRST_YEAR}.")
    return rule


def _written(text: str) -> dt.datetime:
    return dt.datetime.strptime(text, "%Y%m%d")


def _sooner(rule: rrule, text: str, since: dt.datetime) -> rrule:
    """The same rule from a start shortly before this, where that makes no difference: it counts from its start."""
    parts = {name.upper(): value.upper() for name, value in _PART.findall(text)}
    start: dt.datetime = cast(Any, rule)._dtstart  # there is no other way to it
    if "COUNT" in parts or parts["FREQ"] not in _STEPS:
        return rule
    step = _STEPS[parts["FREQ"]] * int(parts.get("INTERVAL", "1"))
    passed = (since - start) // step - 1
    return rule.replace(dtstart=start + passed * step) if passed > 0 else rule


def _by_the_clock(text: str, zone: dt.tzinfo) -> str:
    """A moment in UTC as the clock of the zone shows it."""
    moment = dt.datetime.strptime(text, _WRITTEN).replace(tzinfo=dt.UTC)
    return moment.astimezone(zone).strftime(_WRITTEN)


_WRITTEN: Final = "%Y%m%dT%H%M%S"

# --- what they share ----------------------------------------------------------------------------------------


def _until_the_calendar_ends(ticks: Iterator[dt.datetime]) -> Iterator[dt.datetime]:
    try:
        for tick in ticks:
            yield tick.astimezone(dt.UTC)
    except OverflowError:
        return


def _missing(kind: str, package: str) -> MissingExtraError:
    return MissingExtraError(
        f"Schedules by {kind} need {package}, which is not installed: pip install 'upwell[server]'."
    )


_KINDS: Final[dict[str, Any]] = {"cron": _cron_ticks, "interval": _interval_ticks, "rrule": _rrule_ticks}
_LONG_AGO: Final = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_NOTHING: Final = dt.timedelta()
_SECOND: Final = dt.timedelta(seconds=1)
_DAY: Final = dt.timedelta(days=1)
_MORE_THAN_A_DAY: Final = dt.timedelta(hours=25)
_FIRST_SPAN: Final = dt.timedelta(minutes=5)
_ENDLESS: Final = 2**62

__all__ = ["Rhythm", "anchor_of", "check_rhythm", "latest_tick", "next_tick", "ticks_after", "ticks_between", "zone_of"]
