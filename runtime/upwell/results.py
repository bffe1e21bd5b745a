"""Results that outlive their run: stored, checked, read back.

A `ResultStore` turns a value into a `ResultRecord`. The record is plain data that the database keeps: a small
result is inside of it, a large one in a file whose place, size and checksum it knows. What is read back is what was
written, or an error says which result is lost, how, and what to do.
"""

import datetime as dt
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from hmac import compare_digest
from typing import Any, Final

from upwell.core.errors import ConfigurationError, MissingResult, SerializationError, UpwellError
from upwell.core.results import (
    ResultDamaged,
    ResultExpired,
    ResultNotFound,
    ResultNotTrusted,
    ResultRecord,
    ResultStorage,
    ResultStorageError,
    expired,
    listed,
    not_kept,
)
from upwell.core.storage_keys import check_key, check_key_template, render_key
from upwell.filesystems import check_storage, resolve_storage
from upwell.serializers import CompressedSerializer, JSONSerializer, MessagePackSerializer, Serializer, get_serializer

__all__ = [
    "INLINE_BYTES",
    "MissingResult",
    "ResultDamaged",
    "ResultExpired",
    "ResultNotFound",
    "ResultNotTrusted",
    "ResultRecord",
    "ResultStorage",
    "ResultStorageError",
    "ResultStore",
    "check_key_template",
    "check_storage",
    "expired",
    "not_kept",
    "render_key",
    "resolve_storage",
]

INLINE_BYTES: Final = 16 * 1024
"""Results of up to so many bytes are kept in the record itself."""

CHECKSUM_BYTES: Final = 20
"""Length of the BLAKE2b checksum; in hexadecimal it is twice as long."""

LEAST_KEY_BYTES: Final = 16
"""The shortest signing key that is accepted: 128 bits."""

Storage = str | os.PathLike[str] | ResultStorage
"""A folder, a URL, or a store of one's own; `resolve_storage` makes a storage of it."""

