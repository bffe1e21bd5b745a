"""What a process says to a server's journal, by operation; how it is packed and checked stands in `wire.py`."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

from msgspec import Meta, Raw, Struct

from upwell.engine.durable_records import Child, Claim, OldMap, OldSeries, Waiting
from upwell.journal.cache_store import Wanted
from upwell.journal.durable_store import Beginning
from upwell.journal.limit_store import Wish
from upwell.journal.wire import Id, Name, Sender

MEDIA_TYPE: Final = "application/vnd.msgpack"

Names: TypeAlias = Annotated[list[Name], Meta(max_length=100_000)]
Slots: TypeAlias = Annotated[int, Meta(ge=0, le=1_000_000_000)]


class TakeOver(Struct, array_like=True):
    """A batch that was spooled, and who has."""

    process: Sender
    batch: Raw


class CacheLook(Struct, array_like=True):
    """Keys that a process wants the results of."""

    process_id: Id
    wanted: Annotated[list[Wanted], Meta(max_length=100_000)]


class LimitLook(Struct, array_like=True):
    """See `LimitStore.look`."""

    process_id: Id
    name: Name
    absent: Names


class LimitTurn(Struct, array_like=True):
    """See `LimitStore.take_turn`."""

    process_id: Id
    name: Name
    over: Names
    wishes: Annotated[list[Wish], Meta(max_length=100_000)]
    absent: Names
    unsure: Names


class LimitLevel(Struct, array_like=True):
    """See `LimitStore.reserve` and `give_back_level`."""

    process_id: Id
    name: Name
    slots: Slots


class DurableMeant(Struct, array_like=True):
    """Which run does this process mean?"""

    process_id: Id
    beginning: Beginning


class DurableClaim(Struct, array_like=True):
    """Have the run that is meant be this process's. rows: of a new one, should it be that. known: an old one's id."""

    process_id: Id
    beginning: Beginning
    rows: Raw
    known: Name | None


class SentClaim(Struct):
    """A claim on its way: the random part of an id is larger than any integer of MessagePack."""

    flow_run_id: str
    name: str
    created: float
    run_count: int
    crashes: int
    source_hash: str | None
    due: float | None
    resumed: bool
    again: bool
    inherited: bool
    ended: tuple[str, str | None, str | None, bytes | None] | None
    series: list[tuple[int, str, str, float, int, bytes | None, frozenset[int]]]
    finished: list[tuple[Any, ...]]
    maps: list[OldMap]
    waiting: list[Waiting]
    children: list[Child]

    @classmethod
    def of(cls, claim: Claim) -> SentClaim:
        """This claim, to be sent."""
        said = {name: getattr(claim, name) for name in cls.__struct_fields__ if name not in ("series", "finished")}
        series = [(s.key, f"{s.base:x}", s.task, s.created, s.submitted, s.source, s.begun) for s in claim.series]
        return cls(**said, series=series, finished=[tuple(row) for row in claim.finished])

    def claim(self) -> Claim:
        """The claim that was sent."""
        said = {name: getattr(self, name) for name in self.__struct_fields__ if name != "series"}
        return Claim(**said, series=[OldSeries(key, int(base, 16), *others) for key, base, *others in self.series])  # type: ignore[arg-type]  # one after the other


__all__ = [
    "MEDIA_TYPE",
    "CacheLook",
    "DurableClaim",
    "DurableMeant",
    "Id",
    "LimitLevel",
    "LimitLook",
    "LimitTurn",
    "Name",
    "Names",
    "SentClaim",
    "Slots",
    "TakeOver",
]
