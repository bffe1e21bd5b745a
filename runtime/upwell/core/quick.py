"""Structs whose attributes are set at the cost of those of any other class."""

from __future__ import annotations

from typing import Any, TypeVar

from msgspec import Struct

S = TypeVar("S", bound=type[Struct])


def quickly_set(kind: S) -> S:
    """Let the interpreter set the attributes of such a Struct itself, in a tenth of the time.

    msgspec looks each time whether the collector has to know of the Struct from now on, and the interpreter can take no
    short cut where another sets. So this is for Structs of `gc=False`, of which it never has to.

    Raises:
        TypeError: the collector may have to know of these.
    """
    config: Any = kind.__struct_config__
    if config.gc is not False or config.frozen:
        raise TypeError(f"{kind.__name__} is to be a Struct of gc=False that can be changed")
    made: Any = kind  # within the class statement they would not count: msgspec puts its own there at the end
    made.__setattr__, made.__delattr__ = object.__setattr__, object.__delattr__
    return kind
