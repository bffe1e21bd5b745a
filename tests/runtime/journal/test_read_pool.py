"""Questions to a store side by side: quick ones are answered at once, slow ones hold nobody up."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from upwell.journal.database import StoreSlow
from upwell.journal.migrations import migrate
from upwell.journal.postgres import PostgresDatabase
from upwell.journal.read_pool import ReadPool
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
            slow = [asyncio.ensure_future(pool.fetch_text(SLOW)) for _ in range(2)]
            answered, longest = 0, 0.0
            while not all(task.done() for task in slow):
                began = time.perf_counter()
                assert await pool.fetch_text(QUICK) == [(10,)]
                longest = max(longest, time.perf_counter() - began)
                answered += 1
                await asyncio.sleep(0)
            assert [await task for task in slow] == [[(500_000,)]] * 2
            assert answered > 5
            assert longest < 0.2
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
            for _ in range(5):
                task = asyncio.ensure_future(pool.fetch_text(COUNTS.format(200_000)))
                await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert await pool.fetch_text(COUNTS.format(100_000)) == [(100_000,)]
        finally:
            await pool.close()

    asyncio.run(main())


def test_a_server_is_asked_over_several_connections(postgres_url: str) -> None:
    async def main() -> None:
        pool = ReadPool(lambda: PostgresDatabase(postgres_url))
        try:
            began = time.monotonic()
            await asyncio.gather(*(pool.fetch_text("SELECT pg_sleep(1)") for _ in range(3)))
            assert time.monotonic() - began < 2.9, "one after the other"
        finally:
            await pool.close()

    asyncio.run(main())
