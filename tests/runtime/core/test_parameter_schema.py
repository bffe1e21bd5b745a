"""The JSON schema of a flow's parameters: what a flow takes fits it, and comes back as what it was."""

from __future__ import annotations

import datetime as dt
import enum
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as a_field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, TypedDict

import jsonschema
import msgspec
import numpy as np
import pydantic
import pytest

from upwell.core.errors import InvalidRequestError
from upwell.core.parameter_schema import parameter_schema, plain_parameters
from upwell.core.parameters import Parameters


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: int
    y: int = 2
    around: list[Point] = a_field(default_factory=list["Point"])


class Shop(msgspec.Struct):
    name: str
    at: Point


class Order(pydantic.BaseModel):
    item: str
    count: int = pydantic.Field(ge=1, description="how many")


class Pair(TypedDict):
    left: int
    right: str


class Unknown:
    """Nothing that JSON can say."""


UNKNOWN = Unknown()
UserId = NewType("UserId", int)


def schema_of(fn: Callable[..., Any], doc: str | None = None, *, typed: bool = True) -> dict[str, Any]:
    schema = parameter_schema(Parameters(fn), doc, typed=typed)
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


def takes(hint: Any) -> Callable[..., Any]:
    """A function of one parameter `it` with this annotation."""

    def fn(it: Any) -> None: ...

    fn.__annotations__["it"] = hint
    return fn


def fits(schema: dict[str, Any], parameters: Mapping[str, Any]) -> bool:
    validator: Any = jsonschema.Draft202012Validator(schema)
    return bool(validator.is_valid(parameters))


VALUES: list[tuple[Any, Any, Any]] = [
    (int, 3, "three"),
    (float, 1.5, "x"),
    (bool, True, "yes"),
    (str, "text", 5),
    (bytes, b"text", 5),
    (dt.datetime, dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC), True),
    (dt.date, dt.date(2026, 1, 2), []),
    (dt.timedelta, dt.timedelta(minutes=3), []),
    (uuid.UUID, uuid.UUID(int=5), 5),
    (Decimal, Decimal("1.50"), []),
    (Path, Path("/tmp/x"), 5),
    (Colour, Colour.RED, "green"),
    (Literal["a", "b"], "b", "c"),
    (int | None, None, "x"),
    (Path | None, Path("x"), 5),
    (list[int], [1, 2], ["x"]),
    (list[Path], [Path("a")], [5]),
    (Sequence[int], [1], "x"),
    (set[str], {"a"}, [5]),
    (tuple[int, ...], (1, 2), ["x"]),
    (tuple[int, str], (1, "a"), [1]),
    (dict[str, int], {"a": 1}, {"a": "x"}),
    (dict[int, str], {1: "a"}, {"1": 5}),
    (Mapping[str, int], {"a": 1}, {"a": "x"}),
    (list[dict[str, list[int]]], [{"a": [1]}], [{"a": ["x"]}]),
    (Point, Point(1, around=[Point(5)]), {"y": 3}),
    (list[Point], [Point(1)], [{"y": 1}]),
    (Shop, Shop("corner", Point(1)), {"name": "corner"}),
    (Shop | None, Shop("corner", Point(1)), {"name": "corner"}),
    (Pair, {"left": 1, "right": "a"}, {"left": 1}),
    (Order, Order(item="tea", count=1), {"item": "tea", "count": 0}),
    (list[Order], [Order(item="tea", count=1)], [{"count": 1}]),
    (Annotated[int, msgspec.Meta(ge=1, le=9)], 5, 10),
    (Annotated[int, pydantic.Field(ge=1, le=9)], 5, 10),
    (UserId, UserId(5), "x"),
]


@pytest.mark.parametrize(("hint", "value", "wrong"), VALUES, ids=lambda it: str(it)[:40])
def test_a_value_fits_its_schema_and_comes_back_as_itself(hint: Any, value: Any, wrong: Any) -> None:
    parameters, schema = Parameters(takes(hint)), schema_of(takes(hint))
    plain = plain_parameters({"it": value})
    assert fits(schema, plain)
    assert parameters.validate(plain)["it"] == value
    assert type(parameters.validate(plain)["it"]) is type(value)
    assert not fits(schema, {"it": wrong})


@pytest.mark.parametrize(
    "hint", [Any, object, Unknown, Unknown | int, list[Unknown], Callable[[], int], "no_such_name"]
)
def test_what_cannot_be_said_lets_anything_through(hint: Any) -> None:
    schema = schema_of(takes(hint))
    value: Any = [5] if hint == list[Unknown] else 5
    assert fits(schema, {"it": value})


def test_unknown_and_missing_parameters_are_refused() -> None:
    def fn(a: int, b: int = 2) -> None: ...

    schema = schema_of(fn)
    assert schema["required"] == ["a"]
    assert fits(schema, {"a": 1})
    assert not fits(schema, {"b": 1})
    assert not fits(schema, {"a": 1, "c": 1})


