"""Removes what is old, so that a store does not grow for ever: finished runs, oldest first, and what hangs on them;
then whatever else comes in by itself. What people have set up stays.

One process at a time does it, in steps of a few milliseconds with as long a pause after each, so that neither its own
writer nor those of other processes wait. It may stop after any step: what is left of a run is removed the next time,
for the run itself goes last. Runs that have not finished stay, and durable ones that may be resumed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from upwell.core.errors import ConflictError
from upwell.engine.clock import clock
from upwell.journal.database import Database, Session
from upwell.journal.end_log import logs_beside
from upwell.journal.safe_ends import store_file
from upwell.journal.sql import Dialect
from upwell.journal.sweeping import Sweeper
from upwell.journal.tidying import was_done
from upwell.settings import Settings

CHORE: Final = "retention"
CHORE_SECONDS: Final = 120
"""For so long nobody else takes it over; said anew before it has run out."""

STEP_SECONDS: Final = 0.010
"""A step that takes longer is followed by smaller ones."""

FIRST_STEP: Final = 128
LARGEST_STEP: Final = 1024
SMALLEST_STEP: Final = 8
"""Rows of one kind that a step removes; its transaction holds the write lock."""

SERIES_PAGE: Final = 20_000
FLOW_RUNS_PAGE: Final = 100
TASK_RUNS_ROUND: Final = 10_000
"""About how many runs are removed, where there are too many, before it is looked again."""

FREE_SHARE: Final = 10
"""One in so many pages of a SQLite file may be free, for what comes next; more are given back."""

LEAST_FREE_PAGES: Final = 256
"""So many may be free in any case."""

VACUUM_SECONDS: Final = 10.0
"""For giving pages back, each time: SQLite takes about a millisecond for each."""

DAY_SECONDS: Final = 86_400
_ENDLESS: Final = 2**62


class Limits(NamedTuple):
    """How much is kept; 0 and None are no limit.

    days: since a run was created, or a result was cached that never expires. rows: of task runs. size: of a SQLite
        file, in bytes. audit_days: of the record of changes.
    """

    days: int | None = None
    rows: int | None = None
    size: int | None = None
    audit_days: int | None = None

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Those that are set."""
        return cls(
            settings.retention_days, settings.retention_rows, settings.retention_bytes, settings.retention_audit_days
        )


async def tidy(database: Database, process_id: str, limits: Limits, sweeper: Sweeper | None = None) -> int:
    """Remove what exceeds the limits, if no other process is at it; how many rows of runs were removed.

    sweeper: for the files of results that nothing names any more, where they can be reached.
    """
    return await _Tidying(database, process_id).run(limits, sweeper)


async def remove_flow_run(database: Database, flow_run_id: str) -> None:
    """Remove one finished flow run, and those that it has started, with all that belongs to them.

    Raises:
        ConflictError: one of those has not finished.
    """
    tidying = _Tidying(database, "")
    tidying.in_turn = False
    tree = await tidying.tree_of(flow_run_id)
    if not tree:
        raise ConflictError("Another flow run that it has started has not finished, or waits to be resumed.")
    for one in reversed(tree):
        await tidying.remove_flow_run(one)


