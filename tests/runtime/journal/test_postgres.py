"""PostgreSQL as the store: what is lost comes back, and what is wrong is said."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import asyncpg
import pytest
from tests.postgres import NoPostgres, PostgresServer, postgres_server

from upwell.core.errors import ConfigurationError, MissingExtraError
from upwell.journal import postgres as module
from upwell.journal.database import Session, StoreUnavailable
from upwell.journal.postgres import PostgresDatabase
from upwell.journal.sql import bulk_insert_of

KILL = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'upwell'"
COUNT = "SELECT count(*) FROM numbers"


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[PostgresDatabase]:
    database = PostgresDatabase(url)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def with_numbers(url: str) -> AsyncGenerator[PostgresDatabase]:
    async with opened(url) as database:
        await database.fetch_text("CREATE TABLE numbers (n BIGINT PRIMARY KEY, times BIGINT NOT NULL DEFAULT 0)")
        yield database


async def put(session: Session, n: int) -> None:
    await session.fetch_text("INSERT INTO numbers (n) VALUES (:n)", n=n)


def kill_connections(server: PostgresServer) -> None:
    """End all connections of upwell, as an administrator does; the loop does not get to notice."""
    thread = Thread(target=lambda: asyncio.run(server.execute(KILL)))
    thread.start()
    thread.join()


@contextmanager
def silent_server() -> Generator[int]:
    """A port where somebody listens who never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


# --- lost connections -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("noticed", [True, False])
def test_a_lost_connection_is_made_anew_by_the_next_use(
    postgres: PostgresServer, postgres_url: str, noticed: bool
) -> None:
    async def main() -> None:
        async with with_numbers(postgres_url) as database:
            kill_connections(postgres)
            if noticed:
                while not database._connection.is_lost():  # type: ignore[union-attr]  # pyright: ignore
                    await asyncio.sleep(0)
            else:
                with pytest.raises(StoreUnavailable, match="cannot be used: "):
                    await database.fetch_text(COUNT)
            await put(database, 1)
            assert await database.fetch_text(COUNT) == [(1,)]

    asyncio.run(main())


def test_a_transaction_that_lost_its_connection_fails_as_a_whole(postgres: PostgresServer, postgres_url: str) -> None:
    async def main() -> None:
        async with with_numbers(postgres_url) as database:
            with pytest.raises(StoreUnavailable):  # noqa: PT012  # its end fails
                async with database.transaction() as session:
                    await put(session, 1)
                    kill_connections(postgres)
                    with pytest.raises(StoreUnavailable):
                        await put(session, 2)
                    with pytest.raises(StoreUnavailable):  # not on a new connection, outside of any transaction
                        await put(session, 3)
            assert await database.fetch_text(COUNT) == [(0,)]
            async with database.transaction() as session:
                await put(session, 1)
            assert await database.fetch_text(COUNT) == [(1,)]

    asyncio.run(main())


def test_a_server_that_crashes_and_comes_back_is_used_again() -> None:
    with postgres_server() as server, server.database() as url:

        async def main() -> None:
            async with with_numbers(url) as database:
                await put(database, 1)
                await asyncio.to_thread(server.stop)
                for _ in range(3):
                    with pytest.raises(StoreUnavailable, match="cannot be used"):
                        await put(database, 2)
                await asyncio.to_thread(server.restart)
                await put(database, 2)
                assert await database.fetch_text(COUNT) == [(2,)], "what was committed is there"

        asyncio.run(main())


# --- errors ---------------------------------------------------------------------------------------------------


