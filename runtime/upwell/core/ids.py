"""Identities: UUIDv7 built from a time and a number, so that ids cost nothing until somebody asks for one."""

from __future__ import annotations

from string import hexdigits
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from uuid import UUID

RANDOM_BITS: Final = 74
LEAST_DIGITS: Final = 6
"""Of the beginning of an id that is to be found by it."""

_DIGITS: Final = 32
_MASK: Final = (1 << RANDOM_BITS) - 1
_LOW_BITS: Final = 62
_LOW_MASK: Final = (1 << _LOW_BITS) - 1
_TIME_SHIFT: Final = 80
_MOST_MILLISECONDS: Final = (1 << 48) - 1


def uuid7(seconds: float, random: int) -> UUID:
    """A UUIDv7 (RFC 9562, section 5.7).

    seconds: since the epoch; its milliseconds become the first 48 bits.
    random: fills the 74 bits that are left; runs of one series count it up, so their ids sort in order.
    """
    from uuid import UUID  # only here: it loads `platform`, and most programs never ask for an id

    return UUID(int=uuid7_number(int(seconds * 1e6) // 1000, random))


def milliseconds_of(identity: UUID) -> int:
    """The time that a UUIDv7 is made of, since the epoch."""
    return identity.int >> _TIME_SHIFT


def ids_beginning(text: str) -> tuple[UUID, UUID] | None:
    """The first and the last id that begin with this; None: it is too short, or begins none."""
    from uuid import UUID

    digits = text.replace("-", "")
    if not LEAST_DIGITS <= len(digits) < _DIGITS or not set(digits) <= set(hexdigits):
        return None
    return UUID(digits.ljust(_DIGITS, "0")), UUID(digits.ljust(_DIGITS, "f"))


def uuid7_number(milliseconds: int, random: int) -> int:
    """The same as a number, of whole milliseconds: a store of microseconds finds it again."""
    random &= _MASK
    return (
        ((milliseconds & _MOST_MILLISECONDS) << _TIME_SHIFT)
        | (0x7 << 76)
        | ((random >> _LOW_BITS) << 64)
        | (0b10 << 62)
        | (random & _LOW_MASK)
    )
