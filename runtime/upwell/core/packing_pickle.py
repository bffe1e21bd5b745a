"""Pickles by cloudpickle in which a class of `__main__` is that of the reader, wherever the reader has it.

cloudpickle carries a class that cannot be imported by value: each reading process gets a copy. Here such a class
takes along where it belongs as well. A reader whose `__main__` has a class of that name uses that one; any other
(another program, a pool's child) builds the copy, once. Structs are carried with their fields and options, and slots
as slots, which cloudpickle leaves out. All is read by plain `pickle.loads`.

Imported only where something is pickled, for pickle and cloudpickle take time to import.
"""

import enum
import io
import pickle
from collections.abc import Callable
from functools import partial
from inspect import get_annotations
from types import FunctionType
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import cloudpickle  # type: ignore[import-untyped]  # it has no annotations
import msgspec

from upwell.core.packing_fields import FACTORY, check_pickled_fields, fields_of
from upwell.core.packing_kinds import class_of, find_in_main, name_in_main

if TYPE_CHECKING:
    _CloudPickler = pickle.Pickler  # what it is, with annotations
else:
    _CloudPickler = cloudpickle.Pickler

KeepInside = Callable[[pickle.PickleBuffer], Any]
Make = Callable[..., Any]

_complete: WeakSet[type] = WeakSet()
"""Classes that are as they should be here: made here, or built from a pickle. Another pickle does not change them:
it would put copies in the place of their methods, and forget what they have counted or cached."""

_StructMeta: Any = type(msgspec.Struct)
_MADE_OTHERWISE: tuple[type, ...] = (enum.Enum, tuple)
"""Enums are made from their members, and a NamedTuple forbids slots."""


class Pickler(_CloudPickler):
    """Writes what `pickle.loads` reads."""

    def __init__(self, file: Any, protocol: int = 5, buffer_callback: KeepInside | None = None) -> None:
        super().__init__(file, protocol=protocol, buffer_callback=buffer_callback)

    def reducer_override(self, obj: Any) -> Any:
        if issubclass(type(obj), type):
            reduced: Any = super().reducer_override(obj)
            if reduced is NotImplemented or len(reduced) != 6:  # a name is enough
                return reduced
            return _reduce_class(obj, reduced)
        if isinstance(obj, FunctionType):
            return super().reducer_override(obj)
        return NotImplemented


def dumps(value: object, buffer_callback: KeepInside | None = None) -> bytes:
    """`value` as a pickle; raises whatever keeps it from being pickled.

    buffer_callback: as that of `pickle.dumps`.
    """
    file = io.BytesIO()
    Pickler(file, buffer_callback=buffer_callback).dump(value)
    return file.getvalue()


def _reduce_class(cls: Any, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    """How `cls` is carried, from how cloudpickle would carry it by value."""
    make, args, (attributes, slots), _, _, set_state = reduced
    _complete.add(cls)
    attributes.pop("__msgspec_cache__", None)  # msgspec's own, made again when needed
    if type(cls) is _StructMeta:
        args = _with_fields_of_struct(cls, args)
    elif "__slots__" in attributes and not issubclass(cls, _MADE_OTHERWISE):
        maker, class_name, bases, namespace, *rest = args
        args = (maker, class_name, bases, namespace | {"__slots__": attributes.pop("__slots__")}, *rest)
    state = (set_state, (attributes, slots))
    name = name_in_main(cls)
    if name:
        return class_of_main, (name, list(fields_of(cls)), make, args), state, None, None, complete
    return class_by_value, (cls.__qualname__, make, args), state, None, None, complete


def class_of_main(name: str, fields: list[str], make: Make, args: tuple[Any, ...]) -> Any:
    """The reader's own class of that name, else the copy."""
    own = find_in_main(name)
    if not isinstance(own, type):
        return class_by_value(name, make, args)
    check_pickled_fields(own, fields)
    return own


def class_by_value(qualname: str, make: Make, args: tuple[Any, ...]) -> Any:
    """The copy of a class, still without what `complete` adds; always the same one for the same class."""
    cls = make(*args)
    if cls not in _complete:
        cls.__qualname__ = qualname
    return cls


def complete(cls: Any, state: tuple[Make, Any]) -> None:
    """Give a copy its methods and other attributes."""
    if cls in _complete or find_in_main(cls.__qualname__) is cls:
        return
    set_state, content = state
    set_state(cls, content)
    _complete.add(cls)


# Structs: their metaclass wants annotations, defaults and options when it makes the class, and keeps
# `__post_init__` as it is then; that may need the class itself, so it is found later.


def _with_fields_of_struct(cls: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    _, name, bases, namespace, *rest = args
    annotations: dict[str, Any] = get_annotations(cls)
    names, defaults = cls.__struct_fields__, cls.__struct_defaults__
    default_of = dict(zip(reversed(names), reversed(defaults), strict=False))
    encoded = dict(zip(names, cls.__struct_encode_fields__, strict=True))
    fields: dict[str, dict[str, Any]] = {}
    for field in annotations.keys() & encoded.keys():
        default = default_of.get(field, msgspec.NODEFAULT)
        fields[field] = {"name": encoded[field]}
        if type(default) is FACTORY:
            fields[field]["default_factory"] = default.factory
        elif default is not msgspec.NODEFAULT:
            fields[field]["default"] = default
    options = {option: getattr(cls.__struct_config__, option) for option in _STRUCT_OPTIONS}
    options["kw_only"] = bool(fields) and not fields.keys() & set(cls.__match_args__)
    has_post_init = "__post_init__" in cls.__dict__
    maker = partial(make_struct_class, annotations, fields, options, has_post_init)
    return (maker, name, bases, namespace, *rest)


_STRUCT_OPTIONS = (
    *("tag", "tag_field", "frozen", "eq", "order", "cache_hash", "array_like", "gc", "weakref", "dict"),
    *("omit_defaults", "repr_omit_defaults", "forbid_unknown_fields"),
)


def make_struct_class(
    annotations: dict[str, Any],
    fields: dict[str, dict[str, Any]],
    options: dict[str, Any],
    has_post_init: bool,
    name: str,
    bases: tuple[type, ...],
    namespace: dict[str, Any],
) -> Any:
    """The copy of a Struct class, in the place of its metaclass."""
    namespace = namespace | {"__annotations__": annotations}
    for field, given in fields.items():
        namespace[field] = msgspec.field(**given)
    if has_post_init:
        namespace["__post_init__"] = _post_init
    return _StructMeta(name, bases, namespace, **options)


def _post_init(self: Any) -> None:
    class_of(self).__post_init__(self)