_EXACT: Final = (MessagePackSerializer, JSONSerializer)
_AGAIN: Final = "Run again with refresh_cache=True to compute it anew"


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class ResultStore:
    """Stores results, and reads them back. Safe to use from many threads at once.

    `prepare` and `put` of a value that stays inline do no I/O; anything else may block, so call it beside the loop.
    """

    def __init__(
        self,
        storage: Storage | Callable[[], Storage] | None = None,
        serializer: str | Serializer = "msgpack",
        *,
        inline_bytes: int = INLINE_BYTES,
        signing_key: bytes | None = None,
        now: Callable[[], dt.datetime] = _utc_now,
    ) -> None:
        """
        Args:
            storage: where results go that are not inline: a folder, a URL, a store of one's own, or a function that
                returns one, called when it is first needed. None keeps all results inline.
            serializer: what turns values into bytes, or its name.
            inline_bytes: results of up to so many bytes are kept in the record, unless they are given a key.
            signing_key: a secret of at least 16 bytes. Results are signed with it, and nothing that is not is opened.
            now: what time it is, with a time zone.

        Raises:
            ConfigurationError: the storage or the key cannot be used.
            UnknownSerializerError: no serializer has this name.
        """
        if inline_bytes < 0:
            raise ConfigurationError(f"inline_bytes is {inline_bytes}, and must be 0 or more.")
        if signing_key is not None and len(signing_key) < LEAST_KEY_BYTES:
            raise ConfigurationError(
                f"The key that signs results has {len(signing_key)} bytes, and must have at least {LEAST_KEY_BYTES}: "
                "make one with `secrets.token_bytes(32)`."
            )
        if storage is not None and (not callable(storage) or isinstance(storage, type)):
            storage = resolve_storage(storage)
        self.serializer = get_serializer(serializer)
        self.inline_bytes = inline_bytes
        self._storage = storage
        self._secret = None if signing_key is None else blake2b(signing_key, digest_size=32).digest()
        self._now = now
        self._reads_back = not _is_exact(self.serializer)

    @property
    def storage(self) -> ResultStorage | None:
        """Where results go that are not inline."""
        given = self._storage
        if given is not None and not isinstance(given, ResultStorage):
            given = self._storage = resolve_storage(given())
        return given

    def put(
        self, value: object, key: str | None = None, expires: dt.datetime | dt.timedelta | None = None
    ) -> ResultRecord:
        """Store a value; `prepare` and `write` in one.

        Raises:
            SerializationError: the value cannot be written, or could not be read again; says which part and why.
            InvalidStorageKeyError: the key is no relative path.
            ResultStorageError: the storage failed; nothing was changed there.
        """
        record, content = self.prepare(value, key, expires)
        if content is not None:
            self.write(record, content)
        return record

    def prepare(
        self, value: object, key: str | None = None, expires: dt.datetime | dt.timedelta | None = None
    ) -> tuple[ResultRecord, bytes | None]:
        """The record of a value, and what `write` has yet to store for it: None if it is inline. No I/O.

        A result with a key is never inline. One without is stored under its own checksum, so equal ones are one file.
        """
        data = self._dumps(value)
        created = self._now()
        if expires is not None:
            expires = created + expires if isinstance(expires, dt.timedelta) else expires.astimezone(dt.UTC)
        size, name, signed = len(data), self.serializer.name, self._secret is not None
        checksum = self._checksum(data, name, signed)
        storage = None if key is None and size <= self.inline_bytes else self.storage
        if storage is None:
            if key is not None:
                raise ConfigurationError(f"The result has the storage key {key!r}, but no result_storage is set.")
            record = ResultRecord(
                serializer=name,
                size=size,
                checksum=checksum,
                created=created,
                expires=expires,
                data=data,
                signed=signed,
            )
            return record, None
        record = ResultRecord(
            serializer=name,
            size=size,
            checksum=checksum,
            created=created,
            expires=expires,
            storage=storage.spec,
            location=_content_key(checksum) if key is None else check_key(key),
            signed=signed,
        )
        return record, data

    def write(self, record: ResultRecord, content: bytes) -> None:
        """Store what `prepare` gave; raises ResultStorageError if that fails."""
        storage, key = self._place(record)
        with _reaching("stored as", record):
            storage.write(key, content)

    def get(self, record: ResultRecord) -> Any:
        """The value of a record, checked to be what was written.

        Raises:
            ResultExpired: its time is over.
            ResultNotFound: its file is gone.
            ResultDamaged: it is not what was written.
            ResultNotTrusted: it is not signed with this store's key.
            ResultStorageError: the storage failed.
            DeserializationError: it is what was written, but a class that it names is not there.
        """
        if record.expires is not None and expired(record, self._now()):
            raise ResultExpired(f"The result {record.where} expired at {record.expires.isoformat()}. {_AGAIN}.")
        if record.signed is not (self._secret is not None):
            raise _not_signed_alike(record)
        data = record.data
        if data is None:
            data = self._read(record)
        if not self._is_as_written(record, data):
            raise _changed(record, data)
        name = record.serializer
        try:
            serializer = self.serializer if name == self.serializer.name else get_serializer(name)
            return serializer.loads(data)
        except SerializationError as error:
            error.add_note(f"This was the result {record.where}.")
            raise

    def get_many(self, records: Sequence[ResultRecord]) -> list[Any]:
        """The values of several; where all are inline, and of the commonest kind, in a fraction of the time."""
        serializer, name = self.serializer, self.serializer.name
        if type(serializer) is MessagePackSerializer and self._secret is None:
            checked = [
                data
                for record in records
                if (data := record.data) is not None
                and not record.signed
                and record.expires is None
                and record.serializer == name
                and len(data) == record.size
                and blake2b(data, digest_size=CHECKSUM_BYTES).hexdigest() == record.checksum
            ]
            if len(checked) == len(records):
                values: list[Any] = serializer.loads(listed(len(checked), b"".join(checked)))
                return values
        return [self.get(record) for record in records]

    def exists(self, record: ResultRecord) -> bool:
        """Whether the record's bytes are there; they are not read. Raises ResultStorageError if the storage fails."""
        if record.data is not None:
            return True
        storage, key = self._place(record)
        with _reaching("looked up as", record):
            return storage.exists(key)

    def delete(self, record: ResultRecord) -> None:
        """Delete the record's file, if it has one; raises ResultStorageError if the storage fails.

        Equal results share one file: delete it only if no other record has the same storage and location.
        """
        if record.data is None:
            storage, key = self._place(record)
            with _reaching("deleted as", record):
                storage.delete(key)

    def _dumps(self, value: object) -> bytes:
        data = self.serializer.dumps(value)
        if self._reads_back:
            try:
                self.serializer.loads(data)
            except Exception as error:
                raise SerializationError(
                    f"The serializer {self.serializer.name!r} wrote a {type(value).__qualname__} that it cannot read "
                    f"back ({type(error).__name__}: {error}). Use another result_serializer, such as 'msgpack', or "
                    "return plain data."
                ) from error
        return data

    def _place(self, record: ResultRecord) -> tuple[ResultStorage, str]:
        """The storage that a record names, and its key there."""
        if record.storage is None or record.location is None:
            raise ResultDamaged(f"The record {record!r} has neither data nor a place. {_AGAIN}.")
        own = self.storage
        if own is not None and own.spec == record.storage:
            return own, record.location
        if "://" not in record.storage:
            raise ConfigurationError(
                f"The result is in the store {record.storage!r}, which only the program that has it can open: "
                "use ResultStore(storage=...) with that store."
            )
        return resolve_storage(record.storage), record.location

    def _read(self, record: ResultRecord) -> bytes:
        storage, key = self._place(record)
        with _reaching("read from", record):
            data: Any = storage.read(key)
            if type(data) not in (bytes, bytearray, memoryview):  # a store of a user's own may return anything
                raise TypeError(f"its read() returned {type(data).__qualname__}, and must return bytes")
            return bytes(data)

    def _checksum(self, data: bytes, serializer: str, signed: bool) -> str:
        if not signed or self._secret is None:
            return blake2b(data, digest_size=CHECKSUM_BYTES).hexdigest()
        keyed = blake2b(serializer.encode() + b"\0", digest_size=CHECKSUM_BYTES, key=self._secret)
        keyed.update(data)
        return keyed.hexdigest()

    def _is_as_written(self, record: ResultRecord, data: bytes) -> bool:
        if len(data) != record.size:
            return False
        if not record.signed:  # the commonest case, and the shortest
            return blake2b(data, digest_size=CHECKSUM_BYTES).hexdigest() == record.checksum
        return compare_digest(self._checksum(data, record.serializer, True), record.checksum)

    def __repr__(self) -> str:
        return f"ResultStore({self._storage!r}, {self.serializer.name!r})"


