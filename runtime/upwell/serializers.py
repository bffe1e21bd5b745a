"""How results and arguments become bytes: MessagePack (exact, the default), JSON, pickle; each compressed.

| name                 | gives back                                    | reading it runs code            |
|----------------------|-----------------------------------------------|---------------------------------|
| `msgpack`            | exactly what went in                          | classes named, pickled parts    |
| `json`               | what JSON has: lists for tuples, str for UUID | never                           |
| `pickle`             | what pickle gives back                        | yes                             |
| `compressed/<name>`  | as `<name>`                                   | as `<name>`                     |

Whatever may run code is opened only by the process that runs user code, never by the server.
"""

import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, cast

from upwell.core import packing
from upwell.core.errors import SerializationError
from upwell.core.packing_kinds import DeserializationError

__all__ = [
    "CompressedJSONSerializer",
    "CompressedMessagePackSerializer",
    "CompressedPickleSerializer",
    "CompressedSerializer",
    "DeserializationError",
    "JSONSerializer",
    "MessagePackSerializer",
    "PickleSerializer",
    "SerializationError",
    "Serializer",
    "UnknownSerializerError",
    "get_serializer",
]

Compression = Literal["zlib", "lzma", "bz2"]
Bytes = bytes | bytearray | memoryview

OUT_OF_BAND_BYTES = 64 * 1024
"""Buffers of at least this many bytes travel beside the pickle, not inside it."""

_FIRST_BYTES: dict[Compression, bytes] = {"zlib": b"\x78", "lzma": b"\xfd7zXZ\x00", "bz2": b"BZh"}
_COMPRESSED = "compressed/"
_QUICK_DTYPES = {"int32", "int64", "uint32", "uint64", "float32", "float64"}
"""Arrays of which JSON is made without a Python object for each number."""


class UnknownSerializerError(SerializationError, ValueError):
    """No serializer has this name; the message lists those that are known."""


