"""Parameters of users' functions: binding and mapping."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pydantic
import pytest

from upwell.core.annotations import allow_failure, quote, unmapped
from upwell.core.errors import (
    MappingLengthMismatch,
    MappingMissingIterable,
    ParameterBindError,
    ReservedArgumentError,
)
from upwell.core.parameters import Parameters

# --- Binding --------------------------------------------------------------------------------------------


def plain(a: int, b: int = 2, *, c: int = 3) -> None: ...


def variadic(a: Any, *rest: Any, k: Any = 1, **options: Any) -> None: ...


def positional_only(a: Any, /, b: Any) -> None: ...


def needs_keyword(a: Any, *, k: Any) -> None: ...


def oddly_named(keys: Any, items: Any, values: Any, self: Any = 0, args: Any = 1, fn: Any = 2) -> None: ...


class Service:
    def method(self, x: int) -> None: ...

    @classmethod
    def for_class(cls, x: int) -> None: ...

    def __call__(self, x: int) -> None: ...


@pytest.mark.parametrize("name", ["return_state", "wait_for"])
def test_a_reserved_parameter_name_is_refused_at_decoration(name: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def crawl({name}=None): ...", scope)
    with pytest.raises(ReservedArgumentError, match=f"'crawl' has a parameter named '{name}'"):
        Parameters(scope["crawl"])


def test_values_are_bound_by_name_in_the_order_of_the_signature() -> None:
    assert Parameters(plain).bind((1,), {}) == {"a": 1, "b": 2, "c": 3}
    assert list(Parameters(plain).bind((), {"c": 9, "a": 1})) == ["a", "b", "c"]
    assert Parameters(oddly_named).bind((1, 2), {"values": 3, "self": 4})["self"] == 4
    assert Parameters(positional_only).bind((1,), {"b": 2}) == {"a": 1, "b": 2}


def test_variadic_parameters_stand_under_their_names() -> None:
    bound = Parameters(variadic).bind((1, 2, 3), {"k": 4, "x": 5})
    assert bound == {"a": 1, "rest": (2, 3), "k": 4, "options": {"x": 5}}
    assert Parameters(variadic).bind((1,), {}) == {"a": 1, "rest": (), "k": 1, "options": {}}


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "reason"),
    [
        (plain, (), {}, "missing a required argument: 'a'"),
        (plain, (1, 2, 3), {}, "too many positional arguments"),
        (plain, (1,), {"a": 2}, "multiple values for argument 'a'"),
        (plain, (1,), {"z": 2}, "got an unexpected keyword argument 'z'"),
        (positional_only, (), {"a": 1, "b": 2}, "positional"),
        (needs_keyword, (1,), {}, "missing a required"),
    ],
)
def test_wrong_arguments_show_the_signature(fn: Any, args: Any, kwargs: Any, reason: str) -> None:
    assert not Parameters(fn).accepts(len(args), kwargs)
    with pytest.raises(ParameterBindError, match=reason) as caught:
        Parameters(fn).bind(args, kwargs)
    assert str(caught.value).startswith(f"{fn.__name__}(")
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ("fn", "accepted"),
    [(plain, {1, 2}), (variadic, {1, 2, 3, 4}), (positional_only, {2}), (needs_keyword, set[int]())],
)
def test_a_call_without_keywords_is_accepted_by_its_number_of_arguments(fn: Any, accepted: set[int]) -> None:
    assert {number for number in range(5) if Parameters(fn).accepts(number, {})} == accepted
    assert not Parameters(fn).accepts(1, {"c": 1})


@pytest.mark.parametrize(
    ("fn", "args", "kwargs"),
    [
        (plain, (1, 2), {"c": 4}),
        (variadic, (1, 2, 3), {"k": 4, "x": 5}),
        (positional_only, (1, 2), {}),
        (oddly_named, (1, 2, 3, 4, 5, 6), {}),
    ],
)
def test_what_was_bound_can_be_called(fn: Any, args: Any, kwargs: Any) -> None:
    parameters = Parameters(fn)
    assert parameters.call_args(parameters.bind(args, kwargs)) == (args, kwargs)


def test_a_call_from_named_parameters_takes_defaults_and_refuses_strangers() -> None:
    assert Parameters(plain).call_args({"a": 1}) == ((1, 2), {"c": 3})
    with pytest.raises(ParameterBindError, match="unknown parameters: z, y"):
        Parameters(plain).call_args({"a": 1, "z": 1, "y": 2})
    with pytest.raises(ParameterBindError, match="missing a required argument: 'a'"):
        Parameters(plain).call_args({})


CALLABLES: list[Callable[..., Any]] = [
    Service().method,
    Service.for_class,
    Service(),
    functools.partial(plain, c=3),
]


@pytest.mark.parametrize("fn", CALLABLES)
def test_all_kinds_of_callables_have_parameters(fn: Any) -> None:
    assert Parameters(fn).accepts(1, {})
    assert Parameters(fn).validate(Parameters(fn).bind((7,), {}))


def test_a_builtin_that_does_not_tell_its_signature_takes_anything() -> None:
    parameters = Parameters(max)
    assert parameters.accepts(3, {})
    assert parameters.call_args(parameters.bind((1, 2), {"key": abs})) == ((1, 2), {"key": abs})


# --- Mapping --------------------------------------------------------------------------------------------


def rows(fn: Any, *args: Any, **kwargs: Any) -> list[tuple[Any, ...]]:
    return list(Parameters(fn).plan_map(args, kwargs).rows())


def three(a: Any, b: Any = 0, c: Any = 0) -> None: ...


def test_lists_are_zipped_and_constants_repeated() -> None:
    assert rows(three, [1, 2], "xy", unmapped([3])) == [(1, "xy", [3]), (2, "xy", [3])]


def test_mapped_keywords_stand_behind_the_positional_values() -> None:
    plan = Parameters(three).plan_map(([1, 2],), {"b": (3, 4), "c": unmapped("z")})
    assert plan.length == 2
    assert plan.kwarg_names == ("b",)
    assert plan.static_kwargs == {"c": "z"}
    assert list(plan.rows()) == [(1, 3), (2, 4)]


def generator_of(n: int) -> Iterator[int]:
    yield from range(n)


class Colour(enum.Enum):
    RED = "red"


class Model(pydantic.BaseModel):
    n: int


@pytest.mark.parametrize("inputs", [range(2), generator_of(1), np.arange(2), {1, 2}, {"k": 1}.values(), Colour])
def test_every_iterable_is_mapped(inputs: Any) -> None:
    plan = Parameters(three).plan_map((inputs,), {})
    assert len(list(plan.rows())) == plan.length > 0


@pytest.mark.parametrize("constant", ["ab", b"ab", {"a": 1}, 5, None, quote([1]), Model(n=1), np.array(5)])
def test_constants_are_not_mapped(constant: Any) -> None:
    [first, second] = rows(three, [1, 2], constant)
    assert first[1] is second[1] is constant


def test_defaults_are_not_mapped() -> None:
    def fn(a: Any, b: Any = (1, 2, 3)) -> None: ...

    assert rows(fn, [1]) == [(1,)]


def test_nothing_is_mapped_over_an_empty_list() -> None:
    plan = Parameters(three).plan_map(([], 3), {})
    assert (plan.length, list(plan.rows())) == (0, [])


def test_allow_failure_goes_to_each_item_and_stays_around_constants() -> None:
    [row] = rows(three, allow_failure([1]), unmapped(allow_failure(2)), allow_failure(unmapped([3])))
    assert [type(value) for value in row] == [allow_failure] * 3
    assert [value.value for value in row] == [1, 2, [3]]


def test_different_lengths_are_listed_by_parameter() -> None:
    with pytest.raises(MappingLengthMismatch, match=r"differ in length: a has 2, c has 3\. .*unmapped"):
        Parameters(three).plan_map(([1, 2], 5), {"c": generator_of(3)})


def test_variadic_inputs_are_told_apart() -> None:
    with pytest.raises(MappingLengthMismatch, match="a has 1, argument 2 has 1, argument 3 has 2"):
        Parameters(variadic).plan_map(([1], [1], [1, 2]), {})


def test_nothing_to_map_over_is_an_error() -> None:
    with pytest.raises(MappingMissingIterable, match="at least one iterable"):
        Parameters(three).plan_map((1, unmapped([2])), {})


def test_a_lone_text_is_told_to_become_a_list() -> None:
    with pytest.raises(MappingMissingIterable, match=r"wrap text in a list, as in \[a\]"):
        Parameters(three).plan_map(("text",), {})


def test_a_map_that_does_not_fit_the_signature_fails_at_once() -> None:
    with pytest.raises(ParameterBindError, match="unexpected keyword argument 'z'"):
        Parameters(three).plan_map(([1],), {"z": [1]})
