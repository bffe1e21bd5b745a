"""What has come into a store since one looked last, whichever process has written it: states of flow runs, log lines.

Rows are told by their keys, which only grow. SQLite has one writer at a time, and says by a number whether anything has
been written at all. In PostgreSQL a row with a lower key may become visible after one with a higher: keys that were
passed over are looked for again, until so much time has gone by that whoever had them has given up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from upwell.journal.database import Database, Row, Session
from upwell.journal.sql import Dialect

PAGE_ROWS: Final = 2000
LATE_SECONDS: Final = 10.0
"""A key that has not become visible for so long belongs to a transaction that was rolled back."""

MOST_GAPS: Final = 100


class Kind(NamedTuple):
    """A table whose rows are followed. all, of_run: the queries for its rows of all flow runs, or of one."""

    table: str
    all: str
    of_run: str


STATES: Final = Kind("flow_run_states", "flow_run_changes", "flow_run_changes_of")
LOGS: Final = Kind("logs", "log_changes", "log_changes_of")


class _Gap(NamedTuple):
    """Keys that were passed over. until: for so long they are looked for."""

    first: int
    last: int
    until: float


class Tail:
    """The end of one table, as it grows. last: the highest key that was seen. has_more: others are there already."""

    def __init__(self, kind: Kind, last: int, *, may_be_late: bool) -> None:
        self.kind = kind
        self.last = last
        self.has_more = False
        self._may_be_late = may_be_late
        self._gaps: list[_Gap] = []

    @property
    def settled(self) -> int:
        """Up to this key nothing will come any more."""
        return self._gaps[0].first - 1 if self._gaps else self.last

    async def new_rows(self, session: Session, now: float) -> list[Row]:
        """The rows that were not there the last time, at most a page of them and what came late."""
        late = await self._late_rows(session, now) if self._gaps else []
        rows = await session.fetch(self.kind.all, after=self.last, last=_ENDLESS, n=PAGE_ROWS)
        if self._may_be_late:
            self._note_gaps(rows, now)
        if rows:
            self.last = rows[-1][0]
        self.has_more = len(rows) == PAGE_ROWS
        return late + rows

    def skip_to(self, last: int) -> None:
        """Nobody wants what came in until now."""
        self.last, self._gaps, self.has_more = last, [], False

    def _note_gaps(self, rows: Sequence[Row], now: float) -> None:
        before = self.last
        for key, *_ in rows:
            if key > before + 1:
                self._gaps.append(_Gap(before + 1, key - 1, now + LATE_SECONDS))
            before = key
        del self._gaps[:-MOST_GAPS]

    async def _late_rows(self, session: Session, now: float) -> list[Row]:
        self._gaps = [gap for gap in self._gaps if gap.until > now]
        ends = msgspec.json.encode([key for gap in self._gaps for key in (gap.first, gap.last)]).decode()
        found = await session.fetch_text(
            f"SELECT key FROM {self.kind.table} WHERE key IN (SELECT CAST(value AS INTEGER) FROM json_each(:keys))",
            keys=ends,
        )
        there = {key for (key,) in found}
        rows: list[Row] = []
        left: list[_Gap] = []
        for gap in self._gaps:
            if gap.first not in there and gap.last not in there:
                left.append(gap)
                continue
            came = await session.fetch(self.kind.all, after=gap.first - 1, last=gap.last, n=gap.last - gap.first + 1)
            rows += came
            left += _without(gap, [row[0] for row in came])
        self._gaps = left
        return rows


class Changes:
    """Looks at one store, over a connection of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._version: int | None = None

    async def is_changed(self) -> bool:
        """Whether anything may have been written since this was asked last."""
        if self._database.dialect is not Dialect.SQLITE:
            return True
        version = int((await self._database.fetch_text("PRAGMA data_version"))[0][0])
        changed, self._version = version != self._version, version
        return changed

    async def last_keys(self) -> tuple[int, int]:
        """The highest keys there are: of states, and of log lines."""
        states, logs = (await self._database.fetch("last_change_keys"))[0]
        return int(states), int(logs)

    def tail(self, kind: Kind, last: int) -> Tail:
        """What comes after this key."""
        return Tail(kind, last, may_be_late=self._database.dialect is not Dialect.SQLITE)

    async def new_rows(self, tail: Tail, now: float) -> list[Row]:
        return await tail.new_rows(self._database, now)

    async def task_run_states(self, flow_run_id: str) -> dict[str, int]:
        """How many task runs of a flow run are in which type of state; those that have not begun are PENDING."""
        return await task_run_states(self._database, flow_run_id)


async def rows_between(session: Session, kind: Kind, flow_run_id: str | None, after: int, last: int) -> list[Row]:
    """A page of the rows after one key and up to another: of one flow run, or of all."""
    asked: dict[str, Any] = {"after": after, "last": last, "n": PAGE_ROWS}
    if flow_run_id is None:
        return await session.fetch(kind.all, **asked)
    return await session.fetch(kind.of_run, flow_run_id=flow_run_id, **asked)


async def task_run_states(session: Session, flow_run_id: str) -> dict[str, int]:
    """How many task runs of a flow run are in which type of state; those that have not begun are PENDING."""
    submitted = (await session.fetch("task_runs_submitted_in", flow_run_id=flow_run_id))[0][0]
    if not submitted:
        return {}
    begun = (await session.fetch("task_runs_begun_in", flow_run_id=flow_run_id))[0][0]
    counts = {state: int(n) for state, n in await session.fetch("task_runs_not_completed_in", flow_run_id=flow_run_id)}
    completed = begun - sum(counts.values())
    counts["PENDING"] = counts.get("PENDING", 0) + max(0, submitted - begun)
    counts["COMPLETED"] = max(0, completed)
    return {state: n for state, n in sorted(counts.items()) if n}


def _without(gap: _Gap, keys: Sequence[int]) -> list[_Gap]:
    """What is left of a gap once these keys have come."""
    left: list[_Gap] = []
    first = gap.first
    for key in sorted(keys):
        if key > first:
            left.append(_Gap(first, key - 1, gap.until))
        first = key + 1
    if first <= gap.last:
        left.append(_Gap(first, gap.last, gap.until))
    return left


_ENDLESS: Final = 2**62
