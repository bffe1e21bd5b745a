"""Processes that are made ready for runs which are about to be due: used, replaced, let go."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.runtime.serving.workplace import PATIENCE_SECONDS, Workplace, at_work, is_there, pid_in, until

from upwell.core.deployments import ExpectSpec, Job, RunSpec
from upwell.journal.sql_control import SqlControl
from upwell.serving import claims, room, template

FLOWS = """
@flow
def note_pid():
    Path("pid").write_text(str(os.getpid()))
    return "as it was"
"""


@pytest.fixture(autouse=True)
def looks_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is due within two hours is about to be due, so no test must wait for it."""
    monkeypatch.setattr(claims, "AHEAD_SECONDS", 3_600.0)
    monkeypatch.setattr(claims, "LOOK_AHEAD_SECONDS", 0.05)
    monkeypatch.setattr(claims, "TIDY_SECONDS", 0.1)


def processes(folder: Path) -> Iterator[int]:
    """The children that are alive, as the store knows them; the worker, which came first, is not among them."""
    connection = sqlite3.connect(folder / "home" / "upwell.db")
    try:
        rows = connection.execute("SELECT pid FROM processes WHERE state = 'alive' ORDER BY key LIMIT -1 OFFSET 1")
        yield from (pid for (pid,) in rows)
    finally:
        connection.close()


async def due_later(place: Workplace, runs: int = 1) -> None:
    """Ask for runs that are about to be due, and will not be."""
    due = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=30)
    for _ in range(runs):
        await place.control.run_deployment(place.deployments["note_pid"].id, RunSpec(due=due))


async def waiting(folder: Path, number: int) -> list[int]:
    """So many processes that wait for a run."""
    await until(lambda: len(list(processes(folder))) == number)
    return list(processes(folder))


def test_a_run_is_carried_out_by_the_process_that_waits(flows: Callable[[str], Path]) -> None:
    folder = flows(FLOWS)

    async def main() -> None:
        async with at_work(folder, "note_pid") as place:
            await due_later(place)
            (ready,) = await waiting(folder, 1)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not (folder / "pid").exists() or pid_in(folder) != ready:  # at first it gets ready
                    assert (await place.ended(await place.start("note_pid"))).state.name == "Completed"
            await until(lambda: not is_there(ready))
            (another,) = await waiting(folder, 1)
            assert another != ready, "the run that is about to be due needs one still"

    asyncio.run(main())


def test_as_many_wait_as_are_expected_and_go_with_their_worker(flows: Callable[[str], Path]) -> None:
    folder = flows(FLOWS)

    async def main() -> list[int]:
        async with at_work(folder, "note_pid") as place:
            await due_later(place, 3)
            return await waiting(folder, 3)

    ready = asyncio.run(main())
    asyncio.run(until(lambda: not any(map(is_there, ready))))
    assert list(processes(folder)) == [], "each has said that it ends"


def test_no_more_wait_than_the_worker_may_carry_out(flows: Callable[[str], Path]) -> None:
    folder = flows(FLOWS)

    async def main() -> None:
        async with at_work(folder, "note_pid", limit=2) as place:
            await due_later(place, 4)
            await waiting(folder, 2)
            for _ in range(3):
                await place.ended(await place.start("note_pid"))
                await waiting(folder, 2)

    asyncio.run(main())


