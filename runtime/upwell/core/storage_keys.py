"""Keys of stored results: relative paths that lead nowhere else, and the templates that users give for them."""

import glob
import secrets
from collections.abc import Collection, Mapping
from functools import lru_cache
from string import Formatter
from typing import Any, Final, cast

from msgspec import Struct

from upwell.core.errors import ConfigurationError

MOST_BYTES: Final = 1024
"""The longest key, in UTF-8: what S3 allows."""

MOST_BYTES_OF_A_PART: Final = 255
"""The longest part of a key: what file systems allow for a name."""

BESIDE: Final = ".upwell-"
"""How the names of files begin that are being written, or were put aside to see whether they may go."""

_PARAMETERS: Final = "parameters"
_RUNS: Final = ("flow_run", "task_run")
_SEPARATORS: Final = "/\\%"


def name_aside(name: str) -> str:
    """A new name for a file that is put aside, in the same folder."""
    return f"{BESIDE}{name}-{secrets.token_hex(8)}.tmp"


def names_aside(name: str) -> str:
    """The pattern of `glob` that finds a file by any name that `name_aside` gave it."""
    return f"{BESIDE}{glob.escape(name)}-*.tmp"


class InvalidStorageKeyError(ConfigurationError):
    """A key that may not be used, because it could lead out of the storage or fit no file system."""


def check_key(key: str) -> str:
    """The key itself, if it is a relative path that stays where it is; else raises InvalidStorageKeyError."""
    fault = _fault(key)
    if fault:
        shown = repr(key) if len(repr(key)) <= 80 else repr(key)[:77] + "..."
        raise InvalidStorageKeyError(
            f"The storage key {shown} {fault}. A key is a relative path such as 'reports/2024.json'."
        )
    return key


def _fault(key: object) -> str | None:
    if not isinstance(key, str) or not key:
        return "is not a text, or is empty"
    if "\\" in key or not key.isprintable():  # a lone surrogate cannot be printed either
        return "has a backslash or a character that cannot be printed"
    parts = [part.encode() for part in key.split("/")]
    if b"" in parts:
        return "begins or ends with '/', or has nothing between two of them"
    if b"." in parts or b".." in parts:
        return "has '.' or '..' as a part"
    if max(map(len, parts)) > MOST_BYTES_OF_A_PART or len(key.encode()) > MOST_BYTES:
        return f"is too long: at most {MOST_BYTES} bytes, and {MOST_BYTES_OF_A_PART} between two '/'"
    return None


def check_key_template(template: object, parameters: Collection[str] | None = None) -> str:
    """Check a `result_storage_key` when it is declared; `parameters` are the names of the function's, if known.

    Raises ConfigurationError, which says what the template may use.
    """
    if not isinstance(template, str):
        raise ConfigurationError(
            f"result_storage_key must be a text such as 'reports/{{task_run.name}}.json', not {template!r}."
        )
    pieces = _pieces(template)
    for piece in pieces:
        if piece.name == _PARAMETERS and parameters is not None and piece.steps[0] not in parameters:
            known = ", ".join(parameters) or "none"
            raise _bad(template, piece.field, f"there is no such parameter; known: {known}")
    check_key("".join(piece.literal + ("x" if piece.name else "") for piece in pieces))
    return template


def render_key(template: str, parameters: Mapping[str, Any], **runs: Mapping[str, Any]) -> str:
    """The key of one result: `{parameters[x]}` is an argument, `{flow_run.name}` a fact in `flow_run={"name": ...}`.

    Only data is looked at: items of dicts, lists and tuples, never attributes. What a value would add to the path
    is quoted (`a/b` becomes `a%2Fb`), so that only the template's own `/` make folders.
    Raises ConfigurationError if a value is missing, InvalidStorageKeyError if no valid key comes out.
    """
    values: Mapping[str, Any] = {_PARAMETERS: parameters, **runs}
    key = ""
    for piece in _pieces(template):
        key += piece.literal
        if piece.name:
            key += _quoted(_text(template, piece, values.get(piece.name, {})))
    return check_key(key)


def _text(template: str, piece: "_Piece", value: Any) -> str:
    for step in piece.steps:
        try:
            value = _item(value, step)
        except (LookupError, TypeError) as error:
            raise _bad(template, piece.field, f"there is no {step!r} in this run") from error
    try:
        return format(Formatter().convert_field(value, piece.conversion), piece.format)
    except Exception as error:  # whatever the value's own `__format__` raises
        raise _bad(template, piece.field, f"{type(error).__name__}: {error}") from error


def _item(value: object, step: str | int) -> Any:
    """One item of a container. What else has `__getitem__` is a user's, and may do anything."""
    if isinstance(value, Mapping):
        if step not in value:  # asked first: a defaultdict would make it
            raise KeyError(step)
    elif not (isinstance(value, list | tuple) and isinstance(step, int)):
        raise TypeError("it has no items that are data")
    return cast("Any", value)[step]


def _quoted(text: str) -> str:
    return "".join(
        character
        if character.isprintable() and character not in _SEPARATORS
        else "".join(f"%{byte:02X}" for byte in character.encode(errors="surrogatepass"))
        for character in text
    )


class _Piece(Struct, frozen=True):
    """A stretch of a template: literal text, and the field after it (name is empty if there is none)."""

    literal: str
    field: str = ""
    name: str = ""
    steps: tuple[str | int, ...] = ()
    format: str = ""
    conversion: str | None = None


@lru_cache(maxsize=512)
def _pieces(template: str) -> tuple[_Piece, ...]:
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise ConfigurationError(f"The result_storage_key {template!r} is not a valid template: {error}.") from error
    pieces: list[_Piece] = []
    for literal, field, spec, conversion in parsed:
        if field is None:
            pieces.append(_Piece(literal))
            continue
        if "{" in (spec or ""):
            raise _bad(template, field, "a format may not itself be filled in")
        name, *steps = _steps(template, field)
        pieces.append(_Piece(literal, field, str(name), tuple(steps), spec or "", conversion))
    return tuple(pieces)


def _steps(template: str, field: str) -> list[str | int]:
    """`parameters[x][0]` as `["parameters", "x", 0]`; an attribute is a step only right after a run."""
    name = field.replace("[", ".").partition(".")[0]
    rest = field[len(name) :]
    steps: list[str | int] = [name]
    if name in _RUNS:
        fact = rest[1:].replace("[", ".").partition(".")[0]
        if not rest.startswith(".") or not fact.isidentifier() or fact.startswith("_"):
            raise _bad(template, field, f"say which fact of the run, such as {name}.name")
        rest = rest[1 + len(fact) :]
        steps.append(fact)
    elif name != _PARAMETERS:
        raise _bad(
            template, field, f"only {_PARAMETERS}[...], {' and '.join(f'{run}.name' for run in _RUNS)} can be used"
        )
    while rest:
        if rest[0] != "[" or "]" not in rest:
            raise _bad(template, field, "attributes of values cannot be used, only items in [ ]")
        step, _, rest = rest[1:].partition("]")
        steps.append(int(step) if step.isdecimal() else step)
    if len(steps) == 1:
        raise _bad(template, field, f"say which of the parameters, such as {_PARAMETERS}[x]")
    return steps


def _bad(template: str, field: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"The result_storage_key {template!r} uses {{{field}}}: {why}.")
