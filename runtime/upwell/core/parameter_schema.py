"""The JSON schema of a flow's parameters: what forms are made of, and what a run's parameters are checked against.

Where an annotation cannot be said in a JSON schema, or is said in a way of its own, anything is let through, and the
flow itself says what is wrong. Formats (`date-time`, `password`, `path`) tell forms what to show; the flow checks them.
"""

from __future__ import annotations

import datetime as dt
import inspect
import math
import types
import typing
from collections import abc
from collections.abc import Iterator, Mapping
from decimal import Decimal
from inspect import Parameter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from upwell.core.coercion import leave_no_trace, needs_pydantic, pydantic_adapter
from upwell.core.errors import InvalidRequestError
from upwell.core.parameters import Parameters
from upwell.core.shown import is_secret

if TYPE_CHECKING:
    from docstring_parser import Docstring

Schema = dict[str, Any]

_REFERENCE: Final = "#/$defs/{name}"
_NOT_PLAIN: Final = (TypeError, ValueError, OverflowError, RecursionError)
"""What turning a value into JSON raises."""

_VARIADIC: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def parameter_schema(parameters: Parameters, doc: str | None = None, *, typed: bool = True) -> Schema:
    """The JSON schema of an object with a value for each parameter.

    `*args` stands under its name as an array, `**kwargs` as an object. Beside what JSON schema knows, each parameter
    has its `position`.

    Args:
        doc: the docstring that tells of the parameters.
        typed: False for a flow that does not validate: it takes anything.
    """
    descriptions = _descriptions(doc)
    definitions: Schema = {}
    properties: Schema = {}
    required: list[str] = []
    hints = parameters.hints() if typed else {}
    for position, (name, parameter) in enumerate(parameters.signature.parameters.items()):
        schema = {**_schema_of(hints.get(name, Any), definitions), "title": name, "position": position}
        if name in descriptions:
            schema["description"] = descriptions[name]
        if is_secret(name) and _may_be_text(schema, parameter.default):
            schema["format"] = "password"  # and its default is not shown
        elif parameter.default is not Parameter.empty:
            schema.update(_default(parameter.default))
        properties[name] = schema
        if parameter.default is Parameter.empty and parameter.kind not in _VARIADIC:
            required.append(name)
    result: Schema = {"title": "Parameters", "type": "object", "properties": properties, "required": required}
    result["additionalProperties"] = False
    if definitions:
        result["$defs"] = definitions
    return result


def plain_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as JSON can carry them: dates become text, models and dataclasses become objects.

    Raises:
        InvalidRequestError: a value that JSON cannot carry; names all such parameters.
    """
    plain: dict[str, Any] = {}
    faults: list[str] = []
    for name, value in parameters.items():
        try:
            plain[name] = _plain(value)
        except _NOT_PLAIN as error:
            faults.append(f"{name} ({error})")
    if faults:
        raise InvalidRequestError(
            f"Parameters of a deployment are kept as JSON, and this is nothing that JSON can carry: {'; '.join(faults)}"
        )
    return plain


def _plain(value: Any) -> Any:
    holder = value
    if isinstance(value, dict):
        return {_plain_key(key): _plain(item) for key, item in holder.items()}
    if isinstance(value, list | tuple | set | frozenset | range):
        return [_plain(item) for item in holder]
    if isinstance(value, bytes):
        return value.decode()  # as flows take it
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value}, which is no number in JSON")
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=_plain_custom))


def _plain_key(key: Any) -> str:
    (plain,) = msgspec.json.decode(msgspec.json.encode({key: None}), type=dict[str, None])
    return plain


def _plain_custom(value: Any) -> Any:
    from pathlib import PurePath  # here because few need it and start-up counts

    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "model_dump"):  # a pydantic model
        return value.model_dump(mode="json")
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # numpy's numbers and arrays
        return _plain(value.tolist())
    raise TypeError(f"a {type(value).__name__}")


def _default(value: Any) -> Schema:
    """What a schema says of a default; nothing if JSON cannot carry it."""
    try:
        return {"default": _plain(value)}
    except _NOT_PLAIN:
        return {}


def _may_be_text(schema: Schema, default: Any) -> bool:
    """Whether a parameter of this schema may hold a text, as a secret is."""
    if "anyOf" in schema:
        return any(member.get("type") == "string" for member in schema["anyOf"])
    if "type" in schema:
        return bool(schema["type"] == "string")
    return "$ref" not in schema and (default in (None, Parameter.empty) or isinstance(default, str))


# --- from annotations ---------------------------------------------------------------------------------------


def _schema_of(hint: Any, definitions: Schema) -> Schema:
    """The schema of one annotation; what it refers to is put into the definitions."""
    if hint is Any or hint is object:
        return {}
    if needs_pydantic(hint):
        return _of_pydantic(hint, definitions)
    if hint in _SAID_HERE:
        return dict(_SAID_HERE[hint])
    return _of_parts(hint, definitions) or _of_msgspec(hint, definitions)


_SAID_HERE: Final[dict[Any, Schema]] = {
    bytes: {"type": "string"},  # text, of which the flow gets the bytes
    dt.datetime: {"type": "string", "format": "date-time"},
    Decimal: {"anyOf": [{"type": "number"}, {"type": "string", "format": "decimal"}]},
}


def _of_msgspec(hint: Any, definitions: Schema) -> Schema:
    try:
        (schema,), found = msgspec.json.schema_components([hint], schema_hook=_custom, ref_template=_REFERENCE)
    except Exception:  # whatever evaluating a user's classes may raise
        return {}
    finally:
        leave_no_trace(hint)
    return _with_definitions(schema, found, definitions)


def _custom(cls: type) -> Schema:
    """What msgspec does not know. It is only asked about classes."""
    from pathlib import PurePath  # here because few need it and start-up counts

    if issubclass(cls, PurePath):
        return {"type": "string", "format": "path"}
    return {}


def _of_parts(hint: Any, definitions: Schema) -> Schema:
    """The schema of a union or a container, made of those of its parts; empty if it is neither.

    By parts, because msgspec refuses a union of several custom types as a whole.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        members = [_schema_of(arg, definitions) for arg in args]
        return {} if {} in members else {"anyOf": members}
    if (origin in _ARRAYS and len(args) == 1) or (origin is tuple and args[1:] == (...,)):
        return {"type": "array", "items": _schema_of(args[0], definitions)}
    if origin in _OBJECTS:
        return {"type": "object", "additionalProperties": _schema_of(args[1], definitions)}
    return {}


