"""Futures inside arguments: is there any, which ones, and the same arguments with results in their place.

What to know before changing this:

- Arguments are mostly plain values, sometimes a million of them. Each exact type is classified once; after
  that one pass of `map(type, values)` in C decides whether a container is worth opening at all.
- Walks keep their own stack, so that nesting is bounded by memory and not by the recursion limit, and
  remember the identity of each container, so that shared ones are done once and cyclic ones end.
- Resolving rebuilds only what holds a future or a wrapper; everything else is passed by identity.
- What kind of object a future is, is told by the caller: this module knows nothing of event loops.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Generic, TypeVar

import msgspec

from upwell.core.annotations import Annotation, allow_failure, is_annotation, opaque, quote
from upwell.core.errors import ParameterTypeError

F = TypeVar("F")

_KNOWN_TYPES_LIMIT = 4096  # classes remembered; programs that make classes without end must not leak them
_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray, memoryview, range, type})
_UNSET: Any = type("_Unset", (), {})()


class Dependency(msgspec.Struct, Generic[F], frozen=True):
    """A future found in arguments; `allow_failure` if it stands under that wrapper wherever it occurs."""

    future: F
    allow_failure: bool


class _Shape(msgspec.Struct, frozen=True):
    """How to take containers of one class apart, and how to put one together again from new parts."""

    parts: Callable[[Any], Iterable[Any]]
    rebuild: Callable[[Any, list[Any]], Any]


def _nothing(_: Any) -> Iterable[Any]:
    return ()


def _itself(value: Any) -> Any:
    return value


def _wrapped(wrapper: Any) -> Iterable[Any]:
    return (wrapper.value,)


def _keys_and_values(mapping: Any) -> Iterable[Any]:
    return chain(mapping, mapping.values())


def _pairs(parts: list[Any]) -> Iterator[tuple[Any, Any]]:
    half = len(parts) // 2
    return zip(parts[:half], parts[half:], strict=True)


def _copy(old: Any) -> Any:
    """A shallow copy of a container of a class that we do not know, or an error that says what to do."""
    import copy  # here because few programs ever need it and start-up counts

    new = copy.copy(old)
    if new is old or new.__class__ is not old.__class__:
        raise TypeError("its copy is not one of its own class")
    return new


def _refill_list(old: Any, parts: list[Any]) -> Any:
    new = _copy(old)
    for index, part in enumerate(parts):
        new[index] = part
    return new


def _refill_dict(old: Any, parts: list[Any]) -> Any:
    new = _copy(old)
    new.clear()
    for key, value in _pairs(parts):
        new[key] = value
    return new


def _refill_set(old: Any, parts: list[Any]) -> Any:
    new = _copy(old)
    new.clear()
    new.update(parts)
    return new


def _remake_tuple(old: Any, parts: list[Any]) -> Any:
    make = getattr(old, "_make", None)  # a namedtuple
    if make is None:
        raise TypeError("its class has no known way to make one from new items")
    return make(parts)


def _remake_frozenset(old: Any, parts: list[Any]) -> Any:
    raise TypeError("its class has no known way to make one from new items")


def _shape(parts: Callable[[Any], Iterable[Any]], make: Callable[[list[Any]], Any]) -> _Shape:
    """For classes whose objects are wholly made of their parts."""

    def rebuild(_: Any, parts: list[Any]) -> Any:
        return make(parts)

    return _Shape(parts, rebuild)


def _unwrapped(old: Any, parts: list[Any]) -> Any:
    return parts[0] if parts else old.value


_ANNOTATION = _Shape(_wrapped, _unwrapped)
_QUOTE = _Shape(_nothing, _unwrapped)
_FUTURE = _shape(_nothing, _itself)

_EXACT: dict[type, _Shape] = {
    list: _shape(_itself, _itself),
    tuple: _shape(_itself, tuple),
    set: _shape(_itself, set),
    frozenset: _shape(_itself, frozenset),
    dict: _shape(_keys_and_values, lambda parts: dict(_pairs(parts))),
}
_SUBCLASSES: tuple[tuple[type, _Shape], ...] = (
    (list, _Shape(_itself, _refill_list)),
    (deque, _Shape(_itself, _refill_list)),
    (tuple, _Shape(_itself, _remake_tuple)),
    (set, _Shape(_itself, _refill_set)),
    (frozenset, _Shape(_itself, _remake_frozenset)),
    (dict, _Shape(_keys_and_values, _refill_dict)),
)


def _field_names(cls: Any) -> tuple[str, ...]:
    """The fields of a msgspec Struct, a dataclass, an attrs class or a pydantic model; empty for others."""
    if hasattr(cls, "__struct_fields__"):
        return tuple(cls.__struct_fields__)
    if hasattr(cls, "__dataclass_fields__"):
        import dataclasses  # here because it is loaded already if there are dataclasses, and slow if not

        return tuple(field.name for field in dataclasses.fields(cls))
    if hasattr(cls, "__attrs_attrs__"):
        return tuple(attribute.name for attribute in cls.__attrs_attrs__)
    return tuple(getattr(cls, "__pydantic_fields__", ()))


def _record_shape(cls: Any, names: tuple[str, ...]) -> _Shape:
    """Fields are assigned to a copy: neither `__init__` nor a frozen class's guard is run again."""
    if hasattr(cls, "__struct_fields__"):
        from msgspec.structs import force_setattr as assign  # here because most arguments hold no Structs
    else:
        assign = object.__setattr__

    def parts(record: Any) -> list[Any]:
        return [getattr(record, name, _UNSET) for name in names]

    def rebuild(old: Any, parts: list[Any]) -> Any:
        new = _copy(old)
        for name, part in zip(names, parts, strict=True):
            if part is not _UNSET and part is not getattr(old, name):
                assign(new, name, part)
        return new

    return _Shape(parts, rebuild)


