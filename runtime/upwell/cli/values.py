"""Parameters of flows as people write them: `--param day=2026-01-31 --param limit=5`, `--params '{"limit": 5}'`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from upwell.cli.output import UsageError


def parameters_of(param: Iterable[str], params: str | None, schema: Mapping[str, Any]) -> dict[str, Any]:
    """What these two options say together. schema: of the flow's parameters: where it wants a text, a text it is.

    Raises:
        UsageError: one of them cannot be read.
    """
    found = json_object(params, "--params") if params is not None else {}
    for item in param:
        name, is_one, text = item.partition("=")
        if not is_one or not name.strip():
            raise UsageError(f"--param is {item!r}, and must be NAME=VALUE, such as --param limit=5.")
        found[name.strip()] = text if wants_text(schema, name.strip()) else json_or_text(text)
    return found


def wants_text(schema: Mapping[str, Any], name: str) -> bool:
    """Whether this parameter is a text, and nothing else."""
    wanted: Any = schema.get("properties", {}).get(name)
    return isinstance(wanted, dict) and bool(wanted.get("type") == "string")  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]  # of JSON


def json_or_text(text: str) -> Any:
    """The value that JSON says, and what is no JSON as it is written."""
    import msgspec  # here, as below: help needs none

    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def json_object(text: str, option: str) -> dict[str, Any]:
    """A JSON object, written out or in a file (`@FILE`).

    Raises:
        UsageError: it is none.
    """
    import msgspec

    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{option}: {text[1:]} cannot be read: {error}.") from error
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise UsageError(f"{option} is no valid JSON: {error}.") from error
    if not isinstance(found, dict):
        raise UsageError(f"{option} must be a JSON object, such as {option} '{{\"limit\": 5}}'.")
    return cast("dict[str, Any]", found)
