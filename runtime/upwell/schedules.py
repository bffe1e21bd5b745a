"""When a deployment runs by itself: `Cron("0 3 * * *", timezone="Europe/Berlin")`, `Interval(600)`, `RRule(...)`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, TypeAlias, TypedDict, Unpack, get_args

from msgspec import Struct, field
from msgspec.structs import force_setattr

from upwell.core.deployments import Catchup, ScheduleKind, ScheduleSpec
from upwell.core.errors import ConfigurationError
from upwell.core.options import check_optional, check_seconds
from upwell.core.parameter_schema import plain_parameters
from upwell.core.ticks import check_rhythm, ticks_after, zone_of
from upwell.engine.clock import clock, moment

Seconds: TypeAlias = dt.timedelta | float
"""A length of time: a timedelta, or a number of seconds."""


class Schedule(Struct, frozen=True, kw_only=True):
    """A schedule of a deployment: one of `cron`, `interval` and `rrule`, and how it goes. `Cron` and its like make one.

    timezone: an IANA name, whose clock it goes by; UTC unless said.
    anchor_date: from when an interval or an RRULE counts.
    active: whether it makes runs.
    parameters: of its runs, instead of the deployment's.
    slug: what it is known by among the schedules of its deployment; made of the expression unless said.
    catchup: what becomes of ticks that passed while nobody was there: `"none"` of them is run, the `"latest"`, or
        `"all"`.
    max_late_seconds: a run that has not begun so long after its time is skipped.
    """

    cron: str | None = None
    interval: dt.timedelta | None = None
    rrule: str | None = None
    timezone: str | None = None
    anchor_date: dt.datetime | None = None
    active: bool = True
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    slug: str | None = None
    catchup: Catchup = "latest"
    max_late_seconds: float | None = None

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            TypeError, ConfigurationError: something that cannot be.
            InvalidRequestError: an expression that cannot be read or never ticks, an unknown time zone.
            MissingExtraError: what reads such expressions is not installed.
        """
        if self.interval is not None:
            force_setattr(self, "interval", _as_timedelta(self.interval))
        said = [name for name in get_args(ScheduleKind) if getattr(self, name) is not None]
        if len(said) != 1:
            given = " and ".join(said) or "none"
            raise ConfigurationError(f"A schedule has one of cron, interval and rrule, and was given {given}.")
        if self.anchor_date is not None and self.cron is not None:
            raise ConfigurationError("A cron schedule goes by the clock and takes no anchor_date.")
        for name in ("cron", "rrule", "timezone", "slug"):
            check_optional(name, getattr(self, name), str)
        check_optional("anchor_date", self.anchor_date, dt.datetime)
        check_seconds("max_late_seconds", self.max_late_seconds)
        if self.catchup not in get_args(Catchup):
            raise ConfigurationError(f"catchup must be one of {', '.join(get_args(Catchup))}, not {self.catchup!r}.")
        check_rhythm(self.spec)

    @property
    def kind(self) -> ScheduleKind:
        return "cron" if self.cron is not None else "interval" if self.interval is not None else "rrule"

    @property
    def spec(self) -> ScheduleSpec:
        """The same as the store knows it."""
        expression = self.cron or self.rrule
        if self.interval is not None:
            expression = f"{self.interval.total_seconds():.6f}".rstrip("0").rstrip(".")
        assert expression is not None
        anchor, zone = self.anchor_date, None if self.anchor_date is None else self.anchor_date.tzinfo
        if anchor is not None and zone is None:
            anchor = anchor.replace(tzinfo=zone_of(self.timezone or "UTC"))
        return ScheduleSpec(
            kind=self.kind,
            expression=expression,
            slug=self.slug,
            timezone=self.timezone or getattr(zone, "key", None) or "UTC",
            anchor=anchor,
            parameters=plain_parameters(self.parameters),
            active=self.active,
            catchup=self.catchup,
            max_late_seconds=self.max_late_seconds,
        )

    def upcoming(self, count: int = 5, after: dt.datetime | None = None) -> list[dt.datetime]:
        """The next times at which it makes a run, by the clock of its time zone; for people who wrote one.

        Args:
            after: from when; now unless said.
        """
        spec = self.spec
        since = moment(clock().time()) if after is None else after.astimezone(dt.UTC)
        return [tick.astimezone(zone_of(spec.timezone)) for tick in islice(ticks_after(spec, since), count)]