_ARRAYS: Final = (list, set, frozenset, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Set, abc.MutableSet)
_OBJECTS: Final = (dict, abc.Mapping, abc.MutableMapping)


def _of_pydantic(hint: Any, definitions: Schema) -> Schema:
    adapter = pydantic_adapter(hint)
    if adapter is None:
        return {}
    try:
        schema: Schema = adapter.json_schema(ref_template=_REFERENCE.replace("{name}", "{model}"))
    except Exception:  # pydantic: a type that has no schema
        return {}
    found = schema.pop("$defs", {})
    return _with_definitions(schema, found, definitions)


def _with_definitions(schema: Schema, found: Schema, definitions: Schema) -> Schema:
    """The schema, and what it refers to among the definitions: under another name where that one is taken."""
    renamed: dict[str, str] = {}
    for name, definition in found.items():
        if definitions.get(name, definition) != definition:
            number = next(n for n in range(2, len(definitions) + 3) if f"{name}_{n}" not in {*definitions, *found})
            renamed[_REFERENCE.format(name=name)] = _REFERENCE.format(name=f"{name}_{number}")
    if renamed:
        schema = _with_references(schema, renamed)
        prefix = _REFERENCE.format(name="")
        found = {
            renamed.get(f"{prefix}{name}", f"{prefix}{name}").removeprefix(prefix): _with_references(it, renamed)
            for name, it in found.items()
        }
    definitions.update(found)
    return schema


def _with_references(schema: Any, renamed: Mapping[str, str]) -> Any:
    part = schema
    if isinstance(schema, dict):
        return {
            key: renamed.get(value, value) if key == "$ref" else _with_references(value, renamed)
            for key, value in part.items()
        }
    if isinstance(schema, list):
        return [_with_references(item, renamed) for item in part]
    return schema


# --- from docstrings ----------------------------------------------------------------------------------------


def _descriptions(doc: str | None) -> dict[str, str]:
    """What a docstring says of each parameter, in any of the common styles; nothing where its reader is missing."""
    return dict(_described(doc)) if doc else {}


def described_besides_parameters(doc: str) -> str:
    """A docstring without its part about the parameters, which their schema holds; all of it where it has none."""
    parsed = _parsed(doc)
    return doc if parsed is None or not parsed.params else parsed.description or ""


def _described(doc: str) -> Iterator[tuple[str, str]]:
    parsed = _parsed(doc)
    for parameter in parsed.params if parsed is not None else ():
        if parameter.description:
            for name in parameter.arg_name.split(","):  # `first, second: what both are`
                yield name.strip().lstrip("*"), " ".join(parameter.description.split())


def _parsed(doc: str) -> Docstring | None:
    """None where it cannot be read."""
    try:
        import docstring_parser  # here: it comes with the server
    except ImportError:
        return None
    try:
        return docstring_parser.parse(inspect.cleandoc(doc))
    except docstring_parser.ParseError:
        return None


__all__ = ["described_besides_parameters", "parameter_schema", "plain_parameters"]
