"""Values as people see them in histories: short, one line, secrets left out. No code of the value's own is run.

A `__repr__` of the user's could be slow, could raise, could read a database from the wrong thread: so only what
has a known shape is shown from inside, and everything else by what it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

MOST_CHARACTERS: Final = 200
"""Of one value."""

MOST_ITEMS: Final = 8
"""Of one container, before the others are counted."""

MOST_DEPTH: Final = 3

HIDDEN: Final = "********"

KEPT_NAMES: Final = 1024
"""Of how many is remembered whether they speak of secrets."""

_SECRET: Final = re.compile(
    r"passw(or)?d|passphrase|secret|token|api_?key|private_?key|credential|authorization|cookie", re.IGNORECASE
)
_PASSWORD: Final = re.compile(r"(?<=://)([^/\s:@]*):[^/\s@]+@")
"""In an address: `postgresql://user:password@host`."""

_MOST_LOOKED_AT: Final = 5 * MOST_CHARACTERS
"""Of a text, for what is to be hidden: it may begin within what is shown, and end behind."""

_type: Callable[[object], Any] = type  # so that a type checker knows what `type` of anything is
_SIMPLE: Final = frozenset({int, float, bool, type(None), complex})


@lru_cache(KEPT_NAMES)
def is_secret(name: str) -> bool:
    """Whether what has this name is better not shown."""
    return _SECRET.search(name) is not None


def shown(value: Any) -> str:
    """A value in a few words: `5`, `'abc'`, `[1, 2, 3]`, `<list of 100,000>`, `<DataFrame (10, 3)>`."""
    kind = _type(value)
    if kind in _SIMPLE:
        try:
            return _short(repr(value))
        except ValueError:  # Python writes no number of so many digits
            return f"<int of {value.bit_length():,} bits>"
    if kind is str:
        return _text(value)
    try:
        return _short(_shown_inside(value, MOST_DEPTH))
    except Exception:  # what has fields may have code behind them
        return _described(value)


def shown_arguments(names: Iterable[str], values: Iterable[Any]) -> str:
    """Arguments as in a call, `url='x', n=3`; those whose names speak of secrets are hidden."""
    pairs = zip(names, values, strict=False)
    parts = [f"{name}={HIDDEN if is_secret(name) else shown(value)}" for name, value in pairs]
    return _short(", ".join(parts), MOST_CHARACTERS * 4)


def shown_parameters(parameters: Mapping[str, Any]) -> dict[str, str]:
    """The same by name."""
    return {name: HIDDEN if is_secret(name) else shown(value) for name, value in parameters.items()}


def _text(value: str) -> str:
    start = _PASSWORD.sub(rf"\1:{HIDDEN}@", value[:_MOST_LOOKED_AT]) if "://" in value else value
    if len(value) <= MOST_CHARACTERS:
        return repr(start)
    return f"{start[:MOST_CHARACTERS]!r}... ({len(value):,} characters)"


def _short(text: str, most: int = MOST_CHARACTERS) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def _shown_inside(value: Any, depth: int) -> str:
    kind = _type(value)
    if kind in _SIMPLE:
        try:
            return _short(repr(value))
        except ValueError:  # Python writes no number of so many digits
            return f"<int of {value.bit_length():,} bits>"
    if kind is str:
        return _text(value)
    if kind in (bytes, bytearray):
        return repr(value) if len(value) <= 32 else f"<{kind.__name__} of {len(value):,}>"
    if kind in _BRACKETS:
        return _items(value, depth, *_BRACKETS[kind])
    if kind is dict:
        return _mapping(value, depth)
    if kind.__module__ in _PLAINLY_SHOWN:
        return _plain(value)
    fields = getattr(kind, "__dataclass_fields__", None) or getattr(kind, "__struct_fields__", None)
    if fields is not None and depth:
        return _record(value, tuple(fields), depth)
    return _described(value)


_BRACKETS: Final[dict[type, tuple[str, str]]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("{", "}"),
}
_PLAINLY_SHOWN: Final = frozenset(
    {"datetime", "decimal", "fractions", "uuid", "pathlib", "pathlib._local", "upwell.engine.future"}
)
"""Modules whose values have a short `repr` that runs no code of the user's."""


def _plain(value: Any) -> str:
    zone = getattr(value, "tzinfo", None)
    if zone is None or _type(zone).__module__ in _ZONES:
        return repr(value)
    return f"{repr(value.replace(tzinfo=None))[:-1]}, tzinfo={_described(zone)})"


_ZONES: Final = frozenset({"datetime", "zoneinfo"})
"""Whose time zones show themselves; others are somebody's own."""


def _items(value: Any, depth: int, opening: str, closing: str) -> str:
    if len(value) > MOST_ITEMS or not depth:
        return f"<{type(value).__name__} of {len(value):,}>" if value else opening + closing
    return opening + ", ".join(_shown_inside(item, depth - 1) for item in value) + closing


def _mapping(value: dict[Any, Any], depth: int) -> str:
    if len(value) > MOST_ITEMS or not depth:
        return f"<dict of {len(value):,}>" if value else "{}"
    pairs = (
        f"{_shown_inside(key, 0)}: "
        + (HIDDEN if isinstance(key, str) and is_secret(key) else _shown_inside(item, depth - 1))
        for key, item in list(value.items())
    )
    return "{" + ", ".join(pairs) + "}"


def _record(value: Any, fields: tuple[str, ...], depth: int) -> str:
    found = ((name, getattr(value, name, None)) for name in fields[:MOST_ITEMS])
    pairs = (f"{name}={HIDDEN if is_secret(name) else _shown_inside(item, depth - 1)}" for name, item in found)
    more = ", ..." if len(fields) > MOST_ITEMS else ""
    return f"{type(value).__qualname__}({', '.join(pairs)}{more})"


def _described(value: Any) -> str:
    """What it is, and its shape where it has one, as arrays and tables do."""
    kind = _type(value)
    shape = getattr(value, "shape", None) if kind.__module__.partition(".")[0] in _SHAPED else None
    return f"<{kind.__qualname__}{f' {shape}' if isinstance(shape, tuple) else ''}>"


_SHAPED: Final = frozenset({"numpy", "pandas", "polars", "torch", "pyarrow", "xarray"})
