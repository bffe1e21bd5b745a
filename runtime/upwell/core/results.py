"""What is known about a stored result, what a storage must offer, and how a result can be lost."""

import datetime as dt
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import msgspec

from upwell.core.errors import MissingResult, UpwellError


class ResultNotFound(MissingResult):
    """A result was stored, and its file is no longer there."""


class ResultDamaged(MissingResult):
    """What is stored is not what was written: other bytes, or fewer."""


class ResultExpired(MissingResult):
    """A result was stored, and the time for which it counts is over."""


class ResultNotTrusted(MissingResult):
    """A result was not signed with this store's key, so it was not opened."""


class ResultStorageError(UpwellError):
    """A storage of results could not be read or written: disk full, no permission, no network."""


class ResultRecord(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """Where one result is, and how to know that it is the one that was written. Small ones are in `data`."""

    serializer: str
    """The name of the serializer that wrote it."""

    size: int
    """How many bytes were written."""

    checksum: str
    """BLAKE2b of these bytes, in hexadecimal; keyed if `signed`."""

    created: dt.datetime
    """When it was stored, in UTC."""

    expires: dt.datetime | None = None
    """From when on it does not count any more, in UTC; None is never."""

    data: bytes | None = None
    """The bytes themselves, or None if they are in a storage."""

    storage: str | None = None
    """The `spec` of the storage that holds it, or None if it is inline."""

    location: str | None = None
    """Its key in that storage."""

    signed: bool = False
    """Whether the checksum was made with a secret key, over the serializer's name too."""

    FIRST_BYTE: ClassVar[bytes] = b"\x99"
    """What one begins with as bytes: an array of nine."""

    @property
    def where(self) -> str:
        """Where it is, for messages."""
        return "kept inline" if self.location is None else f"{self.location!r} in {self.storage}"

    def to_bytes(self) -> bytes:
        """The record as MessagePack, for the database."""
        return _encode(self)

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> "ResultRecord":
        """The record that `to_bytes` wrote; raises ResultDamaged if it is none."""
        try:
            return _decode(data)
        except msgspec.MsgspecError as error:
            raise _damaged(error) from error

    @classmethod
    def many_from_bytes(cls, data: bytes, count: int) -> "list[ResultRecord]":
        """So many records, each as `to_bytes` wrote it, one after the other; raises ResultDamaged if one is none."""
        try:
            return _decode_many(listed(count, data))
        except msgspec.MsgspecError as error:
            raise _damaged(error) from error

    def __repr__(self) -> str:
        return f"ResultRecord({self.serializer}, {self.size} bytes, {self.where})"


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ResultRecord).decode
_decode_many = msgspec.msgpack.Decoder(list[ResultRecord]).decode


def listed(count: int, items: bytes) -> bytes:
    """The MessagePack of a list of so many, each of which is MessagePack itself, one after the other."""
    return b"\xdd" + count.to_bytes(4, "big") + items


def _damaged(error: Exception) -> ResultDamaged:
    return ResultDamaged(
        f"The record of a result cannot be read ({error}); it is damaged, or a newer version of upwell "
        "wrote it. Run again with refresh_cache=True to compute the result anew."
    )


class StoredValue:
    """Stands for a value that is stored, and not kept in memory."""

    __slots__ = ("_read", "record")

    def __init__(self, read: Callable[[ResultRecord], Any], record: ResultRecord) -> None:
        self._read = read
        self.record = record

    def read(self) -> Any:
        """The value; may block, and raises MissingResult if it is lost."""
        return self._read(self.record)

    def __repr__(self) -> str:
        return f"<stored: {self.record!r}>"


@runtime_checkable
class ResultStorage(Protocol):
    """Where results are stored: bytes by key. Called from many threads at once, never on the event loop.

    A key is a relative path with `/` between its parts, one that `core.storage_keys.check_key` accepts.
    """

    @property
    def spec(self) -> str:
        """What records remember it by: a URL from which it can be opened again, or a name of its own."""
        ...

    def read(self, key: str) -> bytes:
        """What was written last under this key; raises FileNotFoundError or KeyError if there is nothing."""
        ...

    def write(self, key: str, data: bytes) -> None:
        """Store all of `data` under this key, in the place of what is there, or else change nothing and raise."""
        ...

    def exists(self, key: str) -> bool:
        """Whether there is something under this key."""
        ...

    def delete(self, key: str) -> None:
        """Remove what is under this key, if there is anything."""
        ...


def expired(record: ResultRecord, now: dt.datetime) -> bool:
    """Whether the record's time is over at `now`, which must have a time zone."""
    return record.expires is not None and now >= record.expires


def not_kept(run: str) -> MissingResult:
    """The error for a run of this name that completed, and whose result was not stored."""
    return MissingResult(
        f"The result of {run!r} was not persisted: it was in memory only, and is gone. To be able to read it later, "
        "or in another process, use persist_result=True on the task or flow, or set UPWELL_RESULTS_PERSIST_BY_DEFAULT."
    )
