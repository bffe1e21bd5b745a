"""Questions to a store side by side: quick ones are answered at once, slow ones hold nobody up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from upwell.journal.database import StoreSlow
from upwell.journal.migrations import migrate
from upwell.journal.postgres import PostgresDatabase
from upwell.journal.read_pool import SLOW_BY_NATURE, SLOW_FOR_SECONDS, ReadPool, SlowQuestions
from upwell.journal.sqlite import SqliteDatabase

COUNTS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT count(*) FROM n"
SLOW = COUNTS.format(500_000)
QUICK = COUNTS.format(10)


async def made(path: Path) -> ReadPool:
    database = SqliteDatabase(path)
    await database.open()
    await migrate(database)
    await database.close()
    return ReadPool(lambda: SqliteDatabase(path, read_only=True))


def test_a_slow_question_holds_up_neither_the_loop_nor_others(tmp_path: Path) -> None:
    async def main() -> None:
        pool = await made(tmp_path / "store.db")
        try:
            assert await pool.fetch_text(QUICK) == [(10,)]
            answered = 0
            while answered <= 5:  # they may be done soon: then there is another round
                slow = [asyncio.ensure_future(pool.fetch_text(SLOW)) for _ in range(2)]
                while not all(task.done() for task in slow):
                    assert await pool.fetch_text(QUICK) == [(10,)]
                    answered += not any(task.done() for task in slow)
                    await asyncio.sleep(0)
                assert [await task for task in slow] == [[(500_000,)]] * 2
        finally:
            await pool.close()

    asyncio.run(main())


def test_a_bounded_connection_gives_up_and_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        pool = await made(tmp_path / "store.db")
        await pool.close()
        bounded = SqliteDatabase(tmp_path / "store.db", read_only=True, most_seconds=0.005)
        await bounded.open()
        try:
            for _ in range(3):
                with pytest.raises(StoreSlow):
                    await bounded.fetch_text(SLOW)
                assert await bounded.fetch_text(QUICK) == [(10,)]
        finally:
            await bounded.close()

    asyncio.run(main())


class Times:
    """Clocks that somebody sets."""

    def __init__(self, of_a_processor: float, of_the_wall: float) -> None:
        self._steps = of_a_processor, of_the_wall
        self._now = [0.0, 0.0]

    def thread_time(self) -> float:
        return self._look(0)

    def monotonic(self) -> float:
        return self._look(1)

    def _look(self, clock: int) -> float:
        self._now[clock] += self._steps[clock]
        return self._now[clock]


@pytest.mark.parametrize(
    ("times", "is_slow"),
    [
        (Times(0.002, 0.0), True),  # it works for long
        (Times(0.0, 0.01), True),  # it waits for long, as for a disk
        (Times(0.0, 0.000_001), False),  # others have the processor meanwhile
    ],
)
def test_what_counts_is_what_a_question_has_of_a_processor_and_that_it_does_not_wait_for_very_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: Times, is_slow: bool
) -> None:
    async def main() -> None:
        pool = await made(tmp_path / "store.db")
        await pool.close()
        bounded = SqliteDatabase(tmp_path / "store.db", read_only=True, most_seconds=0.005)
        await bounded.open()
        monkeypatch.setattr("upwell.journal.sqlite.time", times)
        try:
            if is_slow:
                with pytest.raises(StoreSlow):
                    await bounded.fetch_text(COUNTS.format(10_000))
            else:
                assert await bounded.fetch_text(COUNTS.format(10_000)) == [(10_000,)]
        finally:
            monkeypatch.undo()
            await bounded.close()

    asyncio.run(main())


def test_a_slow_question_is_known_by_its_values_for_a_while() -> None:
    slow = SlowQuestions()
    slow.note("runs", {"of": 1}, now=10.0)
    assert slow.is_known("runs", {"of": 1}, now=11.0)
    assert not slow.is_known("runs", {"of": 2}, now=11.0)
    assert not slow.is_known("others", {"of": 1}, now=11.0)
    assert not slow.is_known("runs", {"of": 1}, now=10.0 + SLOW_FOR_SECONDS)


def test_a_question_that_is_slow_with_many_values_is_slow_with_any() -> None:
    slow = SlowQuestions()
    for number in range(SLOW_BY_NATURE):
        assert not slow.is_known("runs", {"of": "another"}, now=10.0)
        slow.note("runs", {"of": number}, now=10.0)
    assert slow.is_known("runs", {"of": "another"}, now=10.5)
    assert not slow.is_known("others", {"of": 1}, now=10.5)
    for number in range(SLOW_BY_NATURE):  # now and then is not often
        now = 20.0 + 2 * SLOW_FOR_SECONDS * number
        slow.note("runs", {"of": number}, now)
        assert not slow.is_known("runs", {"of": "another"}, now)


def test_a_pool_that_was_closed_opens_again(tmp_path: Path) -> None:
    async def main() -> None:
        pool = await made(tmp_path / "store.db")
        for _ in range(2):
            assert await pool.fetch_text(QUICK) == [(10,)]
            await pool.close()
            await pool.close()

    asyncio.run(main())


def test_questions_that_are_given_up_leave_their_connection_free(tmp_path: Path) -> None:
    async def main() -> None:
        pool = await made(tmp_path / "store.db")
        try:
            given_up = 0
            while given_up < 5:
                task = asyncio.ensure_future(pool.fetch_text(COUNTS.format(200_000)))
                await asyncio.sleep(0.01)
                if task.cancel():  # else it has its answer already
                    given_up += 1
                    with pytest.raises(asyncio.CancelledError):
                        await task
            assert await pool.fetch_text(COUNTS.format(100_000)) == [(100_000,)]
        finally:
            await pool.close()

    asyncio.run(main())


def test_a_server_is_asked_over_several_connections(postgres_url: str) -> None:
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

    async def main() -> None:
        pool, beside = ReadPool(lambda: PostgresDatabase(postgres_url)), PostgresDatabase(postgres_url)
        await beside.open()
        try:
            async with beside.transaction() as session:
                await session.fetch_text("SELECT pg_advisory_xact_lock(1)::text")
                waits = "SELECT pg_advisory_xact_lock_shared(1)::text || pg_backend_pid()"
                asked = [asyncio.ensure_future(pool.fetch_text(waits)) for _ in range(3)]
                while await session.fetch_text(held) != [(3,)]:
                    await asyncio.sleep(0.01)
            assert len({text for ((text,),) in await asyncio.gather(*asked)}) == 3
        finally:
            await pool.close()
            await beside.close()

    asyncio.run(main())
