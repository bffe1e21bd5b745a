"""What there is to know about the parameters of a user's function: binding, coercing, and mapping over them.

Three parts, in the order a call meets them: `Parameters` (facts of the signature, computed once at
decoration), coercion by annotation (built at the first validation, then kept), and the plan of a `.map`.
"""

import inspect
import sys
import types
import typing
from collections import abc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from inspect import Parameter
from itertools import repeat
from operator import is_
from typing import Any, NamedTuple, cast

import msgspec

from upwell.core.annotations import constant_part, mapped_items
from upwell.core.errors import (
    MappingLengthMismatch,
    MappingMissingIterable,
    ParameterBindError,
    ParameterTypeError,
    ReservedArgumentError,
)
from upwell.core.names import function_name

RESERVED_NAMES = frozenset({"return_state", "wait_for"})

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_NO_DEFAULT: Any = Parameter.empty
_REPR_LIMIT = 60  # characters of a bad value shown in an error


class Parameters:
    """The parameters of a function, a bound method, a functools.partial or another callable.

    Raises ReservedArgumentError if one has a name that upwell's own calls use.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        try:
            self.signature = inspect.signature(fn)
        except ValueError:  # some builtins do not tell
            self.signature = inspect.Signature([Parameter(kind.name, kind) for kind in _VARIADIC])
        parameters = self.signature.parameters.values()
        self.names = tuple(self.signature.parameters)
        for name in RESERVED_NAMES.intersection(self.names):
            raise ReservedArgumentError(
                f"{function_name(fn)!r} has a parameter named {name!r}, which calls of flows and tasks need "
                "for themselves: give it another name."
            )
        self._fn = fn
        self._defaults = {p.name: p.default for p in parameters if p.default is not _NO_DEFAULT}
        self._positional_names = [p.name for p in parameters if p.kind in _POSITIONAL]
        self._keyword_names = {p.name for p in parameters if p.kind is not Parameter.POSITIONAL_ONLY}
        self._simple = not any(p.kind in _VARIADIC for p in parameters)
        needed = [p for p in parameters if p.kind not in _VARIADIC and p.default is _NO_DEFAULT]
        by_keyword = any(p.kind is Parameter.KEYWORD_ONLY for p in needed)
        endless = any(p.kind is Parameter.VAR_POSITIONAL for p in parameters)
        self.min_positional = sys.maxsize if by_keyword else len(needed)
        self.max_positional = sys.maxsize if endless else len(self._positional_names)
        self._coercions: dict[str, _Coercion] | None = None

    def accepts(self, n_positional: int, kwargs: Mapping[str, Any]) -> bool:
        """Whether a call surely fits the signature; False means that only `bind` can tell."""
        return not kwargs and self.min_positional <= n_positional <= self.max_positional

    def takes(self, keyword: str) -> bool:
        """Whether the function can be given this keyword."""
        kinds = {parameter.kind for parameter in self.signature.parameters.values()}
        return keyword in self._keyword_names or Parameter.VAR_KEYWORD in kinds

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The value of every parameter by name, in the signature's order, defaults included.

        `*args` stands under its name as a tuple, `**kwargs` as a dict. Raises ParameterBindError.
        """
        if self._simple and len(args) <= self.max_positional and kwargs.keys() <= self._keyword_names:
            given = dict(zip(self.names, args, strict=False))
            repeated = not given.keys().isdisjoint(kwargs)
            given = {**self._defaults, **given, **kwargs}
            if len(given) == len(self.names) and not repeated:
                return {name: given[name] for name in self.names}
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise self._bind_error(str(error)) from None
        bound.apply_defaults()
        return dict(bound.arguments)

    def call_args(self, parameters: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments to call the function with: what `bind` took apart, put together again.

        A parameter with a default may be missing. Raises ParameterBindError for unknown or missing ones.
        """
        unknown = [name for name in parameters if name not in self.signature.parameters]
        if unknown:
            raise self._bind_error(f"unknown parameters: {', '.join(unknown)}")
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for name, parameter in self.signature.parameters.items():
            if parameter.kind is Parameter.VAR_POSITIONAL:
                args.extend(parameters.get(name, ()))
            elif parameter.kind is Parameter.VAR_KEYWORD:
                kwargs.update(parameters.get(name, {}))
            else:
                value = parameters.get(name, parameter.default)
                if value is _NO_DEFAULT:
                    raise self._bind_error(f"missing a required argument: {name!r}")
                if parameter.kind is Parameter.KEYWORD_ONLY:
                    kwargs[name] = value
                else:
                    args.append(value)
        return tuple(args), kwargs

    def validate(self, parameters: Mapping[str, Any], subject: str = "Flow run") -> dict[str, Any]:
        """The parameters with each value coerced to its annotation; right values are passed by identity.

        Text becomes numbers and dates, dicts become dataclasses, Structs and pydantic models, and so on.
        Defaults, and annotations that cannot be evaluated or checked, let everything through. Raises one
        ParameterTypeError that begins with `subject` and lists every bad parameter.
        """
        if self._coercions is None:
            self._coercions = _coercions(self._fn, self.signature)
        valid = dict(parameters)
        problems: list[str] = []
        for name, coerce in self._coercions.items():
            if name in valid and valid[name] is not self._defaults.get(name, _NO_DEFAULT):
                try:
                    valid[name] = coerce(valid[name])
                except _Mismatch as mismatch:
                    problems.append(f"\n - {name}{mismatch}")
        if problems:
            raise ParameterTypeError(f"{subject} received invalid parameters:{''.join(problems)}")
        return valid

    def plan_map(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> "MapPlan":
        """Decide what a `.map` with these arguments goes over; see MapPlan."""
        self.bind(args, kwargs)  # a call that cannot work fails here, once, and not in every run
        labels = self._positional_names[: len(args)]
        labels += [f"argument {number}" for number in range(len(labels) + 1, len(args) + 1)]
        return _plan_map(args, kwargs, labels)

    def _bind_error(self, reason: str) -> ParameterBindError:
        return ParameterBindError(f"{function_name(self._fn)}{self.signature} was called wrongly: {reason}.")


# --- Coercion by annotation -----------------------------------------------------------------------------
# An annotation is compiled once into a function from value to value. It returns the value itself if that
# is right already, another one if it can be coerced, and raises _Mismatch if not. None lets all through.

_Coercion = Callable[[Any], Any]
_Hint = Any


class _Mismatch(Exception):
    """A value does not fit; reads on after the parameter's name: `[3]: expected int, got str 'x'`."""

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason
        self.path = path

    def within(self, place: str) -> "_Mismatch":
        return _Mismatch(self.reason, place + self.path)


_SEQUENCES: dict[Any, Callable[[list[Any]], Any]] = {
    list: list, abc.Sequence: list, abc.MutableSequence: list, abc.Collection: list,
    set: set, abc.Set: set, abc.MutableSet: set, frozenset: frozenset,
}  # fmt: skip
_TAKEN_APART: Any = (list, tuple, set, frozenset, range)
_ROWS: Any = (list, tuple)
_MSGSPEC_CACHE = "__msgspec_cache__"
_MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)


