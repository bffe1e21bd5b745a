"""Exact MessagePack: `unpack(pack(value))` is the same value of the same type, at every depth.

Three ways lead through, the cheapest first:

1. Plain values (None, bool, int, float, str, bytes, lists and dicts of them) go to msgspec as they are,
   once one pass over their types, at the speed of C, has shown that nothing in them would change.
2. Other values become extensions: a code that names their kind and a body that is packed in turn. What
   no kind carries exactly is one more extension, pickled by cloudpickle. Around a value with classes of
   `__main__` stands an extension that says what a reader without them needs (see `packing_main`).
3. What refers to itself, or is nested deeper than `MAX_DEPTH`, is pickled whole: pickle keeps track of what
   it has seen, and reads without recursion.

Types are compared with `is`: a subclass of dict is not a dict here, or it would come back as one.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from types import CoroutineType
from typing import Any, cast

import msgspec

from upwell.core.errors import SerializationError
from upwell.core.packing_classes import CLASS_KINDS, ClassKind, class_kind
from upwell.core.packing_kinds import (
    BIG_INT,
    BUILTIN_KINDS,
    MAIN,
    ODD_STR,
    PAIRS,
    STANDARD_KINDS,
    CannotCarry,
    Code,
    DeserializationError,
    Kind,
    NotPicklable,
    class_name,
    standard_kind,
)
from upwell.core.packing_main import Classes, Met
from upwell.core.packing_numpy import NUMPY_KINDS, numpy_kind

MAX_DEPTH = 64
"""Levels of nesting that are carried one by one; reading takes some frames for each, so this is far below the
interpreter's recursion limit: what was written can be read from deep in a stack too."""

_type: Callable[[object], type] = type  # so that a type checker knows what `type` of anything is
_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_all_scalars = _SCALARS.issuperset
_Ext = msgspec.msgpack.Ext
_encode = msgspec.msgpack.Encoder().encode


class _TooDeep(Exception):
    """The value is nested deeper than MAX_DEPTH, or contains itself."""


def pack(value: object) -> bytes:
    """`value` as MessagePack that `unpack` turns into exactly the same.

    Raises SerializationError, which names the part that neither a kind nor cloudpickle carries.
    """
    try:
        if _is_plain(value, MAX_DEPTH):
            return _encode(value)
    except (
        OverflowError,
        ValueError,
    ):  # an int above 64 bits, a lone surrogate: UnicodeError is a ValueError
        pass
    return _pack_exotic(value)


def unpack(data: bytes | bytearray | memoryview) -> Any:
    """The value that `pack` wrote; DeserializationError where the data or a class it names is not there."""
    try:
        return _decode(data)
    except DeserializationError:
        raise
    except Exception as error:
        raise DeserializationError(why_unreadable(error)) from error


def _is_plain(value: Any, room: int) -> bool:
    """Whether msgspec gives back exactly this, big integers and lone surrogates aside (it refuses those)."""
    cls = _type(value)
    if cls is dict:
        if not _all_scalars(map(type, value)):
            return False
        items: Iterable[Any] = value.values()
    elif cls is list:
        items = value
    else:
        return cls in _SCALARS
    if _all_scalars(map(type, items)):
        return True
    if room == 0:
        return False
    for item in items:  # noqa: SIM110  # half the time of a generator
        if type(item) not in _SCALARS and not _is_plain(item, room - 1):
            return False
    return True


def _pack_exotic(value: object) -> bytes:
    for careful in (False, True):
        try:
            return _Packer(careful).pack_whole(value)
        except NotPicklable as error:
            raise cannot_write(value, _can_pack, "nor pickled", error.__cause__) from error.__cause__
        except (OverflowError, UnicodeError):
            continue  # the careful pass looks at each int and str
        except Exception:  # too deep, or a user's `__getstate__`, property or `__reduce__` that raised
            break
    try:
        return _encode(_pickled(value))
    except NotPicklable as error:
        raise cannot_write(value, _can_pack, "nor pickled", error.__cause__) from error.__cause__


