"""Who has died, and what becomes of what it had under way: seen to by whoever looks next.

A process whose pid can be seen from here is dead or alive, whatever any clock says. Of others, only the sign of life
counts, a number that they raise in the store: who did not raise it for as long as its lease, watched by our own
monotonic clock, is dead. No two clocks are ever compared, so that none can kill a healthy run by being set. Time in
which we did not look, because we were stopped, does not count as watched.

Exactly one of many observers declares a process lost, in one transaction with all that follows; from then on the store
takes nothing from that process (see `store.check_alive`), should it be alive after all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, Protocol

from msgspec.json import encode

from upwell.engine.clock import clock
from upwell.engine.loggers import ENGINE
from upwell.journal.batch import SERIES_BITS
from upwell.journal.database import Database, Session, StoreError
from upwell.journal.processes import Process, is_gone, machine_of, this_host
from upwell.journal.safe_ends import bring_in, remove_log
from upwell.journal.sql import Dialect

LOOKS_PER_LEASE: Final = 4
FIRST_LOOK_SECONDS: Final = 0.1
"""After the store was opened: what the process was started for comes first."""

DURABLE_MAX_CRASHES: Final = 5
"""A durable flow run that has crashed so often is not resumed by itself any more."""

_GONE: Final = "it was killed, or crashed."
_RESTARTED: Final = "the machine was restarted."


class _Seen(NamedTuple):
    """What was seen of a process that cannot be looked at: its sign of life, and for how long that has not changed."""

    beat: int
    watched_seconds: float
    at: float


class Dead(NamedTuple):
    """A process that is declared lost. beat: its last sign of life; None if it has ended by its own account."""

    id: str
    key: int
    beat: int | None
    message: str


class Observer:
    """Looks at the other processes of one store, again and again.

    own_id: of the process that looks, if it writes to the store itself.
    most_crashes: a durable flow run that has crashed so often is not resumed by itself any more.
    patience_seconds: so long after its first look nobody is declared dead. Who could not reach a server that was away
        has spooled how it ended, and that comes first.
    """

    def __init__(
        self,
        database: Database,
        own_id: str | None = None,
        most_crashes: int = DURABLE_MAX_CRASHES,
        patience_seconds: float = 0.0,
    ) -> None:
        self._database = database
        self._own_id = own_id
        self._most_crashes = most_crashes
        self._patience_seconds = patience_seconds
        self._first_look: float | None = None
        self._seen: dict[str, _Seen] = {}
        self._turn = asyncio.Lock()

    async def look(self) -> list[str]:
        """Declare lost whoever has died since; the ids of the processes.

        Raises:
            StoreUnavailable: the store cannot be used now.
        """
        async with self._turn:
            return await self._look()

    async def _look(self) -> list[str]:
        alive = await self._database.fetch("processes_alive")
        at = asyncio.get_running_loop().time()
        if self._first_look is None:
            self._first_look = at
        is_patient = at - self._first_look < self._patience_seconds
        seen_before, self._seen = self._seen, {}
        lost: list[str] = []
        for process_id, host, pid, pid_started, beat, seen, lease_until in alive:
            if process_id == self._own_id:
                continue
            reason = self._reason(host, pid, pid_started)
            if reason is None:
                lease_seconds = (lease_until - seen) / 1e6
                watched = _watched(seen_before.get(process_id), beat, at, lease_seconds / LOOKS_PER_LEASE)
                self._seen[process_id] = watched
                if watched.watched_seconds < lease_seconds:
                    continue
                reason = f"it has given no sign of life for longer than its lease of {lease_seconds:g} seconds."
            elif not reason or is_patient:
                continue
            dead = Dead(process_id, 0, beat, f"The process {pid} on {machine_of(host)} died: {reason}")
            if await self._declare_lost(dead):
                lost.append(process_id)
        await self._see_to_what_was_left()
        return lost

    def _reason(self, host: str, pid: int, pid_started: str) -> str | None:
        """Why a process is dead; nothing if it is there; None if it cannot be seen from here."""
        gone = is_gone(host, pid, pid_started)
        if gone is None:
            return _RESTARTED if self._was_restarted(host) else None
        return _GONE if gone else ""

    def _was_restarted(self, host: str) -> bool:
        """Whether it ran on this machine before that was started anew. Two machines cannot share a SQLite file."""
        if self._database.dialect is not Dialect.SQLITE:
            return False
        node, boot = machine_of(host), _boot(host)
        here = this_host()
        return bool(boot) and bool(_boot(here)) and node == machine_of(here) and boot != _boot(here)

    async def _declare_lost(self, dead: Dead) -> bool:
        """Whether it was us who declared it so, with all that follows."""
        async with self._database.transaction() as session:
            if not await session.fetch("declare_lost", id=dead.id, beat=dead.beat):
                return False
            key = (await session.fetch("process_key", id=dead.id))[0][0]
            await end_what_it_ran(self._database, session, dead._replace(key=key), self._most_crashes)
        await remove_log(self._database, key)
        return True

    async def _see_to_what_was_left(self) -> None:
        """Runs of processes that have ended by their own account, but without ending them."""
        for process_id, key, host, pid, state in await self._database.fetch("processes_that_left_runs"):
            died = "was declared dead" if state == "lost" else "ended"
            message = f"The process {pid} on {machine_of(host)} {died} before this had ended."
            async with self._database.transaction() as session:
                if await session.fetch("lock_left_process", id=process_id):
                    dead = Dead(process_id, key, None, message)
                    await end_what_it_ran(self._database, session, dead, self._most_crashes)
            await remove_log(self._database, key)


async def end_what_it_ran(database: Database, session: Session, dead: Dead, most_crashes: int) -> None:
    """What becomes of the runs of a process that has died, of their jobs, and of what it held; its row is locked."""
    await bring_in(database, session, dead.id, dead.key)
    now = int(clock().time() * 1e6)
    said: dict[str, Any] = {"process_id": dead.id, "message": dead.message}
    jobs = [job for (job,) in await session.fetch("lock_jobs_of_process", process_id=dead.id)]
    moves = await session.fetch("crash_flow_runs", now=now, **said)
    moves += await session.fetch("give_up_durable_flow_runs", now=now, most_crashes=most_crashes, **said)
    moves += await session.fetch("await_resume", **said)
    await session.insert("put_flow_run_states", [(run_id, now, *state) for run_id, *state in moves])
    first, after = dead.key << SERIES_BITS, (dead.key + 1) << SERIES_BITS
    await session.fetch("crash_task_runs", now=now, first=first, after=after, **said)
    if moves:
        ids = encode([run_id for run_id, *_ in moves]).decode()
        await session.fetch("crash_task_runs_of_flow_runs", now=now, message=dead.message, ids=ids)
    if jobs:
        ids = encode(jobs).decode()
        await session.fetch("jobs_wait_again", ids=ids)
        await session.fetch("jobs_end", ids=ids)
    await session.fetch("drop_leases_of_process", process_id=dead.id)
    await session.fetch("drop_cache_locks_of_process", process_id=dead.id)


async def give_up_process(
    database: Database, session: Session, process_id: str, message: str, most_crashes: int
) -> int:
    """Whoever started this process says that it is gone: declare it lost, with all that follows.

    Answers with its key. Once this is committed, `remove_log` may be called with that.
    """
    await session.fetch("declare_lost_as_said", id=process_id)
    found = await session.fetch("process_key", id=process_id)
    key = found[0][0] if found else 0
    await end_what_it_ran(database, session, Dead(process_id, key, None, message), most_crashes)
    return int(key)


class Host(Protocol):
    """What is needed of the journal of this process."""

    process: Process
    closed: bool

    def ask(self, work: Callable[[Any], Any]) -> Any:
        """Have this done with the store, on the journal's loop; it is cancelled when the journal ends."""
        ...


