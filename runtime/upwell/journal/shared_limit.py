"""One limit of the store, as this process has it: its worker, and those who wait here."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, Final, Protocol

from upwell.core.errors import ConcurrencySlotAcquisitionError
from upwell.engine.clock import ERRANDS
from upwell.engine.limits import NamedLimit, Ticket
from upwell.journal.database import StoreUnavailable
from upwell.journal.limit_store import LimitRow, LimitStore, NotAlive, Standing, Wish

MOST_WAITING: Final = 64
"""How many wishes of one process stand in the line of one limit, more than it has slots; the rest wait here."""

FIRST_LOOK_SECONDS: Final = 0.005
LAST_LOOK_SECONDS: Final = 0.1
LOOKS: Final = 0.1
"""A worker looks again whether slots have come free elsewhere after this part of the time that it has waited already,
within those bounds: a wait is a tenth longer than it must be, at most."""

FIRST_RETRY_SECONDS: Final = 0.05
LAST_RETRY_SECONDS: Final = 2.0

ABSENT_SECONDS: Final = 2.0
"""Who could have slots, and has not taken them for so long, is stopped or dead, and may be overtaken."""

WAITED_SECONDS: Final = 0.5
"""Who has waited for so long looks whether those who hold the slots are alive."""

_numbers = count(1)


class NotThere(ConcurrencySlotAcquisitionError):
    """The store's limits cannot be used by this process any more."""


class SharedTicket(Ticket):
    """A wish for slots of a limit of the store.

    lease: its row, once it may be there. reserved: slots that are used up. over: withdrawn, or given back.
    """

    __slots__ = ("lease", "over", "reserved")

    def __init__(self, slots: int, wake: Callable[[], object]) -> None:
        super().__init__(slots, wake)
        self.lease: str | None = None
        self.reserved = 0
        self.over = False


class Owner(Protocol):
    """What a limit needs of those around it."""

    @property
    def process_id(self) -> str: ...
    @property
    def store(self) -> LimitStore: ...
    def call(self, what: Callable[[], object]) -> bool: ...
    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[Any]: ...
    async def look_who_has_died(self) -> None: ...


