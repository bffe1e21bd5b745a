"""Deterministic keys: `digest(value)` is the same in every process, on every machine, in every supported Python.

It depends on what a value holds and on the types of all that, and on nothing else: not on the order in which
dicts and sets were filled, on hash seeds, on addresses, on how arrays lie in memory. `1`, `True` and `1.0` differ,
as do `[1]` and `(1,)`, `0.0` and `-0.0`, `Decimal("1.0")` and `Decimal("1.00")`.

A value is written as MessagePack in one canonical way, and that is hashed. There are two ways to write it:

1. Plain values (None, bool, int, float, str, bytes, lists of them, dicts of them with str for keys) are written by
   msgspec as they are. It is let do so first, and then a look at the types says whether the value was plain
   indeed (msgspec writes a tuple as it does a list): whatever msgspec could write is finite.
2. Else a walk puts extensions in the place of what is not plain, each a code with a body (`keys_kinds`). What
   contains itself is written as the number of levels up at which it is met again.

Both write a plain value alike, so it counts the same wherever it stands.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from gc import get_referents
from itertools import compress
from typing import Any

import msgspec

from upwell.core.keys_arrays import array_kind
from upwell.core.keys_functions import function_kind
from upwell.core.keys_kinds import (
    BIG_INT,
    BUILTIN_KINDS,
    DIGEST_BYTES,
    ODD_STR,
    PAIRS,
    Code,
    HashError,
    Kind,
    Unhashable,
    encode,
    standard_kind,
    walk_fields,
    walk_items,
)
from upwell.core.keys_objects import is_lasting, object_kind

__all__ = [
    "CacheContext",
    "HashError",
    "digest",
    "encoded",
    "encoded_arguments",
    "encoded_call",
    "hashed",
    "hashed_each",
]

_type: Callable[[object], type] = type  # so that a type checker knows what `type` of anything is
_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_all_scalars = _SCALARS.issuperset
_all_plain = (_SCALARS | {list, dict}).issuperset
_is_dict = frozenset({dict}).__contains__
_MAY_HIDE = sys.version_info >= (3, 13)
_only_str = frozenset({str}).issuperset
_Ext = msgspec.msgpack.Ext


class CacheContext(msgspec.Struct, frozen=True):
    """The call that a cache key is for.

    task: the Task: `.name`, `.fn`.
    task_run: its record, if there is one by now.
    flow_run_id: of the flow run around; None outside of one.
    """

    task: Any
    task_run: Any = None
    flow_run_id: Any = None


def digest(value: object) -> bytes:
    """16 bytes that are the same for equal values of equal types, and no others.

    Raises HashError, which names the part of the value that has no content that is the same in another process.
    """
    try:
        return hashed(encoded(value))
    except Unhashable as error:
        advice = "Turn it into data first, or give its class a method `__upwell_key__` that returns what counts."
        raise HashError.at("value", error, advice) from error.__cause__


def hashed(data: bytes) -> bytes:
    """The digest of what has been written."""
    hasher = _new_hasher()
    hasher.update(data)
    return hasher.digest()


def hashed_each(before: bytes, parts: Iterable[bytes], after: bytes) -> list[bytes]:
    """The digests of what begins and ends alike, and differs between: each as `hashed` makes it."""
    begun = _new_hasher()
    begun.update(before)
    new, digests = begun.copy, list[bytes]()
    for part in parts:
        hasher = new()
        hasher.update(part + after)
        digests.append(hasher.digest())
    return digests


_new_hasher = hashlib.blake2b(digest_size=DIGEST_BYTES).copy  # cheaper than to make one


def encoded(value: Any) -> bytes:
    """The one canonical way to write `value`; raises Unhashable."""
    try:
        written = encode(value)
        if _is_plain(value):
            return written
    except Exception:  # a type, a key, an int or a str that msgspec does not write, or a value without an end
        pass
    try:
        return _walked(value)
    except RecursionError:
        raise Unhashable("it is nested too deeply") from None
    except (OverflowError, UnicodeError) as error:  # the name of an attribute, say, that is no text
        raise Unhashable(f"it cannot be written ({error})") from error


def encoded_arguments(arguments: Mapping[str, Any]) -> bytes:
    """`encoded(arguments)`, of names that are plain str; in less time where all are numbers, texts and the like."""
    if _type(arguments) is dict and _all_scalars(map(type, arguments.values())):
        try:
            return encode(arguments)
        except Exception:  # an int or a str that msgspec does not write
            pass
    return encoded(arguments)


def encoded_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """`encoded((args, kwargs))`; where all of them are numbers, texts and the like, in a fraction of the time."""
    if _all_scalars(map(type, args)) and (not kwargs or _all_scalars(map(type, kwargs.values()))):
        try:
            return encode(_Ext(Code.TUPLE, encode([_Ext(Code.TUPLE, encode(args)), kwargs])))
        except Exception:  # an int or a str that msgspec does not write
            pass
    return encoded((args, kwargs))


def _is_plain(value: Any) -> bool:
    """Whether a value that msgspec has written is plain; so it is finite, and its dicts have str for keys."""
    cls = _type(value)
    if cls in _SCALARS:
        return True
    if cls is not dict and cls is not list:
        return False
    values = value if cls is list else get_referents(value)
    if value and not values:  # a dict that hides them
        return False
    while not _all_scalars(map(type, values)):  # level by level: nothing else looks at so many in so little time
        if not _all_plain(map(type, values)) or (_MAY_HIDE and _one_hides(values)):
            return False
        values = get_referents(*values)  # of a list its items; of a dict its values, and its keys if not all are str
    return True


def _one_hides(values: Sequence[Any]) -> bool:
    """Whether a dict does not tell of its values: from Python 3.13 on `vars(it)` may not, for they are in `it` then."""
    dicts: Iterable[dict[Any, Any]] = compress(values, map(_is_dict, map(type, values)))
    return not all(map(get_referents, filter(len, dicts)))


# What is not plain


def _walked(value: object) -> bytes:
    try:
        return encode(_Walk(careful=False).down(value))
    except (OverflowError, ValueError):  # an int beyond 64 bits, a lone surrogate (UnicodeError is a ValueError)
        return encode(_Walk(careful=True).down(value))


class _Walk:
    """One walk over one value; `above` says at which level each container is in which the walk is now."""

    __slots__ = ("above", "careful")

    def __init__(self, *, careful: bool) -> None:
        self.careful = careful
        self.above: dict[int, int] = {}

    def down(self, value: Any) -> object:
        """What msgspec is to write for `value`."""
        cls = _type(value)
        if cls in _SCALARS:
            return self._scalar(value, cls) if self.careful else value
        above, number = self.above, id(value)
        if number in above:
            return _Ext(Code.CYCLE, encode(len(above) - above[number]))
        above[number] = len(above)
        try:
            if cls is list:
                return self._list(value)
            if cls is dict and _only_str(map(type, value)):
                return self._dict(value)
            kind = PAIRS if cls is dict else _kind_of(cls)
            return _Ext(kind.code, encode(kind.part(value, self.down)))
        finally:
            del above[number]

    def _scalar(self, value: Any, cls: type) -> object:
        if cls is int and not -(2**63) <= value < 2**64:
            return _Ext(BIG_INT.code, encode(BIG_INT.part(value, self.down)))
        if cls is str and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                return _Ext(ODD_STR.code, encode(ODD_STR.part(value, self.down)))
        return value

    def _list(self, value: list[Any]) -> object:
        if not self.careful and _all_scalars(map(type, value)):
            return value
        return walk_items(value, self.down)

    def _dict(self, value: dict[str, Any]) -> object:
        if self.careful:
            if not all(map(_is_written, value)):
                return _Ext(PAIRS.code, encode(PAIRS.part(value, self.down)))
        elif _all_scalars(map(type, value.values())):
            return value
        return walk_fields(value, self.down, before="['", after="']")


def _is_written(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_KINDS: dict[type, Kind] = dict(BUILTIN_KINDS)


def _kind_of(cls: type) -> Kind:
    try:
        return _KINDS[cls]
    except KeyError:
        pass
    if hasattr(cls, "__upwell_key__"):
        kind = object_kind(cls)
    else:
        kind = standard_kind(cls) or function_kind(cls) or array_kind(cls) or object_kind(cls)
    if is_lasting(cls):
        _KINDS[cls] = kind
    return kind
