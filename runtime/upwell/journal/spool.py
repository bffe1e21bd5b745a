"""The spool: files that take what the store does not, until it does again. Nothing that was promised is lost.

A file is a row of length-prefixed frames, each a checked batch; a torn last frame, from a crash while it was written,
is left out. The files of a process are numbered. It brings them in itself as soon as the store works again, before
anything newer; those of a process that has ended, or was declared dead, are brought in by whoever opens the store
next. Who brings files in holds a lock on all that process has, so nobody else does; and the store knows by a batch's
number whether it has that already, so a bring-in that was cut short is done again from its beginning.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from upwell.engine.loggers import ENGINE
from upwell.journal.batch import KINDS, Batch
from upwell.journal.database import StoreRefuses
from upwell.journal.processes import Process, is_gone

MOST_BYTES: Final = 1 << 30
"""Of one process's files: what fails for longer than this lasts is not repaired by a longer file."""

_CHECK_BYTES: Final = 16
_HEAD_BYTES: Final = 8 + _CHECK_BYTES
_LARGEST: Final = 2**63 - 1

_AT_WORK: Final[set[str]] = set()
"""The writers of this process; others with its pid have been closed."""


class Frame(msgspec.Struct, array_like=True):
    """What one frame holds: who wrote it, and what."""

    process: Process
    batches: list[Batch]


class Receiver(Protocol):
    """What brings a spooled batch in; a store is one."""

    async def take_over(self, process: Process, batch: Batch) -> None: ...

    async def state_of(self, process: Process) -> str | None: ...


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Frame).decode


class Spool:
    """The spool files of one store, in a folder. Nothing is made before it is needed.

    folder: None keeps nothing: of a store that is gone with the process.
    """

    def __init__(self, folder: Path | None, process: Process) -> None:
        self.has_own = False
        self._folder = folder
        self._process = process
        self._number = 1
        self._bytes = 0
        _AT_WORK.add(process.id)

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return str(self._folder or "memory")

    def close(self) -> None:
        """Nothing more comes from this process: others may bring in what is left."""
        _AT_WORK.discard(self._process.id)

    # --- putting away ---------------------------------------------------------------------------------------

    def keep(self, batches: Sequence[Batch]) -> None:
        """Put these into this process's file, and on the disk.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        if self._folder is None:
            raise OSError("a store in memory has no spool")
        frame = _framed(Frame(self._process, [batch.by_rows() for batch in batches]))
        if self._bytes + len(frame) > MOST_BYTES:
            raise OSError(f"this process has spooled {self._bytes:,} bytes already")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _append(self._folder / f"{self._process.id}.{self._number:06}.spool", frame)
        self._bytes += len(frame)
        self.has_own = True

    # --- bringing in ------------------------------------------------------------------------------------------

    async def bring_in_own(self, store: Receiver) -> None:
        """Give the store what this process has spooled; what is spooled meanwhile stays for the next time."""
        if self.has_own:
            self._number += 1
            await _bring_in(store, self._files(f"{self._process.id}."))
            self.has_own = bool(self._files(f"{self._process.id}."))
            if not self.has_own:
                self._bytes = 0

    async def bring_in_others(self, store: Receiver) -> int:
        """Give the store what processes that have ended, or are taken to have, have spooled; of how many."""
        brought = 0
        for _, paths in groupby(self._files(), _process_id):
            files = list(paths)
            with _all_to_ourselves(files) as ours:
                try:
                    if ours and await _is_nobody_else_s(files[0], store):
                        await _bring_in(store, files)
                        brought += 1
                except StoreRefuses as error:  # it is no reason not to write what is our own
                    ENGINE.warning("The spool %s is not brought in: %s", files[0], error)
        return brought

    def _files(self, process_id: str = "") -> list[Path]:
        """The files of one process, or of all of them, oldest first."""
        if self._folder is None:
            return []
        try:
            names = os.listdir(self._folder)  # rather than glob, which is dear to a process that has just begun
        except FileNotFoundError:
            return []
        return [
            self._folder / name for name in sorted(names) if name.startswith(process_id) and name.endswith(".spool")
        ]


async def _bring_in(store: Receiver, files: Sequence[Path]) -> None:
    for path in files:
        try:
            for frame in _frames(path):
                for batch in frame.batches:
                    await store.take_over(frame.process, batch)
        except msgspec.DecodeError as error:  # of another version of upwell
            kept = path.rename(path.with_suffix(".unreadable"))
            ENGINE.warning("The spool %s cannot be read, and is kept for you: %s", kept, error)
        else:
            path.unlink(missing_ok=True)


async def _is_nobody_else_s(path: Path, store: Receiver) -> bool:
    """Whether the process that wrote this file will not see to it itself."""
    first = next(_frames(path), None)
    if first is None:
        return True  # torn in its only frame
    process = first.process
    if process.id in _AT_WORK:
        return False
    gone = is_gone(process.host, process.pid, process.pid_started)
    if gone is None:  # on another machine, or behind a wall
        return await store.state_of(process) in ("ended", "lost")
    return gone or process.pid == os.getpid()


@contextmanager
def _all_to_ourselves(files: Sequence[Path]) -> Generator[bool]:
    """Lock these files; whether nobody else had."""
    with ExitStack() as stack:
        try:
            for path in files:
                file = stack.enter_context(path.open("rb"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not path.exists():  # brought in since it was opened
                    raise FileNotFoundError(path)
        except OSError:
            yield False
        else:
            yield True


def _process_id(path: Path) -> str:
    return path.name.partition(".")[0]


# --- the file -----------------------------------------------------------------------------------------------


def _framed(frame: Frame) -> bytes:
    try:
        body = _encode(frame)
    except (UnicodeEncodeError, OverflowError):
        body = _encode(Frame(frame.process, [storable(batch) for batch in frame.batches]))
    return len(body).to_bytes(8, "big") + blake2b(body, digest_size=_CHECK_BYTES).digest() + body


def storable(batch: Batch) -> Batch:
    """The same without what cannot be stored anywhere: half characters, endless integers."""
    rows: dict[str, Any] = {kind: [tuple(map(_storable_value, row)) for row in getattr(batch, kind)] for kind in KINDS}
    return Batch(batch.process_id, batch.process_key, batch.number, safe_ends=batch.safe_ends, **rows)


def _storable_value(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return max(-_LARGEST, min(value, _LARGEST)) if isinstance(value, int) else value


def _append(path: Path, frame: bytes) -> None:
    """Put a frame at the end of a file, whole or not at all, and on the disk."""
    opened = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        before = os.fstat(opened).st_size
        os.fchmod(opened, 0o600)
        try:
            view = memoryview(frame)
            while view:
                view = view[os.write(opened, view) :]
            os.fsync(opened)
        except BaseException:
            os.ftruncate(opened, before)
            raise
    finally:
        os.close(opened)


def _frames(path: Path) -> Iterator[Frame]:
    try:
        file = path.open("rb")
    except OSError:
        return
    with file:
        while head := file.read(_HEAD_BYTES):
            size = int.from_bytes(head[:8], "big")
            body = file.read(size) if len(head) == _HEAD_BYTES and size <= MOST_BYTES else b""
            if not body or blake2b(body, digest_size=_CHECK_BYTES).digest() != head[8:]:
                ENGINE.warning("The spool %s ends in the middle of a record, which is left out", path)
                return
            yield _decode(body)