class SharedLimit(NamedLimit):
    """A limit of the store. What the engine calls may be called from any thread; the rest is the worker's.

    exists: whether the store has it, as far as is known.
    """

    __slots__ = (
        "_dropping", "_level_back", "_new", "_others", "_over", "_owner", "_poked", "_sending", "_stir", "_told_once",
        "_unsure", "_used", "_waited_since", "_waiting", "_worker", "exists",
    )  # fmt: skip  # one line a few

    def __init__(self, name: str, owner: Owner) -> None:
        super().__init__(name, 0, active=False)
        self.exists = False
        self._owner = owner
        self._told_once = False
        self._new: deque[SharedTicket] = deque()  # not in line yet
        self._over: deque[SharedTicket] = deque()  # to be given back
        self._poked = False
        # The worker's own:
        self._worker: asyncio.Task[Any] | None = None
        self._stir = asyncio.Event()
        self._sending: list[SharedTicket] = []  # about to be in line
        self._waiting: dict[str, SharedTicket] = {}  # in line
        self._dropping: list[str] = []  # rows that are not wanted any more
        self._level_back = 0
        self._others: dict[str, float] = {}  # whose turn it is, and since when
        self._used = False  # whether the store was ever asked for slots
        self._unsure = False  # whether the last transaction was carried out
        self._waited_since = 0.0

    # --- for the engine -----------------------------------------------------------------------------------

    def ticket(self, wake: Callable[[], object], slots: int = 1) -> Ticket:
        return SharedTicket(slots, wake)

    def take(self, ticket: Ticket) -> float | None:
        if self._told_once and not self.exists:
            return _let_through(ticket)
        self._new.append(_ours(ticket))
        if not self._poke():
            raise NotThere(f"The limit {self.name!r} is one of the store, whose journal was closed in this process.")
        return None

    def give_back(self, ticket: Ticket) -> None:
        ticket = _ours(ticket)
        if ticket.lease is not None and not ticket.over:
            ticket.over = True
            self._over.append(ticket)
            self._poke()

    def abandon(self, ticket: Ticket) -> None:
        ticket = _ours(ticket)
        if not ticket.over:
            ticket.over = True
            self._over.append(ticket)
            self._poke()

    def _poke(self) -> bool:
        if self._poked:
            return True
        self._poked = True
        ERRANDS.add(self)  # as long as the worker is at work
        if self._owner.call(self._stir_worker):
            return True
        self._poked = False
        ERRANDS.discard(self)
        return False

    @property
    def taken(self) -> int:
        """Slots are taken in the store."""
        return 0

    def __repr__(self) -> str:
        return f"<limit {self.name!r} of the store: {self.limit} slots>"

    # --- what is known ------------------------------------------------------------------------------------

    def told(self, row: LimitRow | None) -> None:
        """What the store says about it now."""
        self.exists = row is not None
        if row is None:
            self.active = False
        else:
            self.limit, self.slot_decay_per_second, self.active = row.slots, row.slot_decay_per_second, row.active
        self._told_once = True

    def fail(self, error: Exception) -> bool:
        """Nobody here can have slots any more; whether there may be something of ours in the store."""
        self._refuse(error)
        self._over.clear()
        self._dropping.clear()
        return self._used

    def _refuse(self, error: Exception) -> None:
        """Those who wait do so in vain."""
        waiting = [*self._new, *self._sending, *self._waiting.values()]
        self._dropping += [ticket.lease for ticket in waiting if ticket.lease is not None]
        self._new.clear()
        self._sending.clear()
        self._waiting.clear()
        for ticket in waiting:
            ticket.lease = None
            ticket.error = error
            self._wake(ticket)

    # --- the worker, on the journal's loop ----------------------------------------------------------------

    def _stir_worker(self) -> None:
        self._poked = False
        ERRANDS.add(self)
        self._stir.set()
        if self._worker is None or self._worker.done():
            self._worker = self._owner.begin(self._work())

    def _has_work(self) -> bool:
        return bool(self._new or self._over or self._sending or self._waiting or self._dropping or self._level_back)

    async def _work(self) -> None:
        """Turn after turn, as long as somebody here wants something."""
        try:
            await self._work_on()
        finally:
            ERRANDS.discard(self)

    async def _work_on(self) -> None:
        loop = asyncio.get_running_loop()
        store = self._owner.store
        retry = FIRST_RETRY_SECONDS
        self._waited_since = loop.time()
        while self._has_work():
            self._stir.clear()
            try:
                if await self._take_turn(store):
                    retry = FIRST_RETRY_SECONDS
                    self._waited_since = loop.time()
                    continue
                waited = loop.time() - self._waited_since
                if waited > WAITED_SECONDS:
                    await self._owner.look_who_has_died()
            except StoreUnavailable:
                await asyncio.sleep(retry)
                retry = min(retry * 2, LAST_RETRY_SECONDS)
                continue
            except NotAlive as error:
                self.fail(NotThere(f"No slots of the limit {self.name!r} can be had: {error}"))
                return
            except Exception as error:  # the store is damaged, or this is a mistake of ours
                self._refuse(NotThere(f"No slots of the limit {self.name!r} can be had: {error!r}"))
                await asyncio.sleep(LAST_RETRY_SECONDS)
                continue
            if not self._poked:
                ERRANDS.discard(self)  # it is others who must do something
            pause = min(max(waited * LOOKS, FIRST_LOOK_SECONDS), LAST_LOOK_SECONDS)
            await self._stirred_within(pause * random.uniform(0.5, 1.0))

    async def _stirred_within(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stir.wait(), seconds)
        except TimeoutError:
            pass

    async def _take_turn(self, store: LimitStore) -> bool:
        """Do what is to be done in the store; whether anything was, and worth another turn at once."""
        self._collect()
        if self._level_back:
            slots = self._level_back
            await store.give_back_level(self.name, slots)
            self._level_back -= slots
        process_id = self._owner.process_id
        if self.slot_decay_per_second and not self._dropping and not self._waiting:
            return await self._reserve(store, process_id)
        if not self._dropping and not self._sending:
            standing = await store.look(process_id, self.name, self._absent())
            if standing.limit is not None and not standing.granted and not self._unsure:
                self._note(standing)
                return False
        dropping, sending = list(self._dropping), [ticket for ticket in self._sending if not ticket.over]
        wishes = [Wish(ticket.lease or "", ticket.slots, _holder(ticket)) for ticket in sending]
        unsure = [*self._waiting, *(wish.id for wish in wishes)] if self._unsure else ()
        self._used = self._unsure = True
        standing = await store.take_turn(process_id, self.name, dropping, wishes, self._absent(), unsure)
        self._unsure = False
        del self._dropping[: len(dropping)]
        self._sending.clear()
        self._waiting.update({ticket.lease: ticket for ticket in sending if ticket.lease})
        self._note(standing)
        for lease in standing.granted:
            self._grant(self._waiting.pop(lease, None))
        if standing.limit is None:
            self._let_all_through()
        return bool(standing.granted or wishes or dropping)

    def _collect(self) -> None:
        """See what has come since: what is given back or withdrawn, then what is wanted, as far as the line is open."""
        while self._over:
            ticket = self._over.popleft()
            if ticket.lease is not None:
                self._dropping.append(ticket.lease)
                self._waiting.pop(ticket.lease, None)
            self._level_back += ticket.reserved
            ticket.reserved = 0
        room = self.limit + MOST_WAITING - len(self._waiting) - len(self._sending)
        while self._new and room > 0:
            ticket = self._new.popleft()
            if not ticket.over:
                ticket.lease = f"{self._owner.process_id}/{next(_numbers)}"
                self._sending.append(ticket)
                room -= 1

    def _note(self, standing: Standing) -> None:
        self.told(standing.limit)
        now = asyncio.get_running_loop().time()
        self._others = {wish: self._others.get(wish, now) for wish in standing.others}

    def _absent(self) -> set[str]:
        """Wishes of others who had their turn, and did not take it."""
        now = asyncio.get_running_loop().time()
        return {wish for wish, since in self._others.items() if now - since > ABSENT_SECONDS}

    def _let_all_through(self) -> None:
        """There is no such limit any more."""
        waiting, self._waiting = list(self._waiting.values()), {}
        for ticket in waiting:
            ticket.lease = None
            ticket.slots = 0
            self._grant(ticket)

    async def _reserve(self, store: LimitStore, process_id: str) -> bool:
        """Use slots that become free with time; who cannot have them now has them later."""
        tickets = [ticket for ticket in self._sending if not ticket.over]
        if not tickets:
            self._sending.clear()
            return False
        total = sum(ticket.slots for ticket in tickets)
        reserved = await store.reserve(process_id, self.name, total)
        self.told(reserved[0] if reserved else None)
        if reserved is not None and not self.slot_decay_per_second:
            return True  # it is of the other kind now
        self._sending.clear()
        level = reserved[1] - total if reserved else 0.0
        loop = asyncio.get_running_loop()
        for ticket in tickets:
            ticket.lease = None
            if not self.active:
                self._grant(ticket)
                continue
            ticket.reserved = ticket.slots
            level += ticket.slots
            seconds = (level - self.limit) / self.slot_decay_per_second
            if seconds > 0:
                loop.call_later(seconds, self._grant, ticket)
            else:
                self._grant(ticket)
        return True

    def _grant(self, ticket: SharedTicket | None) -> None:
        if ticket is not None and not ticket.over:
            ticket.granted = True
            self._wake(ticket)

    def _wake(self, ticket: SharedTicket) -> None:
        try:
            ticket.wake()
        except RuntimeError:  # its loop has ended
            self.abandon(ticket)


def _let_through(ticket: Ticket) -> float:
    ticket.slots = 0
    ticket.granted = True
    return 0.0


def _ours(ticket: Ticket) -> SharedTicket:
    if not isinstance(ticket, SharedTicket):
        raise TypeError("the ticket is of another limit")
    return ticket


def _holder(ticket: SharedTicket) -> str | None:
    """The run that wants the slots, for people."""
    run = ticket.holder
    return None if run is None else str(run.task_run_id)
