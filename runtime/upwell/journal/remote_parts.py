"""What else a process asks of its store where a server is between: limits, cache, durable flow runs, results."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Container, Sequence
from typing import Any, Final
from uuid import UUID

from upwell.core.errors import ConfigurationError
from upwell.engine.durable_records import Claim
from upwell.journal import messages
from upwell.journal.batch import Batch
from upwell.journal.cache_store import Looked, Wanted
from upwell.journal.database import Row
from upwell.journal.durable_store import Beginning, at_work, refuse
from upwell.journal.limit_store import LimitChange, LimitInUse, LimitRow, Standing, Wish
from upwell.journal.remote_client import read
from upwell.journal.remote_store import RemoteJournal
from upwell.journal.results import StoredOutcome
from upwell.journal.wire import MOST_BYTES, LeftOut, parts, unpacker

_bool: Final = unpacker(bool)
_limits: Final = unpacker(list[LimitRow])
_standing: Final = unpacker(Standing)
_reserved: Final = unpacker(tuple[LimitRow, float] | None)
_looked: Final = unpacker(Looked)
_row: Final = unpacker(tuple[Any, ...] | None)
_outcome: Final = unpacker(StoredOutcome | None)
_text: Final = unpacker(str | None)
_claim: Final = unpacker(messages.SentClaim | None)
_call: Final = unpacker(tuple[str, str, bytes])
_pairs: Final = unpacker(list[tuple[str, str]])


class RemoteLimits:
    """The limits of a server's store. See `LimitStore`."""

    def __init__(self, server: RemoteJournal) -> None:
        self._server = server

    async def limits(self) -> list[LimitRow]:
        found: list[LimitRow] = _limits(await self._server.ask("limits", None))
        return found

    async def in_use(self) -> list[LimitInUse]:
        found = read(await self._server.client.ask("GET", "/concurrency-limits"), list[dict[str, Any]])
        return [LimitInUse(**limit) for limit in found]

    async def create(self, limit: LimitRow) -> bool:
        return bool(_bool(await self._server.ask("create-limit", limit)))

    async def update(self, change: LimitChange) -> bool:
        return bool(_bool(await self._server.ask("update-limit", change)))

    async def delete(self, name: str) -> bool:
        return bool(_bool(await self._server.ask("delete-limit", name)))

    async def look(self, process_id: str, name: str, absent: Collection[str]) -> Standing:
        asked = messages.LimitLook(process_id, name, list(absent))
        found: Standing = _standing(await self._server.ask("look-at-limit", asked))
        return found

    async def take_turn(
        self,
        process_id: str,
        name: str,
        over: Sequence[str],
        wishes: Sequence[Wish],
        absent: Collection[str],
        unsure: Sequence[str] = (),
    ) -> Standing:
        asked = messages.LimitTurn(process_id, name, list(over), list(wishes), list(absent), list(unsure))
        found: Standing = _standing(await self._server.ask("take-turn", asked))
        return found

    async def leave(self, process_id: str) -> None:
        await self._server.ask("leave-limits", process_id)

    async def reserve(self, process_id: str, name: str, slots: int) -> tuple[LimitRow, float] | None:
        asked = messages.LimitLevel(process_id, name, slots)
        found: tuple[LimitRow, float] | None = _reserved(await self._server.ask("reserve-level", asked))
        return found

    async def give_back_level(self, name: str, slots: int) -> None:
        await self._server.ask("give-back-level", (name, slots))


class RemoteCache:
    """The cache of a server's store. See `CacheStore`."""

    def __init__(self, server: RemoteJournal) -> None:
        self._server = server

    async def look(self, process_id: str, wanted: Sequence[Wanted]) -> Looked:
        asked = messages.CacheLook(process_id, list(wanted))
        found: Looked = _looked(await self._server.ask("look-in-cache", asked))
        return found

    async def record(self, key: str) -> Row | None:
        found: Row | None = _row(await self._server.ask("cached-record", key))
        return found


class RemoteDurable:
    """Durable flow runs in a server's store. See `DurableStore`."""

    def __init__(self, server: RemoteJournal, process_id: str) -> None:
        self._server = server
        self._process_id = process_id

    def watch(self) -> Callable[[], Awaitable[object]]:
        return _nothing  # the server looks when it is asked which run is meant

    async def attempt(self, beginning: Beginning, rows: Batch, meant: list[str], ours: Container[str]) -> Claim | None:
        if not meant:
            asked = messages.DurableMeant(self._process_id, beginning)
            found = _text(await self._server.ask("run-meant", asked))
            meant[:] = [] if found is None else [found]
        packed, *more = parts(rows, LeftOut())
        if more:
            raise ConfigurationError(
                f"The arguments of flow {beginning.flow_name!r} are too large to be kept by a server: {MOST_BYTES:,} "
                "bytes are the most. Pass where they are instead, such as a path or a URL."
            )
        wanted = messages.DurableClaim(self._process_id, beginning, packed, meant[0] if meant else None)
        sent: messages.SentClaim | None = _claim(await self._server.ask("claim-run", wanted))
        claim = None if sent is None else sent.claim()
        if claim is not None and claim.again and claim.flow_run_id in ours:
            if beginning.resume is not None:
                refuse(claim.name, at_work())
            claim = None
        if claim is None:
            meant.clear()
        return claim

    async def call_of(self, flow_run_id: str) -> tuple[str, str, bytes]:
        call: tuple[str, str, bytes] = _call(await self._server.ask("call-of-run", flow_run_id))
        return call

    async def runs_to_resume(self) -> list[tuple[str, str]]:
        pairs: list[tuple[str, str]] = _pairs(await self._server.ask("runs-to-resume", None))
        return pairs


async def remote_outcome(server: RemoteJournal, run_id: UUID) -> StoredOutcome | None:
    """How a run of a server's store ended."""
    found: StoredOutcome | None = _outcome(await server.ask("outcome", str(run_id)))
    return found


async def _nothing() -> None:
    pass


__all__ = ["RemoteCache", "RemoteDurable", "RemoteLimits", "remote_outcome"]
