"""Structs whose attributes the interpreter sets itself."""

from __future__ import annotations

import gc

import pytest
from msgspec import Struct

from upwell.core.quick import quickly_set


def test_attributes_are_set_as_before() -> None:
    @quickly_set
    class Place(Struct, gc=False):
        name: str
        items: list[int] | None = None

    place = Place("here")
    place.items = [1]
    assert (place.name, place.items, gc.is_tracked(place)) == ("here", [1], False)
    with pytest.raises(AttributeError):
        place.nothing = 1  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def test_those_that_the_collector_may_have_to_know_of_are_refused() -> None:
    class Tracked(Struct):
        items: list[int] | None = None

    class Frozen(Struct, gc=False, frozen=True):
        items: list[int] | None = None

    for kind in (Tracked, Frozen):
        with pytest.raises(TypeError, match=rf"{kind.__name__}.*gc=False"):
            quickly_set(kind)
