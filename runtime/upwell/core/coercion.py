"""Coercion by annotation: from what a caller gives to what a parameter is annotated with.

An annotation is compiled once into a function from value to value. It returns the value itself if that is right
already, another one if it can be coerced, and raises Mismatch if not. None lets all through.
"""

import inspect
import sys
import types
import typing
from collections import abc
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from inspect import Parameter
from operator import is_
from typing import Any, cast

import msgspec

_REPR_LIMIT = 60  # characters of a bad value shown in an error

Coercion = Callable[[Any], Any]
_Hint = Any


class Mismatch(Exception):
    """A value does not fit; reads on after the parameter's name: `[3]: expected int, got str 'x'`."""

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason
        self.path = path

    def within(self, place: str) -> "Mismatch":
        return Mismatch(self.reason, place + self.path)


_SEQUENCES: dict[Any, Callable[[list[Any]], Any]] = {
    list: list, abc.Sequence: list, abc.MutableSequence: list, abc.Collection: list,
    set: set, abc.Set: set, abc.MutableSet: set, frozenset: frozenset,
}  # fmt: skip
_TAKEN_APART: Any = (list, tuple, set, frozenset, range)
_ROWS: Any = (list, tuple)
_MSGSPEC_CACHE = "__msgspec_cache__"
_MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)


def coercions_of(fn: Any, signature: inspect.Signature) -> dict[str, Coercion]:
    """The coercion of each parameter that has one."""
    coercions: dict[str, Coercion] = {}
    for name, hint in hints_of(fn, signature).items():
        coercion = _pydantic(hint) if needs_pydantic(hint) else _compile(hint)
        if coercion is not None:
            coercions[name] = coercion
    return coercions


def hints_of(fn: Any, signature: inspect.Signature) -> dict[str, _Hint]:
    """What each parameter holds, by its annotation; Any where nothing is said, or what is said cannot be found."""
    hints: dict[str, _Hint] = {}
    for name, parameter in signature.parameters.items():
        hint = _evaluated(fn, parameter.annotation)
        if parameter.kind is Parameter.VAR_POSITIONAL:
            hint = types.GenericAlias(tuple, (hint, ...))
        elif parameter.kind is Parameter.VAR_KEYWORD:
            hint = types.GenericAlias(dict, (str, hint))
        hints[name] = hint
    return hints


def _evaluated(fn: Any, annotation: _Hint) -> _Hint:
    """An annotation with its names looked up where the function stands; Any if they cannot be found."""
    if annotation is Parameter.empty:
        return Any
    fn = inspect.unwrap(fn)
    while not hasattr(fn, "__code__"):  # a partial, a method, an object with __call__
        inner = getattr(fn, "func", None) or getattr(fn, "__func__", None) or type(fn).__call__
        if isinstance(inner, types.WrapperDescriptorType):
            return Any if isinstance(annotation, str) else annotation
        fn = inner
    scope = {parameter.__name__: parameter for parameter in getattr(fn, "__type_params__", ())}
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        with suppress(ValueError):  # not assigned yet
            scope[name] = cell.cell_contents
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, fn.__globals__, scope, include_extras=True)["it"]
    except Exception:  # whatever evaluating a user's text may raise
        return Any if isinstance(annotation, str) else annotation


def _compile(hint: _Hint, outer: tuple[_Hint, ...] = ()) -> Coercion | None:
    origin: Any = typing.get_origin(hint)
    args = typing.get_args(hint)
    if origin is typing.Annotated:
        constrained = any(isinstance(extra, msgspec.Meta) for extra in hint.__metadata__)
        return _convert_to(hint) if constrained else _compile(args[0], outer)
    if hasattr(hint, "__supertype__"):  # a NewType
        return _compile(hint.__supertype__, outer)
    if hasattr(hint, "__value__"):  # a `type` alias; one that contains itself is not followed
        return None if hint in outer else _compile(hint.__value__, (*outer, hint))
    if origin in (typing.Union, types.UnionType):
        return _union(hint, [_compile(arg, outer) for arg in args])
    if origin is typing.Literal or typing.is_typeddict(hint):
        return _convert_to(hint)
    if origin is tuple:
        return _tuple(hint, args, outer)
    if origin in _SEQUENCES:
        return _sequence(hint, origin, _compile(args[0], outer))
    if origin in _MAPPINGS:
        return _mapping(hint, origin, *(_compile(arg, outer) or _same for arg in args))
    cls = origin or (type(None) if hint is None else hint)
    return _instance(cls) if isinstance(cls, type) and cls is not object else None


