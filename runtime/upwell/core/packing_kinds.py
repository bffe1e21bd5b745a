"""What each standard type is turned into on its way through MessagePack, and back.

A `Kind` knows one type (or one family of types): `pack` gives the body that is written, `unpack` gives
the value back. A body is made of what MessagePack carries by itself; whatever is inside it goes through
the `down` that `pack` is handed. A kind that cannot give back exactly what it was given says so with
`CannotCarry`, and the value is pickled instead.

The codes are the stored format: never give an old code a new meaning.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import msgspec

from upwell.core.errors import SerializationError

Down = Callable[[object], object]


class Code:
    """The MessagePack extension codes: what stands behind each is said by its kind."""

    PICKLE = 1
    RAW = 2
    TUPLE = 3
    SET = 4
    FROZENSET = 5
    PAIRS = 6
    BIG_INT = 7
    ODD_STR = 8
    BYTEARRAY = 9
    COMPLEX = 10
    RANGE = 11
    DATETIME = 12
    DATE = 13
    TIME = 14
    TIMEDELTA = 15
    TIMEZONE = 16
    ZONEINFO = 17
    DECIMAL = 18
    UUID = 19
    PATH = 20
    ENUM = 21
    FLAG = 22
    RECORD = 23
    STRUCT = 24
    NAMEDTUPLE = 25
    EXCEPTION = 26
    ARRAY = 27
    NUMPY_SCALAR = 28
    OF_MAIN = 29


class DeserializationError(SerializationError):
    """What was stored cannot be read back."""


class CannotCarry(Exception):
    """This value is not one that its kind gives back exactly."""


class NotPicklable(Exception):
    """Neither a kind nor pickle carries this value; why is the cause."""


class Kind(msgspec.Struct, frozen=True):
    """How one family of types is written and read."""

    code: int
    pack: Callable[[Any, Down], object]
    unpack: Callable[[Any], object]


def find_class(module: str, qualname: str) -> Any:
    """The class of that name, its module imported if need be; ImportError or AttributeError if it is gone."""
    loaded = sys.modules.get(module) or importlib.import_module(module)
    if "." in qualname:
        return reduce(getattr, qualname.split("."), loaded)
    return getattr(loaded, qualname)


def class_of(value: object) -> Any:
    """`type(value)`, for looking up what only some types have."""
    return type(value)


def class_name(cls: type) -> tuple[str, str]:
    """Module and qualified name under which `cls` can be found again; CannotCarry where it cannot.

    A class of `__main__` has a name as well: a later run of the same script has the class under it.
    """
    module, qualname = cls.__module__, cls.__qualname__
    if module in _MAIN_MODULES:
        if name_in_main(cls):
            return MAIN, qualname
    elif module in sys.modules:
        try:
            if find_class(module, qualname) is cls:
                return module, qualname
        except AttributeError:
            pass
    raise CannotCarry(f"{module}.{qualname} cannot be imported again")


MAIN = "__main__"
_MAIN_MODULES = frozenset({MAIN, "__mp_main__"})  # the second: what multiprocessing calls it in its children


def find_in_main(qualname: str) -> Any:
    """What this process's `__main__` has under that name; None if it has nothing there."""
    try:
        return find_class(MAIN, qualname)
    except AttributeError:
        return None


def name_in_main(cls: type) -> str:
    """The qualified name of a class of `__main__`; "" for any other class, local ones among them.

    Also "" if `__main__` has something else under the name by now. It may have nothing there: then the class
    came by value from a program that has it.
    """
    qualname = cls.__qualname__
    if cls.__module__ not in _MAIN_MODULES or "<" in qualname:
        return ""
    found = find_in_main(qualname)
    return qualname if found is None or found is cls else ""


def _pack_items(value: Any, down: Down) -> object:
    return down(list(value))


def _unpack_pairs(body: list[Any]) -> dict[Any, Any]:
    flat: Iterator[Any] = iter(body)
    return dict(zip(flat, flat, strict=True))


def _pack_pairs(value: dict[Any, Any], down: Down) -> object:
    return [down(part) for pair in value.items() for part in pair]


def _pack_big_int(value: int, _down: Down) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def _unpack_big_int(body: bytes) -> int:
    return int.from_bytes(body, "little", signed=True)


def _pack_odd_str(value: str, _down: Down) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def _unpack_odd_str(body: bytes) -> str:
    return body.decode("utf-8", "surrogatepass")


def _pack_datetime(value: Any, down: Down) -> object:
    fields = [value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond]
    return [fields, value.fold, down(value.tzinfo)]