class _Shapes(dict[type, _Shape | None]):
    """The shape of each class met so far; None for classes whose objects are not looked into."""

    def __init__(self, future_type: type) -> None:
        self.future_type = future_type
        self.plain: set[type] = set()
        self._begin()

    def _begin(self) -> None:
        super().clear()
        self.plain.intersection_update(_ATOMS)
        self.plain.update(_ATOMS)
        self.update(dict.fromkeys(_ATOMS))

    def __missing__(self, cls: type) -> _Shape | None:
        if len(self) >= _KNOWN_TYPES_LIMIT:
            self._begin()
        shape = self[cls] = self._classify(cls)
        if shape is None:
            self.plain.add(cls)
        return shape

    def _classify(self, cls: Any) -> _Shape | None:
        if issubclass(cls, self.future_type):
            return _FUTURE
        if issubclass(cls, quote):
            return _QUOTE
        if issubclass(cls, opaque):
            return _Shape(self._future_in, _unwrapped)
        if issubclass(cls, Annotation):
            return _ANNOTATION
        if cls in _EXACT:
            return _EXACT[cls]
        names = _field_names(cls)
        if names:
            return _record_shape(cls, names)
        return next((shape for base, shape in _SUBCLASSES if issubclass(cls, base)), None)

    def _future_in(self, wrapper: Any) -> Iterable[Any]:
        return (wrapper.value,) if isinstance(wrapper.value, self.future_type) else ()


class _Rebuild:
    """One container on its way to being rebuilt."""

    __slots__ = ("changed", "index", "lenient", "loops", "old", "parts", "pending", "result", "shape")

    def __init__(self, old: Any, shape: _Shape, index: int, lenient: bool, plain: set[type]) -> None:
        self.old = old
        self.shape = shape
        self.index = index  # where in the container around it
        self.lenient = lenient or is_annotation(old, allow_failure)
        self.parts = list(shape.parts(old))
        self.pending: Iterator[int] = iter([i for i, x in enumerate(self.parts) if type(x) not in plain])
        self.changed = is_annotation(old)
        self.loops = False
        self.result: Any = _UNSET  # until it is finished

    def put(self, index: int, part: Any) -> None:
        if part is not self.parts[index]:
            self.parts[index] = part
            self.changed = True

    def finish(self) -> Any:
        if not self.changed:
            self.result = self.old
            return self.result
        name = type(self.old).__qualname__
        if self.loops:
            raise ParameterTypeError(
                f"A {name} contains itself and also futures, and their results cannot be put in place: "
                "pass the futures as arguments of their own, or wrap the object in `quote`."
            )
        try:
            self.result = self.shape.rebuild(self.old, self.parts)
        except Exception as error:
            raise ParameterTypeError(
                f"A {name} holds futures, and no {name} can be made with their results: {error}. "
                "Put them in a list or a dict, or pass them as arguments of their own."
            ) from error
        return self.result


