"""Wrappers around an argument that say how it is to be treated; the task function never sees them."""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)

_LISTS: Any = (list, tuple)
_TAKEN_WHOLE: Any = (str, bytes, bytearray, memoryview, Mapping)  # iterable, but constants to `.map`


class Annotation(Generic[T_co]):
    """What all wrappers share: they hold one value and give it back."""

    __slots__ = ("value",)

    value: T_co

    def __init__(self, value: T_co) -> None:
        self.value = value

    def unwrap(self) -> Any:
        """Return the value inside, inside of other wrappers too: `unmapped(allow_failure(x))` gives `x`."""
        value: Any = self.value
        while is_annotation(value):
            value = value.value
        return value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"


def is_annotation(value: Any, kind: Any = Annotation) -> bool:
    """Whether a value is a wrapper, or one of the `kind`."""
    return isinstance(value, kind)


class unmapped(Annotation[T_co]):
    """In `.map`, a constant: every call gets the whole value. May hold or stand in `allow_failure`."""

    __slots__ = ()


class allow_failure(Annotation[T_co]):
    """Let a failed upstream pass its exception in as a value, for every future found inside."""

    __slots__ = ()


class quote(Annotation[T_co]):
    """Pass the value as it is: futures in it stay futures, and nothing looks inside."""

    __slots__ = ()


class opaque(Annotation[T_co]):
    """Do not look inside the value; if it is a future itself, its result is passed."""

    __slots__ = ()


def mapped_items(value: Any) -> Any:
    """What `.map` goes over for this argument, with a length that is known; None if it is a constant."""
    if is_annotation(value, allow_failure):
        items = mapped_items(value.value)
        return None if items is None else [allow_failure(item) for item in items]
    if isinstance(value, _LISTS):
        return value
    if is_annotation(value) or isinstance(value, _TAKEN_WHOLE) or hasattr(value, "__pydantic_fields__"):
        return None
    try:
        items = iter(value)
    except TypeError:
        return None
    return value if hasattr(value, "__len__") else list(items)


def constant_part(value: Any) -> Any:
    """A constant of `.map` without `unmapped`, which has done its work; other wrappers stay on."""
    if is_annotation(value, unmapped):
        return constant_part(value.value)
    if is_annotation(value, allow_failure):
        return allow_failure(constant_part(value.value))
    return value
