"""The store of a process that works through a server: batches and signs of life over HTTP.

A batch whose answer was lost is sent again, and known by its number. What the server will not have now, for whatever
reason, is tried again and spooled meanwhile; no run is ever the worse for it.
"""

from __future__ import annotations

from typing import Any, Final

from upwell.core.errors import (
    AccessError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    UpwellError,
    WrongAddressError,
)
from upwell.engine.loggers import ENGINE
from upwell.journal.batch import Batch
from upwell.journal.database import StoreRefuses
from upwell.journal.messages import MEDIA_TYPE, TakeOver
from upwell.journal.processes import Process
from upwell.journal.remote_client import ApiClient
from upwell.journal.store import Registered
from upwell.journal.wire import LeftOut, Sender, pack, parts, unpacker, whole_number

_left_out = unpacker(LeftOut)
_registered = unpacker(Registered)
_state = unpacker(str | None)


_NOT_TAKEN: Final = frozenset({AccessError, InternalError, InvalidRequestError, NotFoundError, WrongAddressError})
"""What a server says that does not want to hear this, or is not what it should be: it may be another one later."""


class RemoteJournal:
    """What a server's journal answers; its operations are those of `server/api/journal.py`."""

    def __init__(self, client: ApiClient) -> None:
        self.client = client

    async def ask(self, operation: str, message: Any) -> bytes:
        """What the server answers to a message, still packed.

        Raises:
            StoreUnavailable: it cannot be reached. StoreRefuses: it does not want to hear this from us; says why.
            and what the operation raises.
        """
        try:
            return await self.client.request(
                "POST", f"/journal/{operation}", content=pack(message), content_type=MEDIA_TYPE
            )
        except UpwellError as error:
            if type(error) not in _NOT_TAKEN:
                raise  # it is an answer to what was asked
            raise StoreRefuses(f"The server {self.client.place} does not take this: {error}") from error


class RemoteStore:
    """The store behind a server. See `Store`."""

    def __init__(self, client: ApiClient) -> None:
        self.client = client
        self.server = RemoteJournal(self.client)
        self.place = self.client.place

    async def open(self, process: Process) -> Registered:
        key, written = _registered(await self.server.ask("open", _sender(process)))
        return Registered(key, whole_number(written))

    async def write(self, batch: Batch) -> None:
        left_out = LeftOut()
        for part in parts(batch, left_out):
            self._note(left_out, await self.server.ask("write", part))
        self._report(left_out)

    async def take_over(self, process: Process, batch: Batch) -> None:
        left_out = LeftOut()
        for part in parts(batch, left_out):
            self._note(left_out, await self.server.ask("take-over", TakeOver(_sender(process), part)))
        self._report(left_out)

    async def state_of(self, process: Process) -> str | None:
        state: str | None = _state(await self.server.ask("state", _sender(process)))
        return state

    async def renew(self, process: Process) -> None:
        await self.server.ask("renew", _sender(process))

    async def close(self, process: Process) -> None:
        try:
            await self.server.ask("close", _sender(process))
        finally:
            await self.client.close()

    def _note(self, left_out: LeftOut, answer: bytes) -> None:
        found: LeftOut = _left_out(answer)
        if found.why is not None:
            left_out.note(found.why, found.count)

    def _report(self, left_out: LeftOut) -> None:
        if left_out.count:
            ENGINE.error(
                "The server %s refused %s record(s), which are left out; the first is of %s",
                self.place, left_out.count, left_out.why,
            )  # fmt: skip


def _sender(process: Process) -> Sender:
    return Sender(process.id, process.host, process.pid, process.pid_started, process.lease_seconds)
