"""Limits, cache, durable flow runs and results behind a server: as if the store itself were asked."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.journal.remote import Loss, Network, Remote, batch_of, elsewhere, remote, uid

from upwell.core.definition import Definition
from upwell.core.errors import ConfigurationError, NotResumableError, UnknownRunError
from upwell.core.states import PENDING, State
from upwell.engine.clock import moment
from upwell.engine.durable_records import Claim
from upwell.engine.flow_run import FlowRun, Wish
from upwell.flows import flow
from upwell.journal import limit_store
from upwell.journal.cache_store import Looked, Wanted
from upwell.journal.database import StoreUnavailable
from upwell.journal.durable import Beginnings
from upwell.journal.limit_store import LimitChange, LimitRow, NotAlive, Standing
from upwell.journal.processes import Process
from upwell.journal.remote_store import RemoteStore
from upwell.journal.rows import RowMaker
from upwell.journal.store_parts import cache_of, durable_of, limits_of, outcome_in


async def entered(server: Remote, number: int, key: str | None = None) -> tuple[RemoteStore, Process]:
    store, process = server.store(key), elsewhere(number)
    await store.open(process)
    return store, process


def wish(name: str) -> limit_store.Wish:
    return limit_store.Wish(name, 1, "a-run")


# --- limits -----------------------------------------------------------------------------------------------------


def test_slots_are_taken_and_given_back_and_wishes_stand_in_line(tmp_path: Path) -> None:
    async def main() -> None:
        async with remote(tmp_path) as server:
            (one, first), (two, second) = await entered(server, 1), await entered(server, 2)
            here, there = limits_of(one), limits_of(two)
            row = LimitRow("db", 1, 0.0, True)
            assert [await here.create(row), await here.create(row)] == [True, False]
            assert await there.limits() == [row]
            assert await here.take_turn(first.id, "db", [], [wish("a"), wish("b")], []) == Standing(row, ["a"], [])
            assert await there.take_turn(second.id, "db", [], [wish("c")], []) == Standing(row, [], [])
            assert [(found.taken, found.waiting) for found in await there.in_use()] == [(1, 2)]
            assert await here.take_turn(first.id, "db", ["a"], [], []) == Standing(row, ["b"], [])
            assert await here.take_turn(first.id, "db", ["b"], [], []) == Standing(row, [], ["c"])
            assert await there.look(second.id, "db", []) == Standing(row, ["c"], [])
            assert await here.update(LimitChange("db", 5, None, None))
            with pytest.raises(ConfigurationError, match="-1"):
                await here.update(LimitChange("db", -1, None, None))
            await there.leave(second.id)
            assert await server.rows("SELECT count(*) FROM leases") == [(0,)]
            assert [await here.delete("db"), await here.delete("db")] == [True, False]
            noted = await server.rows("SELECT action, target, detail FROM audit_records ORDER BY key")
            assert noted == [("put limit", "db", "1"), ("put limit", "db", "5"), ("delete limit", "db", None)]
            assert await limits_of(server.store(await server.key("viewer", "read"))).in_use() == []

    asyncio.run(main())


def test_rates_are_kept_and_the_dead_hold_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with remote(tmp_path) as server:
            store, process = await entered(server, 1)
            limits = limits_of(store)
            row = LimitRow("api", 5, 0.001, True)
            await limits.create(row)
            assert await limits.reserve(process.id, "nothing", 1) is None
            found = await limits.reserve(process.id, "api", 2)
            assert found is not None
            assert found[0] == row
            assert found[1] == pytest.approx(2.0, abs=0.1)
            await limits.give_back_level("api", 2)
            await server.rows("UPDATE processes SET state = 'lost'")
            for work in (limits.reserve(process.id, "api", 1), limits.take_turn(process.id, "api", [], [], [])):
                with pytest.raises(NotAlive):
                    await work

    asyncio.run(main())


def test_nobody_gives_back_what_another_holds_or_makes_limits_with_a_key_to_run(tmp_path: Path) -> None:
    async def main() -> None:
        async with remote(tmp_path) as server:
            await server.key("boss", "admin")
            one, first = await entered(server, 1, await server.key("one"))
            two, second = await entered(server, 2, await server.key("two"))
            await server.parts.limits.create(LimitRow("db", 1, 0.0, True))
            await limits_of(one).take_turn(first.id, "db", [], [wish("a")], [])
            standing = await limits_of(two).take_turn(second.id, "db", ["a"], [wish("b")], [])
            assert standing.granted == []
            for work in (
                limits_of(two).take_turn(first.id, "db", ["a"], [], []),
                limits_of(two).leave(first.id),
                limits_of(two).delete("db"),
            ):
                with pytest.raises(StoreUnavailable, match=r"another key|the scope 'admin'"):
                    await work
            assert await server.rows("SELECT state FROM leases ORDER BY id") == [("held",), ("waiting",)]

    asyncio.run(main())


# --- the cache, and results -------------------------------------------------------------------------------------


def test_one_computes_a_key_while_the_others_wait_and_then_it_is_found(tmp_path: Path) -> None:
    async def main() -> None:
        async with remote(tmp_path) as server:
            (one, first), (two, second) = await entered(server, 1), await entered(server, 2)
            here, there = cache_of(one), cache_of(two)
            wanted = [Wanted("k1", uid(1), False, True), Wanted("k2", uid(2), False, False)]
            assert await here.look(first.id, wanted) == Looked({}, ["k2", "k1"], ["k1"])
            assert await there.look(second.id, wanted) == Looked({}, ["k2"], [])
            batch = batch_of(first, 1, 1)
            batch.cache_records.append(("k1", "a-task", b"record", 5, None, uid(1)))
            batch.released_locks.append(("k1", uid(1)))
            await one.write(batch)
            assert await there.look(second.id, wanted) == Looked({"k1": b"record"}, ["k2"], [])
            assert await there.look(second.id, [Wanted("k1", uid(3), True, True)]) == Looked({}, ["k1"], ["k1"])
            assert await there.record("k1") == ("a-task", b"record", 5, None, uid(1))
            assert await there.record("k3") is None

    asyncio.run(main())


def test_how_a_run_ended_is_known(tmp_path: Path) -> None:
    async def main() -> None:
        async with remote(tmp_path) as server:
            store, process = await entered(server, 1)
            await store.write(batch_of(process, 1, 1))
            from uuid import UUID

            found = await outcome_in(store, UUID(uid(1)))
            assert found is not None
            assert (found.name, found.state, found.record) == ("a-run", "RUNNING", None)
            assert await outcome_in(store, UUID(uid(9))) is None

    asyncio.run(main())


# --- durable flow runs ------------------------------------------------------------------------------------------


@flow(durable=True)
def something() -> None:
    pass


class Beginner:
    """A process that begins flow runs."""

    def __init__(self, store: RemoteStore, process: Process) -> None:
        self.store = store
        self.process = process
        self.beginnings = Beginnings(durable_of(store, process.id, 5))
        self.maker = RowMaker(process.id, lambda _: None)

    async def begin(self, **wish: Any) -> Claim:
        definition: Definition = something._definition  # pyright: ignore[reportPrivateUsage]  # as a call does
        run = FlowRun(definition, (), {}, Wish(**wish))
        run.arguments, run.entrypoint, run.source_hash = b"0" * 16, "here:something", "source"
        run.states = [State(type=PENDING, name="Pending", timestamp=moment(run.created))]
        return await self.beginnings.begin_flow_run(self.maker, run)


async def beginner(server: Remote, number: int, network: Network | None = None) -> Beginner:
    made = Beginner(server.store(network=network), elsewhere(number))
    await made.store.open(made.process)
    return made


@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize("lost", [1, 2])
def test_a_run_is_begun_once_and_claimed_once_whatever_is_lost(tmp_path: Path, loss: Loss, lost: int) -> None:
    async def main() -> None:
        async with remote(tmp_path) as server:
            network = server.network()
            one = await beginner(server, 1, network)
            network.lose(lost, loss)
            claim = await one.begin(idempotency_key="a key" if lost == 1 else None)
            assert await server.rows("SELECT id, state FROM flow_runs") == [(claim.flow_run_id, "PENDING")]
            assert await server.rows("SELECT count(*) FROM flow_run_states") == [(1,)]
            await server.rows("UPDATE processes SET state = 'lost'")
            await server.rows(
                "UPDATE flow_runs SET state = 'SCHEDULED', state_name = 'AwaitingResume', process_id = NULL, "
                "idempotency_key = NULL"
            )
            two = await beginner(server, 2, network)
            assert await two.beginnings._store.runs_to_resume() == [(claim.flow_run_id, "something")]  # pyright: ignore[reportPrivateUsage]
            network.lose(lost, loss)
            again = await two.begin()
            assert again.resumed
            assert again.flow_run_id == claim.flow_run_id
            with pytest.raises(NotResumableError, match="is at work on it"):
                await two.begin(resume=claim.flow_run_id)
            with pytest.raises(UnknownRunError):
                await two.begin(resume=uid(77))

    asyncio.run(main())


def test_what_a_run_had_finished_comes_along_with_ids_larger_than_any_number(tmp_path: Path) -> None:
    async def main() -> None:
        async with remote(tmp_path) as server:
            one = await beginner(server, 1)
            claim = await one.begin()
            key, base = (1 << 28) + 1, (1 << 74) - 1000
            batch = batch_of(one.process, 1, 1)
            batch.flow_runs, batch.flow_run_states, batch.logs = [], [], []
            batch.series = [(key, f"{base:019x}", "a-task", claim.flow_run_id, 15, None, b"s", 3, one.process.id)]
            batch.results = [(key, 1, b"\x91\x07", b"durable key")]
            await one.store.write(batch)
            call = await one.beginnings._store.call_of(claim.flow_run_id)  # pyright: ignore[reportPrivateUsage]
            assert call == ("something", "here:something", b"0" * 16)
            await server.rows("UPDATE processes SET state = 'lost'")
            await server.rows(
                "UPDATE flow_runs SET state = 'SCHEDULED', state_name = 'AwaitingResume', process_id = NULL"
            )
            again = await (await beginner(server, 2)).begin()
            assert [(old.key, old.base, old.submitted) for old in again.series] == [(key, base, 3)]
            assert [tuple(row) for row in again.finished] == [
                (key, 1, b"durable key", b"\x91\x07", 16e-6, 17e-6, 15, None)
            ]

    asyncio.run(main())
