"""What instances of classes contribute to a key: the name of their class, and what they hold.

What equality looks at is what counts: of dataclasses and attrs classes the fields that are compared, of pydantic
models what their `__eq__` reads, of enums the member. Other objects are asked what pickle would ask them
(`__reduce_ex__`, and so `__getstate__`, `__slots__`, `__dict__`), but nothing is ever pickled: what they answer is
walked in turn. A `cached_property` is no part of it: it would change the key of whoever read it.

An object whose class has `__upwell_key__(self)` is what that returns, together with the name of the class.
"""

import copyreg
import dataclasses
import enum
import sys
from collections.abc import Mapping
from functools import cached_property
from typing import Any, cast

import msgspec

from upwell.core.keys_kinds import (
    Code,
    Down,
    Kind,
    Unhashable,
    class_of,
    home_of,
    no_content,
    of_standard_library,
    sorted_items,
    walk_fields,
    walk_items,
    walk_one,
    walk_pairs,
)
from upwell.core.keys_source import class_source

_SCALARS = (type(None), bool, int, float, str, bytes)
_READ_BUT_KEPT = {("_io", "BytesIO"), ("_io", "StringIO")}
"""Iterators that hold what they give."""


def class_identity(cls: type) -> list[object]:
    """What tells a class from others: where it is found; of a class made inside a function its source too."""
    name: list[object] = [home_of(cls), cls.__qualname__]
    if "<locals>" in cls.__qualname__ and not of_standard_library(cls):
        name.append(class_source(cls))
    return name


def is_lasting(cls: type) -> bool:
    """Whether this class can be found under its name, so that it lives as long as its module does."""
    module = sys.modules.get(cls.__module__)
    return getattr(module, cls.__qualname__, None) is cls  # classes in classes are passed over: one look is enough


def object_kind(cls: Any) -> Kind:
    """The kind of instances of `cls`, where nothing more special is known about it; Unhashable if there is none."""
    if hasattr(cls, "__upwell_key__"):
        return Kind(Code.HOOK, _hook_part)
    if isinstance(cls, enum.EnumMeta):
        return Kind(Code.ENUM, _enum_part)
    if cls is object:
        raise Unhashable("an object() is told from others by its address only")
    if hasattr(cls, "__next__") and (cls.__module__, cls.__qualname__) not in _READ_BUT_KEPT:
        if hasattr(cls, "fileno"):
            raise Unhashable("an open file has no content that is the same in another process")
        raise Unhashable(f"an iterator ({cls.__qualname__}) is used up by reading it; make a list of it")
    if home_of(cls).partition(".")[0] == "asyncio" and not issubclass(cls, BaseException):
        raise no_content(cls)
    if issubclass(cls, set | frozenset):
        return Kind(Code.SET_OF_CLASS, _set_part)
    fields = _field_names(cls)
    if fields is not None:
        return Kind(Code.RECORD, lambda value, down: [class_identity(cls), _fields_part(value, fields, down)])
    if _is_pydantic(cls):
        return Kind(Code.RECORD, _pydantic_part)
    if tuple in cls.__mro__ and hasattr(cls, "_fields") and hasattr(cls, "_make"):
        return Kind(Code.NAMEDTUPLE, lambda value, down: [class_identity(cls), walk_items(value, down)])
    return Kind(Code.OBJECT, _object_part)


def _hook_part(value: Any, down: Down) -> object:
    return [class_identity(class_of(value)), walk_one(value.__upwell_key__(), ".__upwell_key__()", down)]


def _enum_part(value: enum.Enum, down: Down) -> object:
    cls = type(value)
    if isinstance(value, enum.Flag):
        return [class_identity(cls), down(value.value)]
    plain = type(value.value) in _SCALARS
    return [class_identity(cls), value.name, down(value.value) if plain else None]


def _set_part(value: Any, down: Down) -> object:
    return [class_identity(class_of(value)), sorted_items(value, down), _state_part(value, _state(value), down)]


# Records: dataclasses, attrs, Structs, pydantic models


def _field_names(cls: Any) -> tuple[str, ...] | None:
    """The fields that make an instance of this very class what it is; None if it is no such class."""
    if "__dataclass_fields__" in cls.__dict__:
        compares = cls.__eq__ is not object.__eq__
        return tuple(field.name for field in dataclasses.fields(cls) if field.compare or not compares)
    if "__attrs_attrs__" in cls.__dict__:
        compares = cls.__eq__ is not object.__eq__
        return tuple(field.name for field in cls.__attrs_attrs__ if field.eq or not compares)
    if issubclass(cls, msgspec.Struct):
        return tuple(cls.__struct_fields__)
    return None