def _same(value: Any) -> Any:
    return value


def _instance(cls: type) -> Coercion | None:
    try:
        isinstance(None, cls)
    except TypeError:  # a Protocol that cannot be checked
        return None
    convert = _convert_to(cls)

    def coerce(value: Any) -> Any:
        if isinstance(value, cls):
            return value
        if cls is types.NoneType:
            raise Mismatch(_expected(cls, value))  # msgspec would take the text "null"
        return convert(value)

    return coerce


def _convert_to(hint: _Hint) -> Coercion:
    def convert(value: Any) -> Any:
        if hasattr(value, "dtype") and hasattr(value, "item") and not getattr(value, "shape", ()):
            value = value.item()  # numpy's numbers are numbers
        try:
            if hint is bytes and isinstance(value, str):
                return value.encode()  # msgspec would read it as base64
            try:
                return msgspec.convert(value, hint, strict=False, dec_hook=_convert_custom)
            finally:
                leave_no_trace(hint)
        except msgspec.ValidationError as error:
            if hint is datetime and isinstance(value, str):
                with suppress(ValueError):
                    return datetime.fromisoformat(value)  # the shorter ISO forms too, such as a date alone
            raise _mismatch(str(error), hint, value) from None
        except TypeError:  # a type that msgspec cannot make from plain data
            raise Mismatch(_expected(hint, value)) from None

    return convert


def leave_no_trace(hint: _Hint) -> None:
    """Take away what msgspec keeps on the user's own classes: with it, cloudpickle cannot carry them."""
    for part in typing.get_args(hint):
        leave_no_trace(part)
    if isinstance(hint, type) and "__msgspec_cache__" in vars(hint) and not hasattr(hint, "__struct_fields__"):
        with suppress(AttributeError):  # another thread was faster
            delattr(hint, _MSGSPEC_CACHE)
        with suppress(Exception):  # msgspec could evaluate them, but let that not be our concern here
            for part in typing.get_type_hints(hint).values():
                leave_no_trace(part)


def _convert_custom(cls: Any, value: Any) -> Any:
    if isinstance(cls, type) and not isinstance(value, cls):
        from pathlib import PurePath  # here because few need it and start-up counts

        if issubclass(cls, PurePath) and isinstance(value, str):
            return cls(value)
        if cls is complex and isinstance(value, int | float | str):
            return complex(value)
        raise ValueError(_expected(cls, value))
    return value


def _mismatch(message: str, hint: _Hint, value: Any) -> Mismatch:
    """From `Expected `int`, got `str` - at `$.x[0]`` to the form of our other messages."""
    reason, _, place = message.replace("`", "").partition(" - at $")
    if not place:
        reason = _expected(hint, value) if ", got " in reason else f"{reason}, got {_shown(value)}"
    return Mismatch(reason[:1].lower() + reason[1:], place)


def _union(hint: _Hint, members: list[Coercion | None]) -> Coercion | None:
    coercions = [member for member in members if member is not None]
    if len(coercions) < len(members):
        return None

    def coerce(value: Any) -> Any:
        results: list[Any] = []
        for member in coercions:
            try:
                result = member(value)
            except Mismatch:
                continue
            if result is value:
                return value
            results.append(result)
        if not results:
            raise Mismatch(_expected(hint, value))
        return results[0]

    return coerce


def _items(values: Iterable[Any], coerce: Coercion) -> list[Any]:
    result: list[Any] = []
    for index, value in enumerate(values):
        try:
            result.append(coerce(value))
        except Mismatch as mismatch:
            raise mismatch.within(f"[{index}]") from None
    return result


