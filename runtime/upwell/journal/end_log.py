"""The log of ends: a file beside the SQLite file in which one process notes ends of task runs, by stores into memory.

The file is mapped and shared, so what is stored there is the system's at once: it outlives the process as a commit at
`NORMAL` does, and costs no system call. At `FULL` an entry is written instead, and is on the disk when that is done: to
sync what was stored into a mapping takes twice as long, for the file's times change each time.

A header, and two halves that are used in turn. A half is begun anew once the store's tables have all of its entries; if
they have not yet, there is no room, and the flow waits for the journal. An entry is its number, length, checksum and
payload. The checksum is of the number, too, and of a random part of the file's header, so that neither what a kill has
torn, nor what is left of an earlier turn, nor any payload can be taken for an entry. Numbers only go up.

**Who was declared dead notes nothing.** Whoever declares it dead sets the fence in the header, waits for
`FENCE_SECONDS`, and reads the entries then, all in the transaction in which the process becomes lost. The writer
stores its entry, looks at the fence after that, and promises nothing if it is set. So an entry that was promised is one
that is read, wherever the writer is stopped, and for however long:

- before its entry is whole: it sees the fence when it goes on, and promises nothing. What is there of the entry has no
  checksum. If the half was begun anew, what it is written over was in the tables before.
- between the entry and its look: it sees the fence. The entry is read, or it came too late; nobody relies on it.
- after its look, at which there was no fence: the entry was stored before the fence was set, but for the nanoseconds
  for which a processor keeps a store, or looks ahead of it; those have long passed when the entries are read.

If that transaction fails, the fence stays: the process notes nothing any more, and its flows wait for the journal.
"""

from __future__ import annotations

import mmap
import os
import random
import struct
import threading
from contextlib import suppress
from pathlib import Path
from time import perf_counter, sleep
from typing import Final
from zlib import crc32

from upwell.journal.sqlite import file_at

HALF_BYTES: Final = 512 * 1024
_HEADER_BYTES: Final = 4096
FILE_BYTES: Final = _HEADER_BYTES + 2 * HALF_BYTES

FENCE_SECONDS: Final = 0.002
"""Longer than any processor keeps a store to itself, by far."""

LOOK_SECONDS: Final = 0.05
"""How often is seen whether the database's file and the log are those that are there."""

_MAGIC: Final = b"upwell ends 1\0\0\0"
_SALT: Final = struct.Struct("<I")
_SALT_AT: Final = 16
_FENCE_AT: Final = 64
_OWNER_AT: Final = 128
_OWNER_BYTES: Final = 128

_HEAD: Final = struct.Struct("=QII")
_LOW: Final = 0xFFFFFFFF


def log_beside(database: Path, process_key: int) -> Path:
    """Where the log of a process is. database: the SQLite file; the process's key: of its row there."""
    return Path(f"{os.path.realpath(database)}-ends-{process_key}")


def logs_beside(database: Path) -> dict[int, Path]:
    """All logs that are there, by the keys of their processes."""
    folder, name = os.path.split(os.path.realpath(database))
    before = f"{name}-ends-"
    keys = [file.removeprefix(before) for file in os.listdir(folder) if file.startswith(before)]
    return {int(key): log_beside(database, int(key)) for key in keys if key.isascii() and key.isdecimal()}


