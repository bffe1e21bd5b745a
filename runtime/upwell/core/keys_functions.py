"""What functions, classes, modules, tasks and flows contribute to a key: their names, and what their source says.

As an argument a function counts with all that its calls depend on but for globals: source, defaults, closure. As the
function of a task it has two digests: `identity`, which tells it from other functions, and `task_source`.
What comes with Python counts by name only: its source changes with Python's version.
"""

import functools
import hashlib
import types
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, cast

from upwell.core.hooks import Hookable
from upwell.core.keys_kinds import (
    DIGEST_BYTES,
    Code,
    Down,
    Kind,
    class_of,
    encode,
    home_of,
    of_standard_library,
    walk_fields,
    walk_items,
    walk_one,
)
from upwell.core.keys_objects import class_identity
from upwell.core.keys_source import Remembered, class_source, code_shape, function_source

Digest = Callable[[object], bytes]


def function_kind(cls: Any) -> Kind | None:
    """The kind of functions, classes, modules and the like, or None."""
    if issubclass(cls, type):
        return _CLASS
    if issubclass(cls, Hookable):
        return _TASK
    if issubclass(cls, types.ModuleType):
        return _MODULE
    return _KINDS.get(cls)


def _closure_of(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """The names and values a function has from around it; those that are not yet set are left out."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:
            continue


def _name(value: Any) -> list[str]:
    return [home_of(value), value.__qualname__]


def _function(value: types.FunctionType, down: Down) -> object:
    if of_standard_library(value) and home_of(value) != "builtins":  # what `exec` makes may say that it is from there
        return _name(value)
    return [
        *_name(value),
        function_source(value),
        walk_one(value.__defaults__, ".__defaults__", down),
        walk_one(value.__kwdefaults__, ".__kwdefaults__", down),
        walk_fields(dict(_closure_of(value)), down, before=" closure variable '", after="'"),
    ]


def _class(value: type, _down: Down) -> object:
    return _name(value) if of_standard_library(value) else [*_name(value), class_source(value)]


def _partial(value: Any, down: Down) -> object:
    return [
        class_identity(class_of(value)),
        walk_one(value.func, ".func", down),
        walk_items(value.args, down),
        walk_fields(value.keywords, down),
    ]


def _method(value: types.MethodType, down: Down) -> object:
    return [walk_one(value.__func__, ".__func__", down), walk_one(value.__self__, ".__self__", down)]


def _task(value: Any, down: Down) -> object:
    return [type(value).__name__, value.name, walk_one(value.fn, ".fn", down)]


_CLASS = Kind(Code.CLASS, _class)
_MODULE = Kind(Code.MODULE, lambda value, down: value.__name__)
_TASK = Kind(Code.TASK, _task)
_KINDS: dict[type, Kind] = {
    types.FunctionType: Kind(Code.FUNCTION, _function),
    types.MethodType: Kind(Code.METHOD, _method),
    types.CodeType: Kind(Code.CODE, lambda value, down: code_shape(value)),
    functools.partial: Kind(Code.PARTIAL, _partial),
    type(functools.lru_cache(len)): Kind(
        Code.NAMED, lambda value, down: walk_one(value.__wrapped__, ".__wrapped__", down)
    ),
}


# The function of a task


def _constants(function: types.FunctionType) -> dict[str, object]:
    """Closure variables that are as good as constants: what can change is state, and no part of what a function is."""
    found: dict[str, object] = {}
    for name, value in _closure_of(function):
        constant = _constant(value)
        if constant is not None:
            found[name] = constant
    return found


def _constant(value: object) -> object:
    if value is None or type(value) in (bool, int, float, str, bytes):
        return [type(value).__name__, repr(value)]
    if isinstance(value, Enum):
        return ["enum", *_name(type(value)), value.name]
    if type(value) is tuple:
        items = [_constant(item) for item in cast("tuple[object, ...]", value)]
        return None if None in items else ["tuple", *items]
    return None


def _blake(part: object) -> bytes:
    return hashlib.blake2b(encode(part), digest_size=DIGEST_BYTES).digest()


function_identity = Remembered[types.FunctionType, bytes](
    lambda function: _blake([*_name(function), _constants(function)])
)


def identity(function: Any, digest: Digest) -> bytes:
    """What tells the function of one task from that of another: its module and qualified name, and the constants in its
    closure. Of a partial what it binds, of a method its object: they count as arguments do.
    """
    if type(function) is types.FunctionType:
        return function_identity(function)
    if isinstance(function, functools.partial):
        return _blake(["partial", identity(function.func, digest), digest(function.args), digest(function.keywords)])
    if isinstance(function, types.MethodType):
        return _blake(["method", identity(function.__func__, digest), digest(function.__self__)])
    return digest(function)


def _source_with_wrapped(function: types.FunctionType) -> bytes:
    return _blake(_source_parts(function, set()))


def _source_parts(function: types.FunctionType, seen: set[int]) -> list[object]:
    """The source of a function, and of the functions in its closure: of what a decorator has wrapped."""
    seen.add(id(function))
    parts: list[object] = [function_source(function)]
    for name, value in _closure_of(function):
        inner = getattr(value, "fn", None) if isinstance(value, Hookable) else value
        if isinstance(inner, types.FunctionType) and id(inner) not in seen:
            parts.append([name, _source_parts(inner, seen)])
    return parts


_function_task_source = Remembered(_source_with_wrapped)


def task_source(function: Any) -> bytes:
    """A digest of the source of a task's function: see `keys_source` for what counts.

    Functions that are in its closure count too, and so what a decorator below `@task` does. Found out once.
    """
    if type(function) is types.FunctionType:
        return _function_task_source(function)
    for attribute in ("func", "__func__", "__wrapped__"):  # a partial, a method, a cached function
        if hasattr(function, attribute):
            return task_source(getattr(function, attribute))
    if isinstance(function, type):
        return class_source(function)
    if isinstance(function, types.BuiltinFunctionType):
        return _blake(_name(function))
    return class_source(class_of(function))


head_with_source = Remembered[types.FunctionType, bytes](
    lambda function: function_identity(function) + b"S" + task_source(function)
)
"""What keys begin with that count the source; those that do not, begin with the identity."""
