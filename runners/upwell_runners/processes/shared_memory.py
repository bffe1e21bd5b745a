"""Large payloads cross in shared memory: one copy by the sender, none by the receiver.

A *segment* is memory that two processes have mapped. The side that made it is its *lender*: it fills the
segment and tells the other side, the *borrower*, which builds values right on top of it. When nothing refers
to those values any more the borrower gives the segment back, and the lender fills it again: its pages are
warm on both sides then, and faults on fresh pages cost several times the copy.

A segment has no name in any file system, only descriptors that are passed over the socket and closed at
once, so nothing can be left behind, whoever dies.
"""

from __future__ import annotations

import importlib
import mmap
import os
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

Buffer = bytes | bytearray | memoryview

MIN_SHARED_BYTES: Final = 128 * 1024
"""Payloads from this size on cross in shared memory; smaller ones go through the socket faster."""

MAX_LENT_SEGMENTS: Final = 64
"""Each keeps a descriptor open on both sides, so there may not be any number; beyond it, payloads take the socket."""

MAX_IDLE_BYTES: Final = 512 * 1024 * 1024
"""How much memory is kept warm for payloads to come."""

_ROUNDING: Final = 1024 * 1024
_ALIGNMENT: Final = 64


class Lender:
    """The segments that this process has made for one other process.

    announce(segment_id, size, descriptor): tell the other side of a new segment; takes over the descriptor.
    withdraw(segment_id): tell it that a segment is gone.
    """

    def __init__(self, announce: Callable[[int, int, int], None], withdraw: Callable[[int], None]) -> None:
        self._announce = announce
        self._withdraw = withdraw
        self._segments: dict[int, mmap.mmap] = {}
        self._idle: dict[int, int] = {}
        self._next_id = 1

    def lend(self, head: Sequence[Buffer], buffers: Sequence[Buffer]) -> tuple[int, tuple[int, ...]] | None:
        """Copy `head`, in one piece, and the buffers into one segment.

        Its id, and the start and size of the head, then of each buffer. None: too many segments are lent already.
        """
        spans, size = _layout(head, buffers)
        segment_id = self._take(size)
        if segment_id is None:
            return None
        with memoryview(self._segments[segment_id]) as view:
            end = 0
            for piece in head:
                start, end = end, end + memoryview(piece).nbytes
                view[start:end] = memoryview(piece).cast("B")
            for buffer, start in zip(buffers, spans[2::2], strict=True):
                view[start : start + memoryview(buffer).nbytes] = memoryview(buffer).cast("B")
        return segment_id, spans

    def given_back(self, segment_ids: Sequence[int]) -> None:
        """The other side refers to these no more."""
        for segment_id in segment_ids:
            if segment_id in self._segments:
                self._idle[segment_id] = len(self._segments[segment_id])
        while self._idle and sum(self._idle.values()) > MAX_IDLE_BYTES:
            self._discard(next(iter(self._idle)))

    def close(self) -> None:
        for segment in self._segments.values():
            segment.close()
        self._segments.clear()
        self._idle.clear()

    def _take(self, size: int) -> int | None:
        fitting = [(length, key) for key, length in self._idle.items() if length >= size]
        if fitting:
            _, segment_id = min(fitting)
            del self._idle[segment_id]
            return segment_id
        if len(self._segments) >= MAX_LENT_SEGMENTS:
            if not self._idle:
                return None
            self._discard(next(iter(self._idle)))  # too small, the one that has been idle for longest
        return self._make(size)

    def _make(self, size: int) -> int:
        length = -(-size // _ROUNDING) * _ROUNDING
        descriptor = nameless_file()
        try:
            os.ftruncate(descriptor, length)
            segment = mmap.mmap(descriptor, length)
        except BaseException:
            os.close(descriptor)
            raise
        segment_id = self._next_id
        self._next_id += 1
        self._segments[segment_id] = segment
        self._announce(segment_id, length, descriptor)
        return segment_id

    def _discard(self, segment_id: int) -> None:
        del self._idle[segment_id]
        self._segments.pop(segment_id).close()
        self._withdraw(segment_id)


class Borrower:
    """The segments of the other process, as mapped here.

    freed: called, in whatever thread, when nothing here refers to a segment any more.
    """

    def __init__(self, freed: Callable[[], None]) -> None:
        self._freed = freed
        self._segments: dict[int, mmap.mmap] = {}
        self._exports: dict[int, weakref.ref[Any]] = {}
        self._to_give_back: deque[int] = deque()

    def add(self, segment_id: int, size: int, descriptor: int) -> None:
        """Map a segment that the other side announced; takes over the descriptor."""
        try:
            self._segments[segment_id] = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)

    def remove(self, segment_id: int) -> None:
        """The other side has discarded it. Values on top of it stay valid."""
        self._segments.pop(segment_id, None)

    def view(self, segment_id: int) -> memoryview:
        """The segment's memory. When the last thing that refers to it has gone, the segment is given back."""
        segment = self._segments[segment_id]
        # Of what exports memory, only ctypes' arrays can be weakly referred to AND are what views hold on to.
        ctypes = importlib.import_module("ctypes")  # here, for it takes milliseconds and few need it
        exporter = (ctypes.c_char * len(segment)).from_buffer(segment)
        self._exports[segment_id] = weakref.ref(exporter, lambda _: self._on_freed(segment_id))
        return memoryview(exporter).cast("B")

    def skip(self, segment_id: int) -> None:
        """Give a segment back unread."""
        self._to_give_back.append(segment_id)

    def take_freed(self) -> list[int]:
        """The segments to give back now."""
        freed: list[int] = []
        while self._to_give_back:
            freed.append(self._to_give_back.popleft())
        return freed

    def close(self) -> None:
        """Let go of all segments. Values on top of them stay valid for as long as they are referred to."""
        self._exports.clear()
        self._segments.clear()

    def _on_freed(self, segment_id: int) -> None:
        self._to_give_back.append(segment_id)
        self._freed()


def nameless_file() -> int:
    """A descriptor of a file in memory, or as near to it as this system has, that no path leads to."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("upwell", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _layout(head: Sequence[Buffer], buffers: Sequence[Buffer]) -> tuple[tuple[int, ...], int]:
    end = sum(memoryview(piece).nbytes for piece in head)
    spans = [0, end]
    for buffer in buffers:
        start = -(-end // _ALIGNMENT) * _ALIGNMENT
        size = memoryview(buffer).nbytes
        spans += (start, size)
        end = start + size
    return tuple(spans), end
