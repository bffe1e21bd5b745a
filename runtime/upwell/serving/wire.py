"""What a worker and its template processes say to each other: MessagePack in frames, over a pair of sockets."""

from __future__ import annotations

import socket
import struct
from asyncio import IncompleteReadError, StreamReader
from typing import Any, Final, TypeAlias
from uuid import UUID

from msgspec import Struct
from msgspec.msgpack import Decoder, Encoder

from upwell.core.deployments import Job

_LENGTH: Final = struct.Struct("!I")
_CHUNK_BYTES: Final = 1 << 16

BEGUN_BYTES: Final = 16
"""A child that has begun its run, or found that it must not, says so by the run's id, on a pipe that all share."""


class Load(Struct, tag=True, frozen=True):
    """To a template, first of all: import this.

    roots: see `entrypoints.load_flow`. path: where to look besides. runs: how many a child may carry out, one after the
    other. pull_steps: what is to be done before, where nobody has done it. tokens: variables for them alone.
    """

    entrypoint: str
    roots: list[str] | None
    path: list[str]
    forks: bool = True
    runs: int = 1
    pull_steps: list[dict[str, Any]] = []
    tokens: dict[str, str] = {}


class Start(Struct, tag=True, frozen=True):
    """To a template: carry this out in a child."""

    job: Job


class Prepare(Struct, tag=True, frozen=True):
    """To a template: so many jobs are about to be due, so have children wait for them."""

    jobs: int


ToTemplate: TypeAlias = Load | Start | Prepare


class Ready(Struct, tag=True, frozen=True):
    """From a template: it has imported its code. why_cold: why its children begin from nothing, if they do."""

    why_cold: str | None = None


class CannotLoad(Struct, tag=True, frozen=True):
    """From a template, last of all: importing its code failed."""

    message: str


class Outdated(Struct, tag=True, frozen=True):
    """From a template: its code has changed since, so somebody else must start this."""

    flow_run_id: UUID


class Started(Struct, tag=True, frozen=True):
    """From a template: a child, which is the first of its process group, has this job."""

    flow_run_id: UUID
    pid: int


class Ended(Struct, tag=True, frozen=True):
    """From a template: how a child ended, negative for a signal; or its run, and it has stayed for another."""

    pid: int
    status: int


FromTemplate: TypeAlias = Ready | CannotLoad | Outdated | Started | Ended

_encoder = Encoder()
_to_template: Decoder[ToTemplate] = Decoder(ToTemplate)
_from_template: Decoder[FromTemplate] = Decoder(FromTemplate)


def frame(message: ToTemplate | FromTemplate) -> bytes:
    """A message as it is sent."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


async def read_from_template(reader: StreamReader) -> FromTemplate | None:
    """The next message of a template; None if it has gone."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return _from_template.decode(await reader.readexactly(length))
    except (IncompleteReadError, ConnectionError):
        return None


class Link:
    """The end of who is told what to do: a template's to its worker, and a child's, that may stay, to its template."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._buffer = bytearray()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: FromTemplate) -> None:
        """Raises OSError if the other has gone."""
        self._socket.sendall(frame(message))

    def receive(self) -> list[ToTemplate] | None:
        """What has come, waiting for something to come; None if the other has gone."""
        while not (messages := self._whole_messages()):
            try:
                chunk = self._socket.recv(_CHUNK_BYTES)
            except ConnectionError:
                return None
            if not chunk:
                return None
            self._buffer += chunk
        return messages

    def _whole_messages(self) -> list[ToTemplate]:
        messages: list[ToTemplate] = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            messages.append(_to_template.decode(memoryview(self._buffer)[_LENGTH.size : end]))
            del self._buffer[:end]
        return messages

    def close(self) -> None:
        self._socket.close()