def _coercions(fn: Any, signature: inspect.Signature) -> dict[str, _Coercion]:
    coercions: dict[str, _Coercion] = {}
    for name, parameter in signature.parameters.items():
        hint = _evaluated(fn, parameter.annotation)
        if parameter.kind is Parameter.VAR_POSITIONAL:
            hint = types.GenericAlias(tuple, (hint, ...))
        elif parameter.kind is Parameter.VAR_KEYWORD:
            hint = types.GenericAlias(dict, (str, hint))
        coercion = _pydantic(hint) if _needs_pydantic(hint) else _compile(hint)
        if coercion is not None:
            coercions[name] = coercion
    return coercions


def _evaluated(fn: Any, annotation: _Hint) -> _Hint:
    """An annotation with its names looked up where the function stands; Any if they cannot be found."""
    if annotation is _NO_DEFAULT:
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


def _compile(hint: _Hint, outer: tuple[_Hint, ...] = ()) -> _Coercion | None:
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


def _instance(cls: type) -> _Coercion | None:
    try:
        isinstance(None, cls)
    except TypeError:  # a Protocol that cannot be checked
        return None
    convert = _convert_to(cls)

    def coerce(value: Any) -> Any:
        if isinstance(value, cls):
            return value
        if cls is types.NoneType:
            raise _Mismatch(_expected(cls, value))  # msgspec would take the text "null"
        return convert(value)

    return coerce


