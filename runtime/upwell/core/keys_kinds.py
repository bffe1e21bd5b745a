"""What each standard type contributes to a key, and the error for what cannot contribute anything.

A `Kind` knows one family of types: `part` gives what is hashed in the place of a value, made of what MessagePack
carries by itself; whatever is inside goes through the `Down` that it is handed. Two values that are equal and
of one type must give the same part in every process; what has no such part raises `Unhashable`.

The codes are part of every key that was ever stored: never give an old code a new meaning.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from upwell.core.errors import UpwellError

Down = Callable[[object], object]

encode = msgspec.msgpack.Encoder(order="deterministic").encode
"""MessagePack with dicts in the order of their keys; refuses dicts with keys other than str."""

DIGEST_BYTES = 16
LARGE_BYTES = 4096
"""Content longer than this is hashed where it lies, and its digest is put into the key instead of a copy."""


class Code:
    """The MessagePack extension codes: what stands behind each is said by its kind."""

    CYCLE = 1
    TUPLE = 2
    SET = 3
    FROZENSET = 4
    PAIRS = 5
    BIG_INT = 6
    ODD_STR = 7
    BYTEARRAY = 8
    MEMORYVIEW = 9
    COMPLEX = 10
    RANGE = 11
    SINGLETON = 12
    MAPPING_PROXY = 13
    DATETIME = 14
    DATE = 15
    TIME = 16
    TIMEDELTA = 17
    TIMEZONE = 18
    ZONEINFO = 19
    DECIMAL = 20
    FRACTION = 21
    UUID = 22
    PATH = 23
    ENUM = 30
    RECORD = 31
    NAMEDTUPLE = 32
    SET_OF_CLASS = 33
    HOOK = 34
    OBJECT = 35
    NAMED = 36
    ARRAY = 40
    NUMPY_SCALAR = 41
    DATA_FRAME = 42
    SERIES = 43
    INDEX = 44
    EXTENSION_ARRAY = 45
    FUNCTION = 50
    CLASS = 51
    PARTIAL = 52
    METHOD = 53
    CODE = 54
    MODULE = 55
    TASK = 56


class Unhashable(Exception):
    """A value without content that is the same in another process; `steps` lead to it, the innermost first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[str] = []


class HashError(UpwellError, TypeError):
    """A value cannot be part of a cache key; `path` says which part of it, `reason` why."""

    path: str = ""
    reason: str = ""

    @classmethod
    def at(cls, root: str, error: Unhashable, advice: str) -> "HashError":
        """The error for a part of what `root` names."""
        path = root + "".join(reversed(error.steps))
        found = cls(f"{path} cannot be part of a cache key: {error.reason}. {advice}")
        found.path, found.reason = path, error.reason
        return found


class Kind(msgspec.Struct, frozen=True):
    """How one family of types contributes to a key."""

    code: int
    part: Callable[[Any, Down], object]


def class_of(value: object) -> Any:
    """`type(value)`, for looking up what only some types have."""
    return type(value)


def no_content(cls: type) -> Unhashable:
    """The error for an instance of `cls` that has nothing but its place in this process."""
    module = "" if cls.__module__ == "builtins" else f"{cls.__module__}."
    name = f"{module}{cls.__qualname__}"
    article = "an" if name[0].lower() in "aeiou" else "a"
    return Unhashable(f"{article} {name} has no content that is the same in another process")


def short(value: object) -> str:
    """A few characters that show a person which value is meant."""
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__qualname__}>"
    return text if len(text) <= 40 else text[:37] + "..."


def home_of(value: Any) -> str:
    """The module that a class or function is known under in every process and every version of Python."""
    module = str(getattr(value, "__module__", None) or "builtins")
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names and top != "__main__":
        return top  # where inside, differs: pathlib.Path is pathlib._local.Path in 3.13
    return "__main__" if module == "__mp_main__" else module


def of_standard_library(value: Any) -> bool:
    """Whether a class or function comes with Python, so that its source changes with Python's version."""
    top = home_of(value).partition(".")[0]
    return top in sys.stdlib_module_names and top != "__main__"


def content(data: Any) -> bytes:
    """What stands for bytes in a key: themselves if they are few, else their digest."""
    view = memoryview(data)
    if view.nbytes <= LARGE_BYTES:
        return b"=" + view.tobytes()
    return b"#" + hashlib.blake2b(view, digest_size=DIGEST_BYTES).digest()


# Walking into containers: each says, where something inside is unhashable, which of its parts that was.


def walk_items(items: Iterable[Any], down: Down) -> list[object]:
    """The parts of what is in a sequence."""
    found: list[object] = []
    try:
        for item in items:
            found.append(down(item))  # how many there are says which one failed
    except Unhashable as error:
        error.steps.append(f"[{len(found)}]")
        raise
    return found


def walk_fields(fields: Mapping[str, Any], down: Down, before: str = ".", after: str = "") -> dict[str, object]:
    """The parts of attributes, or of what else has names."""
    found: dict[str, object] = {}
    name = ""
    try:
        for name, value in fields.items():
            found[name] = down(value)
    except Unhashable as error:
        error.steps.append(f"{before}{name}{after}")
        raise
    return found


