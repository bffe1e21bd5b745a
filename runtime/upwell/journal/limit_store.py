"""The limits in the store: who has slots of them, who waits, and who is next. The seam, and the one over a database.

A slot is taken by a row of `leases` whose process is alive, and by nothing else, so none can leak: who dies, or is
declared dead, loses them in the same transaction. Whoever changes the line of a limit locks the limit's row.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from upwell.engine.clock import clock
from upwell.engine.limits import NamedLimit
from upwell.journal.database import Database, Row, Session, StoreError
from upwell.journal.sql import Dialect

MOST_IN_LINE: Final = 256
"""How many of those who wait are looked at: more cannot have their turn at once, or hardly."""


class NotAlive(StoreError):
    """The process was declared dead, and has lost its slots."""


class LimitRow(NamedTuple):
    """What a limit allows."""

    name: str
    slots: int
    slot_decay_per_second: float
    active: bool


class LimitChange(NamedTuple):
    """What a limit is to allow from now on; None: as before."""

    name: str
    slots: int | None
    slot_decay_per_second: float | None
    active: bool | None


class LimitInUse(NamedTuple):
    """A limit of the store, and how it stands now.

    taken: slots in use; of a limit that decays, the level to which they have sunk by now.
    waiting: how many wishes stand in line.
    """

    name: str
    slots: int
    slot_decay_per_second: float
    active: bool
    taken: float
    waiting: int


class Wish(NamedTuple):
    """One wish for slots. id: of its row."""

    id: str
    slots: int
    holder: str | None


class Standing(NamedTuple):
    """How a limit stands. limit: None, there is none any more.

    granted: wishes of the asking process that have their slots now.
    others: wishes of other processes that could have theirs, and have not taken them yet.
    """

    limit: LimitRow | None
    granted: list[str]
    others: list[str]


class LimitStore(Protocol):
    """What the limits of a process need of the store. Every method may raise StoreUnavailable."""

    async def limits(self) -> list[LimitRow]:
        """All limits there are."""
        ...

    async def in_use(self) -> list[LimitInUse]:
        """The same, and how they stand."""
        ...

    async def create(self, limit: LimitRow) -> bool:
        """Make a limit; False if there is one of that name."""
        ...

    async def update(self, change: LimitChange) -> bool:
        """Change a limit; False if there is none.

        Raises:
            ConfigurationError: it would not be one.
        """
        ...

    async def delete(self, name: str) -> bool:
        """Remove a limit, whoever holds or wants slots of it; False if there is none."""
        ...

    async def look(self, process_id: str, name: str, absent: Collection[str]) -> Standing:
        """How a limit stands, and which wishes of this process could have their slots now. Changes nothing."""
        ...

    async def take_turn(
        self,
        process_id: str,
        name: str,
        over: Sequence[str],
        wishes: Sequence[Wish],
        absent: Collection[str],
        unsure: Sequence[str] = (),
    ) -> Standing:
        """Give back slots, stand in line, and take whatever slots have come free: all at once, or nothing of it.

        over: wishes that are withdrawn, or whose slots are given back.
        wishes: new ones. May come again, if it is not known whether they came in.
        absent: those of others who had their turn and did not take it: they may be overtaken until they do.
        unsure: those of which it is not known whether they were granted.

        Raises:
            NotAlive: the process was declared dead.
        """
        ...

    async def leave(self, process_id: str) -> None:
        """The process holds no slots any more, and wants none."""
        ...

    async def reserve(self, process_id: str, name: str, slots: int) -> tuple[LimitRow, float] | None:
        """Use slots of a limit that decays: what it allows, and the level that it has now. None: there is none."""
        ...

    async def give_back_level(self, name: str, slots: int) -> None:
        """Such slots were not used after all."""
        ...


class SqlLimits:
    """The limits in a SQL database. reading: another way to it, that waits for no change."""

    def __init__(self, database: Database, reading: Session | None = None) -> None:
        self._database = database
        self._reading = reading or database

    # --- what there is ------------------------------------------------------------------------------------

    async def limits(self) -> list[LimitRow]:
        return [_limit(row) for row in await self._reading.fetch("limits")]

    async def in_use(self) -> list[LimitInUse]:
        rows = await self._reading.fetch("limits_in_use")
        now = await self._now(self._reading)
        return [_in_use(row, now) for row in rows]

    async def create(self, limit: LimitRow) -> bool:
        created = int(clock().time() * 1e6)
        async with self._database.transaction() as session:
            return bool(await session.fetch("create_limit", created=created, **_values(limit)))

    async def update(self, change: LimitChange) -> bool:
        async with self._database.transaction() as session:
            rows = await session.fetch("lock_limit", name=change.name)
            if not rows:
                return False
            kept = {name: value for name, value in change._asdict().items() if value is not None}
            await session.fetch("update_limit", **_values(checked_limit(**{**_limit(rows[0])._asdict(), **kept})))
        return True

    async def delete(self, name: str) -> bool:
        async with self._database.transaction() as session:
            found = await session.fetch("delete_limit", name=name)
            await session.fetch("drop_leases_of_limit", name=name)
        return bool(found)

    # --- slots --------------------------------------------------------------------------------------------

    async def look(self, process_id: str, name: str, absent: Collection[str]) -> Standing:
        rows = await self._database.fetch("limit", name=name)
        return await _standing(self._database, rows, process_id, name, absent)

    async def take_turn(
        self,
        process_id: str,
        name: str,
        over: Sequence[str],
        wishes: Sequence[Wish],
        absent: Collection[str],
        unsure: Sequence[str] = (),
    ) -> Standing:
        async with self._database.transaction() as session:
            await _check_alive(session, process_id)
            rows = await session.fetch("lock_limit", name=name)
            if over:
                await session.fetch("drop_leases", ids=_json(over))
            now = int(clock().time() * 1e6)
            if wishes and rows:
                last = (await session.fetch("last_place", name=name))[0][0]
                line = enumerate(wishes, last + 1)
                new = [(wish.id, name, process_id, wish.holder, wish.slots, place, now) for place, wish in line]
                await session.insert("put_leases", new)
            standing = await _standing(session, rows, process_id, name, absent)
            if standing.granted:
                await session.fetch("hold_leases", ids=_json(standing.granted), since=now)
            if unsure:
                held = await session.fetch("held_among", ids=_json(unsure))
                standing.granted.extend(found[0] for found in held if found[0] not in standing.granted)
        return standing

    async def leave(self, process_id: str) -> None:
        async with self._database.transaction() as session:
            await session.fetch("drop_leases_of_process", process_id=process_id)

    # --- slots that become free with time -----------------------------------------------------------------

    async def reserve(self, process_id: str, name: str, slots: int) -> tuple[LimitRow, float] | None:
        async with self._database.transaction() as session:
            await _check_alive(session, process_id)
            rows = await session.fetch("lock_limit", name=name)
            if not rows:
                return None
            limit = _limit(rows[0])
            if not limit.slot_decay_per_second or not limit.active:
                return limit, 0.0
            now = await self._now(session)
            raised = await session.fetch("raise_level", name=name, slots=float(slots), now=now)
        return limit, float(raised[0][0])

    async def give_back_level(self, name: str, slots: int) -> None:
        async with self._database.transaction() as session:
            await session.fetch("lower_level", name=name, slots=float(slots))

    async def _now(self, session: Session) -> int:
        """Microseconds by the store's clock, which is one for all; read after the lock, so that it does not go back."""
        if self._database.dialect is Dialect.SQLITE:
            return int(clock().time() * 1e6)
        asked = await session.fetch_text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS INTEGER)")
        return int(asked[0][0])


