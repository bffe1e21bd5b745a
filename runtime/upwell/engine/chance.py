"""Random numbers; Python's own module for them is loaded when the first is drawn, which no import needs."""

from __future__ import annotations


def random_bits(count: int) -> int:
    """A number of so many random bits."""
    from random import getrandbits

    return getrandbits(count)


def random_part() -> float:
    """A number from 0 on and below 1, uniformly."""
    from random import random

    return random()
