"""How limits count: slots that are taken and given back in order, and a bucket that leaks.

Neither knows a clock, a thread or a run: the caller says what time it is and what waits.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

W = TypeVar("W")


class Slots(Generic[W]):
    """So many at once. Who comes when all are taken waits in line; who waits first is let in first."""

    __slots__ = ("capacity", "line", "taken")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.taken = 0
        self.line: deque[tuple[W, int]] = deque()

    def take(self, waiter: W, slots: int = 1) -> bool:
        """Take slots, or stand in line for them; whether they were taken now."""
        if not self.line and self.taken + slots <= self.capacity:
            self.taken += slots
            return True
        self.line.append((waiter, slots))
        return False

    def give_back(self, slots: int = 1) -> list[W]:
        """Give slots back; returns those in line who have theirs now."""
        self.taken -= slots
        return self._admit() if self.line else []

    def resize(self, capacity: int) -> list[W]:
        """Change how many there are; returns those in line who have theirs now."""
        self.capacity = capacity
        return self._admit()

    def forget(self, waiter: W) -> bool:
        """Leave the line; whether the waiter stood in it."""
        for place in self.line:
            if place[0] is waiter:
                self.line.remove(place)
                return True
        return False

    def _admit(self) -> list[W]:
        admitted: list[W] = []
        while self.line and self.taken + self.line[0][1] <= self.capacity:
            waiter, slots = self.line.popleft()
            self.taken += slots
            admitted.append(waiter)
        return admitted


class LeakyBucket:
    """So many a second, and so many at once after a quiet time.

    Each entry raises the level; the level sinks steadily (the leaky bucket as a meter, ITU-T I.371). Who
    finds the bucket full is told how long to wait, and has the place after that wait: nobody overtakes.
    """

    __slots__ = ("at", "capacity", "leak_per_second", "level")

    def __init__(self, capacity: float, leak_per_second: float) -> None:
        self.capacity = capacity
        self.leak_per_second = leak_per_second
        self.level = 0.0
        self.at = 0.0

    def reserve(self, slots: float, now: float) -> float:
        """Reserve a place; returns the seconds to wait before using it."""
        if now > self.at:
            self.level = max(0.0, self.level - (now - self.at) * self.leak_per_second)
            self.at = now
        self.level += slots
        return max(0.0, (self.level - self.capacity) / self.leak_per_second)

    def give_back(self, slots: float) -> None:
        """Give back a place that was not used."""
        self.level = max(0.0, self.level - slots)