def _convert_to(hint: _Hint) -> _Coercion:
    def convert(value: Any) -> Any:
        if hasattr(value, "dtype") and hasattr(value, "item") and not getattr(value, "shape", ()):
            value = value.item()  # numpy's numbers are numbers
        try:
            if hint is bytes and isinstance(value, str):
                return value.encode()  # msgspec would read it as base64
            try:
                return msgspec.convert(value, hint, strict=False, dec_hook=_convert_custom)
            finally:
                _leave_no_trace(hint)
        except msgspec.ValidationError as error:
            if hint is datetime and isinstance(value, str):
                with suppress(ValueError):
                    return datetime.fromisoformat(value)  # the shorter ISO forms too, such as a date alone
            raise _mismatch(str(error), hint, value) from None
        except TypeError:  # a type that msgspec cannot make from plain data
            raise _Mismatch(_expected(hint, value)) from None

    return convert


def _leave_no_trace(hint: _Hint) -> None:
    """Take away what msgspec keeps on the user's own classes: with it, cloudpickle cannot carry them."""
    for part in typing.get_args(hint):
        _leave_no_trace(part)
    if isinstance(hint, type) and "__msgspec_cache__" in vars(hint) and not hasattr(hint, "__struct_fields__"):
        with suppress(AttributeError):  # another thread was faster
            delattr(hint, _MSGSPEC_CACHE)
        with suppress(Exception):  # msgspec could evaluate them, but let that not be our concern here
            for part in typing.get_type_hints(hint).values():
                _leave_no_trace(part)


def _convert_custom(cls: Any, value: Any) -> Any:
    if isinstance(cls, type) and not isinstance(value, cls):
        from pathlib import PurePath  # here because few need it and start-up counts

        if issubclass(cls, PurePath) and isinstance(value, str):
            return cls(value)
        if cls is complex and isinstance(value, int | float | str):
            return complex(value)
        raise ValueError(_expected(cls, value))
    return value


def _mismatch(message: str, hint: _Hint, value: Any) -> _Mismatch:
    """From `Expected `int`, got `str` - at `$.x[0]`` to the form of our other messages."""
    reason, _, place = message.replace("`", "").partition(" - at $")
    if not place:
        reason = _expected(hint, value) if ", got " in reason else f"{reason}, got {_shown(value)}"
    return _Mismatch(reason[:1].lower() + reason[1:], place)


def _union(hint: _Hint, members: list[_Coercion | None]) -> _Coercion | None:
    coercions = [member for member in members if member is not None]
    if len(coercions) < len(members):
        return None

    def coerce(value: Any) -> Any:
        results: list[Any] = []
        for member in coercions:
            try:
                result = member(value)
            except _Mismatch:
                continue
            if result is value:
                return value
            results.append(result)
        if not results:
            raise _Mismatch(_expected(hint, value))
        return results[0]

    return coerce


def _items(values: Iterable[Any], coerce: _Coercion) -> list[Any]:
    result: list[Any] = []
    for index, value in enumerate(values):
        try:
            result.append(coerce(value))
        except _Mismatch as mismatch:
            raise mismatch.within(f"[{index}]") from None
    return result


def _sequence(hint: _Hint, origin: Any, item: _Coercion | None) -> _Coercion:
    def coerce(value: Any) -> Any:
        right = isinstance(value, origin)
        if not isinstance(value, _TAKEN_APART):
            if right:
                return value  # ours to check, not to take apart: text, arrays, the user's own collections
            raise _Mismatch(_expected(hint, value))
        items = list(value) if item is None else _items(value, item)
        return value if right and all(map(is_, items, value)) else _SEQUENCES[origin](items)

    return coerce


def _tuple(hint: _Hint, args: tuple[_Hint, ...], outer: tuple[_Hint, ...]) -> _Coercion:
    endless = len(args) == 2 and args[1] is Ellipsis
    coercions = [_compile(arg, outer) or _same for arg in args if arg is not Ellipsis]

    def coerce(value: Any) -> Any:
        if not isinstance(value, _ROWS):
            raise _Mismatch(_expected(hint, value))
        if endless:
            items = _items(value, coercions[0])
        elif len(value) != len(coercions):
            raise _Mismatch(f"expected {len(coercions)} items, got {len(value)}")
        else:
            each = iter(coercions)
            items = _items(value, lambda part: next(each)(part))
        return value if isinstance(value, cast(Any, tuple)) and all(map(is_, items, value)) else tuple(items)

    return coerce


