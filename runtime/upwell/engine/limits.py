"""Named limits of this process: known by name, taken from coroutines, threads and runs alike.

Everything here is arithmetic under a lock; nobody polls: who gives a slot back wakes who waits first.
A name that is not known here may be one of the store's, whose limits hold across processes; see `Shared`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, cast

from upwell.core.errors import ConcurrencySlotAcquisitionError, ConfigurationError
from upwell.core.limits import LeakyBucket, Slots
from upwell.engine.clock import clock


class Ticket:
    """One wish for slots of one limit. `wake` is called, from any thread, when they were granted.

    error: why they never will be; `wake` is called then, too. holder: the run that wishes for them, where it is known.
    """

    __slots__ = ("error", "granted", "holder", "slots", "timer", "wake")

    def __init__(self, slots: int, wake: Callable[[], object]) -> None:
        self.slots = slots
        self.wake = wake
        self.granted = False
        self.timer: Any = None
        self.error: Exception | None = None
        self.holder: Any = None


class NamedLimit:
    """So many slots at once; with `slot_decay_per_second`, slots become free with time instead.

    Raises:
        ConfigurationError: a limit below zero, or a decay that is not above zero.
    """

    __slots__ = ("_bucket", "_lock", "_slots", "active", "limit", "name", "slot_decay_per_second")

    def __init__(self, name: str, limit: int, slot_decay_per_second: float = 0.0, active: bool = True) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:  # pyright: ignore[reportUnnecessaryIsInstance]  # from users' settings
            raise ConfigurationError(f"The limit {name!r} must be a whole number, zero or more, not {limit!r}.")
        if not isinstance(slot_decay_per_second, float | int) or not 0.0 <= slot_decay_per_second < float("inf"):  # pyright: ignore[reportUnnecessaryIsInstance]  # likewise
            raise ConfigurationError(f"The limit {name!r} cannot decay by {slot_decay_per_second!r} slots a second.")
        self.name = name
        self.limit = limit
        self.slot_decay_per_second = slot_decay_per_second
        self.active = active
        self._lock = threading.Lock()
        self._slots: Slots[Ticket] = Slots(limit)
        self._bucket = LeakyBucket(limit, slot_decay_per_second) if slot_decay_per_second else None

    def ticket(self, wake: Callable[[], object], slots: int = 1) -> Ticket:
        return Ticket(slots, wake)

    def take(self, ticket: Ticket) -> float | None:
        """Seconds to wait for the slots: 0, they are taken; None, until `ticket.wake` is called."""
        with self._lock:
            if not self.active:
                ticket.slots = 0
                ticket.granted = True
                return 0.0
            if self._bucket is not None:
                return self._bucket.reserve(ticket.slots, clock().time())
            ticket.granted = self._slots.take(ticket, ticket.slots)
            return 0.0 if ticket.granted else None

    def check_that_it_has(self, slots: int) -> None:
        """Raises ConfigurationError if there are not so many slots at all: they would never be free."""
        if self.active and slots > self.limit:
            raise ConfigurationError(
                f"{slots} slots of the limit {self.name!r} were asked for, which has {self.limit}: "
                "they would never be free."
            )

    def check_that_it_lets_anybody_through(self) -> None:
        """Raises ConcurrencySlotAcquisitionError if the limit is zero: nobody would ever be let through."""
        if self.active and not self.limit:
            raise ConcurrencySlotAcquisitionError(
                f"The limit {self.name!r} is 0, so nothing that it bounds may run; raise it with set_limit."
            )

    def give_back(self, ticket: Ticket) -> None:
        """The slots are not used any more. Slots that decay come back with time alone."""
        if self._bucket is not None or not ticket.slots:
            return
        with self._lock:
            admitted = self._slots.give_back(ticket.slots)
            for other in admitted:
                other.granted = True
        for other in admitted:
            other.wake()

    def abandon(self, ticket: Ticket) -> None:
        """The wish is withdrawn, whether it was granted or not."""
        with self._lock:
            if self._bucket is not None:
                self._bucket.give_back(ticket.slots)
                return
            admitted: list[Ticket] = []
            if ticket.granted:
                admitted = self._slots.give_back(ticket.slots)
            elif self._slots.forget(ticket):
                admitted = self._slots.resize(self.limit)  # who stood behind may fit now
            for other in admitted:
                other.granted = True
        for other in admitted:
            other.wake()

    def set(self, limit: int, slot_decay_per_second: float = 0.0, active: bool = True) -> None:
        """Change the limit while it is in use; who waits is let in if there is room now."""
        fresh = NamedLimit(self.name, limit, slot_decay_per_second, active)
        with self._lock:
            self.limit, self.active = limit, active
            self.slot_decay_per_second = slot_decay_per_second
            self._bucket = fresh._bucket
            admitted = self._slots.resize(limit)
            for other in admitted:
                other.granted = True
        for other in admitted:
            other.wake()

    @property
    def taken(self) -> int:
        """How many slots are taken now; for a limit that does not decay."""
        return self._slots.taken

    def __repr__(self) -> str:
        return f"<limit {self.name!r}: {self.taken} of {self.limit} taken>"


def _by_name(limits: object) -> dict[str, tuple[Any, ...]]:
    """Slots and, if it is said, how fast they come back."""
    if not isinstance(limits, Mapping | None):
        raise TypeError(f"limits takes slots by name, such as {{'database': 5, 'api': (10, 2.0)}}, not {limits!r}")
    named: dict[str, tuple[Any, ...]] = {}
    for name, limit in cast("Mapping[object, Any]", limits or {}).items():
        if not isinstance(name, str):
            raise TypeError(f"limits takes names that are texts, not {name!r}")
        found: tuple[Any, ...] = limit if isinstance(limit, tuple) else (limit, 0.0)  # pyright: ignore[reportUnknownVariableType]  # users'
        if len(found) != 2:
            raise TypeError(
                f"The limit {name!r} is a number of slots, or (slots, slot_decay_per_second), not {limit!r}"
            )
        named[name] = found
    return named


class Limits:
    """The named limits of one runtime, or of the process."""

    def __init__(self, limits: Mapping[str, Any] | None = None, around: Limits | None = None) -> None:
        self._limits: dict[str, NamedLimit] = {}
        self._around = around
        for name, limit in _by_name(limits).items():
            self.set(name, *limit)

    def get(self, name: str) -> NamedLimit | None:
        """The limit of this name, here or around."""
        found = self._limits.get(name)
        if found is None and self._around is not None:
            return self._around.get(name)
        return found

    def own(self, name: str) -> NamedLimit | None:
        """The same, but for those of the store."""
        found = self._limits.get(name)
        if found is None and self._around is not None:
            return self._around.own(name)
        return found

    def set(self, name: str, limit: int, slot_decay_per_second: float = 0.0, active: bool = True) -> NamedLimit:
        """Create or change a limit."""
        known = self._limits.get(name)
        if known is None:
            known = self._limits[name] = NamedLimit(name, limit, slot_decay_per_second, active)
        else:
            known.set(limit, slot_decay_per_second, active)
        return known

    def remove(self, name: str) -> None:
        """Forget a limit: whoever waits for it is let in."""
        found = self._limits.pop(name, None)
        if found is not None:
            found.set(sys.maxsize, found.slot_decay_per_second)

    def __bool__(self) -> bool:
        return bool(self._limits) or bool(self._around)

    def __iter__(self) -> Iterator[NamedLimit]:
        return iter(list(self._limits.values()))


class Shared(Protocol):
    """The limits of the store, which hold across processes. Once the names are known, all is answered without I/O."""

    def get(self, name: str) -> NamedLimit | None:
        """The limit of this name; where the names cannot be known soon, one that asks when slots are taken."""
        ...

    def are_known(self) -> bool:
        """Whether the names have been read."""
        ...

    def when_known(self, callback: Callable[[], object]) -> None:
        """Call this, from any thread, as soon as the names have been read."""
        ...

    def __bool__(self) -> bool:
        """Whether there may be any."""
        ...


class ProcessLimits(Limits):
    """The limits that hold in every runtime of this process: its own, and behind them those of the store."""

    def get(self, name: str) -> NamedLimit | None:
        found = self._limits.get(name)
        if found is None and (behind := shared()) is not None:
            return behind.get(name)
        return found

    def __bool__(self) -> bool:
        return bool(self._limits) or bool(shared())


_find_shared: Callable[[], Shared | None] | None = None


def shared() -> Shared | None:
    """The limits of the store that this process records in; None where it records nothing."""
    return None if _find_shared is None else _find_shared()


def share_limits_of(find: Callable[[], Shared | None] | None) -> None:
    """Say who knows the limits of the store; the public face does."""
    global _find_shared
    _find_shared = find


PROCESS_LIMITS = ProcessLimits()
"""The limits that hold in every runtime of this process."""