def _unpack_datetime(body: Any) -> object:
    fields, fold, zone = body
    return find_class("datetime", "datetime")(*fields, tzinfo=zone, fold=fold)


def _pack_time(value: Any, down: Down) -> object:
    return [[value.hour, value.minute, value.second, value.microsecond], value.fold, down(value.tzinfo)]


def _unpack_time(body: Any) -> object:
    fields, fold, zone = body
    return find_class("datetime", "time")(*fields, tzinfo=zone, fold=fold)


def _pack_timezone(value: Any, down: Down) -> object:
    return [down(part) for part in value.__getinitargs__()]


def _pack_zoneinfo(value: Any, _down: Down) -> object:
    if value.key is None or type(value)(value.key) is not value:
        raise CannotCarry("a zone that is not the one its key stands for")
    return value.key


def _pack_uuid(value: Any, _down: Down) -> object:
    return [value.bytes, value.is_safe.value]


def _unpack_uuid(body: Any) -> object:
    content, is_safe = body
    return find_class("uuid", "UUID")(bytes=content, is_safe=find_class("uuid", "SafeUUID")(is_safe))


def _pack_path(value: Any, down: Down) -> object:
    return [type(value).__name__, down(str(value))]


def _unpack_path(body: Any) -> object:
    name, text = body
    return find_class("pathlib", name)(text)


def _maker(module: str, qualname: str) -> Callable[[Any], object]:
    """Reads a body that is the list of the class's arguments."""
    return lambda body: find_class(module, qualname)(*body)


BIG_INT = Kind(Code.BIG_INT, _pack_big_int, _unpack_big_int)
ODD_STR = Kind(Code.ODD_STR, _pack_odd_str, _unpack_odd_str)
PAIRS = Kind(Code.PAIRS, _pack_pairs, _unpack_pairs)

BUILTIN_KINDS: dict[type, Kind] = {
    tuple: Kind(Code.TUPLE, _pack_items, tuple),
    set: Kind(Code.SET, _pack_items, set),
    frozenset: Kind(Code.FROZENSET, _pack_items, frozenset),
    bytearray: Kind(Code.BYTEARRAY, lambda value, down: bytes(value), bytearray),
    complex: Kind(Code.COMPLEX, lambda value, down: [value.real, value.imag], _maker("builtins", "complex")),
    range: Kind(
        Code.RANGE,
        lambda value, down: [down(value.start), down(value.stop), down(value.step)],
        _maker("builtins", "range"),
    ),
}

_PATH = Kind(Code.PATH, _pack_path, _unpack_path)

# By name, so that none of these modules is imported before somebody uses it.
_STANDARD_KINDS: dict[tuple[str, str], Kind] = {
    ("datetime", "datetime"): Kind(Code.DATETIME, _pack_datetime, _unpack_datetime),
    ("datetime", "date"): Kind(
        Code.DATE, lambda value, down: [value.year, value.month, value.day], _maker("datetime", "date")
    ),
    ("datetime", "time"): Kind(Code.TIME, _pack_time, _unpack_time),
    ("datetime", "timedelta"): Kind(
        Code.TIMEDELTA,
        lambda value, down: [value.days, value.seconds, value.microseconds],
        _maker("datetime", "timedelta"),
    ),
    ("datetime", "timezone"): Kind(Code.TIMEZONE, _pack_timezone, _maker("datetime", "timezone")),
    ("zoneinfo", "ZoneInfo"): Kind(
        Code.ZONEINFO, _pack_zoneinfo, lambda body: find_class("zoneinfo", "ZoneInfo")(body)
    ),
    ("decimal", "Decimal"): Kind(
        Code.DECIMAL, lambda value, down: str(value), lambda body: find_class("decimal", "Decimal")(body)
    ),
    ("uuid", "UUID"): Kind(Code.UUID, _pack_uuid, _unpack_uuid),
    ("pathlib", "PurePosixPath"): _PATH,
    ("pathlib", "PureWindowsPath"): _PATH,
    ("pathlib", "PosixPath"): _PATH,
    ("pathlib", "WindowsPath"): _PATH,
}

STANDARD_KINDS: tuple[Kind, ...] = tuple(
    {kind.code: kind for kind in (*BUILTIN_KINDS.values(), *_STANDARD_KINDS.values())}.values()
)


def standard_kind(cls: type) -> Kind | None:
    """The kind of a class of the standard library, or None; a class that only bears its name has none."""
    module, name = cls.__module__.partition(".")[0], cls.__qualname__  # 3.13 says "pathlib._local"
    kind = _STANDARD_KINDS.get((module, name))
    if kind is None or getattr(sys.modules.get(module), name, None) is not cls:
        return None
    return kind