class Manner(TypedDict, total=False):
    """How schedules go; see Schedule."""

    timezone: str | None
    anchor_date: dt.datetime | None
    catchup: Catchup
    max_late_seconds: float | None


class How(Manner, total=False):
    """The same, with what one schedule has for itself."""

    active: bool
    parameters: Mapping[str, Any]
    slug: str | None


class ScheduleKeywords(Manner, total=False):
    """The keywords of `serve`, `deploy` and `to_deployment` by which a deployment gets schedules.

    cron, interval, rrule: one or several, which all go by `timezone`, `anchor_date`, `catchup` and `max_late_seconds`.
    schedule, schedules: made by Cron, Interval or RRule. None of all: schedules that are there stay; `[]`: they go.
    """

    cron: str | Iterable[str] | None
    interval: Seconds | Iterable[Seconds] | None
    rrule: str | Iterable[str] | None
    schedule: Schedule | None
    schedules: Iterable[Schedule] | None


def Cron(cron: str, /, *, day_or: bool = True, **how: Unpack[How]) -> Schedule:  # as its users know it
    """By five fields (minute, hour, day of the month, month, day of the week), or six with seconds first.

    Where both kinds of days are said, either will do, as in every cron; `day_or=False` is refused.
    """
    if not day_or:
        raise ConfigurationError(
            "day_or=False is not there: of `0 0 1 * 1` either day will do, as in every cron. An RRULE can ask "
            "for both: RRule('FREQ=MONTHLY;BYMONTHDAY=1;BYDAY=MO')."
        )
    return _schedule({"cron": cron}, how)


def Interval(interval: Seconds, /, **how: Unpack[How]) -> Schedule:  # as its users know it
    """Every so many seconds, or by a timedelta; counted from the `anchor_date`."""
    return _schedule({"interval": interval}, how)


def RRule(rrule: str, /, **how: Unpack[How]) -> Schedule:  # as its users know it
    """By a rule of the iCalendar standard, such as `FREQ=WEEKLY;BYDAY=MO,WE;BYHOUR=9`."""
    return _schedule({"rrule": rrule}, how)


def _schedule(what: Mapping[str, Any], how: Mapping[str, Any]) -> Schedule:
    unknown = [name for name in how if name not in How.__annotations__]
    if unknown:
        raise TypeError(f"A schedule has no {unknown[0]!r}; it has: {', '.join(sorted(How.__annotations__))}")
    return Schedule(**what, **how)


def schedules_from(keywords: ScheduleKeywords) -> tuple[ScheduleSpec, ...] | None:
    """The schedules that these keywords spell; None if they say nothing of any.

    Raises:
        ConfigurationError: one that cannot be, or two of one slug. TypeError: something that is no schedule.
    """
    how = {name: value for name, value in keywords.items() if name in Manner.__annotations__}
    kinds = get_args(ScheduleKind)
    found = [_schedule({kind: it}, how) for kind in kinds for it in _several(keywords.get(kind))]
    if how and not found:
        raise ConfigurationError(f"{', '.join(how)}: belongs to a schedule. Give cron=, interval= or rrule=.")
    given = keywords.get("schedules")
    for it in (*_several(keywords.get("schedule")), *(given or ())):
        if not isinstance(it, Schedule):
            raise TypeError(f"schedules takes Cron(...), Interval(...) or RRule(...), not {it!r}")
        found.append(it)
    if not found and given is None:
        return None
    specs = tuple(it.spec for it in found)
    known_as = [spec.slug or spec.expression for spec in specs]
    twice = [slug for slug in known_as if known_as.count(slug) > 1]
    if twice:
        raise ConfigurationError(f"Two schedules are known as {twice[0]!r}: give each a slug= of its own.")
    return specs


def _several(given: Any) -> list[Any]:
    if given is None:
        return []
    several = isinstance(given, Iterable) and not isinstance(given, str)
    return [*given] if several else [given]


def _as_timedelta(given: object) -> dt.timedelta:
    if isinstance(given, dt.timedelta):
        return given
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise TypeError(f"interval takes a timedelta or a number of seconds, not {given!r}")
    try:
        return dt.timedelta(seconds=given)
    except (OverflowError, ValueError):
        raise ConfigurationError(f"An interval cannot be {given!r} seconds long.") from None


__all__ = ["Cron", "Interval", "RRule", "Schedule", "ScheduleKeywords", "schedules_from"]
