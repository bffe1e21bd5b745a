"""Ticks come when they should: against an implementation of another kind, through clock changes both ways."""

from __future__ import annotations

import datetime as dt
import random
from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import cache
from itertools import islice, pairwise
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from upwell.core.deployments import ScheduleKind, ScheduleSpec
from upwell.core.errors import InvalidRequestError
from upwell.core.ticks import check_rhythm, latest_tick, next_tick, ticks_after, ticks_between

ZONES: Final = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # by half an hour
    "America/Santiago",  # at midnight
    "Africa/Cairo",  # at midnight, on a Friday
    "Pacific/Apia",  # a day was left out in 2011
)
START: Final = dt.datetime(2010, 1, 1)
MINUTE: Final = dt.timedelta(minutes=1)
AROUND: Final = dt.timedelta(days=1)


def rhythm(kind: ScheduleKind, expression: str, zone: str = "UTC", anchor: dt.datetime = START) -> ScheduleSpec:
    return ScheduleSpec(kind=kind, expression=expression, timezone=zone, anchor=anchor)


zone_of = cache(ZoneInfo)


@cache
def changes(zone: str) -> list[dt.datetime]:
    """When the clocks of a zone were changed, in a year in which they were."""
    year = 2011 if zone == "Pacific/Apia" else 2026
    hours = [dt.datetime(year, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=number) for number in range(8760)]
    offsets = [hour.astimezone(zone_of(zone)).utcoffset() for hour in hours]
    return [hour for hour, (before, after) in zip(hours[1:], pairwise(offsets), strict=True) if before != after]


WINDOWS: Final = [(zone, change - AROUND, change + AROUND) for zone in ZONES for change in changes(zone)]


def test_there_are_changes_both_ways_to_be_tested() -> None:
    assert all(len(changes(zone)) >= 2 for zone in ZONES)


# --- cron ---------------------------------------------------------------------------------------------------

CRONS: Final = (
    "*/7 * * * *", "30 * * * *", "15 */2 * * *", "* 2 * * *", "*/10 1-3 * * *",
    "30 2 * * *", "0 0 * * *", "5,35 0,1,2,3 * * *", "59 23 * * 1-5", "0 3 * * SUN", "15 2 * * FRI",
)  # fmt: skip


def cron_by_looking_at_each_minute(
    expression: str, zone: str, since: dt.datetime, until: dt.datetime
) -> list[dt.datetime]:
    """Each minute of the time is looked at; fixed times as Debian's cron does them."""
    minutes, hours, _, _, weekdays = expression.split()
    at = (set_of(minutes, 60), set_of(hours, 24), set_of(weekdays, 7))
    is_fixed = not minutes.startswith("*") and not hours.startswith("*")
    found: list[dt.datetime] = []
    shown_before: set[dt.datetime] = set()
    utc = since - AROUND
    before = wall(utc - MINUTE, zone)
    while utc <= until:
        now = wall(utc, zone)
        if not is_fixed:
            is_due = fits(now, at)
        elif now - before > MINUTE:  # the clock has jumped: what was left out comes now
            left_out = (now - before) // MINUTE
            is_due = any(fits(before + number * MINUTE, at) for number in range(1, left_out + 1))
        else:
            is_due = fits(now, at) and now not in shown_before
        if is_due and since < utc:
            found.append(utc)
        shown_before.add(now)
        before, utc = now, utc + MINUTE
    return found


def wall(utc: dt.datetime, zone: str) -> dt.datetime:
    return utc.astimezone(zone_of(zone)).replace(tzinfo=None)


def fits(now: dt.datetime, at: tuple[set[int], set[int], set[int]]) -> bool:
    return now.minute in at[0] and now.hour in at[1] and now.isoweekday() % 7 in at[2]


def set_of(field: str, size: int) -> set[int]:
    names = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        if first in names:
            found.add(names.index(first))
        elif first == "*":
            found |= set(range(0, size, int(step or 1)))
        else:
            found |= set(range(int(first), int(last or first) + 1))
    return found


@pytest.mark.parametrize("expression", CRONS)
def test_cron_ticks_as_if_each_minute_were_looked_at(expression: str) -> None:
    for zone, since, until in WINDOWS:
        ticks = list(ticks_between(rhythm("cron", expression, zone), since + MINUTE, until))
        assert ticks == cron_by_looking_at_each_minute(expression, zone, since, until), (zone, since)


ASKED: Final = 25


