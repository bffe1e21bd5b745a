"""Changes as they happen, as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Final

from litestar import get
from litestar.params import HeaderParameter
from litestar.response import ServerSentEventMessage, Stream
from litestar.types import ControllerRouterHandler

from upwell.server import auth
from upwell.server.api.asked import Id, Request, Switch
from upwell.server.hub import Hub
from upwell.server.parts import parts_of

SIGN_SECONDS: Final = 15.0
"""So often a line is sent even if nothing happens: whoever is not there any more is noticed by it."""

LONGEST_SECONDS: Final = 900.0
"""Then the stream ends, the browser comes again, and is asked who it is."""

ASK_SECONDS: Final = 0.5
"""Nothing is sent for longer than that to who is not known any more."""

RETRY_MILLISECONDS: Final = 1000

LastEventId = Annotated[str | None, HeaderParameter(name="Last-Event-ID", max_length=100)]


@get("/api/stream", opt=auth.READ, include_in_schema=True)
async def stream(
    request: Request, flow_run_id: Id = None, logs: Switch = False, last_event_id: LastEventId = None
) -> Stream:
    """What changes, as server-sent events: `flow-run`, `log` (with logs=true), `task-runs` (of one flow run), `reset`.

    Every event has an id; who comes again with it as Last-Event-ID gets what was missed. `reset` says that this was too
    much: load the page again.
    """
    run = None if flow_run_id is None else str(flow_run_id)
    events = _events(parts_of(request).hub, run, logs, last_event_id, lambda: _is_still_known(request))
    first = await anext(events)  # what is wrong with the request is said before anything is sent
    return Stream(_after(first, events), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _after(first: bytes, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for event in events:
        yield event


async def _is_still_known(request: Request) -> bool:
    """Whether who listens may still do so: the key may have been revoked, the session have ended."""
    try:
        scope: Any = request.scope
        return await scope["ask_again"]() is not None  # see the perimeter
    except Exception:  # it is refused, or cannot be seen now: whoever may comes again
        return False


async def _events(
    hub: Hub, flow_run_id: str | None, logs: bool, after: str | None, is_still_known: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    asked = asyncio.get_running_loop().time()
    ends = asyncio.get_running_loop().time() + LONGEST_SECONDS
    async with hub.listen(flow_run_id, logs=logs, after=after or None) as changes:
        yield ServerSentEventMessage(data=None, retry=RETRY_MILLISECONDS, comment="hello").encode()
        following = asyncio.ensure_future(anext(changes))
        try:
            while asyncio.get_running_loop().time() < ends:
                done, _ = await asyncio.wait((following,), timeout=SIGN_SECONDS)
                if not done:
                    yield ServerSentEventMessage(data=None, comment="still here").encode()
                    continue
                try:
                    change = following.result()
                except StopAsyncIteration:
                    return
                if (now := asyncio.get_running_loop().time()) - asked > ASK_SECONDS:
                    if not await is_still_known():
                        return
                    asked = now
                yield ServerSentEventMessage(data=change.data, event=change.event, id=change.id).encode()
                following = asyncio.ensure_future(anext(changes))
        finally:
            following.cancel()
            await asyncio.wait((following,))


def stream_routes() -> list[ControllerRouterHandler]:
    """The routes of this file."""
    return [stream]
