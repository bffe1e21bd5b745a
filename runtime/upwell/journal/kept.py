"""Results that are kept: small ones in the database's row, packed; large ones in a checked file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final, Protocol

from msgspec.msgpack import Encoder

from upwell.core import packing
from upwell.core.errors import MissingResult
from upwell.core.results import ResultRecord, listed

INLINE_BYTES: Final = 16 * 1024

_INLINE: Final = b"\x91"
"""What an inline record begins with: it is a list of one, the value. One that says where the value is is longer."""

_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})
_encode: Final = Encoder().encode

File = tuple[ResultRecord, bytes]
"""Where a large result belongs, and what is to be written there."""


class Files(Protocol):
    """Where large results go: `upwell.results.ResultStore` is one."""

    def prepare(self, value: object) -> tuple[ResultRecord, bytes | None]: ...

    def write(self, record: ResultRecord, content: bytes) -> None: ...

    def get(self, record: ResultRecord) -> Any: ...


def no_files() -> Files:
    """For a journal that was given no place for large results."""
    raise MissingResult("This journal has no place for large results.")


class Kept:
    """Turns results into records and back. make_files is called when the first large one comes."""

    def __init__(self, make_files: Callable[[], Files]) -> None:
        self._make_files = make_files
        self._files: Files | None = None

    @property
    def files(self) -> Files:
        if self._files is None:
            self._files = self._make_files()
        return self._files

    def dump(self, value: object) -> tuple[bytes, File | None]:
        """The record of a result; with a file that must be written before the record is.

        Raises:
            SerializationError: it cannot be stored.
        """
        packed = packing.pack(value)
        if len(packed) <= INLINE_BYTES:
            return _INLINE + packed, None
        record, content = self.files.prepare(value)
        return record.to_bytes(), None if content is None else (record, content)

    def dump_scalar(self, value: object) -> bytes | None:
        """The record of a number, a short text or the like, as most results are; None for any other."""
        if type(value) not in _SCALARS:
            return None
        try:
            record = _encode((value,))
        except (OverflowError, ValueError):  # an int above 64 bits, a lone surrogate
            return None
        return record if len(record) <= INLINE_BYTES else None

    def write(self, file: File) -> None:
        """Write the file of a large result; on the journal's thread."""
        self.files.write(*file)

    def load(self, record: bytes) -> Any:
        """The result that a record stands for.

        Raises:
            MissingResult: its file is missing, or damaged; says which.
        """
        if record[:1] == _INLINE:
            return packing.unpack(record)[0]
        return self.files.get(ResultRecord.from_bytes(record))

    def load_many(self, records: Sequence[bytes]) -> list[Any]:
        """The results that records stand for, in a fraction of the time; see `load`."""
        if bytes(map(itemgetter(0), records)).count(_INLINE) != len(records):
            return [self.load(record) for record in records]
        found: list[Any] = packing.unpack(listed(len(records), b"".join([record[1:] for record in records])))
        return found
