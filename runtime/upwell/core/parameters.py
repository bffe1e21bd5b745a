"""What there is to know about the parameters of a user's function: binding, coercing, and mapping over them.

Two parts, in the order a call meets them: `Parameters` (facts of the signature, computed once at decoration), and the
plan of a `.map`. How values are coerced to annotations is told in `coercion`.
"""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from inspect import Parameter
from itertools import repeat
from typing import Any

from msgspec import Struct

from upwell.core.annotations import constant_part, mapped_items
from upwell.core.coercion import Coercion, Mismatch, coercions_of, hints_of
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


class Parameters:
    """The parameters of a function, a bound method, a functools.partial or another callable.

    positional_names: of those that a value can be given to by its place; gathered_name: of that which takes all beyond.

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
        self.positional_names = tuple(p.name for p in parameters if p.kind in _POSITIONAL)
        self.gathered_name = next((p.name for p in parameters if p.kind is Parameter.VAR_POSITIONAL), "")
        self._keyword_names = {p.name for p in parameters if p.kind is not Parameter.POSITIONAL_ONLY}
        self._simple = not any(p.kind in _VARIADIC for p in parameters)
        needed = [p for p in parameters if p.kind not in _VARIADIC and p.default is _NO_DEFAULT]
        by_keyword = any(p.kind is Parameter.KEYWORD_ONLY for p in needed)
        endless = any(p.kind is Parameter.VAR_POSITIONAL for p in parameters)
        self.min_positional = sys.maxsize if by_keyword else len(needed)
        self.max_positional = sys.maxsize if endless else len(self.positional_names)
        self._coercions: dict[str, Coercion] | None = None

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
            self._coercions = coercions_of(self._fn, self.signature)
        valid = dict(parameters)
        problems: list[str] = []
        for name, coerce in self._coercions.items():
            if name in valid and valid[name] is not self._defaults.get(name, _NO_DEFAULT):
                try:
                    valid[name] = coerce(valid[name])
                except Mismatch as mismatch:
                    problems.append(f"\n - {name}{mismatch}")
        if problems:
            raise ParameterTypeError(f"{subject} received invalid parameters:{''.join(problems)}")
        return valid

    def hints(self) -> dict[str, Any]:
        """What each parameter holds, by its annotation; Any where that says nothing."""
        return hints_of(self._fn, self.signature)

    def plan_map(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> "MapPlan":
        """Decide what a `.map` with these arguments goes over; see MapPlan."""
        self.bind(args, kwargs)  # a call that cannot work fails here, once, and not in every run
        labels = list(self.positional_names[: len(args)])
        labels += [f"argument {number}" for number in range(len(labels) + 1, len(args) + 1)]
        return _plan_map(args, kwargs, labels)

    def _bind_error(self, reason: str) -> ParameterBindError:
        return ParameterBindError(f"{function_name(self._fn)}{self.signature} was called wrongly: {reason}.")


# --- Mapping --------------------------------------------------------------------------------------------


class MapPlan(Struct, frozen=True):
    """What `.map` runs over: one row a call.

    A row holds the call's positional arguments, then the values of `kwarg_names`; `static_kwargs` are the
    same for every call. A column holds one of these for all calls. Mapped are iterables, generators included
    (read once). Constants are whatever stands in `unmapped`, `quote` or `opaque`, text and bytes, dicts,
    pydantic models, and all that is not iterable. `allow_failure` around an iterable is put around each of
    its items, around a constant it stays.
    """

    length: int
    columns: tuple[Iterable[Any], ...]
    kwarg_names: tuple[str, ...]
    static_kwargs: dict[str, Any]

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The rows, each made as it is asked for; can be gone through once."""
        return zip(*self.columns, strict=True)


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
        (*columns, *mapped_kwargs.values()),
        tuple(mapped_kwargs),
        {name: constant_part(value) for name, value in kwargs.items() if name not in mapped_kwargs},
    )


def _nothing_to_map(arguments: list[tuple[str, Any]]) -> MappingMissingIterable:
    texts = [f"wrap text in a list, as in [{name}]" for name, value in arguments if isinstance(value, str)]
    advice = ["give a list or another iterable", *texts[:1]]
    return MappingMissingIterable(f"A map needs at least one iterable argument: {', or '.join(advice)}.")
