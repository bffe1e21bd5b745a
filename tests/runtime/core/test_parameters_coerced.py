"""Arguments are coerced to their annotations where that is safe, and refused where it is not."""

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

from upwell.core.errors import ParameterTypeError
from upwell.core.parameters import Parameters


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