class Serializer(ABC):
    """Turns values into bytes and back. Subclass it, give it a `name`, and that name can be used anywhere.

    `dumps` raises SerializationError for what it cannot write, `loads` DeserializationError for what it
    cannot read. A subclass that is to be found by its name must be constructible without arguments.
    """

    name: str
    """How results remember what wrote them."""

    _named: ClassVar[dict[str, type["Serializer"]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        name = cls.__dict__.get("name")
        if not isinstance(name, str) or inspect.isabstract(cls):
            return
        holder = Serializer._named.get(name, cls)
        if (holder.__module__, holder.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(
                f"{cls.__qualname__} has the name {name!r}, which is that of {holder.__module__}."
                f"{holder.__qualname__}; give it another"
            )
        Serializer._named[name] = cls

    @abstractmethod
    def dumps(self, value: object) -> bytes:
        """`value` as bytes."""

    @abstractmethod
    def loads(self, data: Bytes) -> Any:
        """The value that `dumps` wrote."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class MessagePackSerializer(Serializer):
    """MessagePack that gives back exactly what went in: same value, same type, at every depth.

    Builtin and standard data types, enums, dataclasses, attrs, Structs, namedtuples, exceptions and numpy
    arrays are carried as data; classes are named by their module and name. Classes of `__main__` are those
    of the program that reads; one that does not have them gets copies. Anything else (functions, subclasses
    of builtins, classes made inside a function, values that contain themselves) is pickled by cloudpickle,
    that part alone where possible. An object that is in a value twice comes back as two equal objects, a
    memoryview as bytes; tracebacks are not carried.
    """

    name = "msgpack"

    def dumps(self, value: object) -> bytes:
        return packing.pack(value)

    def loads(self, data: Bytes) -> Any:
        return packing.unpack(data)


class JSONSerializer(Serializer):
    """JSON by orjson, for people and for other programs. Not exact, but reading it never runs code.

    Tuples and sets come back as lists, Structs and dataclasses as dicts, keys as str; dates, Decimals,
    UUIDs and paths as str, bytes as base64; nan, NaT and the infinities as None. Of two keys that are the same
    as str, such as 1 and "1", the last is read.
    """

    name = "json"

    def dumps(self, value: object) -> bytes:
        try:
            return _to_json(value)
        except Exception as error:
            reason = error.__cause__ or error
            raise packing.cannot_write(value, _has_json, "JSON has nothing for it", reason) from error

    def loads(self, data: Bytes) -> Any:
        try:
            return importlib.import_module("orjson").loads(data)
        except ValueError as error:
            raise DeserializationError(f"stored data is not JSON ({error}); what wrote it?") from error


def _to_json(value: object) -> bytes:
    orjson: Any = importlib.import_module("orjson")
    return cast("bytes", orjson.dumps(value, default=_as_json_data, option=orjson.OPT_NON_STR_KEYS))


def _as_json_data(value: Any) -> object:
    """What JSON is to say for a type that orjson does not know."""
    if type(value).__module__.partition(".")[0] == "numpy":
        return _numpy_as_json_data(value)
    if isinstance(value, importlib.import_module("pathlib").PurePath):
        return str(value)
    return importlib.import_module("msgspec").to_builtins(value, str_keys=True, enc_hook=_as_json_data_inside)


def _numpy_as_json_data(value: Any) -> object:
    dtype = value.dtype
    if dtype.kind == "M":  # of which orjson would write NaT as the beginning of 1970
        return value.astype("datetime64[us]").tolist()
    is_plain_array = type(value).__name__ == "ndarray" and value.ndim and value.flags.c_contiguous
    if is_plain_array and dtype.isnative and dtype.name in _QUICK_DTYPES:
        orjson: Any = importlib.import_module("orjson")
        return orjson.Fragment(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))
    plain = value.tolist()
    if type(plain) is type(value):
        raise TypeError(f"type is not JSON serializable: {type(value).__qualname__}")
    return plain


def _as_json_data_inside(value: Any) -> object:
    if isinstance(value, importlib.import_module("pathlib").PurePath):
        return str(value)
    raise TypeError(f"type is not JSON serializable: {type(value).__qualname__}")


def _has_json(value: object) -> bool:
    try:
        _to_json(value)
    except Exception:
        return False
    return True


class PickleSerializer(Serializer):
    """cloudpickle, read by plain pickle: functions and classes that cannot be imported travel by value.

    Classes of `__main__` are those of the program that reads; one that does not have them gets copies.
    """

    name = "pickle"

    def dumps(self, value: object) -> bytes:
        try:
            return packing.pickle_dumps()(value)
        except Exception as error:
            raise packing.cannot_write(value, _has_pickle, "not even pickled", error) from error

    def loads(self, data: Bytes) -> Any:
        return self.loads_with_buffers(data, ())

    def dumps_with_buffers(
        self, value: object, min_buffer_bytes: int = OUT_OF_BAND_BYTES
    ) -> tuple[bytes, list[memoryview]]:
        """The pickle, and beside it, uncopied, the buffers of at least `min_buffer_bytes` (numpy arrays,
        `pickle.PickleBuffer`). The views show the value's own memory: use them before it changes.
        """
        buffers: list[memoryview] = []

        def keep_inside(buffer: Any) -> bool:
            view = buffer.raw()
            if view.nbytes < min_buffer_bytes:
                return True
            buffers.append(view)
            return False

        try:
            data = packing.pickle_dumps()(value, buffer_callback=keep_inside)
        except Exception as error:
            raise packing.cannot_write(value, _has_pickle, "not even pickled", error) from error
        return data, buffers

    def loads_with_buffers(self, data: Bytes, buffers: Iterable[Bytes]) -> Any:
        """The value of `dumps_with_buffers`, which uses the memory of `buffers` from then on; an array over
        a buffer that is read-only is read-only itself.
        """
        try:
            return importlib.import_module("pickle").loads(data, buffers=buffers)
        except DeserializationError:
            raise
        except Exception as error:
            raise DeserializationError(packing.why_unreadable(error)) from error


def _has_pickle(value: object) -> bool:
    try:
        packing.pickle_dumps()(value)
    except Exception:
        return False
    return True


class CompressedSerializer(Serializer):
    """Another serializer's bytes, compressed. Reads what any of the three compressions wrote."""

    def __init__(self, serializer: "str | Serializer", compression: Compression = "zlib") -> None:
        """`serializer` is one or its name; ValueError names the compressions if it is none of them."""
        if compression not in _FIRST_BYTES:
            known = ", ".join(_FIRST_BYTES)
            raise ValueError(f"compression {compression!r} is not known; use one of: {known}")
        self.serializer = get_serializer(serializer)
        self.compression: Compression = compression
        self.name = _COMPRESSED + self.serializer.name

    def dumps(self, value: object) -> bytes:
        module = importlib.import_module(self.compression)
        return cast("bytes", module.compress(self.serializer.dumps(value)))

    def loads(self, data: Bytes) -> Any:
        start = bytes(data[:6])
        compression = next((name for name, first in _FIRST_BYTES.items() if start.startswith(first)), None)
        if compression is None:
            raise DeserializationError(f"stored data is not compressed by any of: {', '.join(_FIRST_BYTES)}")
        try:
            content = importlib.import_module(compression).decompress(data)
        except Exception as error:
            raise DeserializationError(f"stored data is damaged: {compression} cannot expand it ({error})") from error
        return self.serializer.loads(content)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.serializer!r}, compression={self.compression!r})"


class CompressedMessagePackSerializer(CompressedSerializer):
    """`MessagePackSerializer`, compressed."""

    def __init__(self, compression: Compression = "zlib") -> None:
        super().__init__(MessagePackSerializer(), compression)


class CompressedJSONSerializer(CompressedSerializer):
    """`JSONSerializer`, compressed."""

    def __init__(self, compression: Compression = "zlib") -> None:
        super().__init__(JSONSerializer(), compression)


class CompressedPickleSerializer(CompressedSerializer):
    """`PickleSerializer`, compressed."""

    def __init__(self, compression: Compression = "zlib") -> None:
        super().__init__(PickleSerializer(), compression)


def get_serializer(serializer: str | Serializer) -> Serializer:
    """The serializer of that name (`"msgpack"`, `"compressed/json"`, your own's), or the one that is given.

    Raises UnknownSerializerError, which lists the names that are known.
    """
    if isinstance(serializer, Serializer):
        return serializer
    named = Serializer._named  # pyright: ignore[reportPrivateUsage]  # the registry is this module's own
    if isinstance(cast("object", serializer), str):
        if serializer in named:
            return named[serializer]()
        if serializer.startswith(_COMPRESSED) and serializer.removeprefix(_COMPRESSED) in named:
            return CompressedSerializer(serializer.removeprefix(_COMPRESSED))
    known: Sequence[str] = [*named, *(_COMPRESSED + name for name in named)]
    raise UnknownSerializerError(
        f"no serializer is {serializer!r}; known: {', '.join(known)}; or give an instance of a Serializer"
    )
