"""How instances of users' classes are carried: enums, dataclasses, attrs, Structs, namedtuples, exceptions.

A class is named by its module and qualified name. Instances are rebuilt from their state, without
running `__init__` or `__post_init__` again where Python allows that. A class that says itself how it is
to be pickled (`__reduce__`, `__new__`, `__getnewargs__`) is left to pickle, which asks it;
`__getstate__` and `__setstate__` are honoured here.
"""

import enum
from collections.abc import Callable
from typing import Any, cast

import msgspec

from upwell.core.packing_kinds import (
    CannotCarry,
    Code,
    DeserializationError,
    Down,
    Kind,
    NotPicklable,
    class_name,
    class_of,
    find_class,
)

Find = Callable[[str, str], Any]
"""Gives the class of a module and a qualified name: `find_class`, but for what the reader's `__main__` lacks."""


class ClassKind(Kind, frozen=True):
    """A kind of users' classes. unpack_with: as `unpack`, with classes that are found otherwise."""

    unpack_with: Callable[[Any, Find], object]


def class_kind(cls: type) -> Kind | None:
    """The kind that carries instances of `cls`, or None where only pickle does."""
    if isinstance(cls, enum.EnumMeta):
        return FLAG if issubclass(cls, enum.Flag) else ENUM
    if getattr(cls, "__reduce_ex__") is not object.__reduce_ex__:  # noqa: B009  # mypy sees two signatures
        return None
    if issubclass(cls, BaseException):
        return EXCEPTION if _is_plain_exception(cls) else None
    if issubclass(cls, msgspec.Struct):
        return STRUCT if cls.__reduce__ is msgspec.Struct.__reduce__ else None
    if cls.__reduce__ is not object.__reduce__:
        return None
    if issubclass(cls, tuple):
        return NAMEDTUPLE if _has(cls, "_fields") and _has(cls, "_make") else None
    is_record = _has(cls, "__dataclass_fields__") or _has(cls, "__attrs_attrs__")
    makes_itself = _has(cls, "__getnewargs__") or _has(cls, "__getnewargs_ex__")
    return RECORD if is_record and not makes_itself and cls.__new__ is object.__new__ else None


def _has(cls: Any, name: str) -> bool:
    return hasattr(cls, name)


# Enums: a member is a singleton, so its name (for a combined flag: its number) is enough.


def _pack_enum(value: enum.Enum, _down: Down) -> object:
    if type(value).__members__.get(value.name) is not value:
        raise CannotCarry("a member that its enum does not know by name")
    return [*class_name(type(value)), value.name]


def _unpack_enum(body: Any, find: Find = find_class) -> object:
    module, qualname, name = body
    cls = find(module, qualname)
    try:
        return cls[name]
    except KeyError:
        raise DeserializationError(f"{module}.{qualname} has no member {name!r}, which was stored") from None


def _pack_flag(value: enum.Flag, down: Down) -> object:
    if type(value)(value.value) is not value:
        raise CannotCarry("a flag that its number does not stand for")
    return [*class_name(type(value)), down(value.value)]


def _unpack_flag(body: Any, find: Find = find_class) -> object:
    module, qualname, number = body
    return find(module, qualname)(number)


# Dataclasses and attrs: the state is what `object.__getstate__` gives: None, the instance's dict, or that
# and its slots. What dataclasses generate for frozen slots is passed over: it fails on a field never set.


_default_state: Any = object.__getstate__


def _is_generated(method: object) -> bool:
    return getattr(method, "__module__", None) == "dataclasses"


def _pack_record(value: Any, down: Down) -> object:
    cls = class_of(value)
    name = class_name(cls)
    get_state = _default_state if _is_generated(cls.__getstate__) else cls.__getstate__
    return [*name, down(get_state(value))]


def _unpack_record(body: Any, find: Find = find_class) -> object:
    module, qualname, state = body
    cls = find(module, qualname)
    value = object.__new__(cls)
    if state is None:
        return value
    set_state = getattr(cls, "__setstate__", None)
    if set_state is not None and not _is_generated(set_state):
        set_state(value, state)
        return value
    attributes: dict[str, Any] | None
    slots: dict[str, Any] | None
    attributes, slots = state if class_of(state) is tuple else (state, None)
    if attributes:
        value.__dict__.update(attributes)
    for name, content in (slots or {}).items():
        object.__setattr__(value, name, content)
    return value


# Structs: made by their class, which may run `__post_init__`; the fields are then put back as they were.