def _mapping(hint: _Hint, origin: Any, key: _Coercion, item: _Coercion) -> _Coercion:
    def coerce(value: Any) -> Any:
        if not isinstance(value, cast(Any, dict)):
            if isinstance(value, origin):
                return value
            raise _Mismatch(_expected(hint, value))
        result: dict[Any, Any] = {}
        for name, part in value.items():
            try:
                result[key(name)] = item(part)
            except _Mismatch as mismatch:
                raise mismatch.within(f"[{_shown(name, with_type=False)}]") from None
        same = all(map(is_, result, value)) and all(map(is_, result.values(), value.values()))
        return value if same and len(result) == len(value) else result

    return coerce


def _needs_pydantic(hint: _Hint) -> bool:
    """Whether pydantic, if the user has loaded it, is who understands this annotation."""
    if "pydantic" not in sys.modules:
        return False
    if hasattr(hint, "__get_pydantic_core_schema__") or hasattr(hint, "__pydantic_core_schema__"):
        return True
    extras = getattr(hint, "__metadata__", ())
    if any(type(extra).__module__.partition(".")[0] in ("pydantic", "annotated_types") for extra in extras):
        return True
    return any(_needs_pydantic(arg) for arg in typing.get_args(hint))


def _pydantic(hint: _Hint) -> _Coercion | None:
    pydantic = sys.modules["pydantic"]
    try:
        try:
            adapter = pydantic.TypeAdapter(hint, config={"arbitrary_types_allowed": True})
        except pydantic.PydanticUserError:  # classes that bring their own configuration
            adapter = pydantic.TypeAdapter(hint)
    except (AttributeError, pydantic.PydanticUserError):  # pydantic 1, or a type that it does not know either
        return None

    def coerce(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except pydantic.ValidationError as error:
            reasons = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}".removeprefix(": ") for e in error.errors()]
            raise _Mismatch("; ".join(reasons)) from None

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


# --- Mapping --------------------------------------------------------------------------------------------


class MapPlan(NamedTuple):
    """What `.map` runs over: one row a call.

    A row holds the call's positional arguments, then the values of `kwarg_names`; `static_kwargs` are the
    same for every call. Mapped are iterables, generators included (read once). Constants are whatever stands
    in `unmapped`, `quote` or `opaque`, text and bytes, dicts, pydantic models, and all that is not iterable.
    `allow_failure` around an iterable is put around each of its items, around a constant it stays.
    """

    length: int
    rows: Iterator[tuple[Any, ...]]
    kwarg_names: tuple[str, ...]
    static_kwargs: dict[str, Any]


def _plan_map(args: tuple[Any, ...], kwargs: Mapping[str, Any], labels: list[str]) -> MapPlan:
    positional = [mapped_items(value) for value in args]
    mapped_kwargs = {name: found for name, value in kwargs.items() if (found := mapped_items(value)) is not None}
    labelled = [(label, found) for label, found in zip(labels, positional, strict=True) if found is not None]
    lengths = {label: len(found) for label, found in [*labelled, *mapped_kwargs.items()]}
    if not lengths:
        raise _nothing_to_map([*zip(labels, args, strict=True), *kwargs.items()])
    if len(set(lengths.values())) > 1:
        raise MappingLengthMismatch(
            f"The inputs of a map differ in length: {', '.join(f'{k} has {n}' for k, n in lengths.items())}. "
            "Make them equally long, or wrap in `unmapped` what every call should get whole."
        )
    length = next(iter(lengths.values()))
    columns: list[Iterable[Any]] = [
        repeat(constant_part(value), length) if found is None else found
        for value, found in zip(args, positional, strict=True)
    ]
    return MapPlan(
        length,
        zip(*columns, *mapped_kwargs.values(), strict=True),
        tuple(mapped_kwargs),
        {name: constant_part(value) for name, value in kwargs.items() if name not in mapped_kwargs},
    )


def _nothing_to_map(arguments: list[tuple[str, Any]]) -> MappingMissingIterable:
    texts = [f"wrap text in a list, as in [{name}]" for name, value in arguments if isinstance(value, str)]
    advice = ["give a list or another iterable", *texts[:1]]
    return MappingMissingIterable(f"A map needs at least one iterable argument: {', or '.join(advice)}.")
