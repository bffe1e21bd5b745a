"""The spool: whole or torn, brought in once, by one process, in its order."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from upwell.journal.batch import Batch
from upwell.journal.database import StoreUnavailable
from upwell.journal.processes import Process, this_process
from upwell.journal.spool import Spool
from upwell.journal.sqlite import MemoryDatabase
from upwell.journal.store import ProcessLost, SqlStore


def batch_of(process: Process, number: int, *lines: str) -> Batch:
    batch = Batch(process.id, 0, number)
    batch.logs = [("flow-run", None, number, 20, "test", line) for line in lines]
    return batch


def ended(process: Process) -> Process:
    """The same, as if it had run here and ended since."""
    return replace(process, pid=2**22 + 7)


async def open_store(process: Process) -> SqlStore:
    store = SqlStore(MemoryDatabase())
    await store.open(process)
    return store


async def lines_in(store: SqlStore) -> list[str]:
    return [str(line) for (line,) in await store.database.fetch_text("SELECT message FROM logs ORDER BY key")]


@contextmanager
def spool_of(folder: Path, process: Process) -> Generator[Spool]:
    spool = Spool(folder, process)
    try:
        yield spool
    finally:
        spool.close()


def test_what_was_kept_comes_in_once_and_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        process = this_process(30)
        store = await open_store(process)
        with spool_of(tmp_path / "spool", process) as spool:
            spool.keep([batch_of(process, 1, "a"), batch_of(process, 2, "b")])
            spool.keep([batch_of(process, 3, "c")])
            await spool.bring_in_own(store)
            assert not spool.has_own
            await store.write(batch_of(process, 3, "c"))  # its answer was lost
            await store.write(batch_of(process, 4, "d"))
            spool.keep([batch_of(process, 4, "d"), batch_of(process, 5, "e")])
            await spool.bring_in_own(store)
        assert await lines_in(store) == ["a", "b", "c", "d", "e"]
        assert list((tmp_path / "spool").iterdir()) == []

    asyncio.run(main())


def test_a_bring_in_that_was_cut_short_is_done_again_and_changes_nothing_twice(tmp_path: Path) -> None:
    class Fails(SqlStore):
        async def take_over(self, process: Process, batch: Batch) -> None:
            if batch.number == 2:
                raise StoreUnavailable("for now")
            await super().take_over(process, batch)

    async def main() -> None:
        process = this_process(30)
        store = await open_store(process)
        with spool_of(tmp_path, process) as spool:
            spool.keep([batch_of(process, n, str(n)) for n in (1, 2, 3)])
            with pytest.raises(StoreUnavailable):
                await spool.bring_in_own(Fails(store.database))
            spool.keep([batch_of(process, 4, "4")])
            await spool.bring_in_own(store)
        assert await lines_in(store) == ["1", "2", "3", "4"]

    asyncio.run(main())


@pytest.mark.parametrize("torn_at", [1, 7, 8, 20, 24, 30, -1])
def test_a_torn_last_record_is_left_out_and_said(
    torn_at: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        process = this_process(30)
        store = await open_store(process)
        with spool_of(tmp_path, process) as spool:
            spool.keep([batch_of(process, 1, "whole")])
            (file,) = tmp_path.iterdir()
            size = file.stat().st_size
            spool.keep([batch_of(process, 2, "torn")])
            content = file.read_bytes()
            file.write_bytes(content[: size + torn_at] if torn_at > 0 else content[:-1])
            await spool.bring_in_own(store)
        assert await lines_in(store) == ["whole"]
        assert "left out" in caplog.text

    asyncio.run(main())


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    async def main() -> None:
        process = this_process(30)
        store = await open_store(process)
        with spool_of(tmp_path, process) as spool:
            spool.keep([batch_of(process, 1, "a"), batch_of(process, 2, "b")])
            (file,) = tmp_path.iterdir()
            content = bytearray(file.read_bytes())
            content[-3] ^= 1
            file.write_bytes(content)
            await spool.bring_in_own(store)
        assert await lines_in(store) == []

    asyncio.run(main())


def test_a_record_of_another_version_is_kept_for_people(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from hashlib import blake2b

    async def main() -> None:
        process = this_process(30)
        store = await open_store(process)
        with spool_of(tmp_path, process) as spool:
            spool.keep([batch_of(process, 1, "a")])
            (file,) = tmp_path.iterdir()
            body = b"\x93no"
            file.write_bytes(len(body).to_bytes(8, "big") + blake2b(body, digest_size=16).digest() + body)
            await spool.bring_in_own(store)
        assert [path.suffix for path in tmp_path.iterdir()] == [".unreadable"]
        assert "kept for you" in caplog.text

    asyncio.run(main())


def test_files_are_their_owner_s_alone(tmp_path: Path) -> None:
    process = this_process(30)
    with spool_of(tmp_path / "a" / "spool", process) as spool:
        spool.keep([batch_of(process, 1, "a")])
    (file,) = (tmp_path / "a" / "spool").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_what_no_file_can_hold_is_made_storable(tmp_path: Path) -> None:
    async def main() -> None:
        process = this_process(30)
        store = await open_store(process)
        with spool_of(tmp_path, process) as spool:
            batch = batch_of(process, 1, "half \udc80 of it")
            batch.logs.append((None, "task-run", 2**70, 20, "test", "far away"))
            spool.keep([batch])
            await spool.bring_in_own(store)
        assert await lines_in(store) == ["half ? of it", "far away"]

    asyncio.run(main())


# --- those of others ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "taken"),
    [("ended", True), ("closed here", True), ("at work", False), ("elsewhere", False), ("lost elsewhere", True)],
)
def test_files_are_brought_in_of_those_who_will_not_do_it_themselves(who: str, taken: bool, tmp_path: Path) -> None:
    async def main() -> None:
        process, other = this_process(30), this_process(30)
        if who == "ended":
            other = ended(other)
        if "elsewhere" in who:
            other = replace(other, host="another machine")
        store = await open_store(process)
        writing = Spool(tmp_path, other)
        writing.keep([batch_of(other, 1, "a")])
        if who != "at work":
            writing.close()
        if who == "lost elsewhere":
            async with store.database.transaction() as session:
                await session.fetch_text(
                    "INSERT INTO processes (id, host, pid, pid_started, state, beat, seen, lease_until)"
                    " VALUES (:id, 'another machine', 1, '', 'lost', 1, 1, 1)",
                    id=other.id,
                )
        with spool_of(tmp_path, process) as spool:
            assert await spool.bring_in_others(store) == int(taken)
        assert await lines_in(store) == (["a"] if taken else [])
        writing.close()

    asyncio.run(main())


def test_two_who_race_for_it_bring_it_in_once_and_whole(tmp_path: Path) -> None:
    async def main() -> None:
        other = ended(this_process(30))
        writing = Spool(tmp_path, other)
        for n in range(1, 30):
            writing.keep([batch_of(other, n, str(n))])
            writing._number += 1  # pyright: ignore[reportPrivateUsage]  # a file each
        writing.close()
        processes = [this_process(30) for _ in range(4)]
        first = await open_store(processes[0])
        spools = [Spool(tmp_path, process) for process in processes]
        brought = await asyncio.gather(*(spool.bring_in_others(first) for spool in spools))
        for spool in spools:
            spool.close()
        assert sum(brought) == 1
        assert await lines_in(first) == [str(n) for n in range(1, 30)]

    asyncio.run(main())


def test_what_a_dead_process_did_comes_in_but_for_flow_runs_that_others_have_taken_over(tmp_path: Path) -> None:
    async def main() -> None:
        other, process = ended(this_process(30)), this_process(30)
        store = await open_store(process)
        await store.take_over(other, batch_of(other, 1))
        add = (
            "INSERT INTO flow_runs (id, flow, name, state, created, ended, run_count, root_flow_run_id, process_id)"
            " VALUES (:id, 'f', :id, :state, 1, :ended, 1, :id, :process_id)"
        )
        async with store.database.transaction() as session:
            await session.fetch_text(add, id="crashed", state="CRASHED", ended=5, process_id=other.id)
            await session.fetch_text(add, id="resumed", state="RUNNING", ended=None, process_id=process.id)
            await session.fetch_text("UPDATE processes SET state = 'lost' WHERE id = :id", id=other.id)
        late = batch_of(other, 2, "late")
        for name in ("crashed", "resumed"):
            row = [
                name,
                "f",
                name,
                None,
                "COMPLETED",
                None,
                None,
                1,
                2,
                3,
                None,
                1,
                None,
                None,
                None,
                None,
                name,
                other.id,
            ]
            late.flow_runs.append((*row, None, 0, None, None, None, None))
            late.flow_run_states.append((name, 3, "COMPLETED", None, None))
        with pytest.raises(ProcessLost):
            await store.write(late)
        await store.take_over(other, late)
        rows = await store.database.fetch_text("SELECT id, state FROM flow_runs ORDER BY id")
        assert rows == [("crashed", "COMPLETED"), ("resumed", "RUNNING")], "it knew better how its own run had ended"
        assert await lines_in(store) == ["late"]
        assert await store.database.fetch_text("SELECT flow_run_id FROM flow_run_states") == [("crashed",)]

    asyncio.run(main())


def test_a_spool_survives_kill_9(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from upwell.journal.batch import Batch
from upwell.journal.processes import this_process
from upwell.journal.spool import Spool
process = this_process(30)
batch = Batch(process.id, 0, 1)
batch.logs.append((None, "task-run", 1, 20, "test", "before the end"))
Spool(Path(sys.argv[1]), process).keep([batch])
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert done.returncode == -9

    async def main() -> None:
        process = this_process(30)
        store = await open_store(process)
        with spool_of(tmp_path, process) as spool:
            assert await spool.bring_in_others(store) == 1
        assert await lines_in(store) == ["before the end"]

    asyncio.run(main())
    assert os.listdir(tmp_path) == []


def test_it_has_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upwell.journal.spool.MOST_BYTES", 1000)
    process = this_process(30)
    with spool_of(tmp_path, process) as spool:
        spool.keep([batch_of(process, 1, "a")])
        with pytest.raises(OSError, match="already"):
            spool.keep([batch_of(process, 2, "x" * 1000)])
        assert spool.has_own
