"""Changes reach those who listen, once each, whoever has made them; who was away gets what was missed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.runtime.server.serving import (
    PATIENCE_SECONDS,
    asking,
    eventually,
    maker,
    opened,
    server_process,
    settings_of,
)

from upwell.core.errors import InvalidRequestError
from upwell.journal import changes as followed
from upwell.journal.changes import LOGS, STATES, Changes
from upwell.journal.database import Database, StoreUnavailable
from upwell.journal.migrations import migrate
from upwell.journal.postgres import PostgresDatabase
from upwell.journal.read_pool import ReadPool
from upwell.server import hub as hubs
from upwell.server.hub import Change, Hub

RUN, OTHER = "01a2002d-6a01-7143-816b-ca90af17019f", "01a2002d-6a01-7143-816b-ca90af170200"


@asynccontextmanager
async def store_and_hub(folder: Path) -> AsyncGenerator[tuple[Database, Hub]]:
    """A store to write to, and a hub that looks at it over connections of its own."""
    make = maker(settings_of(folder))
    database: Database = make(read_only=False)
    await database.open()
    pool = ReadPool(lambda: make(read_only=True))
    hub = Hub(lambda: make(read_only=True), pool)
    try:
        await migrate(database)
        for run in (RUN, OTHER):
            await database.fetch_text(
                "INSERT INTO flow_runs (id, flow, name, state, created, run_count, root_flow_run_id) "
                "VALUES (:id, 'f', 'quick-fox', 'RUNNING', 0, 1, :id)",
                id=run,
            )
        yield database, hub
    finally:
        await hub.close()
        await pool.close()
        await database.close()


async def log(database: Database, *messages: str, run: str = RUN) -> None:
    now = int(time.time() * 1e6)  # what is old a server removes
    rows = [(run, None, now, 20, "upwell.flow_runs", message) for message in messages]
    await database.insert("put_logs", rows)


async def enter(database: Database, *states: str, run: str = RUN) -> None:
    await database.insert("put_flow_run_states", [(run, 0, state, None, None) for state in states])


async def take(changes: AsyncIterator[Change], number: int) -> list[Change]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return [await anext(changes) for _ in range(number)]


def messages(changes: Sequence[Change]) -> list[str]:
    decoded: list[dict[str, Any]] = [msgspec.json.decode(change.data) for change in changes]
    return [data.get("message") or data.get("state_type") or "" for data in decoded]


def test_a_change_is_told_to_those_who_want_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_and_hub(tmp_path) as (database, hub), hub.listen() as all_states:
            async with hub.listen(OTHER, logs=True) as other, hub.listen(logs=True) as everything:
                await enter(database, "RUNNING")
                await log(database, "of the one")
                await log(database, "of the other", run=OTHER)
                await enter(database, "COMPLETED", run=OTHER)
                assert messages(await take(all_states, 2)) == ["RUNNING", "COMPLETED"]
                told = await take(everything, 4)
                assert sorted(messages(told)) == ["COMPLETED", "RUNNING", "of the one", "of the other"]
                told = [change for change in await take(other, 3) if change.event != "task-runs"]
                assert sorted(messages(told)) == ["COMPLETED", "of the other"]
            assert hub.listeners == 1

    asyncio.run(main())


def test_a_change_is_told_by_the_next_look_at_the_latest_and_one_is_taken_several_times_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Changes] = []
    is_changed = Changes.is_changed

    async def counted(self: Changes) -> bool:
        looks.append(self)
        return await is_changed(self)

    async def main() -> None:
        async with store_and_hub(tmp_path) as (database, hub), hub.listen(logs=True) as changes:
            for number in range(5):
                await log(database, str(number))
                looks.clear()
                await take(changes, 1)
                assert len(looks) <= 1
        assert hubs.LOOK_SECONDS < 0.5

    monkeypatch.setattr(Changes, "is_changed", counted)
    asyncio.run(main())


def test_more_than_one_look_takes_in_is_told_without_waiting_for_another_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed, "PAGE_ROWS", 3)

    async def main() -> None:
        async with store_and_hub(tmp_path) as (database, hub), hub.listen(logs=True) as changes:
            await log(database, *map(str, range(10)))
            assert messages(await take(changes, 10)) == [str(number) for number in range(10)]

    asyncio.run(main())


def test_who_comes_while_lines_are_skipped_that_nobody_wanted_misses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last_keys, comes, may_go_on = Changes.last_keys, asyncio.Event(), asyncio.Event()

    async def slow_last_keys(self: Changes) -> tuple[int, int]:
        found = await last_keys(self)
        if found[1]:
            comes.set()
            await may_go_on.wait()
        return found

    async def main() -> None:
        async with store_and_hub(tmp_path) as (database, hub), hub.listen():
            monkeypatch.setattr(Changes, "last_keys", slow_last_keys)
            await log(database, "before anybody came")
            await comes.wait()
            async with hub.listen(logs=True, after="0-0") as changes:
                may_go_on.set()
                assert messages(await take(changes, 1)) == ["before anybody came"]

    asyncio.run(main())


def test_nobody_looks_while_nobody_listens(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_and_hub(tmp_path) as (_, hub):
            async with hub.listen():
                assert [task.get_name() for task in asyncio.all_tasks()].count("upwell hub") == 1
            assert [task.get_name() for task in asyncio.all_tasks()].count("upwell hub") == 0

    asyncio.run(main())


def test_who_comes_again_gets_what_was_missed_and_nothing_twice(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_and_hub(tmp_path) as (database, hub):
            async with hub.listen(RUN, logs=True) as changes:
                await log(database, *map(str, range(5)))
                told = [change for change in await take(changes, 6) if change.event == "log"]
            last = told[2].id
            await log(database, "missed")
            async with hub.listen(RUN, logs=True, after=last) as changes:
                await log(database, "new")
                after = [change for change in await take(changes, 5) if change.event == "log"]
                assert messages(after) == ["3", "4", "missed", "new"]

    asyncio.run(main())


def test_who_missed_too_much_is_told_to_look_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "MOST_REPLAYED", 10)

    async def main() -> None:
        async with store_and_hub(tmp_path) as (database, hub):
            await log(database, *map(str, range(11)))
            async with hub.listen(logs=True, after="0-0") as changes:
                assert (await take(changes, 1))[0].event == "reset"
                await log(database, "new")
                assert messages(await take(changes, 1)) == ["new"]

    asyncio.run(main())


def test_who_cannot_keep_up_is_let_go_and_the_others_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "MOST_WAITING", 10)

    async def main() -> None:
        store = store_and_hub(tmp_path)
        async with store as (database, hub), hub.listen(logs=True) as slow, hub.listen() as other:
            await log(database, *map(str, range(20)))
            await enter(database, "RUNNING")
            assert messages(await take(other, 1)) == ["RUNNING"]
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert len([change async for change in slow]) <= 10

    asyncio.run(main())


def test_the_task_runs_of_a_flow_run_are_counted(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_and_hub(tmp_path) as (database, hub), hub.listen(RUN) as changes:
            assert msgspec.json.decode((await take(changes, 1))[0].data)["states"] == {}
            await database.fetch_text(
                "INSERT INTO series (key, base, task, flow_run_id, created, submitted, process_id) "
                "VALUES (1, '0', 't', :run, 0, 5, 'p')",
                run=RUN,
            )
            for number, state in enumerate(("COMPLETED", "COMPLETED", "FAILED")):
                await database.fetch_text(
                    "INSERT INTO task_runs (series, number, created, state, run_count) VALUES (1, :n, 0, :state, 1)",
                    n=number,
                    state=state,
                )
            states: dict[str, int] = {}
            while states != {"COMPLETED": 2, "FAILED": 1, "PENDING": 2}:
                states = msgspec.json.decode((await take(changes, 1))[0].data)["states"]

    asyncio.run(main())


@pytest.mark.parametrize("after", ["", "x", "1", "1-", "-1", "1-2-3", "١-١", "1" * 50 + "-1", "9" * 19 + "-1"])
def test_what_is_no_id_is_refused(tmp_path: Path, after: str) -> None:
    async def main() -> None:
        async with store_and_hub(tmp_path) as (_, hub):
            with pytest.raises(InvalidRequestError):
                async with hub.listen(after=after):
                    pass

    asyncio.run(main())


def test_a_store_that_goes_away_is_looked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "AGAIN_SECONDS", 0.05)

    async def main() -> None:
        async with store_and_hub(tmp_path) as (database, hub), hub.listen(logs=True) as changes:
            looking = Changes.is_changed
            failures = 0

            async def fails(self: Changes) -> bool:
                nonlocal failures
                failures += 1
                raise StoreUnavailable("away")

            monkeypatch.setattr(Changes, "is_changed", fails)
            await eventually(lambda: failures >= 2)
            await log(database, "meanwhile")
            monkeypatch.setattr(Changes, "is_changed", looking)
            assert messages(await take(changes, 1)) == ["meanwhile"]

    asyncio.run(main())


def test_rows_that_become_visible_late_are_told_too(postgres_url: str) -> None:
    async def main() -> None:
        first, second, looking = (PostgresDatabase(postgres_url) for _ in range(3))
        for database in (first, second, looking):
            await database.open()
        try:
            await migrate(first)
            changes = Changes(looking)
            tail = changes.tail(LOGS, 0)
            async with first.transaction() as one:
                await one.insert("put_logs", [(RUN, None, 0, 20, "l", f"early {n}") for n in range(3)])
                async with second.transaction() as other:
                    await other.insert("put_logs", [(RUN, None, 0, 20, "l", "between")])
                    await one.insert("put_logs", [(RUN, None, 0, 20, "l", "last")])
                rows = await changes.new_rows(tail, 0.0)
                assert [row[6] for row in rows] == ["between"]
                assert tail.settled == 0
            rows = await changes.new_rows(tail, 1.0)
            assert sorted(row[6] for row in rows) == ["early 0", "early 1", "early 2", "last"]
            assert await changes.new_rows(tail, 2.0) == []
            assert tail.settled == tail.last == 5
            with pytest.raises(RuntimeError):
                await write_and_roll_back(first)
            await log(first, "after")
            assert [row[6] for row in await changes.new_rows(tail, 3.0)] == ["after"]
            assert tail.settled == 5
            await changes.new_rows(tail, 100.0)
            assert tail.settled == tail.last == 7
            assert changes.tail(STATES, 3).settled == 3
        finally:
            for database in (first, second, looking):
                await database.close()

    asyncio.run(main())


async def write_and_roll_back(database: Database) -> None:
    async with database.transaction() as session:
        await session.insert("put_logs", [(RUN, None, 0, 20, "l", "rolled back")])
        raise RuntimeError


def test_a_stream_is_refused_before_it_begins_if_it_cannot_be(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as asked:
            answer = await asked.http.get("/api/stream", headers={"Last-Event-ID": "nonsense"})
            assert answer.status_code == 422
            assert (await asked.http.get("/api/stream?flow_run_id=x")).status_code in (400, 404)

    asyncio.run(main())


def test_a_browser_hears_of_what_another_process_writes_and_goes_on_after_a_break(tmp_path: Path) -> None:
    async def write(folder: Path, *lines: str) -> None:
        database: Database = maker(settings_of(folder))(read_only=False)
        await database.open()
        await log(database, *lines)
        await database.close()

    with server_process(tmp_path) as server:
        first, seen = asyncio.run(listen(server.port, tmp_path, write, "one", None))
        assert seen == ["one"]
        asyncio.run(write(tmp_path, "two"))
        _, seen = asyncio.run(listen(server.port, tmp_path, write, "three", first))
        assert seen == ["two", "three"]
        assert server.end() == 0


def test_who_is_not_known_any_more_hears_nothing_more(tmp_path: Path) -> None:
    async def main(port: int) -> None:
        async with opened(settings_of(tmp_path)) as (parts, _):
            key, secret = await parts.control.create_key("listener", "read")
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            said = f"Host: localhost\r\nAuthorization: Bearer {secret}\r\n"
            writer.write(f"GET /api/stream?logs=true HTTP/1.1\r\n{said}\r\n".encode())
            async with asyncio.timeout(PATIENCE_SECONDS):
                await reader.readuntil(b"hello")
                await log(parts.database, "one")
                await reader.readuntil(b"one")
                await parts.control.revoke_key(key.id)
                heard = b""
                while not reader.at_eof():
                    await log(parts.database, "more")
                    heard += await some(reader)
            writer.close()
            await log(parts.database, "last")
            assert b"last" not in heard

    with server_process(tmp_path) as server:
        asyncio.run(main(server.port))


async def some(reader: asyncio.StreamReader) -> bytes:
    """What comes within a moment."""
    try:
        async with asyncio.timeout(0.1):
            return await reader.read(1 << 16)
    except TimeoutError:
        return b""


async def listen(port: int, folder: Path, write: Any, line: str, after: str | None) -> tuple[str, list[str]]:
    """Listen until this line, which is written meanwhile, has come; the last id, and the lines."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = f"Last-Event-ID: {after}\r\n" if after else ""
    writer.write(f"GET /api/stream?logs=true HTTP/1.1\r\nHost: localhost\r\n{said}\r\n".encode())
    seen, last, wrote = list[str](), "", False
    async with asyncio.timeout(PATIENCE_SECONDS):
        while line not in seen:
            text = (await reader.readline()).decode().strip()
            if text.startswith(":") and not wrote:
                wrote = True
                await write(folder, line)
            if text.startswith("id: "):
                last = text.removeprefix("id: ")
            if text.startswith("data: "):
                seen.append(msgspec.json.decode(text.removeprefix("data: "))["message"])
    writer.close()
    await writer.wait_closed()
    return last, seen
