"""When to try again: how often, and after how long."""

import math
from collections.abc import Callable, Sequence
from typing import TypeGuard

import msgspec
from msgspec.structs import force_setattr

MAX_DELAYS = 50  # different delays in one policy; the last one repeats, so more are never needed

DelaySpec = float | Sequence[float] | Callable[[int], Sequence[float]] | None


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often a failed run is tried again, and how long it waits before each retry.

    Raises TypeError for values of the wrong type and ValueError for values that make no sense.
    """

    retries: int = 0
    """How many times to try again after the first attempt."""

    delay_seconds: DelaySpec = None
    """One delay for all, one for each retry (the last repeats), or a function from `retries` to them."""

    jitter_factor: float | None = None
    """Each delay is spread evenly over `delay * (1 ± jitter_factor)`."""

    delays: tuple[float, ...] = ()
    """What `delay_seconds` came to, in seconds; computed, not given."""

    def __post_init__(self) -> None:
        if not _is_whole(self.retries):
            raise TypeError(f"`retries` must be a whole number, not {self.retries!r}.")
        if self.retries < 0:
            raise ValueError(f"`retries` must be 0 or more, not {self.retries}.")
        if self.jitter_factor is not None:
            _check_number("retry_jitter_factor", self.jitter_factor)
        force_setattr(self, "delays", _delays(self.delay_seconds, self.retries))

    def delay(self, attempt: int, random: float) -> float:
        """Seconds to wait before retry number `attempt` (1 is the first), never negative.

        `random` is a uniform number in [0, 1) and comes from the caller. With a jitter factor j the delay d
        becomes `d * (1 + j * (2 * random - 1))`, and 0 where that would be less than 0 (j above 1).
        """
        if not self.delays:
            return 0.0
        seconds = self.delays[min(attempt, len(self.delays)) - 1]
        if self.jitter_factor:
            seconds *= 1 + self.jitter_factor * (2 * random - 1)
        return max(0.0, seconds)


def exponential_backoff(backoff_factor: float) -> Callable[[int], list[float]]:
    """Delays that double: `backoff_factor` seconds, then twice that, and so on; for `retry_delay_seconds`."""
    _check_number("backoff_factor", backoff_factor)

    def delays(retries: int) -> list[float]:
        return [backoff_factor * 2.0**retry for retry in range(min(retries, MAX_DELAYS))]

    return delays


def _delays(spec: object, retries: int) -> tuple[float, ...]:
    if spec is None:
        return ()
    if callable(spec):
        spec = spec(retries)
        if not _is_sequence(spec):
            raise TypeError(f"The function given as `retry_delay_seconds` must return a list of seconds, not {spec!r}.")
    if not _is_sequence(spec):
        return (_check_number("retry_delay_seconds", spec),)
    if len(spec) > MAX_DELAYS:
        raise ValueError(
            f"`retry_delay_seconds` lists {len(spec)} delays, and {MAX_DELAYS} is the most. The last one "
            "repeats: shorten the list."
        )
    return tuple(_check_number(f"retry_delay_seconds[{index}]", delay) for index, delay in enumerate(spec))


def _is_whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


def _is_sequence(spec: object) -> TypeGuard[Sequence[object]]:
    return isinstance(spec, Sequence) and not isinstance(spec, str | bytes | bytearray)


def _check_number(option: str, number: object) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise TypeError(f"`{option}` must be a number, not {number!r}.")
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"`{option}` must be a finite number, 0 or more, not {number!r}.")
    return float(number)