class _Tidying:
    def __init__(self, database: Database, process_id: str) -> None:
        self._database = database
        self._process_id = process_id
        self._step = FIRST_STEP
        self._chore_until = 0.0
        self.removed = 0
        self.in_turn = True

    async def run(self, limits: Limits, sweeper: Sweeper | None) -> int:
        if not await self._is_ours():
            return 0
        try:
            now = clock().time()
            await self._remove_all("remove_expired_cache_records", before=micros(now))
            await self._remove_all("remove_old_sessions", before=micros(now))
            if limits.days:
                await self._remove_before(micros(now - limits.days * DAY_SECONDS))
            while before := await self._what_is_too_much(limits):
                removed = self.removed
                await self._remove_before(before)
                if removed == self.removed:
                    break  # the rest has not finished
            if limits.audit_days:
                before = micros(now - limits.audit_days * DAY_SECONDS)
                await self._remove_all("remove_old_audit_records", before=before)
            for query in ("remove_old_workers", "remove_ended_processes"):
                await self._remove_all(query, before=micros(now - DAY_SECONDS))
            for query in ("remove_locks_of_nobody", "remove_leases_of_nobody", "remove_safe_ends_of_nobody"):
                await self._remove_all(query)
            await self._in_step(self._remove_logs_of_nobody)
            if sweeper is not None:
                await sweeper.look(self._in_step)
            await self._give_space_back()
            async with self._database.transaction() as session:
                await was_done(session, self._process_id)
        finally:
            async with self._database.transaction() as session:
                await session.fetch("give_up_chore", name=CHORE, process_id=self._process_id)
        return self.removed

    async def _is_ours(self) -> bool:
        now = clock().time()
        until = now + CHORE_SECONDS
        async with self._database.transaction() as session:
            rows = await session.fetch(
                "take_chore", name=CHORE, process_id=self._process_id, until=micros(until), now=micros(now)
            )
        self._chore_until = until
        return bool(rows)

    async def _in_step(self, work: Callable[[Session, int], Awaitable[Any]]) -> Any:
        """One transaction, then a pause; the next one is given fewer rows if it took long, more if it did not."""
        is_old = clock().time() > self._chore_until - CHORE_SECONDS / 2
        if self.in_turn and is_old and not await self._is_ours():
            raise asyncio.CancelledError("another process does it now")
        began = time.monotonic()
        async with self._database.transaction() as session:
            done = await work(session, self._step)
        seconds = time.monotonic() - began
        self._step = self._next_step(self._step, seconds)
        await asyncio.sleep(seconds)
        return done

    async def _remove_all(self, query: str, **parameters: Any) -> None:
        """A query that removes so many rows, again until there are no more."""

        async def some(session: Session, most: int) -> bool:
            return len(await session.fetch(query, most=most, **parameters)) == most

        while await self._in_step(some):
            pass

    async def _remove_logs_of_nobody(self, session: Session, _: int) -> None:
        """Of ends, by processes that are known no more, or are lost: all is in the tables that was in their logs.

        In a transaction, so that no new process gets one of their keys meanwhile.
        """
        path = await store_file(self._database, session)
        logs = {} if path is None else logs_beside(path)
        if logs:
            needed = {key for (key,) in await session.fetch("processes_not_lost")}
            for key in logs.keys() - needed:
                logs[key].unlink(missing_ok=True)

    async def _ask_in_step(self, query: str, **parameters: Any) -> None:
        await self._in_step(lambda session, _: session.fetch(query, **parameters))

    # --- how much there is ----------------------------------------------------------------------------------

    async def _what_is_too_much(self, limits: Limits) -> int:
        """The time before which runs are to be removed now, a round of many; 0 if there is not too much."""
        too_many = await self._task_runs() - limits.rows if limits.rows else 0
        too_large = await self._size() - limits.size if limits.size else 0
        if too_many <= 0 and too_large <= 0:
            return 0
        place = TASK_RUNS_ROUND if too_large > 0 else min(too_many, TASK_RUNS_ROUND)
        found = await self._database.fetch("created_of_task_run_at", place=place - 1)
        found += await self._database.fetch("created_of_flow_run_at", place=FLOW_RUNS_PAGE - 1)
        return min(int(row[0]) for row in found) + 1 if found else micros(clock().time())

    async def _task_runs(self) -> int:
        """Those of which anything may be stored; a part of the series at a time, for there may be many."""
        total, after = 0, 0
        while True:
            submitted, last = (await self._database.fetch("task_runs_submitted", after=after, most=SERIES_PAGE))[0]
            if last is None:
                return total
            total, after = total + int(submitted), int(last)

    async def _size(self) -> int:
        """Of what is in use in a SQLite file; other databases see to theirs themselves."""
        if self._database.dialect is not Dialect.SQLITE:
            return 0
        return (await self._pragma("page_count") - await self._pragma("freelist_count")) * await self._pragma(
            "page_size"
        )

    async def _pragma(self, name: str) -> int:
        return int((await self._database.fetch_text(f"PRAGMA {name}"))[0][0])

    # --- removing -------------------------------------------------------------------------------------------

    async def _remove_before(self, before: int) -> None:
        """Remove finished runs that were created before."""
        last: tuple[int, str] = (-1, "")
        while found := await self._database.fetch(
            "old_flow_runs", created=last[0], id=last[1], before=before, most=FLOW_RUNS_PAGE
        ):
            for flow_run_id, created in found:
                last = (int(created), str(flow_run_id))
                for one in reversed(await self.tree_of(last[1])):
                    await self.remove_flow_run(one)
        await self._remove_outside(before)
        await self._remove_logs_outside(before)
        for query in ("remove_old_cache_records", "remove_old_events", "remove_old_artifacts"):
            await self._remove_all(query, before=before)

    async def tree_of(self, flow_run_id: str) -> list[str]:
        """A flow run and those that it has started, parents first; none if one of them is to be kept."""
        tree = [flow_run_id]
        for one in tree:  # which grows
            for child, is_kept in await self._database.fetch("flow_runs_under", id=one):
                if is_kept:
                    return []
                tree.append(str(child))
        return tree

    async def remove_flow_run(self, flow_run_id: str) -> None:
        for series, submitted in await self._database.fetch("series_to_remove", flow_run_id=flow_run_id):
            await self._remove_numbers(int(series), 0, int(submitted))
            await self._ask_in_step("remove_series", key=series)
        await self._remove_all("remove_logs_of_flow_run", flow_run_id=flow_run_id)

        async def itself(session: Session, _: int) -> None:
            await session.fetch("remove_durable_calls", flow_run_id=flow_run_id)
            await session.fetch("remove_flow_run_states", id=flow_run_id)
            await session.fetch("remove_job", flow_run_id=flow_run_id)
            await session.fetch("remove_cancel_request", flow_run_id=flow_run_id)
            await session.fetch("remove_flow_run", id=flow_run_id)

        await self._in_step(itself)
        self.removed += 1

    async def _remove_numbers(self, series: int, first: int, end: int) -> None:
        """Remove the task runs of a series with these numbers, and what hangs on them."""

        async def some(session: Session, most: int) -> int:
            some: dict[str, int] = {"series": series, "first": first, "last": min(first + most, end) - 1}
            for query in ("remove_task_run_results", "remove_edges", "remove_task_run_states", "remove_task_runs"):
                await session.fetch(query, **some)
            return some["last"] + 1

        while first < end:
            before = first
            first = await self._in_step(some)
            self.removed += first - before

    async def _remove_outside(self, before: int) -> None:
        """Task runs outside of flows: the oldest of each series, whose numbers are in the order of their time."""
        after = -1
        while found := await self._database.fetch("series_outside", after=after, most=FLOW_RUNS_PAGE):
            for (series,) in found:
                after = int(series)
                first = 0
                while numbers := await self._database.fetch(
                    "numbers_of_series", series=after, first=first, most=LARGEST_STEP
                ):
                    old = [int(number) for number, created in numbers if created < before]
                    if old:
                        await self._remove_numbers(after, old[0], old[-1] + 1)
                    if len(old) < len(numbers):
                        break
                    first = old[-1] + 1
                else:
                    await self._ask_in_step("remove_empty_series", key=after)

    async def _remove_logs_outside(self, before: int) -> None:
        after = 0

        async def some(session: Session, most: int) -> int | None:
            found = await session.fetch("log_at", after=after, place=most - 1)
            last = int(found[0][0]) if found else _ENDLESS
            await session.fetch("remove_logs_outside", after=after, last=last, before=before)
            return last if found and found[0][1] < before else None

        while (last := await self._in_step(some)) is not None:
            after = last

    async def _give_space_back(self) -> None:
        """Make a SQLite file smaller by what is free in it; some is left for what comes next."""
        if self._database.dialect is not Dialect.SQLITE:
            return
        step, until = SMALLEST_STEP, time.monotonic() + VACUUM_SECONDS
        free, pages = await self._pragma("freelist_count"), await self._pragma("page_count")
        while free > max(pages // FREE_SHARE, LEAST_FREE_PAGES) and time.monotonic() < until:
            began = time.monotonic()
            await self._database.fetch_text(f"PRAGMA incremental_vacuum({step})")
            seconds = time.monotonic() - began
            step = self._next_step(step, seconds)
            await asyncio.sleep(seconds)
            before, free = free, await self._pragma("freelist_count")
            if free >= before:
                break  # a file that was made without auto_vacuum

    @staticmethod
    def _next_step(step: int, seconds: float) -> int:
        if seconds > STEP_SECONDS:
            return max(step // 2, SMALLEST_STEP)
        return min(step * 2, LARGEST_STEP) if seconds < STEP_SECONDS / 4 else step


def micros(seconds: float) -> int:
    """Seconds since the epoch as the store has them."""
    return int(seconds * 1e6)
