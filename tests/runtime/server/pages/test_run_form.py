"""A form that is made of a schema, and parameters that are made of what was filled in."""

from __future__ import annotations

from typing import Any

import pytest

from upwell.server.pages.run_form import Field, fields_of, parameters_of

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "count": {"type": "integer", "title": "count", "position": 1, "minimum": 1},
        "name": {"type": "string", "title": "name", "position": 0},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "position": 2},
        "mode": {"$ref": "#/$defs/Mode", "default": "fast", "position": 3},
        "dry": {"type": "boolean", "default": False, "position": 4},
        "cities": {"type": "array", "items": {"type": "string"}, "default": ["Oslo"], "position": 5},
        "extra": {"type": "object", "default": {}, "position": 6},
        "token": {"type": "string", "format": "password", "default": "hidden", "position": 7},
        "place": {"$ref": "#/$defs/Place", "position": 8},
    },
    "required": ["name", "count", "place"],
    "additionalProperties": False,
    "$defs": {
        "Mode": {"enum": ["fast", "slow", 3]},
        "Place": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "height": {"type": "number"}},
            "required": ["city"],
        },
    },
}
WELL = {"p.name": "x", "p.count": "2", "p.place.city": "Lima"}


def filled(form: dict[str, str], defaults: dict[str, Any] | None = None) -> tuple[dict[str, Any] | None, list[Field]]:
    fields = fields_of(SCHEMA, defaults or {})
    return parameters_of(fields, {**as_shown(fields), **form}, SCHEMA), fields


def as_shown(fields: list[Field]) -> dict[str, str]:
    """What a browser sends of a form in which nothing was changed."""
    sent: dict[str, str] = {}
    for field in fields:
        sent.update(as_shown(field.fields) if field.kind == "group" else {field.path: field.shown})
    return {path: text for path, text in sent.items() if text != "false"}


def error_of(fields: list[Field], name: str) -> str:
    return next(field.error for field in fields if field.name == name)


def test_fields_stand_in_the_order_of_the_signature_and_say_what_they_take() -> None:
    fields = fields_of(SCHEMA, {})
    assert [field.name for field in fields] == [
        "name",
        "count",
        "note",
        "mode",
        "dry",
        "cities",
        "extra",
        "token",
        "place",
    ]
    assert [field.kind for field in fields] == [
        "text",
        "number",
        "text",
        "choice",
        "boolean",
        "lines",
        "json",
        "password",
        "group",
    ]
    assert [field.name for field in fields if not field.optional] == ["name", "count", "place"]


def test_what_is_left_as_it_is_is_not_given() -> None:
    assert filled(WELL)[0] == {"name": "x", "count": 2, "place": {"city": "Lima"}}


def test_values_of_the_deployment_stand_in_the_form() -> None:
    found, fields = filled({}, {"name": "theirs", "count": 5, "place": {"city": "Oslo"}})
    assert found == {}
    assert fields[0].shown == "theirs"


@pytest.mark.parametrize(
    ("form", "given"),
    [
        ({"p.note": "hello"}, {"note": "hello"}),
        ({"p.mode": "3"}, {"mode": 3}),
        ({"p.dry": "true"}, {"dry": True}),
        ({"p.cities": "Oslo\r\nLima\n\n"}, {"cities": ["Oslo", "Lima"]}),
        ({"p.cities": ""}, {"cities": []}),
        ({"p.extra": '{"a": [1, null]}'}, {"extra": {"a": [1, None]}}),
        ({"p.token": "secret"}, {"token": "secret"}),
        ({"p.place.height": "2.5"}, {"place": {"city": "Lima", "height": 2.5}}),
    ],
)
def test_what_is_filled_in_is_given(form: dict[str, str], given: dict[str, Any]) -> None:
    found, _ = filled({**WELL, **form})
    assert found == {"name": "x", "count": 2, "place": {"city": "Lima"}, **given}