async def _standing(session: Session, rows: list[Row], process_id: str, name: str, absent: Collection[str]) -> Standing:
    if not rows:
        return Standing(None, [], [])
    limit = _limit(rows[0])
    taken = (await session.fetch("slots_held", name=name))[0][0]
    line = await session.fetch("line", name=name, most=MOST_IN_LINE)
    granted, others = next_in_line(limit, taken, line, process_id, absent)
    return Standing(limit, granted, others)


def next_in_line(
    limit: LimitRow, taken: int, line: Sequence[Row], process_id: str, absent: Collection[str]
) -> tuple[list[str], list[str]]:
    """Who of those in line, `(wish, process, slots)`, can have their slots now: those of this process, and others.

    Nobody is overtaken: who does not fit holds up those behind. But for wishes for more than the limit has, which can
    have their turn only when it is raised, and those that are `absent`.
    """
    granted: list[str] = []
    others: list[str] = []
    for wish, owner, slots in line:
        if limit.active and slots > limit.slots:
            continue
        if limit.active and taken + slots > limit.slots and wish not in absent:
            break
        if owner == process_id:
            taken += slots
            granted.append(wish)
        else:
            others.append(wish)
            if wish not in absent:
                taken += slots
    return granted, others


async def _check_alive(session: Session, process_id: str) -> None:
    rows = await session.fetch("process_state", id=process_id)
    if not rows or rows[0][0] != "alive":
        raise NotAlive(
            "This process was declared dead, or has left the store, and holds no slots there any more: others have "
            "them. Was it stopped for longer than its lease, or the machine asleep?"
        )


def checked_limit(name: str, slots: int, slot_decay_per_second: float | None, active: bool) -> LimitRow:
    """Raises ConfigurationError for a limit below zero, or a decay that is none."""
    limit = LimitRow(name, slots, slot_decay_per_second or 0.0, active)
    NamedLimit(*limit)
    return limit


def _limit(row: Row) -> LimitRow:
    name, slots, decay, active = row
    return LimitRow(name, slots, decay or 0.0, bool(active))


def _in_use(row: Row, now: int) -> LimitInUse:
    name, slots, decay, active, level, level_at, taken, waiting = row
    if decay:
        taken = max(0.0, level - decay * max(0, now - level_at) / 1e6)
    return LimitInUse(name, slots, decay or 0.0, bool(active), taken, waiting)


def _values(limit: LimitRow) -> dict[str, Any]:
    return limit._asdict() | {
        "slot_decay_per_second": limit.slot_decay_per_second or None,
        "active": int(limit.active),
    }


def _json(ids: Sequence[str]) -> str:
    return msgspec.json.encode(ids).decode()
