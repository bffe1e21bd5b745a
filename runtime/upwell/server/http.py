"""HTTP on one connection: uvicorn's protocol over llhttp, which has its bounds here.

Reading and writing the protocol was two fifths of what an answer took while Python did it (measured, against h11).
"""

from __future__ import annotations

from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES: Final = 64 * 1024
"""Of a request line and headers, of trailers, or of what else is no content, before it is refused."""

_TOO_LARGE: Final = "The head of this request is too large."


class HttpProtocol(HttpToolsProtocol):
    """llhttp itself would take in a head without end, whoever sends it.

    The limit is for what comes without an end in sight: a head that comes whole in one go may be somewhat larger.
    """

    _without_progress = 0
    _has_progress = False
    _in_head = True

    def data_received(self, data: bytes) -> None:
        self._has_progress = False
        super().data_received(data)
        if self._has_progress or self.transport.is_closing():
            self._without_progress = 0
            return
        self._without_progress += len(data)
        if self._without_progress > MOST_HEAD_BYTES:
            self.send_400_response(_TOO_LARGE)

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # a trailer is none of the headers: those have been acted upon
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._has_progress = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._has_progress = True
        super().on_body(body)


__all__ = ["MOST_HEAD_BYTES", "HttpProtocol"]
