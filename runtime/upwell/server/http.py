"""HTTP on one connection: uvicorn's protocol over llhttp, which has its bounds here.

Reading and writing the protocol was two fifths of what an answer took while Python did it (measured, against h11).
"""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES: Final = 64 * 1024
"""Of a request line and headers, of trailers, or of what else is no content, before it is refused."""

HEAD_SECONDS: Final = 30.0
"""For so long a connection may take to say what it asks for, once it is open or has begun to."""

_TOO_LARGE: Final = "The head of this request is too large."


class HttpProtocol(HttpToolsProtocol):
    """llhttp itself would take in a head without end, whoever sends it, and wait for ever for the rest of one.

    The limit is for what comes without an end in sight: a head that comes whole in one go may be somewhat larger.
    """

    _without_progress = 0
    _has_progress = False
    _in_head = True
    _awaiting_head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._has_progress = False
        super().data_received(data)
        if self.transport.is_closing():
            return
        self._without_progress = 0 if self._has_progress else self._without_progress + len(data)
        if self._without_progress > MOST_HEAD_BYTES:
            self.send_400_response(_TOO_LARGE)
        elif self._in_head and self._awaiting_head is None:
            self._await_head()

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # a trailer is none of the headers: those have been acted upon
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._has_progress = True
        if self._awaiting_head is not None:
            self._head_is_here()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._has_progress = True
        super().on_body(body)

    def _await_head(self) -> None:
        self._awaiting_head = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_is_late(self) -> None:
        is_first = self.cycle is None  # pyright: ignore[reportUnnecessaryComparison]  # as uvicorn itself asks
        if is_first or self.cycle.response_complete:
            self.transport.close()
        else:  # the request before is being answered, at its own pace
            self._await_head()

    def _head_is_here(self) -> None:
        if self._awaiting_head is not None:
            self._awaiting_head.cancel()
            self._awaiting_head = None


__all__ = ["HEAD_SECONDS", "MOST_HEAD_BYTES", "HttpProtocol"]