def test_parameters_have_titles_positions_and_defaults() -> None:
    def fn(second: str, first: int = 3, day: dt.date = dt.date(2026, 1, 1), it: Any = UNKNOWN) -> None: ...

    properties = schema_of(fn)["properties"]
    assert {name: it["position"] for name, it in properties.items()} == {"second": 0, "first": 1, "day": 2, "it": 3}
    assert {name: it["title"] for name, it in properties.items()} == {name: name for name in properties}
    assert properties["first"]["default"] == 3
    assert properties["day"]["default"] == "2026-01-01"
    assert "default" not in properties["second"]
    assert "default" not in properties["it"]  # JSON cannot carry it


def test_star_arguments_stand_under_their_names() -> None:
    def fn(*numbers: int, **words: str) -> None: ...

    schema = schema_of(fn)
    assert schema["required"] == []
    assert fits(schema, {"numbers": [1, 2], "words": {"a": "b"}})
    assert not fits(schema, {"numbers": ["x"]})
    assert not fits(schema, {"words": {"a": 5}})


GOOGLE = """Do it.

Args:
    day: which day,
        in the zone of the shop
    count: how many
"""
NUMPY = """Do it.

Parameters
----------
day : str
    which day, in the zone of the shop
count : int
    how many
"""
SPHINX = """Do it.

:param day: which day, in the zone of the shop
:param count: how many
"""


@pytest.mark.parametrize("doc", [GOOGLE, NUMPY, SPHINX])
def test_descriptions_come_from_the_docstring(doc: str) -> None:
    def fn(day: str, count: int = 1, other: int = 2) -> None: ...

    properties = schema_of(fn, doc)["properties"]
    assert properties["day"]["description"] == "which day, in the zone of the shop"
    assert properties["count"]["description"] == "how many"
    assert "description" not in properties["other"]


def test_without_a_reader_of_docstrings_there_are_no_descriptions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docstring_parser", None)
    assert "description" not in schema_of(takes(int), "Do it.\n\nArgs:\n    it: what\n")["properties"]["it"]


def test_annotations_describe_too() -> None:
    def fn(a: Annotated[int, msgspec.Meta(description="the a")], b: Order) -> None: ...

    fn.__annotations__.update(a=Annotated[int, msgspec.Meta(description="the a")], b=Order)
    properties = schema_of(fn)["properties"]
    assert properties["a"]["description"] == "the a"
    assert properties["b"]["properties"]["count"]["description"] == "how many"


def test_secrets_are_passwords_and_their_defaults_are_not_shown() -> None:
    def fn(
        password: str = "hunter2",
        api_key: str | None = "hunter2",
        token: Any = "hunter2",
        max_tokens: int = 100,
        secret: pydantic.SecretStr = pydantic.SecretStr("hunter2"),  # noqa: B008
    ) -> None: ...

    fn.__annotations__.update(api_key=str | None, secret=pydantic.SecretStr)
    schema = schema_of(fn)
    assert "hunter2" not in str(schema)
    hidden = [name for name, it in schema["properties"].items() if it.get("format") == "password"]
    assert hidden == ["password", "api_key", "token", "secret"]
    assert schema["properties"]["max_tokens"]["default"] == 100
    assert fits(schema, {"api_key": None})


def test_two_classes_of_one_name_do_not_mix() -> None:
    other = msgspec.defstruct("Shop", [("number", int)])

    def fn(first: Any, second: Any, third: Any) -> None: ...

    fn.__annotations__.update(first=Shop, second=other, third=Shop)
    schema = schema_of(fn)
    shop = {"name": "corner", "at": {"x": 1}}
    assert fits(schema, {"first": shop, "second": {"number": 5}, "third": shop})
    assert not fits(schema, {"first": {"number": 5}, "second": shop, "third": shop})


def test_a_flow_that_does_not_validate_takes_anything() -> None:
    schema = schema_of(takes(int), typed=False)
    assert fits(schema, {"it": "text"})
    assert not fits(schema, {})


def test_nothing_is_left_on_users_classes_that_keeps_them_from_being_pickled() -> None:
    @dataclass
    class Thing:
        x: int

    schema_of(takes(list[Thing] | None))
    assert "__msgspec_cache__" not in vars(Thing)


@pytest.mark.parametrize("value", [Unknown(), float("nan"), float("inf"), b"\xff", [{"a": Unknown()}]])
def test_what_json_cannot_carry_is_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"JSON.*bad"):
        plain_parameters({"good": 1, "bad": value})


def test_a_value_that_holds_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(InvalidRequestError, match="bad"):
        plain_parameters({"bad": circle})


def test_numpy_and_ranges_become_plain() -> None:
    plain = plain_parameters({"a": np.float64(1.5), "b": np.arange(3), "c": range(2), "d": (1, {2}), "e": 2**70})
    assert plain == {"a": 1.5, "b": [0, 1, 2], "c": [0, 1], "d": [1, [2]], "e": 2**70}