@pytest.mark.parametrize(
    ("form", "name", "says"),
    [
        ({"p.count": "many"}, "count", "'many' is no number"),
        ({"p.count": "0"}, "count", "0 is less than the minimum of 1"),
        ({"p.count": ""}, "count", "needed"),
        ({"p.extra": "{"}, "extra", "must be JSON"),
        ({"p.extra": "[]"}, "extra", "not of type 'object'"),
        ({"p.place.city": ""}, "place", "needed"),
        ({"p.place.height": "high"}, "place", "no number"),
        ({"p.mode": "slower"}, "mode", "is not one of"),
        ({"p.count": "9" * 26}, "count", "64 bits"),
    ],
)
def test_what_does_not_fit_is_said_at_its_field(form: dict[str, str], name: str, says: str) -> None:
    found, fields = filled({**WELL, **form})
    assert found is None
    assert says in error_of(fields, name)
    assert [field.name for field in fields if field.error] == [name]


def test_a_secret_is_never_put_into_the_form_again() -> None:
    found, fields = filled({**WELL, "p.token": "canary", "p.count": "no"})
    assert found is None
    assert all("canary" not in field.shown for field in fields)
    assert next(field.shown for field in fields if field.name == "token") == ""


SECRETS: dict[str, Any] = {
    "properties": {
        "password": {"anyOf": [{"type": "string"}, {"type": "null"}], "format": "password"},
        "access": {"type": "object", "properties": {"user": {"type": "string"}, "api_key": {"type": "string"}}},
    }
}


def test_a_secret_is_typed_blind_wherever_it_stands() -> None:
    fields = fields_of(SECRETS, {"password": "canary", "access": {"user": "me", "api_key": "canary"}})
    [password, access] = fields
    assert [password.kind, *(field.kind for field in access.fields)] == ["password", "text", "password"]
    assert [password.shown, *(field.shown for field in access.fields)] == ["", "me", ""]
    assert parameters_of(fields, as_shown(fields), SECRETS) == {}
    changed = parameters_of(fields, {**as_shown(fields), "p.access.user": "you"}, SECRETS)
    assert changed == {"access": {"user": "you", "api_key": "canary"}}


UNTOUCHED: dict[str, Any] = {
    "properties": {
        "maybe": {"anyOf": [{"type": "boolean"}, {"type": "null"}], "default": None},
        "options": {"anyOf": [{"$ref": "#/$defs/Options"}, {"type": "null"}], "default": None},
        "lines": {"type": "array", "items": {"type": "string"}, "default": [" a", "b "]},
        "text": {"type": "string", "default": "a\r\nb"},
    },
    "$defs": {"Options": {"type": "object", "properties": {"dry": {"type": "boolean"}}, "required": ["dry"]}},
}


def test_what_nobody_touched_stays_as_it_was() -> None:
    fields = fields_of(UNTOUCHED, {})
    assert parameters_of(fields, as_shown(fields), UNTOUCHED) == {}
    chosen = parameters_of(fields, {**as_shown(fields), "p.maybe": "true", "p.options.dry": "true"}, UNTOUCHED)
    assert chosen == {"maybe": True, "options": {"dry": True}}


CIRCLE: dict[str, Any] = {"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}}


@pytest.mark.parametrize("schema", [{}, {"properties": None}, {"properties": {"a": True}}, CIRCLE])
def test_a_schema_may_be_anything(schema: dict[str, Any]) -> None:
    assert len(fields_of(schema, {})) <= 1


def test_what_is_wrong_inside_of_a_group_loses_nothing_else_of_it() -> None:
    found, fields = filled({**WELL, "p.place.height": "tall", "p.place.city": "Quito"})
    assert found is None
    place = next(field for field in fields if field.name == "place")
    assert place.error == "height: 'tall' is no number."
    assert {inner.name: (inner.shown, inner.error) for inner in place.fields} == {
        "city": ("Quito", ""),
        "height": ("tall", "'tall' is no number."),
    }


def test_fields_after_the_wrong_one_of_a_group_are_kept() -> None:
    properties = {"first": {"type": "number"}, "second": {"type": "string"}}
    schema = {"type": "object", "properties": {"both": {"type": "object", "properties": properties, "default": {}}}}
    fields = fields_of(schema, {})
    assert parameters_of(fields, {"p.both.first": "x", "p.both.second": "kept"}, schema) is None
    assert [inner.shown for inner in fields[0].fields] == ["x", "kept"]