def _make_struct(cls: Any, fields: dict[str, Any], attributes: dict[str, Any] | None) -> object:
    value = cls(**fields)
    if hasattr(cls, "__post_init__"):
        for name, content in fields.items():
            msgspec.structs.force_setattr(value, name, content)
        if hasattr(value, "__dict__"):
            value.__dict__.clear()
    if attributes:
        value.__dict__.update(attributes)
    return value


def _pack_struct(value: Any, down: Down) -> object:
    cls = class_of(value)
    name = class_name(cls)
    fields: dict[str, Any] = {field: getattr(value, field) for field in cls.__struct_fields__}
    attributes = getattr(value, "__dict__", None)
    if hasattr(cls, "__post_init__"):
        try:
            _make_struct(cls, fields, attributes)
        except Exception as error:
            raise CannotCarry("__post_init__ refuses the values that the Struct has now") from error
    return [*name, [down(content) for content in fields.values()], down(attributes)]


def _unpack_struct(body: Any, find: Find = find_class) -> object:
    module, qualname, contents, attributes = body
    cls = find(module, qualname)
    return _make_struct(cls, dict(zip(cls.__struct_fields__, contents, strict=True)), attributes)


_new_tuple = cast("Callable[..., Any]", getattr(tuple, "__new__"))  # noqa: B009  # else partly unknown


def _pack_namedtuple(value: Any, down: Down) -> object:
    return [*class_name(class_of(value)), down(list(value)), down(getattr(value, "__dict__", None))]


def _unpack_namedtuple(body: Any, find: Find = find_class) -> object:
    module, qualname, items, attributes = body
    value = _new_tuple(find(module, qualname), items)
    if attributes:
        value.__dict__.update(attributes)
    return value


# Exceptions: made by their built-in base from `args`, past an `__init__` that wants something else.
# Notes are part of the state. A cause that cannot be carried is named, not a reason to lose the error.


def _builtin_base(cls: type[BaseException]) -> Any:
    return next(base for base in cls.__mro__ if base.__module__ == "builtins")


def _is_plain_exception(cls: type[BaseException]) -> bool:
    base = _builtin_base(cls)
    hooks = ("__reduce__", "__getstate__", "__setstate__", "__new__")
    return all(getattr(cls, hook) is getattr(base, hook) for hook in hooks)


def _make_exception(cls: Any, args: tuple[Any, ...], state: Any) -> Any:
    base = _builtin_base(cls)
    value = base.__new__(cls, *args)
    base.__init__(value, *args)
    if state:
        value.__setstate__(state)
    return value


def _pack_exception(value: BaseException, down: Down) -> object:
    cls = type(value)
    name = class_name(cls)
    reduced = cast("tuple[Any, ...]", value.__reduce__())
    args, state = reduced[1], reduced[2] if len(reduced) > 2 else None
    try:
        again = _make_exception(cls, args, state)
    except Exception as error:
        raise CannotCarry("an exception that its args do not make again") from error
    if type(again) is not cls or len(again.args) != len(value.args):
        raise CannotCarry("an exception that its args do not make again")
    related = [_related(error, down) for error in (value.__cause__, value.__context__)]
    return [*name, down(args), down(state), *related, value.__suppress_context__]


def _related(error: BaseException | None, down: Down) -> object:
    try:
        return down(error)
    except NotPicklable as reason:
        return down(RuntimeError(f"{type(error).__qualname__}: {error} (a stand-in: {reason})"))


def _unpack_exception(body: Any, find: Find = find_class) -> object:
    module, qualname, args, state, cause, context, suppress_context = body
    value = _make_exception(find(module, qualname), args, state)
    value.__cause__ = cause
    value.__context__ = context
    value.__suppress_context__ = suppress_context
    return value


ENUM = ClassKind(Code.ENUM, _pack_enum, _unpack_enum, _unpack_enum)
FLAG = ClassKind(Code.FLAG, _pack_flag, _unpack_flag, _unpack_flag)
RECORD = ClassKind(Code.RECORD, _pack_record, _unpack_record, _unpack_record)
STRUCT = ClassKind(Code.STRUCT, _pack_struct, _unpack_struct, _unpack_struct)
NAMEDTUPLE = ClassKind(Code.NAMEDTUPLE, _pack_namedtuple, _unpack_namedtuple, _unpack_namedtuple)
EXCEPTION = ClassKind(Code.EXCEPTION, _pack_exception, _unpack_exception, _unpack_exception)
CLASS_KINDS = (ENUM, FLAG, RECORD, STRUCT, NAMEDTUPLE, EXCEPTION)