def _sequence(hint: _Hint, origin: Any, item: Coercion | None) -> Coercion:
    def coerce(value: Any) -> Any:
        right = isinstance(value, origin)
        if not isinstance(value, _TAKEN_APART):
            if right:
                return value  # ours to check, not to take apart: text, arrays, the user's own collections
            raise Mismatch(_expected(hint, value))
        items = list(value) if item is None else _items(value, item)
        return value if right and all(map(is_, items, value)) else _SEQUENCES[origin](items)

    return coerce


def _tuple(hint: _Hint, args: tuple[_Hint, ...], outer: tuple[_Hint, ...]) -> Coercion:
    endless = len(args) == 2 and args[1] is Ellipsis
    coercions = [_compile(arg, outer) or _same for arg in args if arg is not Ellipsis]

    def coerce(value: Any) -> Any:
        if not isinstance(value, _ROWS):
            raise Mismatch(_expected(hint, value))
        if endless:
            items = _items(value, coercions[0])
        elif len(value) != len(coercions):
            raise Mismatch(f"expected {len(coercions)} items, got {len(value)}")
        else:
            each = iter(coercions)
            items = _items(value, lambda part: next(each)(part))
        return value if isinstance(value, cast(Any, tuple)) and all(map(is_, items, value)) else tuple(items)

    return coerce


def _mapping(hint: _Hint, origin: Any, key: Coercion, item: Coercion) -> Coercion:
    def coerce(value: Any) -> Any:
        if not isinstance(value, cast(Any, dict)):
            if isinstance(value, origin):
                return value
            raise Mismatch(_expected(hint, value))
        result: dict[Any, Any] = {}
        for name, part in value.items():
            try:
                result[key(name)] = item(part)
            except Mismatch as mismatch:
                raise mismatch.within(f"[{_shown(name, with_type=False)}]") from None
        same = all(map(is_, result, value)) and all(map(is_, result.values(), value.values()))
        return value if same and len(result) == len(value) else result

    return coerce


def needs_pydantic(hint: _Hint) -> bool:
    """Whether pydantic, if the user has loaded it, is who understands this annotation."""
    if "pydantic" not in sys.modules:
        return False
    if hasattr(hint, "__get_pydantic_core_schema__") or hasattr(hint, "__pydantic_core_schema__"):
        return True
    extras = getattr(hint, "__metadata__", ())
    if any(type(extra).__module__.partition(".")[0] in ("pydantic", "annotated_types") for extra in extras):
        return True
    return any(needs_pydantic(arg) for arg in typing.get_args(hint))


def pydantic_adapter(hint: _Hint) -> Any:
    """Pydantic's TypeAdapter of an annotation; None where pydantic does not know what it means either."""
    pydantic = sys.modules["pydantic"]
    try:
        try:
            return pydantic.TypeAdapter(hint, config={"arbitrary_types_allowed": True})
        except pydantic.PydanticUserError:  # classes that bring their own configuration
            return pydantic.TypeAdapter(hint)
    except (AttributeError, pydantic.PydanticUserError):  # pydantic 1, or a type that it does not know either
        return None


def _pydantic(hint: _Hint) -> Coercion | None:
    pydantic, adapter = sys.modules["pydantic"], pydantic_adapter(hint)
    if adapter is None:
        return None

    def coerce(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except pydantic.ValidationError as error:
            reasons = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}".removeprefix(": ") for e in error.errors()]
            raise Mismatch("; ".join(reasons)) from None

    return coerce


def _expected(hint: _Hint, value: Any) -> str:
    name = hint.__qualname__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    return f"expected {name.replace('typing.', '')}, got {_shown(value)}"


def _shown(value: Any, with_type: bool = True) -> str:
    try:
        text = repr(value)
    except Exception:  # a user's __repr__ may raise anything
        text = "?"
    if value is None:
        return text
    text = text if len(text) <= _REPR_LIMIT else text[: _REPR_LIMIT - 3] + "..."
    return f"{type(value).__name__} {text}" if with_type else text
