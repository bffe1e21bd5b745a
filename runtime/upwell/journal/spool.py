"""The spool: files that take what the store does not, until it does again. Nothing that was promised is lost.

A file belongs to one process while that lives, and is brought in by whoever opens the store next. It is a row of
length-prefixed frames, each a checked batch; a torn last frame, from a crash while it was written, is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final, Protocol

import msgspec

from upwell.engine.loggers import ENGINE
from upwell.journal.batch import Batch
from upwell.journal.processes import Process, is_gone

_CHECK_BYTES: Final = 16


class Frame(msgspec.Struct, array_like=True):
    """What one frame holds: who wrote it, and what."""

    process: Process
    batches: list[Batch]


class Receiver(Protocol):
    """What brings a spooled batch in; a store is one."""

    async def take_over(self, process: Process, batch: Batch) -> None: ...


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Frame).decode


class Spool:
    """The spool files of one store, in a folder. Nothing is made before it is needed."""

    def __init__(self, folder: Path, process: Process) -> None:
        self.path = folder / f"{process.id}.spool"
        self._folder = folder

    def keep(self, process: Process, batches: Sequence[Batch]) -> None:
        """Put these into this process's file, and on the disk.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        body = _encode(Frame(process, list(batches)))
        frame = len(body).to_bytes(8, "big") + blake2b(body, digest_size=_CHECK_BYTES).digest() + body
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        opened = os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        try:
            before = os.fstat(opened).st_size
            os.fchmod(opened, 0o600)
            try:
                _write_all(opened, frame)
                os.fsync(opened)
            except OSError:
                os.ftruncate(opened, before)
                raise
        finally:
            os.close(opened)

    async def bring_in(self, store: Receiver) -> int:
        """Give the store what this process, and those that have ended, have spooled; how many batches."""
        brought = 0
        if not self._folder.is_dir():
            return 0
        for path in sorted(self._folder.glob("*.spool")):
            claimed = _claim(path, self.path)
            if claimed is None:
                continue
            try:
                for frame in _frames(claimed):
                    for batch in frame.batches:
                        await store.take_over(frame.process, batch)
                        brought += 1
            except BaseException:
                claimed.rename(path)  # what came in already comes in again, and changes nothing
                raise
            claimed.unlink()
        return brought


def _claim(path: Path, own: Path) -> Path | None:
    """Take a file for ourselves; None if its process is at work, or somebody else has taken it."""
    if path != own:
        first = next(iter(_frames(path)), None)
        if first is not None and is_gone(first.process.host, first.process.pid, first.process.pid_started) is False:
            return None
    claimed = path.with_suffix(f".{os.getpid()}")
    try:
        path.rename(claimed)
    except OSError:
        return None
    return claimed


def _frames(path: Path) -> Iterator[Frame]:
    try:
        content = memoryview(path.read_bytes())
    except OSError:
        return
    while len(content) >= 8 + _CHECK_BYTES:
        size = int.from_bytes(content[:8], "big")
        check, body = content[8 : 8 + _CHECK_BYTES], content[8 + _CHECK_BYTES : 8 + _CHECK_BYTES + size]
        if len(body) < size or blake2b(body, digest_size=_CHECK_BYTES).digest() != check:
            ENGINE.warning("The spool %s ends in the middle of a record, which is left out", path)
            return
        yield _decode(body)
        content = content[8 + _CHECK_BYTES + size :]


def _write_all(opened: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(opened, view) :]