class EndLog:
    """The log of this process. From any thread.

    written: the number of the last entry.
    waits_for_disk: so an entry is promised once it is on the disk.

    Raises:
        OSError: it cannot be made, or not be mapped: the disk is full, say.
    """

    def __init__(self, database: Path, process_key: int, process_id: str, *, waits_for_disk: bool = False) -> None:
        self.written = 0
        self._waits_for_disk = waits_for_disk
        self._database = Path(os.path.realpath(database))
        self._path = log_beside(database, process_key)
        self._database_file = file_at(self._database)
        self._lock = threading.Lock()
        self._salt = random.SystemRandom().getrandbits(32)
        self._fd, self._map = self._make(process_id)
        self._file = file_at(self._path)
        self._look_at = perf_counter() + LOOK_SECONDS
        self._at, self._end = _HEADER_BYTES, _HEADER_BYTES + HALF_BYTES
        self._last_of_other = 0  # the number of the last entry of the half that is not in use
        self._in_tables = 0
        self._refuses = self._is_closed = self._is_fenced = False

    def _make(self, process_id: str) -> tuple[int, mmap.mmap]:
        """Whole before it is mapped: where nothing was ever written, a store cannot be told that the disk is full."""
        self._path.unlink(missing_ok=True)  # of one that had the same key, and is forgotten
        synced = os.O_DSYNC if self._waits_for_disk else 0
        opened = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR | synced, 0o600)
        try:
            _belong_to_owner_of(self._database, opened)
            owner = process_id.encode()[:_OWNER_BYTES]
            header = (_MAGIC + _SALT.pack(self._salt)).ljust(_OWNER_AT, b"\0") + owner
            content = memoryview(header.ljust(FILE_BYTES, b"\0"))
            while content:
                content = content[os.write(opened, content) :]
            if self._waits_for_disk:
                _sync_folder(self._path.parent)
            return opened, mmap.mmap(opened, FILE_BYTES)
        except BaseException:
            os.close(opened)
            self._path.unlink(missing_ok=True)
            raise

    def add(self, payload: bytes) -> bool:
        """Note this; whether that was done, and can be relied on."""
        length = len(payload)
        size = _HEAD.size + length
        with self._lock:
            if self._refuses or (perf_counter() > self._look_at and not self._is_there()):
                return False
            if size > self._end - self._at and not self._turn(size):
                return False
            at = self._at
            number = self.written = self.written + 1  # before: a number is used but once
            entry = _HEAD.pack(number, length, crc32(payload, (number ^ number >> 32 ^ self._salt) & _LOW)) + payload
            if self._waits_for_disk:
                self._write(entry, at)
            else:
                self._map[at : at + size] = entry
            self._at = at + size  # after: if this is interrupted, the next goes here
            if self._map[_FENCE_AT]:  # after it was stored: see above
                self._refuses = True
            return not self._refuses

    def _write(self, entry: bytes, at: int) -> None:
        try:
            if os.pwrite(self._fd, entry, at) == len(entry):
                return
        except OSError:  # the disk fails: the journal is to say so
            pass
        self._refuses = True

    def _turn(self, size: int) -> bool:
        """Go on in the other half, if nobody needs it any more."""
        if size > HALF_BYTES or self._last_of_other > self._in_tables:
            return False
        at = _HEADER_BYTES if self._end == FILE_BYTES else _HEADER_BYTES + HALF_BYTES
        self._last_of_other, self._at, self._end = self.written, at, at + HALF_BYTES
        return True

    def _is_there(self) -> bool:
        """Whether the files are those that whoever comes after us will find; looked at now and then."""
        self._look_at = perf_counter() + LOOK_SECONDS
        if self._database_file != file_at(self._database) or self._file != file_at(self._path):
            self._refuses = True
        return not self._refuses

    def are_in_tables(self, number: int) -> None:
        """The entries up to this one are in the store's tables."""
        with self._lock:
            self._in_tables = max(self._in_tables, number)
            self._remove_if_done()

    def abandon(self) -> None:
        """This is the child of a fork: the log is its parent's. A thread that is not here may hold the lock."""
        self._refuses = True

    def close(self) -> None:
        """Note nothing any more; the file stays for as long as the tables do not have everything."""
        with self._lock:
            if not self._is_closed:
                self._refuses = self._is_closed = True
                self._is_fenced = bool(self._map[_FENCE_AT])
                self._map.close()
                os.close(self._fd)
                self._remove_if_done()

    def _remove_if_done(self) -> None:
        """One that is fenced is removed by who has done that; at its place may be another's by now."""
        is_done = self._is_closed and self._in_tables >= self.written and not self._is_fenced
        if is_done and self._file == file_at(self._path):
            with suppress(OSError):
                self._path.unlink()


def fence(path: Path, process_id: str) -> list[tuple[int, bytes]]:
    """Let a process note nothing any more, and read what it has: numbers and payloads, in their order; blocks shortly.

    Raises:
        OSError: the file is there, and cannot be read.
    """
    try:
        opened = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return []
    try:
        if os.fstat(opened).st_size < FILE_BYTES:  # its process died as it made it
            return []
        with mmap.mmap(opened, FILE_BYTES) as shared:
            if _owner(shared) != process_id:
                return []
            shared[_FENCE_AT] = 1
            sleep(FENCE_SECONDS)
            return entries_in(shared[:])
    finally:
        os.close(opened)


def entries_in(content: bytes) -> list[tuple[int, bytes]]:
    """The numbers and payloads that a file has, in their order."""
    if len(content) < FILE_BYTES or not content.startswith(_MAGIC):
        return []
    (salt,) = _SALT.unpack_from(content, _SALT_AT)
    found: list[tuple[int, bytes]] = []
    for half in range(2):
        found += _entries_of_half(content, _HEADER_BYTES + half * HALF_BYTES, salt)
    return sorted(found)


def _entries_of_half(content: bytes, at: int, salt: int) -> list[tuple[int, bytes]]:
    """Up to where an earlier turn's begin, or nothing is."""
    found: list[tuple[int, bytes]] = []
    end = at + HALF_BYTES
    while at + _HEAD.size <= end:
        number, size, check = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        payload = content[at : at + size]
        is_next = number > (found[-1][0] if found else 0)
        if not is_next or at + size > end or crc32(payload, (number ^ number >> 32 ^ salt) & _LOW) != check:
            break
        found.append((number, payload))
        at += size
    return found


def _owner(shared: mmap.mmap) -> str:
    return shared[_OWNER_AT : _OWNER_AT + _OWNER_BYTES].rstrip(b"\0").decode("utf-8", "replace")


def _belong_to_owner_of(database: Path, opened: int) -> None:
    """Whoever may use the database may read the log; as SQLite has it with its own."""
    found = os.stat(database)
    os.fchmod(opened, found.st_mode & 0o666)
    if os.geteuid() == 0:
        os.fchown(opened, found.st_uid, found.st_gid)


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
