"""How often and how long after: the retry policy."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.core.retries import MAX_DELAYS, RetryPolicy, exponential_backoff


def test_without_a_delay_a_retry_is_immediate() -> None:
    assert RetryPolicy(retries=2).delay(1, 0.5) == 0.0


def test_one_number_is_the_delay_of_every_retry() -> None:
    policy = RetryPolicy(retries=3, delay_seconds=2)
    assert [policy.delay(attempt, 0.9) for attempt in (1, 2, 3)] == [2.0, 2.0, 2.0]


def test_the_last_delay_of_a_list_repeats() -> None:
    policy = RetryPolicy(retries=4, delay_seconds=[1, 5])
    assert [policy.delay(attempt, 0.0) for attempt in (1, 2, 3, 4)] == [1.0, 5.0, 5.0, 5.0]


def test_a_function_of_retries_is_asked_once() -> None:
    asked: list[int] = []

    def delays(retries: int) -> list[float]:
        asked.append(retries)
        return [1.0, 2.0]

    policy = RetryPolicy(retries=2, delay_seconds=delays)
    assert [policy.delay(1, 0.0), policy.delay(2, 0.0)] == [1.0, 2.0]
    assert asked == [2]


def test_exponential_backoff_doubles() -> None:
    assert RetryPolicy(retries=4, delay_seconds=exponential_backoff(10)).delays == (10.0, 20.0, 40.0, 80.0)


def test_exponential_backoff_fits_any_number_of_retries() -> None:
    assert len(RetryPolicy(retries=1000, delay_seconds=exponential_backoff(1)).delays) == MAX_DELAYS


def test_jitter_spreads_the_delay_evenly_around_itself() -> None:
    policy = RetryPolicy(retries=1, delay_seconds=10, jitter_factor=0.5)
    assert [policy.delay(1, random) for random in (0.0, 0.5, 1.0)] == [5.0, 10.0, 15.0]


@given(st.floats(0, 1e6), st.floats(0, 100), st.floats(0, 1, exclude_max=True), st.integers(1, 60))
def test_no_delay_is_ever_negative(delay: float, jitter: float, random: float, attempt: int) -> None:
    policy = RetryPolicy(retries=60, delay_seconds=[delay, delay / 2], jitter_factor=jitter)
    assert policy.delay(attempt, random) >= 0


SENSELESS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"retries": -1}, ValueError, "`retries` must be 0 or more, not -1"),
    ({"retries": True}, TypeError, "`retries` must be a whole number, not True"),
    ({"retries": "3"}, TypeError, "`retries` must be a whole number, not '3'"),
    ({"delay_seconds": -1}, ValueError, "`retry_delay_seconds` must be a finite number"),
    ({"delay_seconds": float("nan")}, ValueError, "`retry_delay_seconds` must be a finite number"),
    ({"delay_seconds": float("inf")}, ValueError, "`retry_delay_seconds` must be a finite number"),
    ({"delay_seconds": "soon"}, TypeError, "`retry_delay_seconds` must be a number, not 'soon'"),
    ({"delay_seconds": True}, TypeError, "`retry_delay_seconds` must be a number, not True"),
    ({"delay_seconds": [1, None]}, TypeError, r"`retry_delay_seconds\[1\]` must be a number, not None"),
    ({"delay_seconds": [1.0] * 51}, ValueError, "lists 51 delays, and 50 is the most"),
    ({"delay_seconds": abs}, TypeError, "must return a list of seconds, not 0"),
    ({"jitter_factor": -0.1}, ValueError, "`retry_jitter_factor` must be a finite number"),
    ({"jitter_factor": "much"}, TypeError, "`retry_jitter_factor` must be a number"),
]


@pytest.mark.parametrize(("options", "error", "message"), SENSELESS)
def test_a_policy_that_makes_no_sense_says_so(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RetryPolicy(**options)


def test_a_backoff_factor_is_checked_when_it_is_given() -> None:
    make: Callable[..., Any] = exponential_backoff
    with pytest.raises(TypeError, match="`backoff_factor` must be a number"):
        make("2")