class DependencyFinder(Generic[F]):
    """Finds and resolves futures of one class, its subclasses included, in arguments of any depth.

    Looked into: lists, tuples, sets, frozensets, deques, dicts (keys and values) and their subclasses,
    namedtuples, dataclasses, attrs classes, msgspec Structs, pydantic models, and the wrappers other than
    `quote`. Everything else is passed as it is. May be used from several threads at once.
    """

    __slots__ = ("_plain", "_shapes")

    def __init__(self, future_type: type[F]) -> None:
        self._shapes = _Shapes(future_type)
        self._plain = self._shapes.plain

    def is_plain(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether a call holds no future and no wrapper anywhere: there is nothing to find or resolve."""
        if self._plain.issuperset(map(type, args)) and (
            not kwargs or self._plain.issuperset(map(type, kwargs.values()))
        ):
            return True
        return next(self._marks(chain(args, kwargs.values())), None) is None

    @property
    def plain_types(self) -> set[type]:
        """The classes that are known to hold no futures; for callers that cannot afford a call to learn it."""
        return self._plain

    def all_plain(self, values: Collection[Any]) -> bool:
        """The same for many inputs at once, such as the list that is mapped over."""
        return self._plain.issuperset(map(type, values)) or next(self._marks(values), None) is None

    def find(self, value: object) -> list[Dependency[F]]:
        """Each distinct future in the value, once, in the order first seen."""
        found: dict[int, F] = {}
        lenient_only: dict[int, bool] = {}
        shapes = self._shapes
        for mark, lenient in self._marks((value,)):
            if shapes[type(mark)] is _FUTURE:
                key = id(mark)
                if key not in found:
                    found[key] = mark
                    lenient_only[key] = lenient
                elif not lenient:
                    lenient_only[key] = False
        return list(map(Dependency, found.values(), lenient_only.values()))

    def resolve(self, value: Any, resolve_one: Callable[[F, bool], object]) -> Any:
        """The value with `resolve_one(future, allow_failure)` in place of each future, and without wrappers.

        Raises ParameterTypeError where a container that holds futures cannot be rebuilt: a subclass that
        cannot be copied, a set or dict key that is not hashable any more, a container that contains itself.
        """
        shapes, plain = self._shapes, self._plain
        shape = shapes[type(value)]
        if shape is _FUTURE:
            return resolve_one(value, False)
        if shape is None or self._has_nothing_in(value, shape):
            return value
        top = _Rebuild(value, shape, 0, False, plain)
        known: dict[tuple[int, bool], _Rebuild] = {(id(value), False): top}
        stack = [top]
        while stack:
            current = stack[-1]
            for index in current.pending:
                part = current.parts[index]
                shape = shapes[type(part)]
                if shape is _FUTURE:
                    current.put(index, resolve_one(part, current.lenient))
                    continue
                if shape is None or self._has_nothing_in(part, shape):
                    continue
                seen = known.get((id(part), current.lenient))
                if seen is None:
                    child = _Rebuild(part, shape, index, current.lenient, plain)
                    known[id(part), current.lenient] = child
                    stack.append(child)
                    break
                if seen.result is _UNSET:
                    seen.loops = True
                else:
                    current.put(index, seen.result)
            else:
                result = stack.pop().finish()
                if stack:
                    stack[-1].put(current.index, result)
        return top.result

    def _has_nothing_in(self, part: Any, shape: _Shape) -> bool:
        """Whether the types one level down already tell that nothing in a container is to be replaced."""
        return self._plain.issuperset(map(type, shape.parts(part))) and not is_annotation(part)

    def _marks(self, values: Iterable[Any]) -> Iterator[tuple[Any, bool]]:
        """Every future and wrapper in the values, depth first, and whether it stands under allow_failure."""
        shapes, plain = self._shapes, self._plain
        seen: dict[tuple[int, bool], Any] = {}  # holds each part, so that no other can get its id
        stack: list[tuple[Iterator[Any], bool]] = [(iter(values), False)]
        while stack:
            rest, lenient = stack[-1]
            for part in rest:
                shape = shapes[type(part)]
                if shape is None:
                    continue
                if shape is _FUTURE:
                    yield part, lenient
                    continue
                if is_annotation(part):
                    yield part, lenient
                elif plain.issuperset(map(type, shape.parts(part))):
                    continue
                if (id(part), lenient) not in seen:
                    seen[id(part), lenient] = part
                    stack.append((iter(shape.parts(part)), lenient or is_annotation(part, allow_failure)))
                    break
            else:
                stack.pop()
