"""Entity tags: what somebody has already is not sent again. A tag is a digest of the answer, so it is never wrong."""

from __future__ import annotations

from hashlib import sha256
from http import HTTPStatus
from typing import Final

from litestar.types import HTTPResponseStartEvent, Message, Send

TAG_CHARACTERS: Final = 24
"""Of a digest: half of what there are of SHA-256, which processors have instructions for."""

_KINDS: Final = (b"application/json",)


def with_tags(send: Send, method: str, if_none_match: str | None) -> Send:
    """Sends JSON with its tag; without the JSON where its tag is among those that the request names."""
    if method != "GET":
        return send
    start: HTTPResponseStartEvent | None = None

    async def send_tagged(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start" and _has_tag(message):
            start = message
            return
        if start is None or message["type"] != "http.response.body":
            await send(message)
            return
        begun, start = start, None
        if message.get("more_body") or not message.get("body"):
            await send(begun)
            await send(message)
            return
        tag = f'"{sha256(message["body"]).hexdigest()[:TAG_CHARACTERS]}"'
        begun["headers"] = [*begun["headers"], (b"etag", tag.encode())]
        if if_none_match is not None and _names(if_none_match, tag):
            begun["status"] = HTTPStatus.NOT_MODIFIED
            begun["headers"] = [header for header in begun["headers"] if header[0].lower() not in _OF_THE_BODY]
            message["body"] = b""
        await send(begun)
        await send(message)

    return send_tagged


_OF_THE_BODY: Final = (b"content-length", b"content-type")


def _has_tag(start: HTTPResponseStartEvent) -> bool:
    if start["status"] != HTTPStatus.OK:
        return False
    kinds = [value for name, value in start["headers"] if name.lower() == b"content-type"]
    return bool(kinds) and kinds[0].startswith(_KINDS)


def _names(if_none_match: str, tag: str) -> bool:
    return if_none_match.strip() == "*" or tag in [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
