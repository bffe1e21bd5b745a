"""Schedules as users write them: checked when they are written, and the same to the store."""

from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from upwell.core.deployments import ScheduleSpec
from upwell.core.errors import ConfigurationError, InvalidRequestError
from upwell.schedules import Cron, Interval, RRule, Schedule, ScheduleKeywords, schedules_from

BERLIN = "Europe/Berlin"


def test_a_cron_schedule_says_all_that_it_was_told() -> None:
    made = Cron(
        "0 3 * * *",
        timezone=BERLIN,
        parameters={"day": dt.date(2026, 1, 1)},
        slug="night",
        active=False,
        catchup="none",
        max_late_seconds=60,
    )
    assert made.spec == ScheduleSpec(
        kind="cron",
        expression="0 3 * * *",
        slug="night",
        timezone=BERLIN,
        parameters={"day": "2026-01-01"},
        active=False,
        catchup="none",
        max_late_seconds=60,
    )


def test_unless_said_it_is_active_in_utc_and_catches_up_with_the_latest_tick() -> None:
    for made in (Cron("0 3 * * *"), Interval(60), RRule("FREQ=DAILY")):
        spec = made.spec
        assert (spec.active, spec.timezone, spec.catchup, spec.max_late_seconds) == (True, "UTC", "latest", None)
        assert (spec.slug, spec.anchor, spec.parameters) == (None, None, {})


@pytest.mark.parametrize(
    ("given", "expression"),
    [(60, "60"), (1.5, "1.5"), (dt.timedelta(hours=1), "3600"), (dt.timedelta(days=1, microseconds=1), "86400.000001")],
)
def test_an_interval_is_seconds_or_a_timedelta(given: Any, expression: str) -> None:
    assert Interval(given).spec.expression == expression
    assert Schedule(interval=given) == Interval(given)


def test_an_anchor_without_a_zone_is_by_the_clock_of_the_schedule() -> None:
    by_its_clock = Interval(3600, anchor_date=dt.datetime(2026, 7, 1, 9), timezone=BERLIN).spec
    assert by_its_clock.anchor == dt.datetime(2026, 7, 1, 7, tzinfo=dt.UTC)
    with_a_zone = Interval(3600, anchor_date=dt.datetime(2026, 7, 1, 9, tzinfo=ZoneInfo(BERLIN))).spec
    assert with_a_zone.anchor == by_its_clock.anchor
    assert with_a_zone.timezone == BERLIN


def test_it_tells_when_it_is_due_next_by_its_own_clock() -> None:
    before_the_clocks_change = dt.datetime(2026, 3, 28, 0, tzinfo=dt.UTC)
    ticks = Cron("30 9 * * *", timezone=BERLIN).upcoming(2, after=before_the_clocks_change)
    assert [str(tick) for tick in ticks] == ["2026-03-28 09:30:00+01:00", "2026-03-29 09:30:00+02:00"]
    now = dt.datetime.now(dt.UTC)
    assert all(now < tick <= now + dt.timedelta(hours=5) for tick in Cron("0 * * * *").upcoming())
    assert len(RRule("FREQ=DAILY;COUNT=3", anchor_date=dt.datetime(2099, 1, 1)).upcoming()) == 3  # there are no more


WRONG: list[tuple[Any, type[Exception], str]] = [
    (lambda: Cron("nonsense"), InvalidRequestError, "five fields"),
    (lambda: Cron("0 0 31 2 *"), InvalidRequestError, "31 2"),
    (lambda: Cron("* * * * *", timezone="Mars/Base"), InvalidRequestError, "no time zone 'Mars/Base'"),
    (lambda: Cron("* * * * *", day_or=False), ConfigurationError, "either day will do"),
    (lambda: Cron("* * * * *", anchor_date=dt.datetime(2026, 1, 1)), ConfigurationError, "anchor_date"),
    (lambda: Cron(5), TypeError, "cron takes str"),  # type: ignore[arg-type]
    (lambda: Cron("* * * * *", catchup="some"), ConfigurationError, "none, latest, all"),  # type: ignore[arg-type]
    (lambda: Cron("* * * * *", max_late_seconds=0), ConfigurationError, "max_late_seconds"),
    (lambda: Cron("* * * * *", colour="red"), TypeError, "no 'colour'"),  # type: ignore[call-arg]
    (lambda: Cron("* * * * *", parameters={"a": object()}), InvalidRequestError, "JSON"),
    (lambda: RRule("FREQ=SOMETIMES"), InvalidRequestError, "cannot be read"),
    (lambda: Interval(0), InvalidRequestError, "number of seconds"),
    (lambda: Interval(-5), InvalidRequestError, "number of seconds"),
    (lambda: Interval(float("nan")), ConfigurationError, "nan"),
    (lambda: Interval(float("inf")), ConfigurationError, "inf"),
    (lambda: Interval("60"), TypeError, "timedelta"),  # type: ignore[arg-type]
    (lambda: Interval(True), TypeError, "timedelta"),
    (lambda: Schedule(), ConfigurationError, "none"),
    (lambda: Schedule(cron="* * * * *", interval=dt.timedelta(1)), ConfigurationError, "cron and interval"),
]


@pytest.mark.parametrize(("make", "error", "words"), WRONG)
def test_what_cannot_be_is_refused_when_it_is_written(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


def test_keywords_spell_schedules() -> None:
    keywords: ScheduleKeywords = {
        "cron": ["0 3 * * *", "0 4 * * *"],
        "interval": 60,
        "rrule": "FREQ=DAILY",
        "timezone": BERLIN,
        "catchup": "all",
        "schedule": Cron("0 5 * * *"),
        "schedules": [Interval(5, slug="often")],
    }
    found = schedules_from(keywords)
    assert found is not None
    expressions = ["0 3 * * *", "0 4 * * *", "60", "FREQ=DAILY", "0 5 * * *", "5"]
    assert [it.expression for it in found] == expressions
    assert [it.timezone for it in found] == [BERLIN] * 4 + ["UTC"] * 2
    assert [it.catchup for it in found] == ["all"] * 4 + ["latest"] * 2


def test_saying_nothing_and_saying_none_are_two_things() -> None:
    assert schedules_from({}) is None
    assert schedules_from({"cron": None, "schedules": None}) is None
    assert schedules_from({"schedules": []}) == ()


@pytest.mark.parametrize(
    ("keywords", "error", "words"),
    [
        ({"timezone": "UTC"}, ConfigurationError, "timezone: belongs to a schedule"),
        ({"timezone": "UTC", "schedules": [Interval(5)]}, ConfigurationError, "timezone: belongs"),
        ({"cron": ["0 3 * * *"] * 2}, ConfigurationError, "slug= of its own"),
        ({"schedules": [Interval(5, slug="a"), Interval(6, slug="a")]}, ConfigurationError, "'a'"),
        ({"schedules": ["0 3 * * *"]}, TypeError, r"Cron\(\.\.\.\)"),
        ({"schedule": "0 3 * * *"}, TypeError, r"Cron\(\.\.\.\)"),
    ],
)
def test_keywords_that_cannot_be_are_refused(keywords: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        schedules_from(keywords)
