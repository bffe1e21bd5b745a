"""What the pool and its children say to each other, and how it is framed on their socket.

A frame is its length (4 bytes), its kind (1 byte) and a MessagePack body. Rows (one row is one attempt's
arguments, or its result) are known by serial numbers that count up for each child, so that a run of rows is a
first serial and a count. User's values inside are pickled (see `parcels`); frames are read without knowing any
user's class.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections import deque
from enum import IntEnum
from typing import Any, Final

import msgspec
from msgspec import Struct

from upwell.core.lifecycle import OutcomeKind


class Parcel(Struct, array_like=True, gc=False):
    """Pickled values on their way.

    data: the pickle, and buffers: what it keeps beside itself; empty if they are in shared memory.
    segment: the id of the segment that they are in; 0: none.
    spans: where they are in it: start and size of the pickle, then of each buffer.
    """

    data: bytes = b""
    buffers: tuple[bytes, ...] = ()
    segment: int = 0
    spans: tuple[int, ...] = ()


class Setup(Struct, array_like=True):
    """The first frame to a child: how its process is to look."""

    sys_path: list[str]
    argv: list[str]
    directory: str
    environment: dict[str, str]
    log_levels: dict[str, int]


class Function(Struct, array_like=True):
    """A function that rows will name by its number.

    reference: `module:qualname`, and file: where that module is; or else the function is in the pickle.
    """

    number: int
    reference: str
    file: str
    pickle: bytes
    log_prints: bool


class Batch(Struct, array_like=True):
    """Rows for a child to execute, one after the other.

    form: what the parcels hold. announce: say when the row begins.
    """

    first: int
    count: int
    function: int
    form: int
    announce: bool
    parcels: list[Parcel]


class Outcomes(Struct, array_like=True):
    """How consecutive rows ended.

    times: seconds since the epoch, as packed doubles: when the first began, then when each ended.
    kinds: one byte a row (see `KINDS`); empty: all returned.
    parcels: one for all values, or one for each.
    """

    first: int
    count: int
    times: bytes
    kinds: bytes
    messages: list[str]
    parcels: list[Parcel]


class GivenBack(Struct, array_like=True):
    """Rows that a child did not begin and gives back, because the one before them takes long."""

    serials: list[int]


class Log(Struct, array_like=True):
    """A log record, or a printed line, of a row."""

    serial: int
    level: int
    message: str
    logger: str
    timestamp: float


class Segment(Struct, array_like=True):
    """A new segment; its descriptor comes with this frame."""

    id: int
    size: int


class Facts(Struct, array_like=True):
    """The answer to a question for the facts of a row; None: it is no longer under way."""

    serial: int
    facts: Any


class Form(IntEnum):
    """What the pickles of a batch hold, for each row."""

    ITEM = 0  # its only argument
    ARGS = 1  # its positional arguments
    CALL = 2  # a pair of positional and keyword arguments


class Kind(IntEnum):
    """The kinds of frames, and what their bodies are."""

    SETUP = 1
    FUNCTION = 2
    BATCH = 3
    OUTCOMES = 4
    GIVEN_BACK = 5
    STARTED = 6
    LOG = 7
    SEGMENT = 8
    WITHDRAWN = 9
    FREED = 10
    ASK_FACTS = 11
    FACTS = 12
    HELLO = 13
    FORK = 14
    END = 15
    ENDED = 16
    FORGET = 17


KINDS: Final = tuple(OutcomeKind)
"""The ways an attempt can end, in the order that their numbers on the wire have; the first is "returned"."""

PROGRESS_SEGMENT: Final = 0
"""The id of the segment in whose first word a child keeps the serial of the row that it began last."""

_BODIES: Final[dict[int, Any]] = {
    Kind.SETUP: Setup,
    Kind.FUNCTION: Function,
    Kind.BATCH: Batch,
    Kind.OUTCOMES: Outcomes,
    Kind.GIVEN_BACK: GivenBack,
    Kind.STARTED: int,
    Kind.LOG: Log,
    Kind.SEGMENT: Segment,
    Kind.WITHDRAWN: int,
    Kind.FREED: list[int],
    Kind.ASK_FACTS: int,
    Kind.FACTS: Facts,
    Kind.HELLO: int,
    Kind.FORK: None,
    Kind.END: int,
    Kind.ENDED: int,
    Kind.FORGET: int,
}
_decoders: Final = {kind: msgspec.msgpack.Decoder(body).decode for kind, body in _BODIES.items()}
_encode = msgspec.msgpack.Encoder().encode
_HEADER: Final = struct.Struct("<IB")
_READ_BYTES: Final = 256 * 1024
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(32 * array.array("i").itemsize)


def frame(kind: Kind, body: object) -> bytes:
    """A frame, ready for the socket."""
    data = _encode(body)
    return _HEADER.pack(len(data), kind) + data


class FrameReader:
    """Cuts what arrives on a socket into frames, and keeps the descriptors that come with them."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._space = bytearray(_READ_BYTES)
        self._pending = bytearray()
        self.descriptors: deque[int] = deque()

    def receive(self) -> list[tuple[int, Any]] | None:
        """One read's worth of whole frames; None at the end of the stream.

        Raises:
            BlockingIOError: the socket does not block and has nothing.
            TimeoutError: it has a timeout and has nothing for so long.
        """
        try:
            size, ancillary, _, _ = self._sock.recvmsg_into([self._space], _ANCILLARY_BYTES)
        except (BlockingIOError, TimeoutError):
            raise
        except OSError:  # the other side died with something unread, or this side was closed by a fork
            return None
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found = array.array("i")
                found.frombytes(data[: len(data) - len(data) % found.itemsize])
                self.descriptors.extend(found)
        if size == 0:
            return None
        self._pending += memoryview(self._space)[:size]
        return self._cut()

    def close(self) -> None:
        while self.descriptors:
            os.close(self.descriptors.popleft())

    def _cut(self) -> list[tuple[int, Any]]:
        frames: list[tuple[int, Any]] = []
        pending = self._pending
        position, end = 0, len(pending)
        with memoryview(pending) as view:
            while end - position >= _HEADER.size:
                length, kind = _HEADER.unpack_from(pending, position)
                start = position + _HEADER.size
                if end - start < length:
                    break
                position = start + length
                frames.append((kind, _decoders[kind](view[start:position])))
        if position:
            del pending[:position]
        return frames
