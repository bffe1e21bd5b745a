"""What the parts of `SqlControl` share: transactions that are tried again where two were in each other's way; texts."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec

from upwell.core.errors import InvalidRequestError, UnknownRunError
from upwell.core.ids import RANDOM_BITS, uuid7
from upwell.core.model import FlowRunRecord
from upwell.core.names import FORBIDDEN_CHARACTERS
from upwell.engine.clock import clock
from upwell.journal.database import Database, Row, Session, StoreUnavailable
from upwell.journal.reader_records import flow_run, moment

T = TypeVar("T")

MOST_TRIES: Final = 5
MOST_NAME: Final = 200
"""Characters of a name."""

MOST_NUMBER: Final = 1_000_000
"""Of a limit or a priority."""

_TRY_AGAIN: Final = ("40001", "40P01")
"""PostgreSQL's codes for transactions that were undone because of another's."""


class Part:
    """A part of the control store, over one database. reading: another way to it, that waits for no change."""

    def __init__(self, database: Database, reading: Session | None = None) -> None:
        self._database = database
        self._reading = reading or database

    async def _transact(self, work: Callable[[Session], Awaitable[T]]) -> T:
        """Do this in a transaction; again if another transaction was in the way."""
        for left in reversed(range(MOST_TRIES)):
            try:
                async with self._database.transaction() as session:
                    return await work(session)
            except StoreUnavailable as error:
                if not left or getattr(error.__cause__, "sqlstate", None) not in _TRY_AGAIN:
                    raise
            from asyncio import sleep  # here: who only reads a file has no event loop

            await sleep(0.01 * random.random())
        raise AssertionError("it has returned, or raised")

    async def _flow_run(self, session: Session, flow_run_id: UUID | str) -> FlowRunRecord:
        rows = await session.fetch("read_flow_run", id=str(flow_run_id))
        if not rows:
            raise UnknownRunError(f"There is no flow run {flow_run_id} in {self._database.place}.")
        return flow_run(rows[0])


def now_micros() -> int:
    """The time, as the store has it."""
    return int(clock().time() * 1e6)


def new_id() -> str:
    return str(uuid7(clock().time(), random.getrandbits(RANDOM_BITS)))


def json_of(value: Any) -> str:
    """A value as JSON.

    Raises:
        InvalidRequestError: it cannot be said in JSON.
    """
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"This cannot be said in JSON: {error}.") from error


def ids_json(ids: Iterable[UUID | str]) -> str:
    """Several ids as one parameter, for `json_each`."""
    return msgspec.json.encode([str(one) for one in ids]).decode()


def firsts(rows: Iterable[Row]) -> list[str]:
    """The first column, of text."""
    return [str(row[0]) for row in rows]


def at(micros: int) -> str:
    """A moment for people."""
    return f"{moment(micros):%Y-%m-%d %H:%M:%S} UTC"


async def add_states(session: Session, states: Iterable[tuple[str, int, str, str | None, str | None]]) -> None:
    """States that flow runs have entered: id, when, type, name, message."""
    rows = list(states)
    if rows:
        await session.insert("put_flow_run_states", rows)


async def end_run(
    session: Session, flow_run_id: str, now: int, state: str, message: str, state_name: str | None = None
) -> None:
    """End a flow run that nobody is at work on, with its job and who wanted it cancelled."""
    await session.fetch("set_job", id=flow_run_id, state="ended")
    said: dict[str, Any] = {"state": state, "state_name": state_name, "message": message}
    await session.fetch("end_flow_run", id=flow_run_id, now=now, **said)
    await add_states(session, [(flow_run_id, now, state, state_name, message)])
    await session.fetch("remove_cancel_request", flow_run_id=flow_run_id)


def checked_name(name: str, what: str) -> str:
    """A name that may stand in `flow/deployment`, in an address and in a list.

    Raises:
        InvalidRequestError: it may not.
    """
    if fault := _fault_of_name(name):
        raise InvalidRequestError(
            f"The name {name[:MOST_NAME]!r} of a {what} {fault}. It must have 1 to {MOST_NAME} characters, none of "
            f"them {' '.join(FORBIDDEN_CHARACTERS)}."
        )
    return name


def _fault_of_name(name: str) -> str | None:
    unseen = {character for character in name if not character.isprintable()} - _JOINERS
    if bad := sorted(unseen.union(FORBIDDEN_CHARACTERS).intersection(name)):
        return f"holds {' '.join(map(repr, bad))}"
    if not name.strip():
        return "is empty"
    if len(name) > MOST_NAME:
        return "is too long"
    return "leads elsewhere in an address" if name in {".", ".."} else None


_JOINERS: Final = frozenset("\u200c\u200d")
"""They are not seen, and yet words of Persian and pictures of families are written with them."""