def test_a_deadlock_is_worth_another_try(postgres_url: str) -> None:
    async def main() -> None:
        async with with_numbers(postgres_url) as one, opened(postgres_url) as other:
            await put(one, 1)
            await put(one, 2)
            both_hold = asyncio.Barrier(2)

            async def count_up(database: PostgresDatabase, first: int, second: int) -> None:
                async with database.transaction() as session:
                    await session.fetch_text("SET LOCAL deadlock_timeout = '10ms'")
                    await session.fetch_text("UPDATE numbers SET times = times + 1 WHERE n = :n", n=first)
                    await both_hold.wait()
                    await session.fetch_text("UPDATE numbers SET times = times + 1 WHERE n = :n", n=second)

            ends = await asyncio.gather(count_up(one, 1, 2), count_up(other, 2, 1), return_exceptions=True)
            (failed,) = [error for error in ends if error is not None]
            assert isinstance(failed, StoreUnavailable)
            assert "deadlock" in str(failed)
            assert await one.fetch_text("SELECT sum(times) FROM numbers") == [(2,)]

    asyncio.run(main())


@pytest.mark.parametrize("code", ["40001", "53100", "53200", "53300", "55P03", "57014", "57P03", "58030", "25006"])
def test_what_passes_is_worth_another_try(postgres_url: str, code: str) -> None:
    async def main() -> None:
        async with opened(postgres_url) as database:
            with pytest.raises(StoreUnavailable, match=r"cannot be used: it happened\."):
                await database.fetch_text(f"DO $$ BEGIN RAISE 'it happened' USING ERRCODE = '{code}'; END $$")
            assert await database.fetch_text("SELECT 1") == [(1,)]

    asyncio.run(main())


def test_a_plan_that_another_process_outdated_is_worth_another_try(postgres_url: str) -> None:
    async def main() -> None:
        async with with_numbers(postgres_url) as database, opened(postgres_url) as other:
            await database.fetch_text("SELECT * FROM numbers")
            with pytest.raises(StoreUnavailable, match="plan"):  # noqa: PT012  # the plan is used inside
                async with database.transaction() as session:
                    await other.fetch_text("ALTER TABLE numbers ADD COLUMN more TEXT")
                    await session.fetch_text("SELECT * FROM numbers")
            await put(database, 1)
            assert await database.fetch_text("SELECT * FROM numbers") == [(1, 0, None)]

    asyncio.run(main())


