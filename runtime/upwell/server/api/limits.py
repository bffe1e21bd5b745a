"""Limits that hold for all processes of the store."""

from __future__ import annotations

from typing import Annotated

from litestar import delete, get, put
from litestar.params import JSONBody
from litestar.types import ControllerRouterHandler
from msgspec import Meta, Struct

from upwell.core.errors import NotFoundError
from upwell.journal.limit_store import LimitChange, checked_limit
from upwell.server import auth
from upwell.server.api.asked import PathName, Request, note
from upwell.server.parts import parts_of


class LimitBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a limit allows. slot_decay_per_second: above 0, slots become free with time, so many a second."""

    slots: Annotated[int, Meta(ge=0, le=1_000_000_000)]
    slot_decay_per_second: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    active: bool = True


class Limit(Struct, frozen=True, kw_only=True):
    """A limit, and how it stands now.

    taken: slots in use; of a limit that decays, the level to which they have sunk. waiting: wishes that stand in line.
    """

    name: str
    slots: int
    slot_decay_per_second: float
    active: bool
    taken: float
    waiting: int


@get("/api/concurrency-limits", opt=auth.READ)
async def limits(request: Request) -> list[Limit]:
    """All limits, and how they stand now."""
    return await _limits(request)


@get("/api/concurrency-limits/{name:path}", opt=auth.READ)
async def limit(request: Request, name: PathName) -> Limit:
    """One limit, and how it stands now."""
    return await _limit(request, _name(name))


async def _limits(request: Request) -> list[Limit]:
    return [Limit(**found._asdict()) for found in await parts_of(request).limits.in_use()]


async def _limit(request: Request, name: PathName) -> Limit:
    for found in await _limits(request):
        if found.name == name:
            return found
    raise _unknown(name)


@put("/api/concurrency-limits/{name:path}", opt=auth.ADMIN)
async def put_limit(request: Request, name: PathName, data: JSONBody[LimitBody]) -> Limit:
    """Make a limit, or change the one of this name."""
    wanted = _name(name)
    row = checked_limit(wanted, data.slots, data.slot_decay_per_second, data.active)
    if not await parts_of(request).limits.create(row):
        await parts_of(request).limits.update(LimitChange(*row))
    await note(request, "put limit", wanted, str(data.slots))
    return await _limit(request, wanted)


@delete("/api/concurrency-limits/{name:path}", opt=auth.ADMIN)
async def delete_limit(request: Request, name: PathName) -> None:
    """Remove a limit: nobody waits for it any more."""
    wanted = _name(name)
    if not await parts_of(request).limits.delete(wanted):
        raise _unknown(wanted)
    await note(request, "delete limit", wanted)


def _name(path: str) -> str:
    """The name of a limit may have slashes in it; the first one is the address's."""
    return path.removeprefix("/")


def _unknown(name: PathName) -> NotFoundError:
    return NotFoundError(f"The store has no limit {name!r}.")


def limit_routes() -> list[ControllerRouterHandler]:
    """The routes of this file."""
    return [limits, limit, put_limit, delete_limit]
