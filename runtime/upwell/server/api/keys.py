"""Keys to the API: made, shown once, revoked."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from litestar import delete, get, post
from litestar.params import JSONBody
from litestar.types import ControllerRouterHandler
from msgspec import Meta, Struct

from upwell.core.deployments import ApiKey, Scope
from upwell.core.errors import NotFoundError
from upwell.server import auth
from upwell.server.api.asked import PathId, Request, note
from upwell.server.parts import parts_of


class KeyBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key as it is wanted. expires: None is never."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    scope: Scope
    expires: Annotated[dt.datetime, Meta(tz=True)] | None = None


class NewKey(Struct, frozen=True, kw_only=True):
    """A key that was made. secret: the key itself, which is shown this once."""

    key: ApiKey
    secret: str


@get("/api/api-keys", opt=auth.ADMIN)
async def keys(request: Request) -> list[ApiKey]:
    """All keys, without the keys themselves."""
    return await parts_of(request).control.keys()


@get("/api/api-keys/own", opt=auth.READ)
async def own_key(request: Request) -> ApiKey:
    """The key that this request came in with."""
    actor = auth.actor_of(request)
    for key in await parts_of(request).control.keys():
        if key.id == actor.key_id:
            return key
    raise NotFoundError("This request came in without a key.")


@post("/api/api-keys", opt=auth.ADMIN)
async def create_key(request: Request, data: JSONBody[KeyBody]) -> NewKey:
    """Make a key."""
    key, secret = await parts_of(request).control.create_key(data.name, data.scope, data.expires)
    parts_of(request).access.forget()
    await note(request, "create key", data.name, data.scope)
    return NewKey(key=key, secret=secret)


@delete("/api/api-keys/{key_id:uuid}", opt=auth.ADMIN, status_code=200)
async def revoke_key(request: Request, key_id: PathId) -> ApiKey:
    """A key that is revoked opens nothing any more."""
    key = await parts_of(request).control.revoke_key(key_id)
    parts_of(request).access.forget()
    await note(request, "revoke key", key.name)
    return key


def key_routes() -> list[ControllerRouterHandler]:
    """The routes of this file."""
    return [keys, own_key, create_key, revoke_key]
