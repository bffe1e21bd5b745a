"""The log of ends: what was promised is read, and nothing else is; nobody notes anything who was declared dead."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from upwell.journal import end_log
from upwell.journal.end_log import EndLog, entries_in, fence, log_beside, logs_beside

HEADER = 4096
HEAD = 16
Open = Callable[..., EndLog]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    path.touch(0o600)
    return path


@pytest.fixture
def file(database: Path) -> Path:
    return log_beside(database, 7)


@pytest.fixture
def open_log(database: Path) -> Iterator[Open]:
    logs: list[EndLog] = []

    def opened(process_id: str = "me", **options: bool) -> EndLog:
        logs.append(EndLog(database, 7, process_id, **options))
        return logs[-1]

    yield opened
    for log in logs:
        log.close()


@pytest.fixture
def log(open_log: Open) -> EndLog:
    return open_log()


def small(monkeypatch: pytest.MonkeyPatch, half: int = 100) -> None:
    monkeypatch.setattr(end_log, "HALF_BYTES", half)
    monkeypatch.setattr(end_log, "FILE_BYTES", HEADER + 2 * half)


def read(file: Path) -> list[tuple[int, bytes]]:
    return entries_in(file.read_bytes())


def patch(file: Path, at: int, content: bytes) -> None:
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(content)


def test_what_is_added_is_read_in_its_order(log: EndLog, file: Path) -> None:
    assert read(file) == []
    assert all(log.add(payload) for payload in (b"one", b"", b"three" * 1000))
    assert read(file) == [(1, b"one"), (2, b""), (3, b"three" * 1000)]
    assert log.written == 3
    assert fence(file, "me") == read(file)


def test_the_file_is_whole_before_anything_is_stored_in_it(log: EndLog, file: Path) -> None:
    """A hole would be filled when there may be no room any more, and the process killed for it."""
    found = file.stat()
    assert found.st_size == end_log.FILE_BYTES
    assert found.st_blocks * 512 >= found.st_size


@pytest.mark.parametrize("at", range(HEAD + 7))
def test_an_entry_that_is_torn_is_none(log: EndLog, file: Path, at: int) -> None:
    log.add(b"first")
    log.add(b"torn...")
    begins = HEADER + HEAD + len(b"first")
    byte = file.read_bytes()[begins + at]
    patch(file, begins + at, bytes([byte ^ 0x55]))
    assert read(file) == [(1, b"first")]


def test_an_entry_that_would_end_outside_of_its_half_is_none(log: EndLog, file: Path) -> None:
    patch(file, HEADER, struct.pack("=QII", 1, 2**32 - 1, 0))
    assert read(file) == []


def test_no_payload_of_an_earlier_turn_can_be_taken_for_an_entry(
    open_log: Open, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result may be the content of another such file, and stand where the next entry would."""
    small(monkeypatch)
    log = open_log()
    forged = struct.pack("=QII", 4, 4, crc32(b"evil", 4)) + b"evil"
    assert log.add(b"x" * 20 + forged)
    assert log.add(b"x" * 80)
    log.are_in_tables(1)
    assert log.add(b"y" * 20)
    assert file.read_bytes()[HEADER + HEAD + 20 :].startswith(forged)
    assert read(file) == [(2, b"x" * 80), (3, b"y" * 20)]


def test_halves_are_used_in_turn_as_the_tables_get_what_they_have(
    open_log: Open, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)  # room for five entries in each half
    log = open_log()
    assert [log.add(b"0123") for _ in range(11)] == [True] * 10 + [False]
    log.are_in_tables(4)
    assert not log.add(b"4567"), "the fifth is in no table yet"
    log.are_in_tables(5)
    assert log.add(b"4567")
    assert read(file) == [*((number, b"0123") for number in range(6, 11)), (11, b"4567")]
    assert [log.add(b"4567") for _ in range(5)] == [True] * 4 + [False]
    log.are_in_tables(15)
    assert log.add(b"8901")
    assert read(file) == [*((number, b"4567") for number in range(11, 16)), (16, b"8901")]


