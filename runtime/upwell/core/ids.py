"""Identities: UUIDv7 built from a time and a number, so that ids cost nothing until somebody asks for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from uuid import UUID

RANDOM_BITS: Final = 74
_MASK: Final = (1 << RANDOM_BITS) - 1
_LOW_BITS: Final = 62


def uuid7(seconds: float, random: int) -> UUID:
    """A UUIDv7 (RFC 9562, section 5.7).

    seconds: since the epoch; its milliseconds become the first 48 bits.
    random: fills the 74 bits that are left; runs of one series count it up, so their ids sort in order.
    """
    from uuid import UUID  # only here: it loads `platform`, and most programs never ask for an id

    random &= _MASK
    milliseconds = int(seconds * 1e6) // 1000 & ((1 << 48) - 1)  # as a store of microseconds finds it again
    return UUID(
        int=(milliseconds << 80)
        | (0x7 << 76)
        | ((random >> _LOW_BITS) << 64)
        | (0b10 << 62)
        | (random & ((1 << _LOW_BITS) - 1))
    )
