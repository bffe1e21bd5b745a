"""Classes and values that are packed in tests, and what must be the same of them afterwards."""

import datetime as dt
import enum
import pathlib
import struct
from collections import deque, namedtuple
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import attrs
import msgspec
import numpy as np

from upwell.core.packing import pack, unpack
from upwell.core.packing_kinds import class_of

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    ROUGE = "red"  # noqa: PIE796  # an alias, as people use them
    PAIR = (1, 2)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    HELLO = "hello"


class Access(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4


class Mode(enum.IntFlag):
    A = 1
    B = 2


@dataclass
class Point:
    x: Any
    y: Any = None
    computed: Any = field(init=False, default_factory=lambda: [7], compare=False)

    @cached_property
    def total(self) -> str:
        return f"{self.x}+{self.y}"


@dataclass(frozen=True, slots=True)
class Frozen:
    x: Any
    never_set: int = field(init=False, compare=False)


@dataclass(slots=True)
class Slotted(Generic[T]):
    x: T
    __private: int = 3  # pyright: ignore[reportGeneralTypeIssues]  # a mangled slot is what is tested


@dataclass
class Strict:
    x: Any

    def __post_init__(self) -> None:
        raise AssertionError("rebuilding a dataclass runs its __post_init__")


@dataclass
class Guarded:
    x: int
    lock: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"x": self.x}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.x = state["x"]
        self.lock = "made again"


@attrs.define
class AttrsSlotted:
    x: Any
    y: int = 0


@attrs.frozen(slots=False)
class AttrsFrozen:
    x: Any
    _hidden: int = attrs.field(default=3, alias="hidden")


class Record(msgspec.Struct):
    x: Any
    y: int = 0


class FrozenRecord(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="other", gc=False):
    x: int
    y: str = "y"


class DictRecord(msgspec.Struct, dict=True):
    x: int


class Doubling(msgspec.Struct):
    x: int

    def __post_init__(self) -> None:
        self.x *= 2


class Pair(NamedTuple):
    left: Any
    right: Any = None


Plain = namedtuple("Plain", ["a", "b"])  # noqa: PYI024  # pyright: ignore[reportUntypedNamedTuple]  # the untyped form is what is tested


class Rich(Pair):
    """A namedtuple that has room for attributes."""


class MyDict(dict[Any, Any]):
    pass


class MyList(list[Any]):
    pass


class MyInt(int):
    pass


class MyStr(str):
    __slots__ = ()


class Demanding(Exception):
    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class KeywordOnly(ValueError):
    def __init__(self, *, why: Any) -> None:
        super().__init__(why)
        self.why = why


default_state: Any = object.__getstate__


def canonical(value: Any) -> Any:
    """`value` with all that must come back the same spelled out, so that `==` compares it."""
    cls: Any = class_of(value)
    content: Any = value
    if cls is float:
        content = struct.pack(">d", value)
    elif cls is complex:
        content = struct.pack(">dd", value.real, value.imag)
    elif issubclass(cls, np.ndarray | np.generic):
        # A view with gaps or turned round comes back without the gaps, so only its contents count.
        content = (value.dtype, value.dtype.char, value.shape, value.tobytes())
    elif issubclass(cls, dict):
        content = [(canonical(key), canonical(item)) for key, item in value.items()]
    elif issubclass(cls, set | frozenset):
        content = sorted(repr(canonical(item)) for item in value)
    elif issubclass(cls, list | tuple | deque):
        content = [canonical(item) for item in value]
    elif issubclass(cls, BaseException):
        related = (value.__cause__, value.__context__, value.__suppress_context__)
        return [cls, canonical(value.args), canonical(value.__dict__), *map(canonical, related)]
    elif issubclass(cls, dt.datetime | dt.time):
        content = (repr(value.replace(tzinfo=None)), value.fold, canonical(value.tzinfo))
    elif issubclass(cls, Decimal | range | dt.tzinfo | enum.Enum | pathlib.PurePath):
        return (cls, repr(value))
    elif issubclass(cls, msgspec.Struct):
        content = [canonical(getattr(value, name)) for name in value.__struct_fields__]
    elif hasattr(cls, "__dataclass_fields__") or hasattr(cls, "__attrs_attrs__"):
        return (cls, canonical(default_state(value)))
    attributes = None if isinstance(value, type) else getattr(value, "__dict__", None)
    return (cls, content, canonical(attributes) if attributes else None)


def assert_same(value: Any) -> Any:
    again = unpack(pack(value))
    assert canonical(again) == canonical(value)
    return again


def never_set() -> Point:
    point = Point(1)
    del point.y
    return point


def with_total() -> Point:
    point = Point(1, 2)
    assert point.total == "1+2"
    return point


def with_attribute(value: Any, **attributes: Any) -> Any:
    value.__dict__.update(attributes)
    return value


def caught(error: BaseException, cause: BaseException | None = None) -> BaseException:
    error.add_note("a note")
    error.__cause__ = cause
    error.__context__ = KeyError("context")
    return error


def strict() -> Strict:
    value = object.__new__(Strict)
    value.x = (1,)
    return value


BERLIN = ZoneInfo("Europe/Berlin")


def label(value: Any) -> str:
    return type(value).__name__


def cyclic_list() -> Any:
    value: list[Any] = [(1,)]
    value.append(value)
    return value


def cyclic_dataclass() -> Any:
    value = Point(1)
    value.y = {"back": [value]}
    return value
