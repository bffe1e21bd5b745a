"""A form for the parameters of a run, made of their JSON schema; and from what was filled in back to parameters."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from msgspec import Struct

from upwell.core.errors import InvalidRequestError
from upwell.core.shown import is_secret
from upwell.journal.deployed_runs import check_parameters

Schema = Mapping[str, Any]


def _object(value: Any) -> dict[str, Any]:
    """It, if it is an object; else an empty one: a schema may be anything."""
    return dict(cast(Mapping[str, Any], value)) if isinstance(value, Mapping) else {}


def _array(value: Any) -> list[Any]:
    return list(cast(Iterable[Any], value)) if isinstance(value, list) else []


DEEPEST: Final = 3
"""So deep objects are asked for field by field; what is below is said in JSON."""

LONG_TEXT: Final = 80
PREFIX: Final = "p."

_FITS: Final = "The parameters do not fit: "


class Field(Struct, kw_only=True):
    """One thing to be filled in.

    kind: text, long, password, number, boolean, choice, lines, json, datetime-local, date, time or group.
    shown: what stands in it; left as it is, the deployment's own value counts.
    optional: it may be left empty, and is then not given.
    """

    name: str
    path: str
    kind: str
    label: str
    hint: str = ""
    optional: bool = True
    shown: str = ""
    choices: list[str] = []  # msgspec copies it
    fields: list[Field] = []  # so is this
    step: str = ""
    type_name: str = ""
    error: str = ""
    schema: dict[str, Any] = {}
    default: Any = None
    has_default: bool = False


def fields_of(schema: Schema, defaults: Mapping[str, Any]) -> list[Field]:
    """A field for each parameter, in the order of the function's signature. defaults: the deployment's own values."""
    definitions = _object(schema.get("$defs"))
    return _fields(schema, defaults, definitions, PREFIX, 0)


def _fields(schema: Schema, defaults: Mapping[str, Any], definitions: Schema, prefix: str, depth: int) -> list[Field]:
    properties = _object(schema.get("properties"))
    required = schema.get("required", ())
    ordered = sorted(properties.items(), key=lambda item: _position(item[1]))
    return [
        _field(name, _object(rule), name in required, defaults, definitions, prefix, depth) for name, rule in ordered
    ]


def _position(rule: Any) -> int:
    place = _object(rule).get("position")
    return place if isinstance(place, int) else 0


def _field(
    name: str,
    rule: Schema,
    required: bool,
    defaults: Mapping[str, Any],
    definitions: Schema,
    prefix: str,
    depth: int,
) -> Field:
    plain, nullable = _resolved(rule, definitions)
    has_default = name in defaults or "default" in rule
    default = defaults[name] if name in defaults else rule.get("default")
    made = Field(
        name=name,
        path=prefix + name,
        kind="password" if _is_secret(name, rule, plain) else _kind_of(plain, depth, default),
        label=str(rule.get("title", name)),
        hint=str(rule.get("description") or plain.get("description") or ""),
        optional=has_default or not required or nullable,
        choices=[_as_text(choice) for choice in _array(plain.get("enum"))],
        step="1" if plain.get("type") == "integer" else "any",
        type_name=_type_name(plain),
        schema=dict(plain),
        default=default,
        has_default=has_default,
    )
    if made.kind == "group":
        made.fields = _fields(plain, _object(default), definitions, f"{made.path}.", depth + 1)
    elif made.kind != "password" and has_default:
        made.shown = _shown(made.kind, default)
    return made


def _is_secret(name: str, rule: Schema, plain: Schema) -> bool:
    """Whether it is typed blind. What the parameter says goes before what one of its types does."""
    said = any(it.get("format") == "password" or it.get("writeOnly") for it in (rule, plain))
    return said or (is_secret(name) and plain.get("type") == "string" and "enum" not in plain)


def _resolved(rule: Schema, definitions: Schema) -> tuple[Schema, bool]:
    """What a rule comes to: references followed, and whether it may be null as well."""
    nullable = False
    for _ in range(DEEPEST * 4):
        reference = rule.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/$defs/"):
            rule = _object(definitions.get(reference.removeprefix("#/$defs/")))
            continue
        options = _array(rule.get("anyOf") or rule.get("oneOf"))
        if len(options) == 2 and {"type": "null"} in options:
            nullable = True
            rule = next((_object(option) for option in options if option != {"type": "null"}), _object(None))
            continue
        kinds = _array(rule.get("type"))
        if len(kinds) == 2 and "null" in kinds:
            nullable = True
            rule = {**rule, "type": next(kind for kind in kinds if kind != "null")}
        break
    return rule, nullable


_FORMATS: Final = {"date-time": "datetime-local", "date": "date", "time": "time", "password": "password"}


def _kind_of(rule: Schema, depth: int, default: Any) -> str:
    kind = rule.get("type")
    if "enum" in rule:
        return "choice"
    if kind == "string":
        if rule.get("format") == "date-time" and default is not None:
            return "text"  # its zone would be lost in the browser's own field
        long = isinstance(default, str) and (len(default) > LONG_TEXT or "\n" in default)
        return _FORMATS.get(str(rule.get("format")), "long" if long else "text")
    if kind in ("integer", "number"):
        return "number"
    if kind == "boolean":
        return "boolean"
    items = _object(rule.get("items"))
    if kind == "array" and items.get("type") == "string" and "enum" not in items:
        plain = default is None or (
            isinstance(default, list) and not any("\n" in str(item) for item in _array(default))
        )
        return "lines" if plain else "json"
    if kind == "object" and rule.get("properties") and depth < DEEPEST:
        return "group"
    return "json"


def _type_name(rule: Schema) -> str:
    kind = rule.get("format") or rule.get("type") or ("one of these" if "enum" in rule else "JSON")
    items = _object(rule.get("items"))
    if kind == "array" and items.get("type"):
        return f"list of {items['type']}s"
    return str(kind)


def _shown(kind: str, value: Any) -> str:
    if value is None:
        return ""
    if kind == "lines":
        return "\n".join(map(str, _array(value)))
    if kind == "json":
        return json.dumps(value, ensure_ascii=False, indent=2)
    return _as_text(value)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# --- what was filled in ---------------------------------------------------------------------------------------


def parameters_of(fields: list[Field], form: Mapping[str, str], schema: Schema) -> dict[str, Any] | None:
    """The parameters that were filled in, without those left as they were; None where something is wrong.

    The fields then say what, and keep what was filled in.
    """
    found: dict[str, Any] = {}
    well = True
    for field in fields:
        try:
            given, value = _given(field, form)
            if given:
                check_parameters({field.name: value}, schema, partly=True)
                found[field.name] = value
            elif not field.optional:
                raise ValueError("This is needed.")
        except (ValueError, InvalidRequestError) as error:
            field.error = str(error).removeprefix(_FITS).removeprefix(f"{field.name}: ")
            well = False
        _keep(field, form)
    return found if well else None


def _given(field: Field, form: Mapping[str, str]) -> tuple[bool, Any]:
    """Whether something was filled in, and what; not so for what was left as it was."""
    if field.kind == "group":
        return _group_given(field, form)
    text, shown = (it.replace("\r\n", "\n") for it in (form.get(field.path, ""), field.shown))
    if field.kind == "boolean":
        value = text == "true"
        return (value != (shown == "true") or not field.has_default, value)
    if field.kind not in ("text", "long", "password"):
        text, shown = text.strip(), shown.strip()
    if text == shown:
        return (False, None) if field.has_default or not text else (True, _value(field, text))
    if not text:
        empties: dict[str, Any] = {"text": "", "long": "", "lines": []}
        return (True, empties.get(field.kind)) if field.has_default else (False, None)
    return True, _value(field, text)


def _group_given(field: Field, form: Mapping[str, str]) -> tuple[bool, Any]:
    values = _object(field.default)
    changed = False
    for inner in field.fields:
        try:
            given, value = _given(inner, form)
        except ValueError as error:
            inner.error = str(error)
        else:
            if given:
                values[inner.name] = value
                changed = changed or inner.kind != "boolean" or inner.has_default or bool(value)
        _keep(inner, form)
    if wrong := [f"{inner.name}: {inner.error}" for inner in field.fields if inner.error]:
        raise ValueError(" ".join(wrong))
    return changed or (bool(values) and not field.optional), values


def _value(field: Field, text: str) -> Any:
    if field.kind == "number":
        try:
            return json.loads(text)
        except ValueError:
            raise ValueError(f"{text!r} is no number.") from None
    if field.kind == "lines":
        return [line for line in text.split("\n") if line.strip()]
    if field.kind == "choice":
        for choice in _array(field.schema.get("enum")):
            if _as_text(choice) == text:
                return choice
    if field.kind == "json":
        try:
            return json.loads(text)
        except ValueError as error:
            raise ValueError(f"This must be JSON: {error}.") from None
    return text


def _keep(field: Field, form: Mapping[str, str]) -> None:
    """What was filled in stays in the form, secrets excepted."""
    if field.kind not in ("group", "password") and (field.path in form or field.kind == "boolean"):
        field.shown = form.get(field.path, "false" if field.kind == "boolean" else "")


__all__ = ["Field", "fields_of", "parameters_of"]
