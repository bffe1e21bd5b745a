"""What every database behind the store must do, as a suite: subclass it, and say how one is made.

    class TestMyDatabase(DatabaseConformance):
        def make_database(self):
            return MyDatabase(self.url)

Each test must find a database that is empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final

from upwell.journal.database import Database, Row, Session, StoreUnavailable
from upwell.journal.sql import BulkInsert, Dialect, bulk_insert_of, in_words_of, schema_in_words_of
from upwell.testing.cancellation import cancel_everywhere

SHORT_SECONDS: Final = 0.1
"""How long is looked whether something that must wait goes on."""

SIZES: Final = (0, 1, 2, 1023, 1024, 1025, 5000, 10_001)
"""Of inserts; databases cut large ones into pieces."""

_TABLES: Final = (
    "CREATE TABLE kinds (place INTEGER PRIMARY KEY, whole INTEGER, words TEXT, raw BLOB, real REAL)",
    "CREATE TABLE tallies (a INTEGER NOT NULL, b TEXT NOT NULL, state TEXT NOT NULL, seen INTEGER, PRIMARY KEY (a, b))",
)
_KINDS: Final = {"place": "INTEGER", "whole": "INTEGER", "words": "TEXT", "raw": "BLOB", "real": "REAL"}
_TALLIES: Final = {"a": "INTEGER", "b": "TEXT", "state": "TEXT", "seen": "INTEGER"}
_PUT_KINDS: Final = "INSERT INTO kinds (place, whole, words, raw, real) VALUES :rows(place, whole, words, raw, real)"
_PUT_WHOLES: Final = "INSERT INTO kinds (words, whole, real) VALUES :rows('it''s, said', whole, 0.5)"
_PUT_TALLIES: Final = "INSERT INTO tallies (a, b, state, seen) VALUES :rows(a, b, 'new', 1)"
_COUNT_TALLIES: Final = (
    f"{_PUT_TALLIES} ON CONFLICT (a, b) DO UPDATE SET state = 'again', seen = tallies.seen + excluded.seen"
)
_FIRST_TALLIES: Final = _PUT_TALLIES.replace("INSERT", "INSERT OR IGNORE")
_ALL_TALLIES: Final = "SELECT a, b, state, seen FROM tallies ORDER BY a, b"
_COUNT: Final = "SELECT count(*) FROM tallies"

_VALUES: Final[tuple[Row, ...]] = (
    (1, 0, "", b"", 0.0),
    (2, None, None, None, None),
    (3, 2**63 - 1, "Grüße, 你好, \U0001f600", bytes(range(256)), 1e308),
    (4, -(2**63), "a\tb\r\nc", b"\x00", -0.1),
    (5, 1, "'; DROP TABLE kinds; --", b"\xff" * 100_000, float("inf")),
    (6, -1, ":name ? $1 %s", b"text", 5e-324),
    (7, 1_700_000_000_000_000, "x" * 100_000, b"\x00\xff", 0.1 + 0.2),
)


class DatabaseConformance:
    """The promises of a database, a test each."""

    def make_database(self) -> Database:
        """A database that is not open yet; what is made again in the same test is another access to the same one."""
        raise NotImplementedError("say how a database is made: def make_database(self): return MyDatabase()")

    # --- values and rows ----------------------------------------------------------------------------------

    def test_values_come_back_as_they_went_in(self) -> None:
        async def body(database: Database) -> None:
            await database.insert(_bulk(database, _PUT_KINDS), _VALUES)
            rows = await database.fetch_text("SELECT place, whole, words, raw, real FROM kinds ORDER BY place")
            assert _typed(rows) == _typed(_VALUES)
            for place, whole, words, raw, real in _VALUES:
                found = await database.fetch_text(
                    "SELECT CAST(:whole AS INTEGER), CAST(:words AS TEXT), CAST(:raw AS BLOB), CAST(:real AS REAL)"
                    " FROM kinds WHERE place = :place",
                    place=place,
                    whole=whole,
                    words=words,
                    raw=raw,
                    real=real,
                )
                assert _typed(found) == _typed([(whole, words, raw, real)])

        self._run(body)

    def test_sums_of_integers_and_truth_values_are_integers(self) -> None:
        async def body(database: Database) -> None:
            await database.insert(_bulk(database, _PUT_WHOLES), [(n,) for n in (1, 2, 4)])
            found = await database.fetch_text(
                "SELECT sum(whole), count(*), max(whole), whole > 100 AS large, avg(real), sum(real), length(words)"
                " FROM kinds WHERE whole < :limit GROUP BY whole > 100, length(words)",
                limit=100,
            )
            assert _typed(found) == _typed([(7, 3, 4, 0, 0.5, 1.5, 10)])
            rows = await database.fetch_text("SELECT EXISTS (SELECT 1 FROM kinds), 1 = 2")
            assert _typed(rows) == _typed([(1, 0)])

        self._run(body)

    def test_text_that_cannot_be_stored_loses_those_characters_only(self) -> None:
        async def body(database: Database) -> None:
            nul = "\ufffd" if database.dialect is Dialect.POSTGRES else "\0"
            words = ["ok", "a file \udcff", "half \ud83d of it", "zero \0 byte", "Grüße \udc80 你好"]
            expected = ["ok", "a file \ufffd", "half \ufffd of it", f"zero {nul} byte", "Grüße \ufffd 你好"]
            await database.insert(
                _bulk(database, _PUT_KINDS), [(n, n, word, b"\0", None) for n, word in enumerate(words)]
            )
            rows = await database.fetch_text("SELECT words, raw FROM kinds ORDER BY place")
            assert rows == [(word, b"\0") for word in expected]
            for word, wanted in zip(words, expected, strict=True):
                assert await database.fetch_text("SELECT CAST(:word AS TEXT)", word=word) == [(wanted,)]

        self._run(body)

    def test_rows_come_in_the_order_that_was_asked_for_and_text_is_ordered_by_its_bytes(self) -> None:
        async def body(database: Database) -> None:
            words = ["b", "B", "a", "A", "é", "_", "z", "Z", "aa", "a b", "a-b"]
            await database.insert(_bulk(database, _PUT_TALLIES), [(n, word) for n, word in enumerate(words)])
            rows = await database.fetch_text("SELECT b FROM tallies ORDER BY b DESC")
            assert [word for (word,) in rows] == sorted(words, reverse=True)
            rows = await database.fetch_text(
                "SELECT b FROM tallies WHERE b > :after ORDER BY b LIMIT :n", after="Z", n=3
            )
            assert [word for (word,) in rows] == ["_", "a", "a b"]
            rows = await database.fetch_text("SELECT b FROM tallies WHERE (b, a) <= (:b, :a) ORDER BY b", b="B", a=1)
            assert [word for (word,) in rows] == ["A", "B"]

        self._run(body)

    def test_a_parameter_may_be_used_twice_and_literals_are_left_alone(self) -> None:
        async def body(database: Database) -> None:
            found = await database.fetch_text(
                "SELECT ':n', '12:ab', 'a; -- b', CAST(:n AS INTEGER) + CAST(:other AS INTEGER) * CAST(:n AS INTEGER)",
                n=3,
                other=5,
            )
            assert found == [(":n", "12:ab", "a; -- b", 18)]

        self._run(body)

    def test_lists_go_in_and_out_as_json(self) -> None:
        async def body(database: Database) -> None:
            await database.insert(_bulk(database, _PUT_TALLIES), [(1, '["x","y"]'), (2, '["y","ü"]'), (3, "[]")])
            tagged = (
                "SELECT a FROM tallies WHERE EXISTS (SELECT 1 FROM json_each(tallies.b) WHERE value = :tag) ORDER BY a"
            )
            assert await database.fetch_text(tagged, tag="y") == [(1,), (2,)]
            assert await database.fetch_text(tagged, tag="ü") == [(2,)]
            listed = "SELECT a FROM tallies WHERE a IN (SELECT CAST(value AS INTEGER) FROM json_each(:ids)) ORDER BY a"
            assert await database.fetch_text(listed, ids="[3, 1, 7]") == [(1,), (3,)]

        self._run(body)

    # --- many rows ------------------------------------------------------------------------------------------

    def test_any_number_of_rows_is_inserted_in_their_order(self) -> None:
        async def body(database: Database) -> None:
            for size in SIZES:
                await database.insert(_bulk(database, _PUT_WHOLES), [(n,) for n in range(size)])
                rows = await database.fetch_text("SELECT whole, words, real, raw FROM kinds ORDER BY place")
                assert rows == [(n, "it's, said", 0.5, None) for n in range(size)]
                await database.fetch_text("DELETE FROM kinds")

        self._run(body)

    def test_rows_that_are_there_already_are_updated_or_ignored_as_the_query_says(self) -> None:
        async def body(database: Database) -> None:
            await database.insert(_bulk(database, _PUT_TALLIES), [(1, "x"), (2, "y")])
            await database.insert(_bulk(database, _COUNT_TALLIES), [(2, "y"), (3, "z")])
            assert await database.fetch_text(_ALL_TALLIES) == [
                (1, "x", "new", 1),
                (2, "y", "again", 2),
                (3, "z", "new", 1),
            ]
            await database.insert(_bulk(database, _FIRST_TALLIES), [(1, "x"), (4, "q"), (4, "q")])
            assert (await database.fetch_text(_ALL_TALLIES))[::3] == [(1, "x", "new", 1), (4, "q", "new", 1)]
            ignoring = "INSERT OR IGNORE INTO tallies (a, b, state, seen) VALUES (:a, :b, 'new', 1) RETURNING a"
            assert await database.fetch_text(ignoring, a=1, b="x") == []
            assert await database.fetch_text(ignoring, a=9, b="x") == [(9,)]

        self._run(body)

    def test_an_insert_is_all_or_nothing(self) -> None:
        async def body(database: Database) -> None:
            rows = [(n, "x") for n in range(max(SIZES))]
            await _fails(database.insert(_bulk(database, _PUT_TALLIES), [*rows, rows[0]]))
            assert await database.fetch_text(_COUNT) == [(0,)]

        self._run(body)

    # --- transactions ---------------------------------------------------------------------------------------

    def test_a_transaction_is_kept_when_it_ends_and_undone_when_it_raises(self) -> None:
        async def body(database: Database) -> None:
            async with database.transaction() as session:
                await _put(session, database, 1)
                assert await session.fetch_text(_COUNT) == [(1,)]
            try:
                async with database.transaction() as session:
                    await _put(session, database, 2)
                    await session.fetch_text("UPDATE tallies SET state = 'changed'")
                    raise _OddError
            except _OddError:
                pass
            assert await database.fetch_text(_ALL_TALLIES) == [(1, "x", "new", 1)]

        self._run(body)

    def test_a_schema_change_is_undone_with_its_transaction(self) -> None:
        async def body(database: Database) -> None:
            script = ["CREATE TABLE more (a INTEGER)", "INSERT INTO more (a) VALUES (1)", "ALTER TABLE more ADD b TEXT"]
            try:
                async with database.transaction() as session:
                    await database.execute_script([in_words_of(database.dialect, line) for line in script], session)
                    raise _OddError
            except _OddError:
                pass
            await _fails(database.fetch_text("SELECT a FROM more"))
            async with database.transaction() as session:
                await database.execute_script([in_words_of(database.dialect, line) for line in script], session)
            assert await database.fetch_text("SELECT a, b FROM more") == [(1, None)]

        self._run(body)

    def test_a_mistake_is_not_worth_another_try_and_does_no_harm(self) -> None:
        async def body(database: Database) -> None:
            await _put(database, database, 1)
            await _fails(database.fetch_text("SELECT nothing FROM nowhere"))
            await _fails(database.fetch_text("SELEKT 1"))
            await _fails(_put(database, database, 1))  # its key is taken
            for wrong in ("INSERT INTO tallies (a) VALUES (2)", "SELECT 1 FROM nowhere"):

                async def go_wrong(wrong: str = wrong) -> None:
                    async with database.transaction() as session:
                        await _put(session, database, 2)
                        await session.fetch_text(wrong)

                await _fails(go_wrong())
                assert await database.fetch_text(_COUNT) == [(1,)]
            assert await database.fetch_text("SELECT a FROM tallies WHERE a = :a FOR UPDATE", a=1) == [(1,)]

        self._run(body)

    def test_a_cancelled_transaction_is_undone_and_the_next_one_works(self) -> None:
        async def body(database: Database) -> None:
            inside = asyncio.Event()

            async def never_ends() -> None:
                async with database.transaction() as session:
                    await _put(session, database, 1)
                    inside.set()
                    await asyncio.Event().wait()

            async def busy() -> None:
                async with database.transaction() as session:
                    for number in count(10):
                        await _put(session, database, number)
                        inside.set()
                        await asyncio.sleep(0)  # a database in memory never suspends

            for work in (never_ends, busy):
                inside.clear()
                task = asyncio.create_task(work())
                await inside.wait()
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
                assert await database.fetch_text(_COUNT) == [(0,)]
                async with database.transaction() as session:
                    assert await session.fetch_text(_COUNT) == [(0,)]

        self._run(body)

    def test_wherever_it_is_cancelled_a_transaction_is_whole_and_nothing_is_left_behind(self) -> None:
        numbers = count(1)

        async def scenario() -> None:
            database = self.make_database()
            try:
                await database.open()
                async with database.transaction() as session:
                    number = next(numbers)
                    await session.insert(_bulk(database, _PUT_TALLIES), [(number, "x"), (number, "y")])
                    await session.fetch_text("UPDATE tallies SET seen = 2 WHERE a = :a", a=number)
                await database.fetch_text(_COUNT)
            finally:
                await database.close()

        async def look(database: Database) -> None:
            rows = await database.fetch_text("SELECT a, count(*), sum(seen) FROM tallies GROUP BY a")
            assert all(row[1:] == (2, 4) for row in rows), rows
            await database.fetch_text("DELETE FROM tallies")

        self._run(_nothing)
        keeper = self.make_database()  # of what lives as long as somebody holds it
        cancel_everywhere(
            scenario,
            times=(1, 2),
            check=lambda: self._run(look, with_tables=False),
            loop_factory=asyncio.new_event_loop,
        )
        del keeper

    def test_wherever_a_transaction_is_cancelled_the_next_one_works(self) -> None:
        numbers = count(1)

        async def put_two(database: Database) -> None:
            async with database.transaction() as session:
                number = next(numbers)
                await session.insert(_bulk(database, _PUT_TALLIES), [(number, "x")])
                await session.insert(_bulk(database, _PUT_TALLIES), [(number, "y")])

        async def scenario() -> None:
            database = self.make_database()
            try:
                await database.open()
                try:
                    await put_two(database)
                except asyncio.CancelledError:
                    await put_two(database)
                    rows = await database.fetch_text("SELECT count(*) FROM tallies GROUP BY a")
                    assert set(rows) == {(2,)}
                    raise
            finally:
                await database.close()

        self._run(_nothing)
        keeper = self.make_database()
        cancel_everywhere(scenario, times=(1,), loop_factory=asyncio.new_event_loop)
        del keeper

    # --- several at once --------------------------------------------------------------------------------------

    def test_many_coroutines_may_use_it_at_once(self) -> None:
        async def body(database: Database) -> None:
            async def add(number: int) -> int:
                async with database.transaction() as session:
                    before = await session.fetch_text("SELECT coalesce(max(a), 0) FROM tallies")
                    await _put(session, database, before[0][0] + 1)
                return int((await database.fetch_text("SELECT CAST(:n AS INTEGER)", n=number))[0][0])

            assert await asyncio.gather(*map(add, range(100))) == list(range(100))
            assert await database.fetch_text("SELECT count(*), max(a) FROM tallies") == [(100, 100)]

        self._run(body)

    def test_nobody_sees_half_of_a_transaction(self) -> None:
        async def body(one: Database) -> None:
            async with self._opened() as other:
                async with one.transaction() as session:
                    await _put(session, one, 1)
                    looking = asyncio.create_task(other.fetch_text(_COUNT))
                    await asyncio.wait([looking], timeout=SHORT_SECONDS)
                    await _put(session, one, 2)
                assert await looking in ([(0,)], [(2,)])
                assert await other.fetch_text(_COUNT) == [(2,)]

        self._run(body)

    def test_who_changes_the_same_waits_for_the_other(self) -> None:
        async def body(one: Database) -> None:
            async def count_up(database: Database) -> None:
                async with database.transaction() as session:
                    rows = await session.fetch_text("SELECT seen FROM tallies WHERE a = :a FOR UPDATE", a=1)
                    await session.fetch_text("UPDATE tallies SET seen = :n WHERE a = 1", n=rows[0][0] + 1)

            await _put(one, one, 1)
            async with self._opened() as other:
                async with one.transaction() as session:
                    rows = await session.fetch_text("SELECT seen FROM tallies WHERE a = 1 FOR UPDATE")
                    waiting = asyncio.create_task(count_up(other))
                    await asyncio.wait([waiting], timeout=SHORT_SECONDS)
                    assert not waiting.done()
                    await session.fetch_text("UPDATE tallies SET seen = :n WHERE a = 1", n=rows[0][0] + 1)
                await waiting
                assert await one.fetch_text(_ALL_TALLIES) == [(1, "x", "new", 3)]

        self._run(body)

    # --- open and closed ----------------------------------------------------------------------------------------

    def test_it_may_be_closed_twice_and_opened_again_and_says_so_when_it_is_closed(self) -> None:
        async def body(keeper: Database) -> None:
            database = self.make_database()
            await database.close()
            await _is_closed(database)
            await database.open()
            await _put(database, database, 1)
            await database.close()
            await database.close()
            await _is_closed(database)
            await database.open()
            assert await database.fetch_text(_COUNT) == [(1,)]
            await database.close()

        self._run(body)

    def test_closing_waits_for_an_open_transaction(self) -> None:
        async def body(keeper: Database) -> None:
            database = self.make_database()
            await database.open()
            async with database.transaction() as session:
                await _put(session, database, 1)
                closing = asyncio.create_task(database.close())
                await asyncio.sleep(0)
                await _put(session, database, 2)
            await closing
            assert await keeper.fetch_text(_COUNT) == [(2,)]

        self._run(body)

    # --- how -------------------------------------------------------------------------------------------------------

    def _run(self, body: Callable[[Database], Awaitable[None]], *, with_tables: bool = True) -> None:
        async def main() -> None:
            async with self._opened() as database:
                if with_tables:
                    async with database.transaction() as session:
                        await database.execute_script(
                            [schema_in_words_of(database.dialect, table) for table in _TABLES], session
                        )
                await body(database)

        asyncio.run(main())

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[Database]:
        database = self.make_database()
        await database.open()
        try:
            yield database
        finally:
            await database.close()


class _OddError(Exception):
    """What a transaction is ended with."""


def _bulk(database: Database, text: str) -> BulkInsert:
    return bulk_insert_of(text, _KINDS if "INTO kinds" in text else _TALLIES, database.dialect)


async def _put(session: Session, database: Database, number: int) -> None:
    await session.insert(_bulk(database, _PUT_TALLIES), [(number, "x")])


async def _nothing(_: Database) -> None:
    pass


async def _fails(work: Awaitable[Any]) -> None:
    """It fails, for good."""
    error = await _error_of(work)
    assert error is not None, "it should have failed"
    assert not isinstance(error, StoreUnavailable), f"not worth another try, but: {error!r}"


async def _is_closed(database: Database) -> None:
    for use in (database.fetch_text("SELECT 1"), _put(database, database, 7), database.transaction().__aenter__()):
        error = await _error_of(use)
        assert isinstance(error, StoreUnavailable), f"it is closed, but: {error!r}"
        assert "is closed" in str(error)


async def _error_of(work: Awaitable[Any]) -> Exception | None:
    try:
        await work
    except Exception as error:
        return error
    return None


def _typed(rows: Any) -> list[list[tuple[type, Any]]]:
    return [[(type(value), value) for value in row] for row in rows]


__all__ = ["DatabaseConformance"]