def _is_exact(serializer: Serializer) -> bool:
    """Whether what it wrote is sure to be readable, so that nothing needs to be read back after writing.

    MessagePack checks what it has to pickle itself, and JSON is read by no one's code. Pickles may well be written
    and not be readable (a `__reduce__` that lies, an `__init__` that wants more), and of others nothing is known.
    """
    if type(serializer).__module__ == CompressedSerializer.__module__ and isinstance(serializer, CompressedSerializer):
        return _is_exact(serializer.serializer)
    return type(serializer) in _EXACT


def _content_key(checksum: str) -> str:
    """Where results without a key go: 256 folders, so that none holds too many files."""
    return f"{checksum[:2]}/{checksum[2:]}"


def _changed(record: ResultRecord, data: bytes) -> MissingResult:
    """The error for a result whose bytes are not those that were written."""
    if len(data) != record.size:
        return ResultDamaged(
            f"The result {record.where} is damaged: it has {len(data):,} bytes, and {record.size:,} were written"
            f"{_overwritten(record)}. {_AGAIN}, or restore it from a backup."
        )
    if record.signed:
        return ResultNotTrusted(
            f"The result {record.where} is not what was signed: it was changed, is damaged, or was signed with "
            f"another key{_overwritten(record)}. It was not opened. {_AGAIN}."
        )
    return ResultDamaged(
        f"The result {record.where} is damaged: its {record.size:,} bytes have not the checksum of those "
        f"that were written{_overwritten(record)}. {_AGAIN}, or restore it from a backup."
    )


def _overwritten(record: ResultRecord) -> str:
    """What else may have happened to a file whose key was given by a user."""
    if record.location is None or record.location == _content_key(record.checksum):
        return ""
    return " (or another run has written to the same result_storage_key since)"


@contextmanager
def _reaching(how: str, record: ResultRecord) -> Generator[None]:
    """Say of a failure of the storage which result it was, and what to do."""
    try:
        yield
    except UpwellError:
        raise
    except Exception as error:
        if how == "read from" and isinstance(error, FileNotFoundError | KeyError):
            raise ResultNotFound(
                f"The result {record.where} is not there any more. Put it back, or r{_AGAIN[1:]}."
            ) from error
        raise ResultStorageError(
            f"The result could not be {how} {record.where}: {type(error).__name__}: {error}. Check that the storage "
            "can be reached, has room, and may be read and written by this user."
        ) from error


def _not_signed_alike(record: ResultRecord) -> ResultNotTrusted:
    if record.signed:
        return ResultNotTrusted(
            f"The result {record.where} is signed, and no key is set to check it with. Set the same signing key as the "
            "process that stored it."
        )
    return ResultNotTrusted(
        f"The result {record.where} is not signed, and a signing key is set: it is not opened. {_AGAIN}, "
        "or read it in a process without the key if you know where it comes from."
    )
