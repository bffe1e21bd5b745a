"""The store behind a server: what is sent is there once, whatever is lost on the way."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.runtime.journal.remote import Loss, Remote, batch_of, elsewhere, flow_run_row, remote, uid

from upwell.journal import wire
from upwell.journal.batch import Batch
from upwell.journal.database import StoreUnavailable
from upwell.journal.liveness import Observer
from upwell.journal.processes import this_process
from upwell.journal.spool import Spool
from upwell.journal.store import ProcessLost, Registered

COUNTS = "SELECT (SELECT count(*) FROM flow_runs), (SELECT count(*) FROM task_runs), (SELECT count(*) FROM logs)"


def test_a_process_writes_and_takes_its_leave(tmp_path: Path) -> None:
    async def main() -> None:
        async with remote(tmp_path) as server:
            store, process = server.store(), elsewhere()
            assert await store.state_of(process) is None
            registered = await store.open(process)
            assert registered == Registered(1, 0)
            await store.write(batch_of(process, registered.key, 1))
            await store.renew(process)
            assert await store.state_of(process) == "alive"
            assert await server.rows(COUNTS) == [(1, 3, 1)]
            assert await store.open(process) == Registered(1, 1)  # after a break
            await store.close(process)
            assert await server.rows("SELECT state, beat, owner FROM processes") == [("ended", 3, "loopback")]

    asyncio.run(main())


@pytest.mark.parametrize("loss", list(Loss))
def test_what_was_lost_on_the_way_is_sent_again_and_there_once(tmp_path: Path, loss: Loss) -> None:
    async def main() -> None:
        async with remote(tmp_path) as server:
            network, process = server.network(), elsewhere()
            store = server.store(network=network)
            key = (await store.open(process)).key
            for number in range(1, 4):
                network.lose(1, loss)
                with pytest.raises(StoreUnavailable):
                    await store.write(batch_of(process, key, number, flow_run=number))
                await store.open(process)
                await store.write(batch_of(process, key, number, flow_run=number))
            assert await server.rows(COUNTS) == [(3, 9, 3)]

    asyncio.run(main())


@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize("lost", [1, 2])
def test_a_batch_in_parts_is_there_once_whichever_part_is_lost(
    tmp_path: Path, loss: Loss, lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MOST_BYTES", 8_000)
    monkeypatch.setattr(wire, "PART_BYTES", 4_000)

    async def main() -> None:
        async with remote(tmp_path) as server:
            network, process = server.network(), elsewhere()
            store = server.store(network=network)
            key = (await store.open(process)).key
            batch = batch_of(process, key, 1, runs=600)
            network.lose(lost, loss)
            with pytest.raises(StoreUnavailable):
                await store.write(batch)
            assert await server.rows("SELECT count(*) FROM flow_runs") == [(0,)]  # what led there comes first
            assert await store.open(process) == Registered(key, 0)
            await store.take_over(process, batch)  # from its spool
            assert await server.rows(COUNTS) == [(1, 600, 1)]
            assert await store.open(process) == Registered(key, 1)
            await store.write(batch_of(process, key, 2, flow_run=2))
            assert await server.rows(COUNTS) == [(2, 603, 2)]

    asyncio.run(main())


def test_a_row_that_no_message_has_room_for_is_left_out_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wire, "MOST_BYTES", 8_000)
    monkeypatch.setattr(wire, "PART_BYTES", 4_000)

    async def main() -> None:
        async with remote(tmp_path) as server:
            store, process = server.store(), elsewhere()
            batch = batch_of(process, (await store.open(process)).key, 1)
            batch.logs.append((uid(1), None, 22, 20, "long", "x" * 9_000))
            await store.write(batch)
            assert await server.rows(COUNTS) == [(1, 3, 1)]

    asyncio.run(main())
    assert "refused 1 record(s), which are left out; the first is of logs: a row of 9," in caplog.text


def test_characters_and_numbers_that_nobody_can_store_arrive_as_well_as_they_can(tmp_path: Path) -> None:
    async def main() -> None:
        async with remote(tmp_path) as server:
            store, process = server.store(), elsewhere()
            batch = batch_of(process, (await store.open(process)).key, 1)
            batch.logs.append((uid(1), None, 22, 20, "half", "a\ud800b"))
            await store.write(batch)
            assert await server.rows("SELECT message FROM logs WHERE logger = 'half'") == [("a?b",)]

    asyncio.run(main())


def test_who_was_declared_dead_writes_no_more_but_its_spool_is_taken(tmp_path: Path) -> None:
    async def main() -> None:
        async with remote(tmp_path) as server:
            store, process = server.store(), elsewhere()
            key = (await store.open(process)).key
            await store.write(batch_of(process, key, 1))
            await server.rows("UPDATE processes SET state = 'lost'")
            for work in (store.write(batch_of(process, key, 2)), store.renew(process), store.open(process)):
                with pytest.raises(ProcessLost, match="was declared dead"):
                    await work
            assert await store.state_of(process) == "lost"
            end = Batch(process.id, key, 2, flow_runs=[flow_run_row(uid(1), process.id, "COMPLETED")])
            await store.take_over(process, end)
            assert await server.rows("SELECT state FROM flow_runs") == [("COMPLETED",)]

    asyncio.run(main())


def test_who_gives_no_sign_of_life_is_declared_dead_by_the_server(tmp_path: Path) -> None:
    async def main() -> None:
        async with remote(tmp_path) as server:
            store, process = server.store(), elsewhere()
            await store.write(batch_of(process, (await store.open(process)).key, 1))
            loop = asyncio.get_running_loop()
            observer, began = Observer(server.parts.database), loop.time()
            try:
                for look in range(9):
                    at = began + look * 7.5
                    loop.time = lambda at=at: at  # type: ignore[method-assign, misc]
                    if look == 4:
                        await store.renew(process)
                    lost = await observer.look()
                    assert lost == ([process.id] if look == 8 else [])
            finally:
                del loop.time
            assert await server.rows("SELECT state FROM flow_runs") == [("CRASHED",)]
            with pytest.raises(ProcessLost):
                await store.renew(process)

    asyncio.run(main())


def test_another_store_behind_the_same_address_is_known_as_that(tmp_path: Path) -> None:
    async def main() -> None:
        async with remote(tmp_path) as server:
            store, process = server.store(), elsewhere()
            key = (await store.open(process)).key
            await server.rows("DELETE FROM processes")
            with pytest.raises(StoreUnavailable, match="does not know this process any more"):
                await store.write(batch_of(process, key, 1))
            assert (await store.open(process)).written == 0

    asyncio.run(main())


async def _answers(server: Remote, key: str | None) -> str:
    try:
        await server.store(key).open(elsewhere())
    except StoreUnavailable as error:
        return str(error)
    return "in"


def test_a_server_that_does_not_let_us_in_is_a_store_that_is_away_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def main() -> None:
        async with remote(tmp_path) as server:
            reads, runs = await server.key("reader", "read"), await server.key("runner")
            assert "This API key is not known" in await _answers(server, "wrong")
            assert "This needs an API key" in await _answers(server, None)
            assert "This needs a key of the scope 'run'; 'reader' has" in await _answers(server, reads)
            assert await _answers(server, runs) == "in"
            for key in (reads, runs):
                assert key not in caplog.text

    asyncio.run(main())


def test_a_spool_that_a_server_does_not_take_from_us_stays_and_stands_in_nobody_s_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with remote(tmp_path) as server:
            await server.key("boss", "admin")
            gone = replace(this_process(30.0), pid=2**22 - 1, pid_started="long ago")
            first = server.store(await server.key("one"))
            key = (await first.open(gone)).key
            left = Spool(tmp_path / "spool", gone)
            left.keep([batch_of(gone, key, 1)])
            left.close()
            process = elsewhere()
            second, spool = server.store(await server.key("two")), Spool(tmp_path / "spool", process)
            assert await spool.bring_in_others(second) == 0
            assert "has come in with another key than 'two'" in caplog.text
            assert await server.rows(COUNTS) == [(0, 0, 0)]
            assert await spool.bring_in_others(first) == 1
            assert await server.rows(COUNTS) == [(1, 3, 1)]
            spool.close()

    asyncio.run(main())
