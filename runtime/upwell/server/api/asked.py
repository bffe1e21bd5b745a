"""What many routes have in common: pages, where a page begins, and the record of who changed what."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Final, Literal, TypeAlias
from uuid import UUID

from litestar import Request as LitestarRequest
from litestar.params import FromPath, FromQuery, QueryParameter

from upwell.core.bulk import BulkDone, BulkSpec
from upwell.journal.audited import notes_of_bulk
from upwell.server.auth import actor_of
from upwell.server.parts import parts_of

Request: TypeAlias = LitestarRequest[Any, Any, Any]

Limit: TypeAlias = Annotated[int, QueryParameter(ge=1, le=1000, description="How many items the page has at most.")]
After: TypeAlias = Annotated[
    str | None,
    QueryParameter(max_length=1000, description="The `next` of the page before, asked for with the same filters."),
]
Text: TypeAlias = Annotated[str | None, QueryParameter(max_length=1000)]
InState: TypeAlias = Annotated[  # `state` means something else to Litestar
    str | None,
    QueryParameter(name="state", max_length=1000, description="A type of state (FAILED) or a name (TimedOut)."),
]
Texts: TypeAlias = Annotated[list[str] | None, QueryParameter(max_items=100)]
Order: TypeAlias = FromQuery[Literal["newest", "oldest"]]
Level: TypeAlias = Annotated[int, QueryParameter(ge=0, le=1000, description="The least severe lines; 30 is WARNING.")]
Moment: TypeAlias = FromQuery[dt.datetime | None]
Id: TypeAlias = FromQuery[UUID | None]
Switch: TypeAlias = FromQuery[bool]

PathId: TypeAlias = FromPath[UUID]
PathName: TypeAlias = FromPath[str]

PAGE_ITEMS: Final = 50


async def note(request: Request, action: str, target: object, detail: str | None = None) -> None:
    """Put into the record of changes that whoever asks has done this."""
    await parts_of(request).control.audit(actor_of(request).name, action, str(target), detail)


async def note_bulk(request: Request, wanted: BulkSpec, done: BulkDone) -> None:
    """The same of each flow run of many that it was done to."""
    for action, target, detail in notes_of_bulk(wanted, done):
        await note(request, action, target, detail)