def test_a_statement_that_is_never_answered_ends_with_its_connection(
    postgres: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        connections: list[Any] = []
        async with with_numbers(postgres_url):
            monkeypatch.setattr(module, "STATEMENT_SECONDS", 0.05)  # of one connection: not even this may be in time
            async with opened(postgres_url) as database:
                with pytest.raises(StoreUnavailable, match="did not answer in time"):  # noqa: PT012  # the wait is inside
                    async with database.transaction() as session:
                        connections += await session.fetch_text("SELECT pg_backend_pid()")
                        await put(session, 1)
                        await session.fetch_text("SELECT pg_sleep(1000)")
                monkeypatch.undo()
                assert await database.fetch_text(COUNT) == [(0,)]
                connections += await database.fetch_text("SELECT pg_backend_pid()")
                assert len(set(connections)) == len(connections)

    asyncio.run(main())


def test_a_commit_that_has_begun_is_not_cancelled(postgres_url: str) -> None:
    async def main() -> None:
        async with with_numbers(postgres_url) as database, opened(postgres_url) as other:
            await database.fetch_text(
                "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql"
                " AS $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$"
            )
            await database.fetch_text(
                "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON numbers DEFERRABLE INITIALLY DEFERRED"
                " FOR EACH ROW EXECUTE FUNCTION slow()"
            )
            written = asyncio.Event()

            async def write() -> None:
                async with database.transaction() as session:
                    await put(session, 1)
                    written.set()

            async with other.transaction() as session:
                await session.fetch_text("SELECT pg_advisory_xact_lock(1)::text")
                task = asyncio.create_task(write())
                await written.wait()
                for _ in range(3):
                    await asyncio.sleep(0.02)
                    task.cancel()
                await asyncio.sleep(0.02)
                assert not task.done()
            await asyncio.wait([task])
            assert task.cancelled()
            assert await database.fetch_text(COUNT) == [(1,)]

    asyncio.run(main())


def test_a_commit_that_fails_raises_and_keeps_nothing(postgres_url: str) -> None:
    async def main() -> None:
        async with with_numbers(postgres_url) as database:
            await database.fetch_text(
                "ALTER TABLE numbers ADD FOREIGN KEY (times) REFERENCES numbers INITIALLY DEFERRED"
            )
            with pytest.raises(asyncpg.ForeignKeyViolationError):
                async with database.transaction() as session:
                    await put(session, 1)
            assert await database.fetch_text(COUNT) == [(0,)]

    asyncio.run(main())


def test_who_is_not_there_does_not_answer_or_refuses_is_said_without_the_password(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as deaf, silent_server() as silent:
        deaf.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else will
        refuses = deaf.getsockname()[1]
        for url, reason in {
            f"postgresql://me:sesame@127.0.0.1:{refuses}/runs": "refused|Connect call failed",
            f"postgresql://me:sesame@127.0.0.1:{silent}/runs": "did not answer in time",
            f"postgresql://me:sesame@/runs?host={tmp_path}": "No such file",
            postgres.url("nowhere"): '"nowhere" does not exist',
            postgres.url("postgres", user="nobody"): '"nobody" does not exist',
        }.items():
            database = PostgresDatabase(url)
            if url.endswith(f":{silent}/runs"):
                monkeypatch.setattr(module, "CONNECT_SECONDS", 0.05)
            else:
                monkeypatch.undo()
            with pytest.raises(StoreUnavailable, match=reason) as caught:
                asyncio.run(database.open())
            assert "sesame" not in str(caught.value) + database.place
            assert database.place in str(caught.value)
            asyncio.run(database.close())


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://me:sesame@db.example:5433/runs", "postgresql://me@db.example:5433/runs"),
        ("postgresql+asyncpg://me:ses%40me@db.example/runs?sslmode=require", "postgresql://me@db.example/runs"),
        ("postgres:///runs?host=/tmp/x&user=me&password=sesame", "postgresql://me@/tmp/x/runs"),
        ("postgresql://db.example", "postgresql://db.example/"),
    ],
)
def test_a_place_is_named_without_secrets(url: str, place: str) -> None:
    assert PostgresDatabase(url).place == place


def test_a_url_that_makes_no_sense_is_a_mistake_in_the_configuration() -> None:
    for url in ("postgresql://me@here:port/runs", "postgresql://me@here/runs?sslmode=perhaps"):
        with pytest.raises(ConfigurationError, match="should be like"):
            asyncio.run(PostgresDatabase(url).open())


def test_without_asyncpg_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'upwell\[postgres\]'"):
        asyncio.run(PostgresDatabase("postgresql://here/runs").open())


def test_a_machine_without_postgres_is_told_apart_from_one_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: Any) -> list[Path]:
        return []

    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(Path, "glob", nothing)
    with pytest.raises(NoPostgres, match="not installed"):
        postgres_server().__enter__()


# --- speed ------------------------------------------------------------------------------------------------------


def test_an_insert_of_many_rows_is_one_statement(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    fetch = asyncpg.Connection.fetch

    async def listening(self: Any, query: str, *values: Any, **options: Any) -> Any:
        said.append(query)
        return await fetch(self, query, *values, **options)

    monkeypatch.setattr(asyncpg.Connection, "fetch", listening)

    async def main() -> None:
        async with with_numbers(postgres_url) as database:
            text = "INSERT INTO numbers (n, times) VALUES :rows(n, 7) ON CONFLICT (n) DO NOTHING"
            insert = bulk_insert_of(text, {"n": "INTEGER", "times": "INTEGER"}, database.dialect)
            said.clear()
            await database.insert(insert, [(n,) for n in range(10_000)])
            assert [line.split()[0] for line in said] == ["BEGIN", "INSERT", "COMMIT"]
            assert await database.fetch_text("SELECT count(*), sum(times) FROM numbers") == [(10_000, 70_000)]

    asyncio.run(main())
