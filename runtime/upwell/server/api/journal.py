"""The journal of processes elsewhere, as MessagePack: one route, whose operations stand in `journal_operations.py`."""

from __future__ import annotations

from litestar import Response, post
from litestar.types import ControllerRouterHandler

from upwell.core.errors import NotFoundError
from upwell.journal.messages import MEDIA_TYPE
from upwell.journal.receiving import ReceivingStore
from upwell.journal.wire import MOST_BYTES, pack
from upwell.server import auth
from upwell.server.api.asked import PathName, Request
from upwell.server.api.journal_operations import OPERATIONS, Asked
from upwell.server.parts import parts_of


@post(
    "/api/journal/{operation:str}",
    opt=auth.RUN,
    status_code=200,
    media_type=MEDIA_TYPE,
    request_max_body_size=MOST_BYTES,
)
async def journal(request: Request, operation: PathName) -> Response[bytes]:
    """What a process that works through this server writes and asks: MessagePack, between parts of upwell."""
    if (found := OPERATIONS.get(operation)) is None:
        raise NotFoundError(f"The journal has no operation {operation[:100]!r}.")
    auth.require(request, found.scope)
    actor, parts = auth.actor_of(request), parts_of(request)
    message = found.read(await request.body())
    asked = Asked(parts, ReceivingStore(parts.database, actor.name, actor.may("admin")), actor)
    return Response(pack(await found.do(asked, message)), media_type=MEDIA_TYPE)


def journal_routes() -> list[ControllerRouterHandler]:
    """The route of this file."""
    return [journal]
