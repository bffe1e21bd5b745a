"""Parameters of users' functions: binding, coercion and mapping."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import functools
import pathlib
import typing
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pydantic
import pytest

from upwell.core.annotations import allow_failure, quote, unmapped
from upwell.core.errors import (
    MappingLengthMismatch,
    MappingMissingIterable,
    ParameterBindError,
    ParameterTypeError,
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


# --- Coercion -------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Pair(enum.Enum):
    ONE = (1, 2)


@dataclasses.dataclass
class Config:
    size: int
    tags: list[str] = dataclasses.field(default_factory=list[str])


class Item(msgspec.Struct):
    n: int


class Row(typing.NamedTuple):
    a: int
    b: str = "x"


class Options(typing.TypedDict):
    n: int


class Model(pydantic.BaseModel):
    n: int


class Own:
    pass


class HasLength(typing.Protocol):
    def __len__(self) -> int: ...


UserId = typing.NewType("UserId", int)
T = typing.TypeVar("T")


def coerce(hint: Any, value: Any) -> Any:
    def flow(x: Any) -> None: ...

    flow.__annotations__["x"] = hint
    return Parameters(flow).validate({"x": value})["x"]


COERCED: list[tuple[Any, Any, Any]] = [
    (int, "4", 4),
    (int, 4.0, 4),
    (int, np.int64(3), 3),
    (float, 4, 4.0),
    (float, "4.5", 4.5),
    (float, np.float32(0.5), 0.5),
    (bool, "true", True),
    (bool, np.bool_(True), True),
    (bytes, "é", "é".encode()),
    (list[bytes], ["abcd"], [b"abcd"]),
    (complex, "1+2j", 1 + 2j),
    (datetime.datetime, "2024-01-02T03:04:05", datetime.datetime(2024, 1, 2, 3, 4, 5)),
    (datetime.datetime, "2024-01-02", datetime.datetime(2024, 1, 2)),
    (datetime.date, "2024-01-02", datetime.date(2024, 1, 2)),
    (datetime.timedelta, 90, datetime.timedelta(seconds=90)),
    (decimal.Decimal, "1.50", decimal.Decimal("1.50")),
    (uuid.UUID, "12345678123456781234567812345678", uuid.UUID("12345678123456781234567812345678")),
    (pathlib.Path, "a/b", pathlib.Path("a/b")),
    (Colour, "red", Colour.RED),
    (Config, {"size": "3", "tags": ["a"]}, Config(3, ["a"])),
    (list[Config], [Config(1), {"size": 2}], [Config(1), Config(2)]),
    (Item, {"n": "3"}, Item(3)),
    (Row, ("1", "b"), Row(1, "b")),
    (Options, {"n": "1"}, {"n": 1}),
    (Model, {"n": "3"}, Model(n=3)),
    (list[Model], [{"n": 1}, Model(n=2)], [Model(n=1), Model(n=2)]),
    (typing.Annotated[int, pydantic.Field(gt=2)], "3", 3),
    (typing.Annotated[int, "a note"], "3", 3),
    (typing.Annotated[int, msgspec.Meta(gt=2)], "3", 3),
    (UserId, "3", 3),
    (list[int], ("1", 2), [1, 2]),
    (list, (1, 2), [1, 2]),
    (set[int], ["1", 1], {1}),
    (frozenset[int], [1], frozenset([1])),
    (tuple[int, ...], ["1", "2"], (1, 2)),
    (tuple[int, str], ["1", "2"], (1, "2")),
    (dict[str, int], {"a": "1"}, {"a": 1}),
    (dict[int, list[int]], {"1": ["2"]}, {1: [2]}),
    (collections.abc.Sequence[int], ["1"], [1]),
    (collections.abc.Mapping[str, float], {"a": 1}, {"a": 1.0}),
    (int | None, "3", 3),
    (typing.Optional[float], 3, 3.0),  # noqa: UP045 - the old form must work as well
    (int | Own, "3", 3),
    (list[int | Own], ["3"], [3]),
    (Config | None, {"size": 1}, Config(1)),
    ("int", "4", 4),
    ("list[Config]", [{"size": 2}], [Config(2)]),
]


@pytest.mark.parametrize(("hint", "value", "expected"), COERCED, ids=lambda part: str(part).partition(" at 0x")[0][:30])
def test_a_value_is_coerced_to_its_annotation(hint: Any, value: Any, expected: Any) -> None:
    coerced = coerce(hint, value)
    assert coerced == expected
    assert type(coerced) is type(expected)
    assert coerce(hint, expected) == expected


def generator() -> Iterator[int]:
    yield 1


RIGHT: list[tuple[Any, Any]] = [
    (int, 10**30),
    (int, True),
    (str, "4"),
    (int | str, "4"),
    (str | int, 4),
    (float | int, 4),
    (bool | int, 1),
    (list[int], [1, 2]),
    (list[str | None], ["a", None]),
    (list[list[int]], [[1], [2]]),
    (dict[str, list[Config]], {"a": [Config(1)]}),
    (tuple[int, ...], (1, 2)),
    (tuple[int, str], (1, "a")),
    (set[int], {1, 2}),
    (collections.abc.Sequence[str], "abc"),
    (collections.abc.Sequence[int], range(3)),
    (collections.abc.Iterable[int], generator()),
    (Iterator[int], generator()),
    (Config, Config(1)),
    (Item, Item(1)),
    (Row, Row(1)),
    (Model, Model(n=1)),
    (Colour, Colour.RED),
    (Pair, Pair.ONE),
    (typing.Literal["a", "b"], "a"),
    (np.ndarray, np.arange(3)),
    (Callable[[int], int], abs),
    (type[int], int),
    (Own, Own()),
    (None, None),
    (typing.Any, object()),
    (object, "x"),
    (T, "x"),
    (HasLength, 3),
    ("NotDefinedAnywhere", "x"),
    ("list[NotDefinedAnywhere]", "x"),
    ("not python", "x"),
    (5, "x"),
]


@pytest.mark.parametrize(("hint", "value"), RIGHT, ids=lambda part: str(part).partition(" at 0x")[0][:30])
def test_a_right_value_is_passed_by_identity(hint: Any, value: Any) -> None:
    assert coerce(hint, value) is value


WRONG: list[tuple[Any, Any, str]] = [
    (int, "notint", "x: expected int, got str 'notint'"),
    (int, 4.5, "x: expected int, got float 4.5"),
    (int, None, "x: expected int, got None"),
    (int | None, "null", "got str 'null'"),
    (str, 4, "x: expected str, got int 4"),
    (list[int], [1, "b"], "x[1]: expected int, got str 'b'"),
    (list[int], "abc", "x: expected list[int], got str 'abc'"),
    (list[int], np.arange(2), "x: expected list[int], got ndarray array([0, 1])"),
    (dict[str, list[int]], {"k": ["b"]}, "x['k'][0]: expected int, got str 'b'"),
    (dict[str, int], [1], "x: expected dict[str, int], got list [1]"),
    (tuple[int, str], (1,), "x: expected 2 items, got 1"),
    (Config, {"size": "big"}, "x.size: expected int, got str"),
    (Config, {}, "x: object missing required field size, got dict {}"),
    (Config, 3, "x: expected Config, got int 3"),
    (Colour, "blue", "x: invalid enum value 'blue', got str 'blue'"),
    (Pair, "one", "got str 'one'"),
    (typing.Literal["a"], "b", "x: invalid enum value 'b'"),
    (Own, 3, "x: expected Own, got int 3"),
    (np.ndarray, [1], "x: expected ndarray, got list [1]"),
    (list[Own], [3], "x[0]: expected Own, got int 3"),
    (typing.Optional[Own], 3, "x: expected Optional["),  # noqa: UP045 - the old form must work as well
    (pathlib.Path, 3, "x: expected Path, got int 3"),
    (complex, "x", "got str 'x'"),
    (int | Own, "x", "x: expected int | "),
    (datetime.datetime, "soon", "x: invalid RFC3339 encoded datetime, got str 'soon'"),
    (typing.Annotated[int, msgspec.Meta(gt=2)], 1, "x: expected int >= 3, got int 1"),
    (typing.Annotated[int, pydantic.Field(gt=2)], 1, "x: Input should be greater than 2"),
    (Model, {"n": "x"}, "x: n: Input should be a valid integer"),
    (str, 10**80, "..."),
]


@pytest.mark.parametrize(("hint", "value", "message"), WRONG, ids=lambda part: str(part).partition(" at 0x")[0][:30])
def test_a_value_that_cannot_be_coerced_is_shown_with_its_place(hint: Any, value: Any, message: str) -> None:
    with pytest.raises(ParameterTypeError) as caught:
        coerce(hint, value)
    assert message in str(caught.value)


def test_one_error_lists_every_bad_parameter() -> None:
    def flow(n: int, s: str, ok: float, *rest: int, **options: int) -> None: ...

    parameters = Parameters(flow)
    with pytest.raises(ParameterTypeError) as caught:
        parameters.validate(parameters.bind(("notint", 3, "1.5", 1, "b"), {"k": "v"}))
    assert str(caught.value) == (
        "Flow run received invalid parameters:"
        "\n - n: expected int, got str 'notint'"
        "\n - s: expected str, got int 3"
        "\n - rest[1]: expected int, got str 'b'"
        "\n - options['k']: expected int, got str 'v'"
    )


def test_variadic_arguments_are_coerced_one_by_one() -> None:
    def flow(*rest: int, **options: float) -> None: ...

    parameters = Parameters(flow)
    valid = parameters.validate(parameters.bind(("1", 2), {"k": "3"}))
    assert valid == {"rest": (1, 2), "options": {"k": 3.0}}


@dataclasses.dataclass
class Outer:
    inner: list[Config]
    colour: Colour


def test_a_class_that_was_coerced_to_can_still_be_pickled_by_value() -> None:
    coerce(list[Outer], [{"inner": [{"size": "1"}], "colour": "red"}])
    coerce(Row, ["1"])
    coerce(Options, {"n": "1"})
    for cls in (Outer, Config, Colour, Row, Options):
        assert not [name for name in vars(cls) if "msgspec" in name]


def test_a_default_need_not_fit_its_annotation() -> None:
    def flow(x: int = None, y: list[int] = ()) -> None: ...  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]  # noqa: RUF013 - as many users write it

    parameters = Parameters(flow)
    assert parameters.validate(parameters.bind((), {})) == {"x": None, "y": ()}


def test_a_wrapped_function_has_the_parameters_of_the_inner_one() -> None:
    class Local:
        pass

    def inner(x: Local, n: int) -> type[Local]:
        return Local

    @functools.wraps(inner)
    def outer(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    assert Parameters(outer).validate({"x": Local(), "n": "3"})["n"] == 3
    with pytest.raises(ParameterTypeError, match=r"expected .*Local, got int 3"):
        Parameters(outer).validate({"x": 3, "n": 3})


def test_an_annotation_may_name_what_only_the_enclosing_function_knows() -> None:
    @dataclasses.dataclass
    class Local:
        n: int

    def flow(x: Local, y: int) -> Local:
        return Local(y)

    valid = Parameters(flow).validate({"x": {"n": 1}, "y": "2"})
    assert valid == {"x": Local(1), "y": 2}


def test_validation_of_a_flow_without_annotations_passes_everything() -> None:
    value = {"x": object()}

    scope: dict[str, Any] = {}
    exec("def flow(x): ...", scope)
    assert Parameters(scope["flow"]).validate(value) == value


# --- Mapping --------------------------------------------------------------------------------------------


def rows(fn: Any, *args: Any, **kwargs: Any) -> list[tuple[Any, ...]]:
    return list(Parameters(fn).plan_map(args, kwargs).rows)


def three(a: Any, b: Any = 0, c: Any = 0) -> None: ...


def test_lists_are_zipped_and_constants_repeated() -> None:
    assert rows(three, [1, 2], "xy", unmapped([3])) == [(1, "xy", [3]), (2, "xy", [3])]


def test_mapped_keywords_stand_behind_the_positional_values() -> None:
    plan = Parameters(three).plan_map(([1, 2],), {"b": (3, 4), "c": unmapped("z")})
    assert plan.length == 2
    assert plan.kwarg_names == ("b",)
    assert plan.static_kwargs == {"c": "z"}
    assert list(plan.rows) == [(1, 3), (2, 4)]


@pytest.mark.parametrize("inputs", [range(2), generator(), np.arange(2), {1, 2}, {"k": 1}.values(), Colour])
def test_every_iterable_is_mapped(inputs: Any) -> None:
    plan = Parameters(three).plan_map((inputs,), {})
    assert len(list(plan.rows)) == plan.length > 0


@pytest.mark.parametrize("constant", ["ab", b"ab", {"a": 1}, 5, None, quote([1]), Model(n=1), np.array(5)])
def test_constants_are_not_mapped(constant: Any) -> None:
    [first, second] = rows(three, [1, 2], constant)
    assert first[1] is second[1] is constant


def test_defaults_are_not_mapped() -> None:
    def fn(a: Any, b: Any = (1, 2, 3)) -> None: ...

    assert rows(fn, [1]) == [(1,)]


def test_nothing_is_mapped_over_an_empty_list() -> None:
    plan = Parameters(three).plan_map(([], 3), {})
    assert (plan.length, list(plan.rows)) == (0, [])


def test_allow_failure_goes_to_each_item_and_stays_around_constants() -> None:
    [row] = rows(three, allow_failure([1]), unmapped(allow_failure(2)), allow_failure(unmapped([3])))
    assert [type(value) for value in row] == [allow_failure] * 3
    assert [value.value for value in row] == [1, 2, [3]]


def test_different_lengths_are_listed_by_parameter() -> None:
    with pytest.raises(MappingLengthMismatch, match=r"differ in length: a has 2, c has 3\. .*unmapped"):
        Parameters(three).plan_map(([1, 2], 5), {"c": generator_of(3)})


def generator_of(n: int) -> Iterator[int]:
    yield from range(n)


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