class _Packer:
    """One walk over one value.

    room: how many levels deeper it may still go. met: the classes of `__main__` in the value, if there are any.
    """

    __slots__ = ("careful", "met", "room")

    def __init__(self, careful: bool) -> None:
        self.careful = careful
        self.room = MAX_DEPTH
        self.met: Met | None = None

    def pack_whole(self, value: object) -> bytes:
        """`value`, and beside it what is to be known of classes of `__main__`."""
        content = _encode(self.pack(value))
        if self.met is None:
            return content
        body = [self.met.entries(), _Ext(Code.RAW, content)]
        return _encode(_Ext(Code.OF_MAIN, _encode(body)))

    def pack(self, value: Any) -> object:
        """What msgspec is to write for `value`."""
        cls = _type(value)
        if cls in _SCALARS:
            return self._pack_scalar(value, cls) if self.careful else value
        if self.room == 0:
            raise _TooDeep
        self.room -= 1
        try:
            if cls is list:
                return self._pack_list(value)
            if cls is dict:
                return self._pack_dict(value)
            return self._pack_other(value, cls)
        finally:
            self.room += 1

    def _pack_scalar(self, value: Any, cls: type) -> object:
        if cls is int and not -(2**63) <= value < 2**64:
            return self._extension(BIG_INT, value)
        if cls is str and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                return self._extension(ODD_STR, value)
        return value

    def _pack_list(self, value: list[Any]) -> object:
        if not self.careful and _all_scalars(map(type, value)):
            return value
        return [self.pack(item) for item in value]

    def _pack_dict(self, value: dict[Any, Any]) -> object:
        if not _all_scalars(map(type, value)):
            return self._extension(PAIRS, value)
        if not self.careful:
            if _all_scalars(map(type, value.values())):
                return value
            return {key: self.pack(item) for key, item in value.items()}
        keys = [self.pack(key) for key in value]
        if not _all_scalars(map(type, keys)):
            return self._extension(PAIRS, value)
        return dict(zip(keys, map(self.pack, value.values()), strict=True))

    def _pack_other(self, value: Any, cls: type) -> object:
        try:
            kind = _KINDS[cls]
        except KeyError:
            kind = self._kind_of(cls)
        if kind is None:
            return _pickled(value)
        try:
            return self._extension(kind, value)
        except CannotCarry:
            return _pickled(value)

    def _kind_of(self, cls: type) -> Kind | None:
        if self.met is not None and cls in self.met.kinds:
            return self.met.kinds[cls]
        kind = standard_kind(cls) or numpy_kind(cls) or class_kind(cls)
        try:
            module, _ = class_name(cls)
        except CannotCarry:
            return kind  # not kept: a class that nothing can import may be one of very many
        if kind is not None and module == MAIN:
            self.met = self.met or Met()
            return self.met.add(cls, kind)
        if module != MAIN:
            _KINDS[cls] = kind
        return kind

    def _extension(self, kind: Kind, value: Any) -> object:
        return _Ext(kind.code, _encode(kind.pack(value, self.pack)))


_KINDS: dict[type, Kind | None] = dict(BUILTIN_KINDS)


def _pickled(value: object) -> object:
    """`value` as a pickled extension, read once: many a pickle fails only then, with its value long gone."""
    try:
        content = pickle_dumps()(value)
        importlib.import_module("pickle").loads(content)
    except Exception as error:
        raise NotPicklable(str(error)) from error
    return _Ext(Code.PICKLE, content)


@cache
def pickle_dumps() -> Callable[..., bytes]:
    """`packing_pickle.dumps`, imported when first needed: data never needs pickle and cloudpickle."""
    from upwell.core import packing_pickle

    return packing_pickle.dumps


# Reading


def _unpack_of_main(body: Any) -> Any:
    """The value inside, whose classes of `__main__` are those of this program or, if it has them not, copies."""
    entries, content = body
    classes = Classes(entries)
    if classes.as_stored:
        return _decode(content)

    def read_extension(code: int, content: memoryview) -> Any:
        if code in (Code.RAW, Code.PICKLE):
            return _read_extension(code, content)
        kind, inside = _kind_of_code(code), decode(content)
        if isinstance(kind, ClassKind):
            return kind.unpack_with(classes.fitted(code, inside), classes.find)
        return kind.unpack(inside)

    decode = msgspec.msgpack.Decoder(ext_hook=read_extension).decode
    return decode(content)


