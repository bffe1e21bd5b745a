"""What a server takes from those who write through it: rows of the right shape, and of their own runs alone."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from tests.runtime.journal.conftest import MakeDatabase
from tests.runtime.journal.remote import Remote, batch_of, elsewhere, flow_run_row, serving, uid

from upwell.journal.batch import SERIES_BITS, Batch
from upwell.journal.database import StoreUnavailable
from upwell.journal.migrations import migrate
from upwell.journal.processes import Process
from upwell.journal.remote_store import RemoteStore
from upwell.journal.wire import LeftOut, Sender, pack, read_batch, unpacker
from upwell.server.api.journal_operations import OPERATIONS


class Writer:
    """A process with a key of its own."""

    def __init__(self, store: RemoteStore, process: Process, key: int) -> None:
        self.store = store
        self.process = process
        self.key = key
        self.number = 0

    def batch(self, **rows: Any) -> Batch:
        self.number += 1
        return Batch(self.process.id, self.key, self.number, **rows)

    async def write(self, **rows: Any) -> None:
        await self.store.write(self.batch(**rows))


@asynccontextmanager
async def over(make_database: MakeDatabase) -> AsyncGenerator[Remote]:
    """A server over this database."""
    database = make_database()
    await database.open()
    try:
        await migrate(database)
        async with serving(database) as server:
            yield server
    finally:
        await database.close()


@asynccontextmanager
async def two_writers(make_database: MakeDatabase) -> AsyncGenerator[tuple[Remote, Writer, Writer]]:
    """Of whom the first has a flow run, 1, with three task runs."""
    async with over(make_database) as server:
        await server.key("boss", "admin")
        writers: list[Writer] = []
        for number in (1, 2):
            store, process = server.store(await server.key(f"writer-{number}")), elsewhere(number)
            writers.append(Writer(store, process, (await store.open(process)).key))
        one, two = writers
        await one.store.write(batch_of(one.process, one.key, 1))
        one.number = 1
        yield server, one, two


def series_row(key: int, base: int, process: Process, flow_run_id: str | None = None) -> tuple[Any, ...]:
    return key, f"{base:019x}", "a-task", flow_run_id, 15, None, None, 3, process.id


def test_nobody_writes_in_the_name_of_another(make_database: MakeDatabase) -> None:
    async def main() -> None:
        async with two_writers(make_database) as (server, one, two):
            in_its_name = Batch(one.process.id, one.key, 7, logs=[(uid(1), None, 1, 20, "x", "forged")])
            for work in (
                two.store.write(in_its_name),
                two.store.take_over(one.process, in_its_name),
                two.store.renew(one.process),
                two.store.close(one.process),
                two.store.open(one.process),
                two.store.state_of(one.process),
            ):
                with pytest.raises(StoreUnavailable, match="has come in with another key than 'writer-2'"):
                    await work
            assert await server.rows("SELECT count(*) FROM logs WHERE message = 'forged'") == [(0,)]
            assert await server.rows("SELECT state, written FROM processes ORDER BY key") == [
                ("alive", 2 * (1 << 20) - 1), ("alive", 0),
            ]  # fmt: skip

    asyncio.run(main())


def test_rows_about_what_is_another_s_are_left_out(
    make_database: MakeDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with two_writers(make_database) as (server, one, two):
            its_series = (one.key << SERIES_BITS) + 1
            (base,) = (await server.rows("SELECT base FROM series"))[0]
            own = (two.key << SERIES_BITS) + 1
            its_task_run = task_run_id_of(base, 1)
            before = await everything(server)
            forged: list[dict[str, list[Any]]] = [
                {"flow_runs": [flow_run_row(uid(1), two.process.id, "FAILED")]},
                {"flow_runs": [flow_run_row(uid(9), one.process.id)]},
                {"flow_run_states": [(uid(1), 99, "FAILED", None, None)]},
                {"series": [series_row(its_series, int(base, 16), two.process)]},
                {"series": [series_row(own, int(base, 16) + 1, two.process)]},
                {"series": [series_row(own, 1 << 70, two.process, uid(1))]},
                {"series": [series_row(own, 1 << 70, one.process)]},
                {"completed_runs": [(its_series, 1, 1, 1, 1, "forged")]},
                {"task_runs": [(its_series, 5, 1, 1, None, "RUNNING", None, None, 1, None, None, None, None)]},
                {"task_run_states": [(its_series, 1, 1, "FAILED", None, None)]},
                {"edges": [(its_series, 1, its_series, 2, "x")]},
                {"results": [(its_series, 1, b"\x91\x01", None)]},
                {"rolled_back_runs": [(its_series, 1, 1, "COMPLETED", "RolledBack", None, 1)]},
                {"durable_calls": [(uid(1), b"digest", own, 0, 1)]},
                {"logs": [(uid(1), None, 99, 20, "x", "forged")]},
                {"logs": [(None, its_task_run, 99, 20, "x", "forged")]},
            ]
            for rows in forged:
                caplog.clear()
                await two.write(**rows)
                assert "refused 1 record(s)" in caplog.text, rows
                assert await everything(server) == before, rows

    asyncio.run(main())


def test_what_one_goes_on_with_one_may_write_of(make_database: MakeDatabase, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with two_writers(make_database) as (server, one, two):
            its_series = (one.key << SERIES_BITS) + 1
            await server.rows(f"UPDATE flow_runs SET process_id = '{two.process.id}'")
            await two.write(
                flow_runs=[flow_run_row(uid(1), two.process.id, "COMPLETED")],
                completed_runs=[(its_series, 5, 15, 16, 17, "x=5")],
            )
            assert await server.rows("SELECT state FROM flow_runs") == [("COMPLETED",)]
            assert await server.rows("SELECT count(*) FROM task_runs") == [(4,)]
            assert "refused" not in caplog.text
            await one.write(logs=[(uid(1), None, 50, 20, "x", "what it still had to say")])
            assert "refused" not in caplog.text

    asyncio.run(main())


def test_a_run_that_is_due_is_nobody_s_until_it_begins(
    make_database: MakeDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with two_writers(make_database) as (server, _, two):
            await server.rows("UPDATE flow_runs SET process_id = NULL, state = 'SCHEDULED', state_name = NULL")
            row = flow_run_row(uid(1), two.process.id, "COMPLETED")
            await two.write(flow_runs=[row])
            await two.store.take_over(two.process, two.batch(flow_runs=[row]))
            assert await server.rows("SELECT state FROM flow_runs") == [("SCHEDULED",)]
            assert caplog.text.count("refused 1 record(s)") >= 1

    asyncio.run(main())


def test_an_administrator_may_bring_in_what_a_lost_key_has_spooled(make_database: MakeDatabase) -> None:
    async def main() -> None:
        async with two_writers(make_database) as (server, one, _):
            boss = server.store(await server.key("another boss", "admin"))
            await boss.take_over(one.process, one.batch(logs=[(uid(1), None, 50, 20, "x", "spooled")]))
            assert await server.rows("SELECT count(*) FROM logs WHERE message = 'spooled'") == [(1,)]

    asyncio.run(main())


# --- shapes ---------------------------------------------------------------------------------------------------

GOOD = batch_of(elsewhere(), 1, 1)


def sent(batch: object) -> Any:
    return msgspec.Raw(msgspec.msgpack.encode(batch))


def test_a_good_batch_comes_through_as_it_is() -> None:
    left_out = LeftOut()
    assert read_batch(sent(GOOD), left_out) == GOOD
    assert left_out == LeftOut()


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("flow_runs", ("no-id", *flow_run_row(uid(1), uid(2))[1:])),
        ("flow_runs", flow_run_row(uid(1), uid(2))[:-1]),
        ("flow_runs", (*flow_run_row(uid(1), uid(2)), None)),
        ("flow_runs", flow_run_row(uid(1), uid(2), "WELL")),
        ("flow_runs", flow_run_row(uid(1), uid(2), created=2**62)),
        ("flow_runs", flow_run_row(uid(1), uid(2), created=-1)),
        ("flow_runs", flow_run_row(uid(1), uid(2), created=1.5)),
        ("flow_runs", flow_run_row(uid(1), uid(2), tags="no list")),
        ("flow_runs", flow_run_row(uid(1), uid(2), tags="[1]")),
        ("flow_runs", flow_run_row(uid(1), uid(2), parameters="[]")),
        ("flow_runs", flow_run_row(uid(1), uid(2), parameters='{"a":' * 100_000)),
        ("flow_runs", flow_run_row(uid(1), uid(2), name="x" * 10_001)),
        ("series", (1, "xyz", "a-task", None, 15, None, None, 3, uid(2))),
        ("series", (1, f"{1:019x}", "a-task", None, 15, None, None, 2**41, uid(2))),
        ("series", (2**63, f"{1:019x}", "a-task", None, 15, None, None, 1, uid(2))),
        ("completed_runs", (1, 1, 1, 1, None, "x=1")),
        ("results", (1, 1, "text", None)),
        ("logs", (uid(1), "no-id", 1, 20, "x", "y")),
        ("logs", (uid(1), None, 1, -1, "x", "y")),
        ("logs", (uid(1), None, 1, 20, "x", "y" * 1_000_001)),
        ("logs", {}),
        ("logs", None),
    ],
)
def test_a_row_of_another_shape_is_left_out_and_the_others_are_not(kind: str, row: Any) -> None:
    bad = batch_of(elsewhere(), 1, 1)
    getattr(bad, kind).insert(0, row)
    left_out = LeftOut()
    assert read_batch(sent(bad), left_out) == replace_process(GOOD, bad)
    assert left_out.count == 1
    assert left_out.why is not None
    assert left_out.why.startswith(f"{kind}: ")


def replace_process(batch: Batch, other: Batch) -> Batch:
    """The same of another process."""
    encoded = msgspec.json.encode(batch).replace(batch.process_id.encode(), other.process_id.encode())
    return read_batch(sent(msgspec.json.decode(encoded)), LeftOut())


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\x93\x01\x02\x03", msgspec.msgpack.encode([1, {"id": "x"}]), b"\x91" * 100_000, pack(None)],
)
def test_what_is_no_message_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(ValueError, match="This is no message of the journal"):
        unpacker(Sender)(data)


def test_a_message_of_another_version_is_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="version 2 of the journal's protocol, and here is spoken 1"):
        unpacker(Sender)(msgspec.msgpack.encode([2, "anything"]))


@pytest.mark.parametrize("extra", [{"new_rows": []}, {"number": -1}, {"process_id": "x"}, {"logs": 3}])
def test_a_batch_with_more_in_it_than_is_known_is_none(extra: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        read_batch(sent({**msgspec.to_builtins(GOOD), **extra}), LeftOut())


async def everything(server: Remote) -> list[Any]:
    """All that is in the store about runs."""
    tables = "flow_runs", "flow_run_states", "series", "task_runs", "task_run_states", "edges", "task_run_results"
    found = [await server.rows(f"SELECT * FROM {table}") for table in (*tables, "durable_calls", "logs")]
    return [sorted(map(repr, rows)) for rows in found]


def task_run_id_of(base: str, number: int) -> str:
    from upwell.core.ids import uuid7

    return str(uuid7(1.0, int(base, 16) + number))


JUNK: list[Any] = [
    None, 0, -1, 2**63, 1.5, "", "x" * 20_000, "\0", "a\ufffdb", b"", b"\x80\x04.", [], [[]], {}, uid(1), [uid(1)],
    [uid(1), "x", 1], [uid(1), "\0", []], [uid(1), []], [uid(1), [["k", "h", True, True]]], ["x", 5, -1.0, True],
    ["x", 2**62, 1e308, True], ["x", None, None, None], [uid(1), "x", ["a"], [["w", 1, None]], [], []],
    {"id": uid(1), "host": "\0", "pid": 1, "pid_started": "", "lease_seconds": 30.0},
    {"id": uid(1), "host": "h", "pid": 1, "pid_started": "", "lease_seconds": 1e300},
    [{"id": uid(1), "host": "h", "pid": 1, "pid_started": "", "lease_seconds": 30.0}, {"process_id": uid(1)}],
    {"process_id": uid(1), "process_key": 0, "number": 2**62, "logs": [[None, None, 1, 20, "\0", "\0"]]},
    [uid(1), {"id": "x", "name": "\0", "created": 1.0, "flow_name": "\0", "entrypoint": "\0", "is_child": False}],
    [uid(1), {"id": uid(2), "name": "n", "created": 1.0, "flow_name": "f", "entrypoint": None, "is_child": True,
              "known_by": b"\0"}, {"process_id": uid(1), "process_key": 0, "number": 0}, "\0"],
]  # fmt: skip  # messages of any kind


def test_no_message_finds_a_fault_of_the_server(make_database: MakeDatabase) -> None:
    async def main() -> None:
        messages = (*map(pack, JUNK), b"", b"\xc1", b"\x92\x01", b"\x92\x02\xc0")
        async with (
            over(make_database) as server,
            httpx.AsyncClient(transport=server.network(), base_url="http://127.0.0.1:4200") as client,
        ):
            for operation, message in itertools.product((*OPERATIONS, "nothing", "..%2fapi-keys"), messages):
                answer = await client.post(f"/api/journal/{operation}", content=message)
                assert answer.status_code != 500, (operation, message, answer.content)

    asyncio.run(main())