def _fields_part(value: Any, names: tuple[str, ...], down: Down) -> object:
    return walk_fields({name: getattr(value, name) for name in names if hasattr(value, name)}, down)


def _is_pydantic(cls: type) -> bool:
    pydantic: Any = sys.modules.get("pydantic")
    return pydantic is not None and hasattr(pydantic, "BaseModel") and issubclass(cls, pydantic.BaseModel)


def _pydantic_part(value: Any, down: Down) -> object:
    cls = class_of(value)
    held: dict[str, Any] = {name: value.__dict__[name] for name in cls.model_fields if name in value.__dict__}
    held |= value.__pydantic_extra__ or {}
    private: dict[str, Any] = value.__pydantic_private__ or {}
    return [class_identity(cls), walk_fields(held, down), walk_fields(private, down)]


# Everything else: what pickle would ask


def _object_part(value: Any, down: Down) -> object:
    cls = class_of(value)
    reduced = _reduced(value, cls)
    if isinstance(reduced, str):
        return [home_of(value if hasattr(value, "__module__") else cls), reduced]
    given: tuple[Any, ...] = (*reduced, None, None, None)
    make, args, state, items, pairs = given[:5]
    if make is copyreg.__newobj__:  # type: ignore[attr-defined]  # not in its stub
        made: list[object] = [class_identity(args[0]), walk_items(args[1:], down)]
    elif make is getattr(copyreg, "__newobj_ex__"):  # noqa: B009  # not in its stub
        made = [class_identity(args[0]), walk_items(args[1], down), walk_fields(args[2], down)]
    else:
        made = [_maker_identity(make, down), _args_part(args, cls, down)]
    return [
        *made,
        _state_part(value, state, down),
        None if items is None else walk_items(items, down),
        None if pairs is None else _pairs_part(value, pairs, down),
    ]


def _reduced(value: Any, cls: Any) -> Any:
    try:
        by_type = copyreg.dispatch_table.get(cls)
        return value.__reduce_ex__(4) if by_type is None else by_type(value)
    except Exception as error:
        reason = no_content(cls)
        if not isinstance(error, TypeError):
            reason.reason += f" ({type(error).__name__}: {error})"
        raise reason from error


def _maker_identity(make: Any, down: Down) -> object:
    if isinstance(make, type):
        return class_identity(make)
    if hasattr(make, "__qualname__"):
        return [home_of(make), make.__qualname__]
    return walk_one(make, ".__reduce__()", down)


def _args_part(args: Any, cls: type, down: Down) -> object:
    """The arguments an object is made of: its own class, which is often among them, counts by name."""
    return [
        class_identity(cls) if arg is cls else walk_one(arg, f".__reduce__()[{number}]", down)
        for number, arg in enumerate(args)
    ]


def _state(value: Any) -> Any:
    try:
        return value.__getstate__()
    except Exception as error:
        raise no_content(class_of(value)) from error


def _state_part(value: Any, state: Any, down: Down) -> object:
    """The attributes, by whichever way the object tells them; without what a cached_property left behind."""
    cls = class_of(value)
    if getattr(cls, "__getstate__") is not getattr(object, "__getstate__"):  # noqa: B009  # not in every stub
        if isinstance(state, dict) and all(isinstance(name, str) for name in cast("Any", state)):
            return walk_fields(cast("dict[str, Any]", state), down)
        return walk_one(cast("object", state), ".__getstate__()", down)
    parts: tuple[Any, ...] = state if class_of(state) is tuple else (state,)  # the dict, or that and the slots
    return [walk_fields(_without_cached(cls, part), down) for part in parts if part]


def _without_cached(cls: type, attributes: Mapping[str, Any]) -> dict[str, Any]:
    found = {str(name): content for name, content in attributes.items()}
    for base in cls.__mro__:
        for name, member in base.__dict__.items():
            if isinstance(member, cached_property):
                found.pop(name, None)
    return found


def _pairs_part(value: Any, pairs: Any, down: Down) -> object:
    """What is in a subclass of dict: in order, where equality asks for the order."""
    if hasattr(class_of(value), "move_to_end"):  # an OrderedDict
        return walk_items(pairs, down)
    return walk_pairs(dict(pairs), down)
