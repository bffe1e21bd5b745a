"""The attempts of a pool that are under way, by the sequences in which they came: what waits, and what a child has.

Nothing here looks at single attempts where it need not: those of one group (see `Attempt.group`) may come as a sequence
that makes each of them only when somebody asks for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from operator import attrgetter
from typing import Final

from upwell.core.seams import Attempt

_group_of: Final = attrgetter("group")


def group_of(attempts: Sequence[Attempt]) -> object:
    """What all of them have in common; None if it is not the same for all."""
    known: object = getattr(attempts, "group", None)
    if known is not None:
        return known
    groups = set(map(_group_of, attempts))
    return groups.pop() if len(groups) == 1 else None


class Backlog:
    """Attempts that wait for a child, in their order."""

    def __init__(self) -> None:
        self._parts: deque[Sequence[Attempt]] = deque()
        self._position = 0  # in the first part
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, attempts: Sequence[Attempt]) -> None:
        """These come last."""
        if attempts:
            self._parts.append(attempts)
            self._count += len(attempts)

    def put_back(self, attempts: Sequence[Attempt]) -> None:
        """These come first."""
        if attempts:
            self._cut()
            self._parts.appendleft(attempts)
            self._count += len(attempts)

    @property
    def head(self) -> Attempt:
        """The first one."""
        return self._parts[0][self._position]

    @property
    def group(self) -> object:
        """That of the first one."""
        first = self._parts[0]
        known: object = getattr(first, "group", None)
        return first[self._position].group if known is None else known

    def take(self, most: int) -> Sequence[Attempt]:
        """Take the first out, and not more than so many: of one group, as far as that is known of their sequence."""
        first = self._parts[0]
        start = self._position
        taken = first[start : start + most]
        self._count -= len(taken)
        self._position += len(taken)
        if self._position == len(first):
            self._parts.popleft()
            self._position = 0
            if len(taken) < most and self._parts and not hasattr(taken, "group"):
                return self._take_more(list(taken), most)
        return taken

    def _take_more(self, taken: list[Attempt], most: int) -> list[Attempt]:
        """Such as were submitted one by one."""
        while len(taken) < most and self._parts and not hasattr(self._parts[0], "group"):
            part = self._parts[0]
            more = part[: most - len(taken)]
            taken += more
            self._count -= len(more)
            self._position = len(more)
            if len(more) < len(part):
                break
            self._parts.popleft()
            self._position = 0
        return taken

    def drop(self, unwanted: Collection[Attempt]) -> list[Attempt]:
        """Take out those that are among these."""
        attempts = self.clear()
        self.add([attempt for attempt in attempts if attempt not in unwanted])
        return [attempt for attempt in attempts if attempt in unwanted]

    def clear(self) -> list[Attempt]:
        """Take all out."""
        self._cut()
        attempts = [attempt for part in self._parts for attempt in part]
        self._parts.clear()
        self._count = 0
        return attempts

    def _cut(self) -> None:
        """Let go of what was taken from the first part."""
        if self._position:
            self._parts[0] = self._parts[0][self._position :]
            self._position = 0


class InFlight:
    """What a child was sent and has not answered, by serial: stretches, in the order in which they are executed."""

    def __init__(self) -> None:
        self._stretches: deque[tuple[int, Sequence[Attempt]]] = deque()

    def __len__(self) -> int:
        return sum(len(attempts) for _, attempts in self._stretches)

    def __bool__(self) -> bool:
        return bool(self._stretches)

    def __iter__(self) -> Iterator[tuple[int, Attempt]]:
        """Each with its serial."""
        for first, attempts in self._stretches:
            yield from enumerate(attempts, first)

    @property
    def first(self) -> int:
        """The serial of the first."""
        return self._stretches[0][0]

    def add(self, first: int, attempts: Sequence[Attempt]) -> None:
        """These were sent last. first: the serial of the first of them."""
        self._stretches.append((first, attempts))

    def get(self, serial: int) -> Attempt | None:
        """The attempt of this serial, if it is here."""
        for first, attempts in self._stretches:
            if first <= serial < first + len(attempts):
                return attempts[serial - first]
        return None

    def answered(self, serial: int, count: int) -> Sequence[Attempt]:
        """Take out so many from this serial on: most often the first, which were sent together."""
        first, attempts = self._stretches[0]
        if serial != first or count > len(attempts):
            return self.take_out(range(serial, serial + count))
        self._stretches.popleft()
        if count < len(attempts):
            self._stretches.appendleft((first + count, attempts[count:]))
        return attempts[:count]

    def take_out(self, serials: Collection[int]) -> list[Attempt]:
        """Take out those of these serials that are here."""
        taken: list[Attempt] = []
        left: deque[tuple[int, Sequence[Attempt]]] = deque()
        for first, attempts in self._stretches:
            found = [place for place in range(len(attempts)) if first + place in serials]
            taken += [attempts[place] for place in found]
            start = 0
            for place in [*found, len(attempts)]:
                if start < place:
                    left.append((first + start, attempts[start:place]))
                start = place + 1
        self._stretches = left
        return taken