def walk_one(value: object, step: str, down: Down) -> object:
    """The part of one value inside another."""
    try:
        return down(value)
    except Unhashable as error:
        error.steps.append(step)
        raise


def sorted_items(items: Iterable[Any], down: Down) -> list[bytes]:
    """The parts of what is in a set, in an order that does not depend on hashes."""
    return sorted(encode(walk_one(item, f" item {short(item)}", down)) for item in items)


def walk_pairs(value: Mapping[Any, Any], down: Down) -> list[object]:
    """The parts of a dict whose keys are not all str, in an order that is not that of insertion."""
    pairs: list[tuple[bytes, object]] = []
    for key, item in value.items():
        part = encode(walk_one(key, f" key {short(key)}", down))
        pairs.append((part, walk_one(item, f"[{short(key)}]", down)))
    pairs.sort(key=lambda pair: pair[0])
    return [part for pair in pairs for part in pair]


# The standard types


def _big_int(value: int, _down: Down) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def _range(value: range, down: Down) -> object:
    length = len(value)  # equal ranges are those that give the same numbers
    first, step = value[0] if length else 0, value.step if length > 1 else 0
    return [down(length), down(first), down(step)]


def _datetime(value: Any, down: Down) -> object:
    fields = [value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond]
    return [fields, value.fold, walk_one(value.tzinfo, ".tzinfo", down)]


def _time(value: Any, down: Down) -> object:
    fields = [value.hour, value.minute, value.second, value.microsecond]
    return [fields, value.fold, walk_one(value.tzinfo, ".tzinfo", down)]


def _zoneinfo(value: Any, _down: Down) -> object:
    if value.key is None:
        raise Unhashable("a ZoneInfo that was read from a file has no key that names it")
    return value.key


def _path(value: Any, down: Down) -> object:
    return [type(value).__name__, down(str(value))]


BIG_INT = Kind(Code.BIG_INT, _big_int)
ODD_STR = Kind(Code.ODD_STR, lambda value, down: value.encode("utf-8", "surrogatepass"))
PAIRS = Kind(Code.PAIRS, walk_pairs)
_PATH = Kind(Code.PATH, _path)
_SINGLETON = Kind(Code.SINGLETON, lambda value, down: repr(value))

BUILTIN_KINDS: dict[type, Kind] = {
    tuple: Kind(Code.TUPLE, walk_items),
    set: Kind(Code.SET, sorted_items),
    frozenset: Kind(Code.FROZENSET, sorted_items),
    bytearray: Kind(Code.BYTEARRAY, lambda value, down: content(value)),
    memoryview: Kind(Code.MEMORYVIEW, lambda value, down: [value.format, value.shape, content(value.tobytes())]),
    complex: Kind(Code.COMPLEX, lambda value, down: [value.real, value.imag]),
    range: Kind(Code.RANGE, _range),
    type(...): _SINGLETON,
    type(NotImplemented): _SINGLETON,
    type(type.__dict__): Kind(Code.MAPPING_PROXY, lambda value, down: down(dict(value))),
}

# By name, so that none of these modules is imported before somebody uses it.
_STANDARD_KINDS: dict[tuple[str, str], Kind] = {
    ("datetime", "datetime"): Kind(Code.DATETIME, _datetime),
    ("datetime", "date"): Kind(Code.DATE, lambda value, down: [value.year, value.month, value.day]),
    ("datetime", "time"): Kind(Code.TIME, _time),
    ("datetime", "timedelta"): Kind(
        Code.TIMEDELTA, lambda value, down: [value.days, value.seconds, value.microseconds]
    ),
    ("datetime", "timezone"): Kind(
        Code.TIMEZONE, lambda value, down: [down(value.utcoffset(None)), value.tzname(None)]
    ),
    ("zoneinfo", "ZoneInfo"): Kind(Code.ZONEINFO, _zoneinfo),
    ("decimal", "Decimal"): Kind(Code.DECIMAL, lambda value, down: str(value)),
    ("fractions", "Fraction"): Kind(
        Code.FRACTION, lambda value, down: [down(value.numerator), down(value.denominator)]
    ),
    ("uuid", "UUID"): Kind(Code.UUID, lambda value, down: value.bytes),
    ("pathlib", "PurePosixPath"): _PATH,
    ("pathlib", "PureWindowsPath"): _PATH,
    ("pathlib", "PosixPath"): _PATH,
    ("pathlib", "WindowsPath"): _PATH,
}


def standard_kind(cls: type) -> Kind | None:
    """The kind of a class of the standard library, or None; a class that only bears its name has none."""
    module, name = cls.__module__.partition(".")[0], cls.__qualname__
    kind = _STANDARD_KINDS.get((module, name))
    if kind is None or getattr(sys.modules.get(module), name, None) is not cls:
        return None
    return kind