def test_what_an_earlier_turn_has_left_is_no_entry(open_log: Open, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    log = open_log()
    for _ in range(10):
        log.add(b"0123")
    log.are_in_tables(10)
    log.add(b"0123")
    assert [number for number, _ in read(file)] == [*range(6, 11), 11], "of 2 to 5 the checksums are still right"


def test_an_entry_that_does_not_fit_a_half_is_refused_and_others_are_not(
    open_log: Open, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    log = open_log()
    assert not log.add(b"x" * (100 - HEAD + 1))
    assert log.add(b"x" * (100 - HEAD))
    assert log.add(b"small")
    assert [number for number, _ in read(file)] == [1, 2]


def test_who_is_fenced_notes_nothing_any_more(log: EndLog, file: Path) -> None:
    assert log.add(b"before")
    assert fence(file, "me") == [(1, b"before")]
    assert not log.add(b"after")
    assert not log.add(b"after")
    log.close()
    assert file.exists(), "who has fenced it removes it, once what was in it is safe"


@pytest.mark.parametrize("stopped_at", [1, 2])
def test_wherever_the_writer_is_stopped_what_it_promises_is_read(open_log: Open, file: Path, stopped_at: int) -> None:
    """It is fenced before it stores an entry, and before it looks at the fence."""
    log = open_log()
    found: list[list[tuple[int, bytes]]] = []

    class Stops:
        """The mapping, whose user is stopped before a step, while others declare the process dead."""

        def __init__(self, shared: mmap.mmap) -> None:
            self.shared, self.steps = shared, 0

        def step(self) -> None:
            self.steps += 1
            if self.steps == stopped_at:
                found.append(fence(file, "me"))

        def __setitem__(self, place: slice, content: bytes) -> None:
            self.step()
            self.shared[place] = content

        def __getitem__(self, place: int) -> int:
            self.step()
            return self.shared[place]

    inside: Any = log
    whole, inside._map = inside._map, Stops(inside._map)
    assert log.add(b"late") is False
    assert found == [[(1, b"late")] if stopped_at == 2 else []]
    inside._map = whole


def test_a_file_of_another_process_is_left_alone(log: EndLog, file: Path) -> None:
    log.add(b"mine")
    assert fence(file, "another") == []
    assert log.add(b"mine, too")


@pytest.mark.parametrize("content", [b"", b"x" * 5000, bytes(HEADER + 2 * end_log.HALF_BYTES)])
def test_a_file_that_was_never_finished_has_nothing(file: Path, content: bytes) -> None:
    assert fence(file, "me") == []
    file.write_bytes(content)
    assert fence(file, "me") == []
    assert read(file) == []


def test_what_cannot_be_read_is_said(file: Path) -> None:
    file.mkdir()
    with pytest.raises(IsADirectoryError):
        fence(file, "me")


def test_the_file_goes_once_all_is_in_the_tables(open_log: Open, file: Path) -> None:
    log = open_log()
    log.add(b"one")
    log.close()
    assert read(file) == [(1, b"one")]
    assert not log.add(b"two")
    log.are_in_tables(1)
    assert not file.exists()
    open_log().close()
    assert not file.exists()


def test_a_new_file_takes_the_place_of_one_that_is_forgotten(open_log: Open, file: Path) -> None:
    old = open_log("old")
    old.add(b"old")
    new = open_log("new")
    assert read(file) == []
    new.add(b"new")
    old.are_in_tables(1)
    old.close()
    assert read(file) == [(1, b"new")], "the old one's end does not take the new one's file"


def test_who_may_use_the_database_may_read_the_log(database: Path, open_log: Open, file: Path) -> None:
    database.chmod(0o660)
    open_log()
    assert file.stat().st_mode & 0o777 == 0o660


@pytest.mark.parametrize(("module", "call"), [(os, "write"), (os, "fsync"), (mmap, "mmap")])
def test_nothing_is_left_where_it_cannot_be_made(
    open_log: Open, file: Path, monkeypatch: pytest.MonkeyPatch, module: Any, call: str
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, call, full)
    with pytest.raises(OSError, match="No space left"):
        open_log(waits_for_disk=True)
    assert not file.exists()


def test_an_entry_is_on_the_disk_before_it_is_promised(
    open_log: Open, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(waits_for_disk=True)
    seen: list[list[tuple[int, bytes]]] = []

    def write(opened: int, content: bytes, at: int) -> int:
        assert fcntl.fcntl(opened, fcntl.F_GETFL) & os.O_DSYNC
        seen.append(read(file))
        with file.open("r+b") as other:
            other.seek(at)
            return other.write(content)

    monkeypatch.setattr(os, "pwrite", write)
    assert log.add(b"one")
    assert log.add(b"two")
    assert seen == [[], [(1, b"one")]]
    assert read(file) == [(1, b"one"), (2, b"two")]


def test_who_is_fenced_while_the_disk_works_promises_nothing(
    open_log: Open, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(_: int, content: bytes, __: int) -> int:
        fence(file, "me")
        return len(content)

    log = open_log(waits_for_disk=True)
    monkeypatch.setattr(os, "pwrite", write)
    assert not log.add(b"one")


@pytest.mark.parametrize("fails", [True, False])
def test_what_the_disk_does_not_take_is_not_promised(
    open_log: Open, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    def write(*_: object) -> int:
        if fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return 5

    log = open_log(waits_for_disk=True)
    monkeypatch.setattr(os, "pwrite", write)
    assert not log.add(b"one")
    monkeypatch.undo()
    assert not log.add(b"two")


def test_many_threads_may_note_at_once(log: EndLog, file: Path) -> None:
    def note(name: int) -> None:
        for n in range(200):
            log.add(b"%d %d" % (name, n))

    threads = [threading.Thread(target=note, args=[name]) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read(file)
    assert [number for number, _ in found] == list(range(1, 801))
    assert len({payload for _, payload in found}) == 800


def test_logs_are_found_by_the_keys_of_their_processes(database: Path, log: EndLog, file: Path) -> None:
    for name in ("store.db-wal", "store.db-ends-x", "store.db-ends-", "other.db-ends-3"):
        database.with_name(name).touch()
    assert logs_beside(database) == {7: file}


def test_a_link_to_the_database_has_the_same_logs(database: Path, log: EndLog, file: Path) -> None:
    link = database.with_name("link.db")
    link.symlink_to(database)
    assert log_beside(link, 7) == file
    assert logs_beside(link) == {7: file}