def _never_packs(_value: object, _down: object) -> object:
    raise AssertionError("only a whole value is packed with its classes of __main__")


_OF_MAIN = Kind(Code.OF_MAIN, _never_packs, _unpack_of_main)
_KINDS_READ = (BIG_INT, ODD_STR, PAIRS, *STANDARD_KINDS, *CLASS_KINDS, *NUMPY_KINDS, _OF_MAIN)
_KIND_OF_CODE = {kind.code: kind for kind in _KINDS_READ}


def _kind_of_code(code: int) -> Kind:
    kind = _KIND_OF_CODE.get(code)
    if kind is None:
        raise LookupError(f"extension {code} is not known to this version of upwell")
    return kind


def _read_extension(code: int, content: memoryview) -> Any:
    if code == Code.RAW:
        return content
    if code == Code.PICKLE:
        return importlib.import_module("pickle").loads(content)
    return _kind_of_code(code).unpack(_decode(content))


_decode = msgspec.msgpack.Decoder(ext_hook=_read_extension).decode


def why_unreadable(error: Exception) -> str:
    """What a person reads when loading raised `error`."""
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, ImportError | AttributeError):
        return f"stored data names a class that cannot be imported here ({reason}); make its module importable"
    return f"stored data cannot be read ({reason}); it is damaged, or another serializer or version wrote it"


# Saying which part cannot be written


def cannot_write(
    value: object, works: Callable[[object], bool], also: str, reason: BaseException | None
) -> SerializationError:
    """The error for `value`, naming its innermost part for which `works` is false."""
    path, part = "value", value
    seen: set[int] = set()
    for _ in range(MAX_DEPTH):
        seen.add(id(part))
        for step, child in _children(part):
            if id(child) not in seen and not works(child):
                path, part = path + step, child
                break
        else:
            break
    cls = type(part)
    advice = "leave it out or turn it into data"
    if isinstance(part, CoroutineType):
        advice = "nobody has run it: make the function that returned it an `async def`, and await it there"
    return SerializationError(
        f"{path}: {cls.__module__}.{cls.__qualname__} cannot be serialized, {also}"
        f" ({type(reason).__name__}: {reason}); {advice}"
    )


def _can_pack(value: object) -> bool:
    try:
        _encode(_Packer(careful=True).pack(value))
    except Exception:
        return False
    return True


def _children(value: Any) -> Iterator[tuple[str, object]]:
    """What is directly inside `value`, each with its step of the path."""
    if isinstance(value, dict):
        for key, item in cast("Any", value).items():
            yield f" key {_short(key)}", key
            yield f"[{_short(key)}]", item
    elif isinstance(value, tuple) and (names := getattr(cast("object", value), "_fields", None)):
        yield from zip((f".{name}" for name in names), cast("Iterable[Any]", value), strict=True)
    elif isinstance(value, list | tuple):
        yield from ((f"[{index}]", item) for index, item in enumerate(cast("Iterable[Any]", value)))
    elif isinstance(value, set | frozenset):
        yield from ((f" item {_short(item)}", item) for item in cast("Iterable[Any]", value))
    elif not isinstance(value, type):
        yield from _attributes(value)


def _attributes(value: Any) -> Iterator[tuple[str, object]]:
    if isinstance(value, BaseException):
        yield from ((f".args[{index}]", item) for index, item in enumerate(value.args))
    cls = _type(value)
    slots: set[str] = {name for base in cls.__mro__ for name in getattr(base, "__slots__", ())}
    slots -= {"__dict__", "__weakref__"}
    for name in sorted({*getattr(value, "__dict__", ()), *getattr(cls, "__struct_fields__", ()), *slots}):
        try:
            yield f".{name}", getattr(value, name)
        except AttributeError:
            continue


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__qualname__}>"
    return text if len(text) <= 40 else text[:37] + "..."
