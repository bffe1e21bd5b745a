"""What changes in the store, as it happens, whoever has done it: one look at the store serves all who listen.

Nobody looks while nobody listens. Who cannot keep up is let go, and may come again with the last id that was seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from msgspec import Struct

from upwell.core.errors import InvalidRequestError
from upwell.engine.clock import moment
from upwell.engine.loggers import ENGINE
from upwell.journal.changes import LOGS, STATES, Changes, Kind, Tail, rows_between
from upwell.journal.database import Database, Row, Session, StoreError, StoreUnavailable

LOOK_SECONDS: Final = 0.1
AGAIN_SECONDS: Final = 1.0
"""After the store could not be used."""

BEGIN_SECONDS: Final = 10.0
"""For the first look."""

COUNT_SECONDS: Final = 0.25
COUNT_SHARE: Final = 20
"""Task runs are counted at most four times a second, and for at most one twentieth of the time."""

MOST_WAITING: Final = 5000
"""Changes that one listener has not taken yet; with more it is let go."""

KEY_DIGITS: Final = 19
"""A row's key has fewer: more need not fit into a database's integer."""

MOST_LISTENERS: Final = 500
MOST_REPLAYED: Final = 20_000
"""Who was away for more than that is told to look anew."""


class Change(Struct, frozen=True):
    """Something that has changed. id: to go on from there. event: flow-run, log, task-runs, or reset. data: JSON."""

    id: str
    event: str
    data: bytes


class TooManyListeners(InvalidRequestError):
    """The server has as many listeners as it serves."""


class _Listener:
    def __init__(self, flow_run_id: str | None, logs: bool) -> None:
        self.flow_run_id = flow_run_id
        self.logs = logs
        self.waiting: asyncio.Queue[Change | None] = asyncio.Queue(MOST_WAITING)

    def wants(self, kind: Kind, flow_run_id: str | None) -> bool:
        return (kind is STATES or self.logs) and self.flow_run_id in (None, flow_run_id)

    def give(self, change: Change) -> None:
        try:
            self.waiting.put_nowait(change)
        except asyncio.QueueFull:
            self.let_go()

    def let_go(self) -> None:
        """It gets nothing any more: what waits for it would be incomplete."""
        while not self.waiting.empty():
            self.waiting.get_nowait()
        self.waiting.put_nowait(None)


class Hub:
    """Tells listeners what changes.

    make_database: makes a connection to look over, not opened yet. session: to read what somebody has missed.
    """

    def __init__(self, make_database: Callable[[], Database], session: Session) -> None:
        self._make_database = make_database
        self._session = session
        self._listeners: set[_Listener] = set()
        self._looking: asyncio.Task[None] | None = None
        self._position: asyncio.Future[tuple[Tail, Tail]] | None = None
        self._counted: dict[str, _Counted] = {}
        self._entering = 0
        self._closed = False

    @asynccontextmanager
    async def listen(
        self, flow_run_id: str | None = None, *, logs: bool = False, after: str | None = None
    ) -> AsyncGenerator[AsyncIterator[Change]]:
        """What changes from now on, or after the change of this id: of one flow run, or of all; with log lines.

        Raises:
            InvalidRequestError: `after` is no id of a change, or there are too many listeners.
        """
        since = _keys_of(after)
        if len(self._listeners) >= MOST_LISTENERS:
            raise TooManyListeners(f"{MOST_LISTENERS} listen already; try again later.")
        listener = _Listener(flow_run_id, logs)
        try:
            states, lines = await self._begin(listener)
            yield self._changes(listener, since, (states.last, lines.last))
        finally:
            self._listeners.discard(listener)
            if not self._listeners and not self._entering:
                await self._stop()

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    async def close(self) -> None:
        """Let go of all listeners; whoever comes now hears nothing."""
        self._closed = True
        for listener in self._listeners:
            listener.let_go()
        await self._stop()

    # --- one listener ---------------------------------------------------------------------------------------

    async def _begin(self, listener: _Listener) -> tuple[Tail, Tail]:
        """From here on it is told; the keys up to which it is not. The two happen at one moment."""
        if self._closed:
            raise StoreUnavailable("The server ends.")
        if self._looking is None or self._looking.done():
            self._position = asyncio.get_running_loop().create_future()
            self._looking = asyncio.create_task(self._look(self._position), name="upwell hub")
        assert self._position is not None
        self._entering += 1
        try:
            async with asyncio.timeout(BEGIN_SECONDS):
                found = await asyncio.shield(self._position)
        except TimeoutError:
            raise StoreUnavailable("The store cannot be followed now.") from None
        finally:
            self._entering -= 1
        self._listeners.add(listener)
        return found

    async def _changes(
        self, listener: _Listener, since: tuple[int, int] | None, until: tuple[int, int]
    ) -> AsyncIterator[Change]:
        if since is not None:
            async for change in self._missed(listener, since, until):
                yield change
        while (following := await listener.waiting.get()) is not None:
            yield following

    async def _missed(
        self, listener: _Listener, since: tuple[int, int], until: tuple[int, int]
    ) -> AsyncIterator[Change]:
        """What came in while it was away: the states first, then the lines."""
        kinds: Iterable[tuple[Kind, int, int]] = zip((STATES, LOGS), since, until, strict=True)
        replayed = 0
        at = list(since)
        for place, (kind, after, last) in enumerate(kinds):
            if kind is LOGS and not listener.logs:
                continue
            while rows := await rows_between(self._session, kind, listener.flow_run_id, after, last):
                replayed += len(rows)
                if replayed > MOST_REPLAYED:
                    yield Change(_id_of(*until), "reset", b"{}")
                    return
                for row in rows:
                    at[place] = row[0]
                    yield Change(_id_of(*at), _EVENTS[kind], _DATA[kind](row))
                after = rows[-1][0]
            at[place] = last

    # --- looking --------------------------------------------------------------------------------------------

    async def _stop(self) -> None:
        looking, self._looking = self._looking, None
        self._counted.clear()
        if self._position is not None and not self._position.done():
            self._position.set_exception(StoreUnavailable("The server ends."))
            self._position.exception()  # nobody may be there to look at it
        if looking is not None:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking

    async def _look(self, position: asyncio.Future[tuple[Tail, Tail]]) -> None:
        """Look until cancelled; a store that is away is looked for again."""
        tails: tuple[Tail, Tail] | None = None
        failed = False
        while True:
            database = self._make_database()
            try:
                await database.open()
                changes = Changes(database)
                if tails is None:
                    states, lines = await changes.last_keys()
                    tails = changes.tail(STATES, states), changes.tail(LOGS, lines)
                    position.set_result(tails)
                failed = False
                while True:
                    await self._look_once(changes, *tails)
                    await asyncio.sleep(LOOK_SECONDS)
            except StoreError as error:
                if not failed:
                    ENGINE.warning("What changes in the store cannot be followed now: %s", error)
                failed = True
            except Exception as error:
                ENGINE.error("What changes in the store cannot be followed", exc_info=error)
            finally:
                await database.close()
            await asyncio.sleep(AGAIN_SECONDS)

    async def _look_once(self, changes: Changes, states: Tail, lines: Tail) -> None:
        now = asyncio.get_running_loop().time()
        changed = await changes.is_changed()
        if changed or states.has_more or lines.has_more:
            for counted in self._counted.values():
                counted.is_old = True
            self._tell(states, await changes.new_rows(states, now), states, lines)
            last = None if self._lines_are_wanted() else (await changes.last_keys())[1]
            if last is None or self._lines_are_wanted():  # somebody may have come meanwhile
                self._tell(lines, await changes.new_rows(lines, now), states, lines)
            else:
                lines.skip_to(last)
        await self._count(changes, now, _id_of(states.settled, lines.settled))

    def _lines_are_wanted(self) -> bool:
        return any(listener.logs for listener in self._listeners)

    def _tell(self, tail: Tail, rows: Sequence[Row], states: Tail, lines: Tail) -> None:
        """Each with the id from which on nothing is missed, though something may be told again."""
        kind = tail.kind
        others = lines.settled if kind is STATES else states.settled
        for row in rows:
            listening = [listener for listener in self._listeners if listener.wants(kind, row[1])]
            if listening:
                own = min(row[0], tail.settled)
                identity = _id_of(own, others) if kind is STATES else _id_of(others, own)
                change = Change(identity, _EVENTS[kind], _DATA[kind](row))
                for listener in listening:
                    listener.give(change)

    async def _count(self, changes: Changes, now: float, identity: str) -> None:
        """Tell those who look at one flow run how its task runs stand."""
        loop = asyncio.get_running_loop()
        wanted = {listener.flow_run_id for listener in self._listeners} - {None}
        for gone in self._counted.keys() - wanted:
            del self._counted[gone]
        for flow_run_id in wanted:
            assert flow_run_id is not None
            counted = self._counted.setdefault(flow_run_id, _Counted())
            if not counted.is_old or now < counted.not_before:
                continue
            began = loop.time()
            states = await changes.task_run_states(flow_run_id)
            counted.not_before = now + max(COUNT_SECONDS, COUNT_SHARE * (loop.time() - began))
            counted.is_old = False
            if states != counted.states:
                counted.states = states
                data = msgspec.json.encode({"flow_run_id": flow_run_id, "states": states})
                for listener in self._listeners:
                    if listener.flow_run_id == flow_run_id:
                        listener.give(Change(identity, "task-runs", data))


class _Counted:
    """How the task runs of a flow run stood when they were counted last."""

    def __init__(self) -> None:
        self.states: dict[str, int] | None = None
        self.is_old = True
        self.not_before = 0.0


# --- as JSON ------------------------------------------------------------------------------------------------


def _state_data(row: Row) -> bytes:
    key, flow_run_id, name, flow_name, deployment_id, at, state, state_name, message = row
    return msgspec.json.encode(
        {
            "key": key,
            "flow_run_id": flow_run_id,
            "name": name,
            "flow_name": flow_name,
            "deployment_id": deployment_id,
            "at": _moment(at),
            "state_type": state,
            "state_name": state_name or state.capitalize(),
            "message": message,
        }
    )


def _line_data(row: Row) -> bytes:
    key, flow_run_id, task_run_id, at, level, logger, message = row
    return msgspec.json.encode(
        {
            "key": key,
            "flow_run_id": flow_run_id,
            "task_run_id": task_run_id,
            "at": _moment(at),
            "level": level,
            "level_name": logging.getLevelName(level),  # pyright: ignore[reportDeprecated]  # it is given a number
            "logger": logger,
            "message": message,
        }
    )


_EVENTS: Final = {STATES: "flow-run", LOGS: "log"}
_DATA: Final[dict[Kind, Callable[[Row], bytes]]] = {STATES: _state_data, LOGS: _line_data}


def _moment(micros: int) -> Any:
    return moment(micros / 1e6)


def _id_of(states: int, lines: int) -> str:
    return f"{states}-{lines}"


def _keys_of(identity: str | None) -> tuple[int, int] | None:
    """The keys that an id stands for.

    Raises:
        InvalidRequestError: it is none.
    """
    if identity is None:
        return None
    states, _, lines = identity.partition("-")
    if not (identity.isascii() and states.isdigit() and lines.isdigit() and max(len(states), len(lines)) < KEY_DIGITS):
        raise InvalidRequestError(f"{identity[:100]!r} is no id of a change of this server.")
    return int(states), int(lines)
