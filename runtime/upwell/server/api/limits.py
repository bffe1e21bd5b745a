"""Limits that hold for all processes of the store."""

from __future__ import annotations

from typing import Annotated

from litestar import delete, get, put
from litestar.types import ControllerRouterHandler
from msgspec import Meta, Struct

from upwell.core.errors import NotFoundError
from upwell.journal.limit_store import LimitChange, LimitInUse, checked_limit
from upwell.server import auth
from upwell.server.api.asked import Request, note
from upwell.server.parts import parts_of


class LimitBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a limit allows. slot_decay_per_second: above 0, slots become free with time, so many a second."""

    slots: Annotated[int, Meta(ge=0, le=1_000_000_000)]
    slot_decay_per_second: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    active: bool = True


@get("/api/concurrency-limits", opt=auth.READ)
async def limits(request: Request) -> list[LimitInUse]:
    """All limits, and how they stand now."""
    return await parts_of(request).limits.in_use()


@get("/api/concurrency-limits/{name:path}", opt=auth.READ)
async def limit(request: Request, name: str) -> LimitInUse:
    """One limit, and how it stands now."""
    wanted = _name(name)
    for found in await parts_of(request).limits.in_use():
        if found.name == wanted:
            return found
    raise _unknown(wanted)


@put("/api/concurrency-limits/{name:path}", opt=auth.ADMIN)
async def put_limit(request: Request, name: str, data: LimitBody) -> LimitInUse:
    """Make a limit, or change the one of this name."""
    wanted = _name(name)
    row = checked_limit(wanted, data.slots, data.slot_decay_per_second, data.active)
    if not await parts_of(request).limits.create(row):
        await parts_of(request).limits.update(LimitChange(*row))
    await note(request, "put limit", wanted, str(data.slots))
    return await limit.fn(request, name)


@delete("/api/concurrency-limits/{name:path}", opt=auth.ADMIN)
async def delete_limit(request: Request, name: str) -> None:
    """Remove a limit: nobody waits for it any more."""
    wanted = _name(name)
    if not await parts_of(request).limits.delete(wanted):
        raise _unknown(wanted)
    await note(request, "delete limit", wanted)


def _name(path: str) -> str:
    """The name of a limit may have slashes in it; the first one is the address's."""
    return path.removeprefix("/")


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(f"The store has no limit {name!r}.")


def limit_routes() -> list[ControllerRouterHandler]:
    """The routes of this file."""
    return [limits, limit, put_limit, delete_limit]
