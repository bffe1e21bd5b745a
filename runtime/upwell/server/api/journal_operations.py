"""What processes elsewhere write and ask through this server: each operation is a message and an answer.

Messages are checked against their types; nothing in them is unpickled or executed. What a process may write is decided
in `journal/receiving.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple
from uuid import UUID

from msgspec import MsgspecError, Raw
from msgspec.json import encode

from upwell.core.deployments import Scope
from upwell.core.errors import AccessError, ConflictError, InvalidRequestError, UpwellError
from upwell.journal import messages
from upwell.journal.batch import Batch
from upwell.journal.cache_store import SqlCache
from upwell.journal.durable_store import SqlDurable
from upwell.journal.limit_store import LimitChange, LimitRow, checked_limit
from upwell.journal.receiving import ReceivingStore
from upwell.journal.results import outcome_of
from upwell.journal.wire import LeftOut, Sender, read_batch, unpacker
from upwell.server.access import Actor
from upwell.server.parts import Parts


class Asked(NamedTuple):
    """Of what, and by whom."""

    parts: Parts
    store: ReceivingStore
    actor: Actor

    async def note(self, action: str, target: str, detail: str | None = None) -> None:
        """Put into the record of changes that this was done."""
        await self.parts.control.audit(self.actor.name, action, target, detail)


class Operation(NamedTuple):
    """What its message is, who may send it, and what is done."""

    read: Callable[[bytes], Any]
    scope: Scope
    do: Callable[[Asked, Any], Awaitable[Any]]


# --- what is written ----------------------------------------------------------------------------------------


async def _open(asked: Asked, sender: Sender) -> Any:
    return await asked.store.open(sender.process())


async def _write(asked: Asked, batch: Raw) -> Any:
    left_out = LeftOut()
    await asked.store.write(_batch(batch, left_out))
    asked.store.note_left_out(left_out)
    return left_out


async def _take_over(asked: Asked, message: messages.TakeOver) -> Any:
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


def _batch(data: Raw, left_out: LeftOut) -> Batch:
    try:
        return read_batch(data, left_out)
    except (MsgspecError, RecursionError) as error:
        raise InvalidRequestError(f"This is no batch of the journal: {error}.") from error


# --- limits -------------------------------------------------------------------------------------------------


async def _limits(asked: Asked, _: None) -> Any:
    return await asked.parts.limits.limits()


async def _create_limit(asked: Asked, limit: LimitRow) -> Any:
    if made := await asked.parts.limits.create(checked_limit(*limit)):
        await asked.note("put limit", limit.name, str(limit.slots))
    return made


async def _update_limit(asked: Asked, change: LimitChange) -> Any:
    if changed := await asked.parts.limits.update(change):
        await asked.note("put limit", change.name, None if change.slots is None else str(change.slots))
    return changed


async def _delete_limit(asked: Asked, name: str) -> Any:
    if deleted := await asked.parts.limits.delete(name):
        await asked.note("delete limit", name)
    return deleted


async def _look_at_limit(asked: Asked, message: messages.LimitLook) -> Any:
    return await asked.parts.limits.look(message.process_id, message.name, message.absent)


async def _take_turn(asked: Asked, turn: messages.LimitTurn) -> Any:
    await asked.store.check_owner(turn.process_id)
    over = await asked.parts.database.fetch(
        "own_leases", process_id=turn.process_id, ids=encode(turn.over).decode()
    )  # nobody gives back what is another's
    return await asked.parts.limits.take_turn(
        turn.process_id, turn.name, [row[0] for row in over], turn.wishes, turn.absent, turn.unsure
    )


async def _leave_limits(asked: Asked, process_id: str) -> Any:
    await asked.store.check_owner(process_id)
    await asked.parts.limits.leave(process_id)


async def _reserve_level(asked: Asked, message: messages.LimitLevel) -> Any:
    await asked.store.check_owner(message.process_id)
    return await asked.parts.limits.reserve(message.process_id, message.name, message.slots)


async def _give_back_level(asked: Asked, message: tuple[str, int]) -> Any:
    await asked.parts.limits.give_back_level(*message)


# --- the cache, and results -----------------------------------------------------------------------------------


async def _look_in_cache(asked: Asked, message: messages.CacheLook) -> Any:
    await asked.store.check_owner(message.process_id)
    return await SqlCache(asked.parts.database).look(message.process_id, message.wanted)


async def _cached_record(asked: Asked, key: str) -> Any:
    return await SqlCache(asked.parts.database).record(key)


async def _outcome(asked: Asked, run_id: UUID) -> Any:
    return await outcome_of(asked.parts.session, run_id)


# --- durable flow runs ----------------------------------------------------------------------------------------


def _durable(asked: Asked, process_id: str = "") -> SqlDurable:
    return SqlDurable(asked.parts.database, process_id, asked.parts.settings.durable_max_crashes)


async def _run_meant(asked: Asked, message: messages.DurableMeant) -> Any:
    await asked.store.check_owner(message.process_id)
    durable = _durable(asked, message.process_id)
    await durable.watch()()
    return await durable.run_meant(message.beginning)


async def _claim_run(asked: Asked, message: messages.DurableClaim) -> Any:
    await asked.store.check_owner(message.process_id)
    left_out = LeftOut()
    rows = _batch(message.rows, left_out)
    beginning = message.beginning
    if rows.process_id != message.process_id or [row[0] for row in rows.flow_runs] != [beginning.id]:
        raise InvalidRequestError(f"The rows are not those of the flow run that begins. {left_out.why or ''}".strip())
    rows = await asked.store.own_rows(rows)
    if not rows.flow_runs:
        raise AccessError(f"The flow run {beginning.id} is another process's.")
    try:
        claim = await _durable(asked, message.process_id).claim(beginning, rows, message.known)
    except UpwellError:
        raise
    except Exception as error:  # what the database says where somebody has begun a run of the same key this moment
        raise ConflictError(f"The flow run could not be begun: {error}") from error
    return None if claim is None else messages.SentClaim.of(claim)


async def _call_of_run(asked: Asked, flow_run_id: str) -> Any:
    return await _durable(asked).call_of(flow_run_id)


async def _runs_to_resume(asked: Asked, _: None) -> Any:
    return await _durable(asked).runs_to_resume()


_name = unpacker(messages.Name)
_sender = unpacker(Sender)
_nothing = unpacker(None)

OPERATIONS: Final[dict[str, Operation]] = {
    "open": Operation(_sender, "run", _open),
    "write": Operation(unpacker(Raw), "run", _write),
    "take-over": Operation(unpacker(messages.TakeOver), "run", _take_over),
    "state": Operation(_sender, "run", _state),
    "renew": Operation(_sender, "run", _renew),
    "close": Operation(_sender, "run", _close),
    "limits": Operation(_nothing, "run", _limits),
    "create-limit": Operation(unpacker(LimitRow), "admin", _create_limit),
    "update-limit": Operation(unpacker(LimitChange), "admin", _update_limit),
    "delete-limit": Operation(_name, "admin", _delete_limit),
    "look-at-limit": Operation(unpacker(messages.LimitLook), "run", _look_at_limit),
    "take-turn": Operation(unpacker(messages.LimitTurn), "run", _take_turn),
    "leave-limits": Operation(unpacker(messages.Id), "run", _leave_limits),
    "reserve-level": Operation(unpacker(messages.LimitLevel), "run", _reserve_level),
    "give-back-level": Operation(unpacker(tuple[messages.Name, messages.Slots]), "run", _give_back_level),
    "look-in-cache": Operation(unpacker(messages.CacheLook), "run", _look_in_cache),
    "cached-record": Operation(_name, "run", _cached_record),
    "outcome": Operation(unpacker(UUID), "run", _outcome),
    "run-meant": Operation(unpacker(messages.DurableMeant), "run", _run_meant),
    "claim-run": Operation(unpacker(messages.DurableClaim), "run", _claim_run),
    "call-of-run": Operation(_name, "run", _call_of_run),
    "runs-to-resume": Operation(_nothing, "run", _runs_to_resume),
}