def test_from_any_moment_on_the_next_tick_is_the_same(pytestconfig: pytest.Config) -> None:
    chance, instants = random.Random(pytestconfig.option.first_seed), 0
    while instants < pytestconfig.option.instants:
        zone, since, until = chance.choice(WINDOWS)
        for schedule in (
            rhythm("cron", chance.choice(CRONS), zone),
            rhythm("interval", str(chance.choice([60, 1700.5, 7200, 86_400])), zone),
            rhythm("rrule", "FREQ=DAILY;BYHOUR=0,1,2,3,23;BYMINUTE=0,15,30", zone),
        ):
            ticks = list(ticks_between(schedule, since, until + 7 * AROUND))
            assert all(tick.tzinfo is dt.UTC for tick in ticks)
            assert all(one < other for one, other in pairwise(ticks))
            for _ in range(ASKED):
                instants += 1
                asked = since + chance.random() * (until - since)
                place = bisect_right(ticks, asked)
                assert next_tick(schedule, asked) == ticks[place]
                if place:
                    assert latest_tick(schedule, since - MINUTE, asked) == ticks[place - 1]


def test_cron_has_seconds_names_and_leap_days() -> None:
    start = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
    assert [tick.second for tick in islice(ticks_after(rhythm("cron", "*/20 * * * * *"), start), 3)] == [20, 40, 0]
    assert next_tick(rhythm("cron", "@daily", "Asia/Tokyo"), start) == dt.datetime(2026, 6, 1, 15, tzinfo=dt.UTC)
    leap_days = islice(ticks_after(rhythm("cron", "0 0 29 2 *"), dt.datetime(2090, 1, 1, tzinfo=dt.UTC)), 3)
    assert [day.year for day in leap_days] == [2092, 2096, 2104]


# --- intervals ----------------------------------------------------------------------------------------------


def test_intervals_are_as_long_as_they_say_whatever_the_clocks_do() -> None:
    for zone, since, until in WINDOWS:
        for seconds in (60, 3600, 5400, 43_200, 100.25):
            ticks = list(ticks_between(rhythm("interval", str(seconds), zone), since, until))
            assert {(other - one).total_seconds() for one, other in pairwise(ticks)} == {seconds}
            anchor = START.replace(tzinfo=zone_of(zone))
            assert not (ticks[0] - anchor) % dt.timedelta(seconds=seconds)


def test_whole_days_keep_their_time_of_day() -> None:
    for zone, since, until in WINDOWS:
        anchor = dt.datetime(2005, 3, 1, 2, 30)
        ticks = ticks_between(rhythm("interval", "86400", zone, anchor=anchor), since, until)
        times = [wall(tick, zone) for tick in ticks]
        days = {day.date() for day in (wall(since + AROUND * number / 8, zone) for number in range(8, 9))}
        assert {time.date() for time in times} >= days
        assert sum(time.time() != dt.time(2, 30) for time in times) <= 1, "but where the clock leaves it out"


def test_the_first_day_of_all_is_no_fault() -> None:
    since, until = dt.datetime.min.replace(tzinfo=dt.UTC), dt.datetime(2011, 1, 1, tzinfo=dt.UTC)
    assert list(ticks_between(rhythm("interval", "31536000", anchor=dt.datetime(2010, 1, 1)), since, until))


def test_an_anchor_says_from_when_it_counts() -> None:
    anchor = dt.datetime(2026, 6, 1, 12, 7, tzinfo=ZoneInfo("Asia/Tokyo"))
    every_hour = rhythm("interval", "3600", "America/New_York", anchor=anchor)
    assert next_tick(every_hour, dt.datetime(2026, 1, 1, tzinfo=dt.UTC)) == dt.datetime(2026, 1, 1, 0, 7, tzinfo=dt.UTC)


# --- recurrence rules ---------------------------------------------------------------------------------------

Fits = Callable[[dt.datetime], bool]
RULES: Final[tuple[tuple[str, Fits], ...]] = (
    ("FREQ=DAILY;BYHOUR=2;BYMINUTE=30", lambda now: (now.hour, now.minute) == (2, 30)),
    ("FREQ=DAILY;INTERVAL=3", lambda now: now.time() == dt.time() and not (now - START).days % 3),
    ("FREQ=WEEKLY;BYDAY=SU,FR;BYHOUR=0,1,2,3", lambda now: now.weekday() in (4, 6) and now.hour < 4 and not now.minute),
    ("FREQ=HOURLY;INTERVAL=5;BYMINUTE=15,45", lambda now: not hours_since(now) % 5 and now.minute in (15, 45)),
    ("FREQ=MINUTELY;INTERVAL=7", lambda now: not (now - START) % (7 * MINUTE)),
    ("FREQ=MONTHLY;BYDAY=-1SU;BYHOUR=2", lambda now: now.weekday() == 6 and now.hour == 2 and not now.minute
        and (now + dt.timedelta(days=7)).month != now.month),
)  # fmt: skip


