"""What comes over a connection, byte by byte: bounds on what has no end, trailers, requests that follow each other."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator
from http.client import parse_headers
from itertools import chain, repeat
from typing import Any, Final

import pytest
from tests.runtime.server.serving import PATIENCE_SECONDS, Process, server_process
from uvicorn import Config
from uvicorn.server import ServerState

from upwell.server.http import HEAD_SECONDS, MOST_HEAD_BYTES, HttpProtocol
from upwell.testing import virtual_clock

PIECE: Final = b"a" * 8192
PIECES: Final = 64 * MOST_HEAD_BYTES // len(PIECE)

POST: Final = b"POST /api/flow-runs/bulk HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Process]:
    with server_process(tmp_path_factory.mktemp("server")) as server:
        yield server


def answers(server: Process, sent: bytes, number: int) -> list[tuple[int, bytes]]:
    """So many answers to what is sent in one go."""
    found = list[tuple[int, bytes]]()
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS) as connection:
        connection.sendall(sent)
        with connection.makefile("rb") as reader:
            for _ in range(number):
                status = int(reader.readline().split()[1])
                found.append((status, reader.read(int(parse_headers(reader)["Content-Length"]))))
    return found


def is_taken_in(server: Process, beginning: bytes) -> bool:
    """Whether the server reads on, however much comes after this; else it closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS) as connection:
        try:
            for piece in chain([beginning], repeat(PIECE, PIECES)):
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            return False
    return True


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET /",
        b"GET /api/version HTTP/1.1\r\nHost: ",
        b"GET /api/version HTTP/1.1\r\nHost: localhost\r\nX: ",
        POST + b"2;",
        POST + b"2\r\n{}\r\n0\r\nX: ",
    ],
    ids=["address", "host", "header", "extension of a chunk", "trailer"],
)
def test_what_is_sent_without_end_is_refused(server: Process, beginning: bytes) -> None:
    assert not is_taken_in(server, beginning)
    assert server.get("/api/health")[0] == 200


def test_a_trailer_is_no_header(server: Process) -> None:
    trailers = b"0\r\nHost: elsewhere\r\nOrigin: http://elsewhere\r\n\r\n"
    with_trailers = answers(server, POST + b"2\r\n{}\r\n" + trailers, 1)
    assert with_trailers == answers(server, POST + b"2\r\n{}\r\n0\r\n\r\n", 1)


def test_requests_that_come_in_one_go_are_answered_in_their_order(server: Process) -> None:
    paths = (b"/api/health", b"/api/nothing", b"/api/ready")
    asked = b"".join(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path for path in paths)
    assert [status for status, _ in answers(server, asked, 3)] == [200, 404, 200]


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /api/health HTTP/1.1\r\nHost localhost\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /api/bulk HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"POST /api/bulk HTTP/1.1\r\nHost: localhost\r\nContent-Length: -2\r\n\r\n{}",
    ],
    ids=["TLS", "no colon", "no ASCII", "two lengths", "a length below nothing"],
)
def test_what_is_no_request_is_refused(server: Process, nonsense: bytes) -> None:
    assert [status for status, _ in answers(server, nonsense, 1)] == [400]


class Held(asyncio.Transport):
    """A connection whose other side sends what it likes, when it likes."""

    closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


async def health(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET "])
def test_a_connection_that_does_not_say_what_it_asks_for_is_closed(sent: bytes) -> None:
    async def main() -> None:
        state = ServerState()
        protocol, transport = HttpProtocol(Config(health, timeout_keep_alive=3600, lifespan="off"), state, {}), Held()
        protocol.connection_made(transport)
        if sent:
            protocol.data_received(sent)
        await asyncio.sleep(HEAD_SECONDS - 1)
        if sent:
            protocol.data_received(b"X")  # a letter now and then is no head
        assert not transport.closed
        await asyncio.sleep(2)
        assert transport.closed
        protocol.connection_lost(None)

    with virtual_clock() as clock:
        clock.run(main())


def test_a_connection_that_waits_for_its_answer_is_left_open() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(10 * HEAD_SECONDS)
        await health(scope, receive, send)

    async def main() -> None:
        protocol, transport = HttpProtocol(Config(slow, lifespan="off"), ServerState(), {}), Held()
        protocol.connection_made(transport)
        protocol.data_received(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(9 * HEAD_SECONDS)
        assert not transport.closed
        await asyncio.sleep(2 * HEAD_SECONDS)
        protocol.connection_lost(None)

    with virtual_clock() as clock:
        clock.run(main())