class Watch:
    """Looks after the other processes as long as a journal is kept.

    database_of: the database of the journal's store. most_crashes: see Observer.
    """

    def __init__(
        self, host: Host, database_of: Callable[[Any], Database], most_crashes: int = DURABLE_MAX_CRASHES
    ) -> None:
        self._host = host
        self._database_of = database_of
        self._most_crashes = most_crashes
        self._observer: Observer | None = None
        self._watching: Any = None

    def begin(self) -> None:
        """Do it from when the store is open until the journal ends."""
        self._watching = self._host.ask(self._watch)  # kept: a loop holds its tasks weakly
        self._watching.add_done_callback(self._begin_again)

    def _begin_again(self, asked: Any) -> None:
        """The journal could not open the store: it is asked again."""
        if self._observer is None and not self._host.closed and not asked.cancelled():
            self.begin()

    async def _watch(self, store: Any) -> None:
        await watch_over(lambda: self.look(store), self._host.process.lease_seconds)

    async def look(self, store: Any) -> list[str]:
        """Declare lost whoever has died since; see Observer.look."""
        if self._observer is None:
            self._observer = Observer(self._database_of(store), self._host.process.id, self._most_crashes)
        return await self._observer.look()


async def watch_over(look: Callable[[], Awaitable[object]], lease_seconds: float) -> None:
    """Look soon, and then now and then, until cancelled; at least once, however soon that comes."""
    pause = FIRST_LOOK_SECONDS
    try:
        while True:
            await asyncio.sleep(pause)
            pause = lease_seconds / LOOKS_PER_LEASE
            await _if_possible(look)
    except asyncio.CancelledError:
        if pause == FIRST_LOOK_SECONDS:
            await _if_possible(look)
        raise


async def _if_possible(look: Callable[[], Awaitable[object]]) -> None:
    try:
        await look()
    except StoreError:
        pass  # there is a next time; whoever writes says what is the matter
    except Exception as error:
        ENGINE.warning("It could not be seen which processes have died; that is tried again later", exc_info=error)


def _watched(before: _Seen | None, beat: int, at: float, most_seconds: float) -> _Seen:
    """What is seen now, and for how long in all. most_seconds: between two looks; in longer gaps we were not there."""
    if before is None or before.beat != beat:
        return _Seen(beat, 0.0, at)
    return _Seen(beat, before.watched_seconds + min(at - before.at, 2 * most_seconds), at)


def _boot(host: str) -> str:
    parts = host.rsplit("/", 2)
    return parts[1] if len(parts) == 3 else ""
