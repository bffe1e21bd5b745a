"""Which fields a class has, and whether a value of it that was stored earlier still fits."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from upwell.core.packing_kinds import DeserializationError

MakeDefault = Callable[[], Any]
FACTORY: Any = getattr(msgspec, "_core").Factory  # noqa: B009  # a Struct's default that is made; it has no public name


def fields_of(cls: Any) -> dict[str, MakeDefault | None]:
    """The fields of a dataclass, attrs class, Struct or namedtuple, in order, with what makes their default.

    None: the field has no default. A class of another kind has no fields.
    """
    if hasattr(cls, "__struct_fields__"):
        return _fields_of_struct(cls)
    if hasattr(cls, "__dataclass_fields__"):
        return _fields_of_dataclass(cls)
    if hasattr(cls, "__attrs_attrs__"):
        return _fields_of_attrs(cls)
    if hasattr(cls, "_field_defaults"):
        defaults: dict[str, Any] = cls._field_defaults
        return {name: _giving(defaults[name]) if name in defaults else None for name in cls._fields}
    return {}


def _giving(value: Any) -> MakeDefault:
    return lambda: value


def _fields_of_struct(cls: Any) -> dict[str, MakeDefault | None]:
    names, defaults = cls.__struct_fields__, cls.__struct_defaults__
    fields: dict[str, MakeDefault | None] = dict.fromkeys(names)
    for name, default in zip(names[len(names) - len(defaults) :], defaults, strict=True):
        if type(default) is FACTORY:
            fields[name] = default.factory
        elif default is not msgspec.NODEFAULT:
            fields[name] = _giving(default)
    return fields


def _fields_of_dataclass(cls: Any) -> dict[str, MakeDefault | None]:
    import dataclasses  # only a class that was made by it has such fields

    fields: dict[str, MakeDefault | None] = {}
    for field in dataclasses.fields(cls):
        make: Any = field.default_factory
        if field.default is not dataclasses.MISSING:
            make = _giving(field.default)
        fields[field.name] = None if make is dataclasses.MISSING else make
    return fields


def _fields_of_attrs(cls: Any) -> dict[str, MakeDefault | None]:
    import attrs  # as above

    fields: dict[str, MakeDefault | None] = {}
    for field in cls.__attrs_attrs__:
        if isinstance(field.default, attrs.Factory):  # type: ignore[arg-type]  # a class, declared a function
            fields[field.name] = None if field.default.takes_self else field.default.factory
        else:
            fields[field.name] = None if field.default is attrs.NOTHING else _giving(field.default)
    return fields


def added_fields(cls: type, stored: Iterable[str]) -> dict[str, MakeDefault]:
    """What `cls` has beside the fields of a stored value, with what makes their default.

    Raises DeserializationError, which names class and field, if the value has one that `cls` has not, or
    lacks one that has no default.
    """
    stored = set(stored)
    fields = fields_of(cls)
    name = f"{cls.__module__}.{cls.__qualname__}"
    for field in stored - fields.keys():
        raise DeserializationError(
            f"{name} has no field {field!r}, which the stored value has: the class has changed since; "
            "keep the field, or compute the value again"
        )
    added: dict[str, MakeDefault] = {}
    for field, make_default in fields.items():
        if field in stored:
            continue
        if make_default is None:
            raise DeserializationError(
                f"{name} has the field {field!r}, which the stored value does not have: the class has changed "
                "since; give the field a default, or compute the value again"
            )
        added[field] = make_default
    return added


def check_pickled_fields(cls: Any, stored: list[str]) -> None:
    """Raise DeserializationError if pickled instances, which had these fields, would not be whole ones of `cls`."""
    fields = list(fields_of(cls))
    if fields == stored:
        return
    added = added_fields(cls, stored)
    if hasattr(cls, "__struct_fields__") or hasattr(cls, "_field_defaults"):
        in_order = fields[: len(stored)] == stored or len(cls.__match_args__) < len(fields)  # else by name
        misplaced = [] if in_order else [next(old for old, new in zip(stored, fields, strict=False) if old != new)]
    else:  # pickle sets the attributes that were stored: a default must be there as one of the class
        misplaced = [name for name, make in added.items() if getattr(cls, name, added) != make()]
    for field in misplaced:
        raise DeserializationError(
            f"{cls.__module__}.{cls.__qualname__}: the field {field!r} cannot be filled in a value that was pickled "
            "before the class had its present fields; put new fields last and give them a plain default, or use "
            "the serializer 'msgpack'"
        )
