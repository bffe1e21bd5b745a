"""The same thing done to many flow runs: what is wanted, and what became of each."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Final, Literal, TypeAlias
from uuid import UUID

from msgspec import Meta, Struct

from upwell.core.model import FlowRunRecord

BulkAction: TypeAlias = Literal["cancel", "retry", "resume", "delete"]

MOST_RUNS: Final = 1_000
"""That are meant at once."""

_Text: TypeAlias = Annotated[str, Meta(max_length=1000)]


class BulkSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be done to which flow runs: those of these ids, or those that a filter lets through.

    flow, state, tags, since, until, text, parent, deployment, ahead: as for lists of flow runs. Of those that fit, only
        such are meant to which it can be done: to be cancelled those that have not ended, to run again those that have.
    limit: how many, the oldest first. after: the `next` of the answer before, for the others.
    dry_run: nothing is done, and the answer says what would be.
    reason, grace_seconds: of a cancel.
    """

    action: BulkAction
    ids: Annotated[tuple[UUID, ...], Meta(max_length=MOST_RUNS)] = ()
    flow: _Text | None = None
    state: _Text | None = None
    tags: Annotated[tuple[_Text, ...], Meta(max_length=100)] = ()
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    text: _Text | None = None
    parent: UUID | None = None
    deployment: _Text | None = None
    ahead: bool = True
    limit: Annotated[int, Meta(ge=1, le=MOST_RUNS)] = 100
    after: _Text | None = None
    dry_run: bool = False
    reason: _Text | None = None
    grace_seconds: Annotated[float, Meta(ge=0, le=86_400)] | None = None

    @property
    def has_filter(self) -> bool:
        """Whether anything is said but ids."""
        said = (self.flow, self.state, self.tags, self.since, self.until, self.text, self.parent, self.deployment)
        return any(said)


class BulkItem(Struct, frozen=True, kw_only=True):
    """One flow run. refused: why it was not done. run: as it is now; of one that runs again, the new one."""

    id: UUID
    name: str
    refused: str | None = None
    run: FlowRunRecord | None = None


class BulkDone(Struct, frozen=True, kw_only=True):
    """What became of it. next: there are more, which nothing was done to yet."""

    done: int
    refused: int
    items: tuple[BulkItem, ...]
    next: str | None


__all__ = ["MOST_RUNS", "BulkAction", "BulkDone", "BulkItem", "BulkSpec"]
