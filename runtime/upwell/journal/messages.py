"""What a process says to a server's journal, by operation; how it is packed and checked stands in `wire.py`."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

from msgspec import Meta, Raw, Struct

from upwell.journal.wire import Id, Sender

MEDIA_TYPE: Final = "application/vnd.msgpack"

Names: TypeAlias = Annotated[list[Annotated[str, Meta(max_length=10_000)]], Meta(max_length=100_000)]


class TakeOver(Struct, array_like=True):
    """A batch that was spooled, and who has."""

    process: Sender
    batch: Raw


__all__ = ["MEDIA_TYPE", "Id", "Names", "Sender", "TakeOver"]