def test_none_waits_where_there_is_no_room(flows: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = flows(FLOWS)
    asked: list[int] = []

    def no_room() -> int:
        asked.append(0)
        return 0

    monkeypatch.setattr(claims, "room_for_processes", no_room)

    async def main() -> None:
        async with at_work(folder, "note_pid") as place:
            await due_later(place)
            await until(lambda: len(asked) > 3)
            assert list(processes(folder)) == []
            assert (await place.ended(await place.start("note_pid"))).state.name == "Completed"

    asyncio.run(main())


def test_what_waits_with_code_that_has_changed_is_not_used(flows: Callable[[str], Path]) -> None:
    folder = flows(FLOWS)

    async def main() -> None:
        async with at_work(folder, "note_pid") as place:
            await due_later(place)
            (old,) = await waiting(folder, 1)
            flows(FLOWS.replace("str(os.getpid())", "str(os.getpid()) + ' of the new code'"))
            assert (await place.ended(await place.start("note_pid"))).state.name == "Completed"
            pid, _, code = (folder / "pid").read_text().partition(" ")
            assert (int(pid) != old, code) == (True, "of the new code")
            await until(lambda: not is_there(old))

    asyncio.run(main())


def test_a_process_that_dies_as_it_waits_costs_nobody_a_run(flows: Callable[[str], Path]) -> None:
    folder = flows(FLOWS)

    async def main() -> None:
        async with at_work(folder, "note_pid") as place:
            await due_later(place)
            (ready,) = await waiting(folder, 1)
            os.kill(ready, signal.SIGKILL)
            assert (await place.ended(await place.start("note_pid"))).state.name == "Completed"
            assert pid_in(folder) != ready

    asyncio.run(main())


@pytest.mark.parametrize(("room_for", "asked"), [(10_000, 200), (7, 7), (0, 0)])
def test_at_most_so_many_are_made_ready(
    flows: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, room_for: int, asked: int
) -> None:
    folder = flows(FLOWS)
    monkeypatch.setattr(claims, "room_for_processes", lambda: room_for)
    limits: list[int] = []

    async def expected(_: SqlControl, wanted: ExpectSpec) -> list[Job]:
        limits.append(wanted.limit)
        return []

    monkeypatch.setattr(SqlControl, "expected_jobs", expected)

    async def main() -> None:
        async with at_work(folder, "note_pid"):
            await until(lambda: bool(limits))

    asyncio.run(main())
    assert set(limits) == {asked}


def test_who_is_not_needed_ends_after_a_while(flows: Callable[[str], Path]) -> None:
    assert template.STAY_SECONDS == 30, "as the docs say"
    folder = flows(f"import __main__\n__main__.STAY_SECONDS = 0.3\n{FLOWS}")

    async def main() -> None:
        async with at_work(folder, "note_pid") as place:
            await due_later(place)
            (ready,) = await waiting(folder, 1)
            await place.control.pause_deployment(place.deployments["note_pid"].id, True)
            await until(lambda: not is_there(ready))
            assert list(processes(folder)) == []

    asyncio.run(main())


def test_nothing_is_left_open_when_all_of_them_end(
    flows: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = flows(FLOWS)
    monkeypatch.setenv("PYTHONDEVMODE", "1")

    async def main() -> list[int]:
        async with at_work(folder, "note_pid") as place:
            await due_later(place)
            ready = await waiting(folder, 1)
            await place.ended(await place.start("note_pid"))
            return [*ready, *await waiting(folder, 1)]

    gone = asyncio.run(main())
    asyncio.run(until(lambda: not any(map(is_there, gone))))
    assert "ResourceWarning" not in capfd.readouterr().err


def test_what_fits_into_a_part_of_the_free_memory_may_be_made_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {"SC_AVPHYS_PAGES": 1 << 18, "SC_PAGE_SIZE": 1 << 12}  # 1 GiB
    monkeypatch.setattr("os.sysconf", free.__getitem__)
    monkeypatch.setattr(room, "GROUP", tmp_path)
    assert room.room_for_processes() == 32, "there is no group: the machine counts"
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("123\n")
    assert room.room_for_processes() == 32, "nor has this group a limit"
    (tmp_path / "memory.max").write_text(f"{160 << 20}\n")
    (tmp_path / "memory.current").write_text(f"{32 << 20}\n")
    assert room.room_for_processes() == 4
    (tmp_path / "memory.current").write_text(f"{170 << 20}\n")
    assert room.room_for_processes() == 0

    def unknown(_name: str) -> int:
        raise ValueError

    monkeypatch.setattr("os.sysconf", unknown)
    assert room.room_for_processes() == 0
