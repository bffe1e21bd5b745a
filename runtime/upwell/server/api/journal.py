"""The journal of processes elsewhere: what they write through this server, as MessagePack.

Each operation is a message and an answer, checked against its type; nothing in them is unpickled or executed. What a
process may write is decided in `journal/receiving.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from litestar import Response, post
from litestar.types import ControllerRouterHandler
from msgspec import MsgspecError, Raw

from upwell.core.deployments import Scope
from upwell.core.errors import InvalidRequestError, NotFoundError
from upwell.journal.messages import MEDIA_TYPE, Sender, TakeOver
from upwell.journal.receiving import ReceivingStore
from upwell.journal.wire import MOST_BYTES, LeftOut, pack, read_batch, unpacker
from upwell.server import auth
from upwell.server.api.asked import Request
from upwell.server.parts import Parts, parts_of


class Asked(NamedTuple):
    """Who asks, and what for."""

    parts: Parts
    store: ReceivingStore


async def _open(asked: Asked, sender: Sender) -> Any:
    return await asked.store.open(sender.process())


async def _write(asked: Asked, batch: Raw) -> Any:
    left_out = LeftOut()
    await asked.store.write(_batch(batch, left_out))
    asked.store.note_left_out(left_out)
    return left_out


async def _take_over(asked: Asked, message: TakeOver) -> Any:
    left_out = LeftOut()
    await asked.store.take_over(message.process.process(), _batch(message.batch, left_out))
    asked.store.note_left_out(left_out)
    return left_out


async def _state(asked: Asked, sender: Sender) -> Any:
    return await asked.store.state_of(sender.process())


async def _renew(asked: Asked, sender: Sender) -> Any:
    await asked.store.renew(sender.process())


async def _close(asked: Asked, sender: Sender) -> Any:
    await asked.store.close(sender.process())


def _batch(data: Raw, left_out: LeftOut) -> Any:
    try:
        return read_batch(data, left_out)
    except (MsgspecError, RecursionError) as error:
        raise InvalidRequestError(f"This is no batch of the journal: {error}.") from error


class Operation(NamedTuple):
    """One of them: what its message is, who may send it, and what is done."""

    read: Callable[[bytes], Any]
    scope: Scope
    do: Callable[[Asked, Any], Awaitable[Any]]


OPERATIONS: Final[dict[str, Operation]] = {
    "open": Operation(unpacker(Sender), "run", _open),
    "write": Operation(unpacker(Raw), "run", _write),
    "take-over": Operation(unpacker(TakeOver), "run", _take_over),
    "state": Operation(unpacker(Sender), "run", _state),
    "renew": Operation(unpacker(Sender), "run", _renew),
    "close": Operation(unpacker(Sender), "run", _close),
}


@post(
    "/api/journal/{operation:str}",
    opt=auth.RUN,
    status_code=200,
    media_type=MEDIA_TYPE,
    request_max_body_size=MOST_BYTES,
)
async def journal(request: Request, operation: str) -> Response[bytes]:
    """What a process that works through this server writes and asks: MessagePack, between parts of upwell."""
    if (found := OPERATIONS.get(operation)) is None:
        raise NotFoundError(f"The journal has no operation {operation[:100]!r}.")
    auth.require(request, found.scope)
    actor = auth.actor_of(request)
    parts = parts_of(request)
    message = found.read(await request.body())
    store = ReceivingStore(parts.database, actor.name, actor.may("admin"))
    answer = await found.do(Asked(parts, store), message)
    return Response(pack(answer), media_type=MEDIA_TYPE)


def journal_routes() -> list[ControllerRouterHandler]:
    """The route of this file."""
    return [journal]