def hours_since(now: dt.datetime) -> int:
    return (now.replace(minute=0) - START) // dt.timedelta(hours=1)


def moments(walls: Iterable[dt.datetime], zone: str) -> list[dt.datetime]:
    """When a clock shows this: at first, if twice; later by as much as the clock jumps, if never."""
    found: set[dt.datetime] = set()
    for shown in walls:
        guess = shown.replace(tzinfo=dt.UTC)
        before = (guess - AROUND).astimezone(zone_of(zone)).utcoffset() or dt.timedelta()
        after = (guess + AROUND).astimezone(zone_of(zone)).utcoffset() or dt.timedelta()
        real = [utc for utc in (guess - before, guess - after) if wall(utc, zone) == shown]
        found.add(min(real) if real else guess - before)
    return sorted(found)


@pytest.mark.parametrize(("rule", "is_due"), RULES)
def test_rules_tick_as_if_each_minute_of_the_wall_clock_were_looked_at(rule: str, is_due: Fits) -> None:
    for zone, since, until in WINDOWS:
        begin = wall(since, zone).replace(second=0) - AROUND
        walls = [begin + number * MINUTE for number in range((until - since + 4 * AROUND) // MINUTE)]
        expected = [tick for tick in moments(filter(is_due, walls), zone) if since <= tick <= until]
        assert list(ticks_between(rhythm("rrule", rule, zone), since, until)) == expected, (zone, since)


def test_rules_end_count_and_leave_out() -> None:
    start = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
    counted = rhythm("rrule", "FREQ=DAILY;COUNT=3", "Europe/Berlin", anchor=dt.datetime(2026, 6, 1, 9))
    assert [tick.hour for tick in ticks_after(counted, start)] == [7, 7, 7]
    until = rhythm("rrule", "FREQ=DAILY;UNTIL=20260603T070000Z", "Europe/Berlin", anchor=dt.datetime(2026, 6, 1, 9))
    assert len(list(ticks_after(until, start))) == 3, "the end is said in UTC"
    several = "DTSTART:20260601T090000\nRRULE:FREQ=DAILY;COUNT=4\nEXDATE:20260602T090000"
    assert [tick.day for tick in ticks_after(rhythm("rrule", several), start)] == [1, 3, 4]
    assert next_tick(rhythm("rrule", "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29"), start) == dt.datetime(
        2028, 2, 29, tzinfo=dt.UTC
    )


def test_what_cannot_tick_is_refused_soon() -> None:
    for schedule, why in (
        (rhythm("cron", "* * *"), "five fields"),
        (rhythm("cron", "0 0 30 2 *"), "cannot be read"),
        (rhythm("cron", "x" * 5000), "longer"),
        (rhythm("cron", "* * * * *", "../etc/passwd"), "IANA"),
        (rhythm("cron", "* * * * *", "Europe"), "IANA"),
        (rhythm("interval", "0"), "number of seconds"),
        (rhythm("interval", "nan"), "number of seconds"),
        (rhythm("interval", "soon"), "number of seconds"),
        (rhythm("rrule", "every day"), "cannot be read"),
        (rhythm("rrule", "FREQ=DAILY;INTERVAL=0"), "INTERVAL"),
        (rhythm("rrule", "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30"), "no such day"),
        (rhythm("rrule", "FREQ=SECONDLY;COUNT=999999999"), "10,000"),
        (rhythm("rrule", "RRULE:FREQ=SECONDLY\nEXDATE:20260101T000000"), "one by one"),
        (rhythm("rrule", "EXRULE:FREQ=DAILY\nRRULE:FREQ=DAILY"), "EXDATE"),
        (rhythm("rrule", "DTSTART:00010101T000000\nRRULE:FREQ=DAILY\nEXDATE:20260101T000000"), "1970"),
        (rhythm("rrule", "FREQ=HOURLY;BYHOUR=25"), "no tick"),
        (rhythm("rrule", "FREQ=DAILY;UNTIL=19990101T000000"), "no tick"),
    ):
        with pytest.raises(InvalidRequestError, match=why):
            check_rhythm(schedule)


def test_a_rule_that_ticks_each_second_since_years_is_as_fast_as_another() -> None:
    schedule = rhythm("rrule", "FREQ=SECONDLY", anchor=dt.datetime(1990, 1, 1))
    assert next_tick(schedule, dt.datetime(2026, 6, 1, tzinfo=dt.UTC)) == dt.datetime(
        2026, 6, 1, 0, 0, 1, tzinfo=dt.UTC
    )
