"""How times, durations, numbers and reasons are said to people."""

from __future__ import annotations

import datetime as dt

import pytest

from upwell.server.pages.charts import nice_ceiling
from upwell.server.pages.shown import ago, brief, several, short_number, size, took

NOW = dt.datetime(2026, 3, 29, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 ms"),
        (0.0842, "84 ms"),
        (0.9996, "1.0 s"),
        (1.26, "1.3 s"),
        (42.4, "42 s"),
        (59.6, "1 min"),
        (192, "3 min 12 s"),
        (3_600, "1 h"),
        (7_500, "2 h 5 min"),
        (97_200, "1 d 3 h"),
        (-5, "0 ms"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert took(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "just now"),
        (42, "42 s ago"),
        (3_599, "59 min ago"),
        (90_000, "1 d ago"),
        (-300, "in 5 min"),
        (10 * 86_400, "19 Mar"),
        (200 * 86_400, "10 Sep 2025"),
    ],
)
def test_relative_times(seconds: float, said: str) -> None:
    assert ago(NOW - dt.timedelta(seconds=seconds), NOW) == said


def test_one_and_several() -> None:
    assert [several(number, "run") for number in (0, 1, 1_000)] == ["0 runs", "1 run", "1,000 runs"]
    assert several(2, "dependency", "dependencies") == "2 dependencies"


def test_numbers_where_there_is_little_room() -> None:
    assert [short_number(n) for n in (0, 950, 1_000, 1_250, 99_999, 3_400_000)] == [
        "0",
        "950",
        "1k",
        "1.2k",
        "100k",
        "3.4M",
    ]
    assert [size(n) for n in (12, 14_200, 3_100_000, 10**15)] == ["12 bytes", "14.2 kB", "3.1 MB", "1000.0 TB"]


def test_the_top_of_a_chart_is_a_round_number_that_is_not_less() -> None:
    for value in range(1, 5_000):
        top = nice_ceiling(value)
        assert value <= top <= max(2 * value, 4)


def test_the_reason_of_a_failure_is_its_first_cause() -> None:
    message = (
        "Flow run encountered an exception: NotReadyRun: 'load-0' never began: Upstream task run 'check-0' did not "
        "reach a 'COMPLETED' state: it ended "
        "Failed(\"Task run encountered an exception: SchemaError: 'x' is missing\")."
    )
    assert brief(message) == "check-0: SchemaError: 'x' is missing"
    assert brief("Task run encountered an exception: ValueError: no") == "ValueError: no"
    assert brief("As it is.") == "As it is."
