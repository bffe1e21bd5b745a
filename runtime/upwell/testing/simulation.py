"""Several processes on one event loop, in an order that a seed decides, which die, stop, and lose their store.

    def main(world: Simulation) -> Coroutine: ...
    simulate(main, seed=7)

Each process has two threads of its own, that of its flows and that of its journal: each does one thing after the other,
and the seed says which thread of which process has the next turn. Time jumps to the next timer when nobody has
anything to do. All write to one store in memory, which can fail: a write refused, undone as it is committed, or
committed without an answer. A process that is killed has no further turn, and what it had not written is gone. The
same seed gives the same run.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import random
import signal
import sqlite3
import sys
import threading
import warnings
from asyncio.tasks import _unregister_task  # pyright: ignore[reportPrivateUsage]  # documented for Task implementations
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import Any, Final, TypeVar

from upwell.core.ids import RANDOM_BITS, uuid7
from upwell.engine.clock import ERRANDS, SystemClock, use_clock
from upwell.engine.current import CURRENT_ENGINE
from upwell.engine.interrupts import SPARE_BELL
from upwell.engine.recorder import Opener, Recorder, record_with
from upwell.engine.runtime import Engine
from upwell.engine.scope import CURRENT_SCOPE
from upwell.engine.stopping import UNDER_WAY
from upwell.journal.batch import Batch
from upwell.journal.database import Session, StoreError, StoreUnavailable
from upwell.journal.durable import Beginnings
from upwell.journal.durable_store import SqlDurable
from upwell.journal.intake import Intake
from upwell.journal.kept import Kept, no_files
from upwell.journal.migrations import migrate
from upwell.journal.processes import Process
from upwell.journal.rows import RowMaker
from upwell.journal.sqlite import MemoryDatabase
from upwell.journal.store import ProcessLost, SqlStore
from upwell.testing.simulated_loop import THREAD, SimulatedLoop

T = TypeVar("T")

START: Final = 1_700_000_000.0
LEASE_SECONDS: Final = 5.0
FLUSH_SECONDS: Final = 0.05
TURN_SECONDS: Final = 0.001
MOST_GRAVES: Final = 2_000


class Killed(BaseException):
    """The process in which this is raised has died in the middle of a write."""


class _Clock(SystemClock):
    """The time of a simulated loop."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop

    def time(self) -> float:
        return START + self._loop.time()


@cache
def _template() -> sqlite3.Connection:
    """A store with the newest schema."""

    async def make() -> sqlite3.Connection:
        database = MemoryDatabase()
        await database.open()
        await migrate(database)
        copy = sqlite3.connect(":memory:", check_same_thread=False)
        _connection_of(database).backup(copy)
        return copy

    return asyncio.run(make())


def _connection_of(database: MemoryDatabase) -> sqlite3.Connection:
    return database._memory._connection  # pyright: ignore[reportPrivateUsage]  # from the inside


class _Turn:
    """Who may use the store: one process at a time, and nobody for longer than he lives."""

    holder: SimulatedProcess | None = None

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def take(self, process: SimulatedProcess) -> None:
        while self.holder is not None and not self.holder.is_dead:  # noqa: ASYNC110  # a Lock would go to the dead
            await asyncio.sleep(TURN_SECONDS)
        if self._connection.in_transaction:
            self._connection.rollback()  # of one who died
        self.holder = process


class _TurnOf:
    """The same as one process sees it: an `asyncio.Lock`, as far as it is needed."""

    def __init__(self, turn: _Turn, process: SimulatedProcess) -> None:
        self._turn = turn
        self._process = process

    async def __aenter__(self) -> None:
        await self._turn.take(self._process)

    async def __aexit__(self, *_: object) -> None:
        self._turn.holder = None


class _Database(MemoryDatabase):
    """The store as one process sees it: it may fail."""

    def __init__(self, process: SimulatedProcess, beside: MemoryDatabase) -> None:
        super().__init__(beside=beside)
        self._process = process
        self._turn: Any = _TurnOf(process.world.turn, process)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Session]:
        process = self._process
        fault = process.next_fault()
        await asyncio.sleep(0)
        if fault == "refused":
            raise StoreUnavailable("Refused by the simulation.")
        try:
            async with super().transaction() as session:
                yield session
                if fault == "torn":
                    raise StoreUnavailable("Undone by the simulation.")
                if fault == "killed before commit":
                    raise Killed
        except Killed:
            process.kill()
            raise
        if fault == "killed after commit":
            process.kill()
            raise Killed
        if fault == "unknown":
            raise StoreUnavailable("The simulation gives no answer.")


FAULTS: Final = ("refused", "torn", "unknown", "killed before commit", "killed after commit")


class _Journal:
    """What `upwell.journal.journal.Journal` does on a thread, on the simulated loop."""

    closed = False

    def __init__(self, process: SimulatedProcess, database: MemoryDatabase) -> None:
        self.process = process.identity
        self.recorder = Recorder(self, lambda: process.in_journal(self._look()))
        self.kept = Kept(no_files)
        self._rows = RowMaker(process.identity.id, self.kept.write)
        self._intake = Intake(self.recorder, self._rows)
        self._store = SqlStore(database)
        self._beginnings = Beginnings(SqlDurable(database, process.identity.id, 1000))
        self._waiting: list[Callable[[], object]] = []
        self._unwritten: list[Batch] = []
        self._process = process
        self._looks, self._hurry = asyncio.Event(), asyncio.Event()
        self.is_lost = False

    def when_written(self, callback: Callable[[], object]) -> None:
        self._waiting.append(callback)
        self._process.in_journal(self._be_quick())

    async def _look(self) -> None:
        self._looks.set()

    async def _be_quick(self) -> None:
        self._looks.set()
        self._hurry.set()

    def begin(self, run: Any) -> Future[Any]:
        answer: Future[Any] = Future()

        async def begin() -> None:
            try:
                found = await self._beginnings.begin_flow_run(self._rows, run)
            except Exception as error:
                answer.set_exception(error)
            else:
                answer.set_result(found)

        self._process.in_journal(begin())
        return answer

    async def live(self) -> None:
        """Write what there is, again and again, and renew the lease."""
        await self._open()
        self._process.is_open.set()
        self._process.in_journal(self._renew())
        while not self.is_lost:
            try:
                self._looks.clear()
                if self.recorder.is_empty() and not self._waiting and not self._unwritten:
                    self.recorder.awake = False
                    await self._looks.wait()
                self.recorder.awake = True
                if not self._waiting:
                    await _within(FLUSH_SECONDS, self._hurry)
                self._hurry.clear()
                await self._flush()
            except ProcessLost:
                self.is_lost = True
            except StoreError:
                await asyncio.sleep(FLUSH_SECONDS)

    async def _renew(self) -> None:
        while not self.is_lost:
            await asyncio.sleep(LEASE_SECONDS / 4)
            try:
                await self._store.renew(self.process)
            except ProcessLost:
                self.is_lost = True
            except StoreError:
                pass

    async def _open(self) -> None:
        while True:
            try:
                key, _ = await self._store.open(self.process)
            except StoreUnavailable:
                await asyncio.sleep(FLUSH_SECONDS)
            else:
                self._rows.process_key = key
                return

    async def _flush(self) -> None:
        waiting = len(self._waiting)
        await self._intake.take(self._unwritten.append)
        while self._unwritten:
            await self._store.write(self._unwritten[0])
            del self._unwritten[0]
        told, self._waiting = self._waiting[:waiting], self._waiting[waiting:]
        for callback in told:
            callback()


async def _within(seconds: float, event: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        pass


class SimulatedProcess:
    """One process: its flows run in `do`. is_dead: it was killed. is_stopped: it has no turns now."""

    def __init__(self, world: Simulation, number: int) -> None:
        self.world = world
        self.number = number
        self.is_dead = self.is_stopped = False
        self.faults: dict[int, str] = {}
        self.is_open = asyncio.Event()
        self.engine = Engine(world.loop)
        identity = str(uuid7(START + world.loop.time(), world.dice.getrandbits(RANDOM_BITS)))
        self.identity = Process(identity, "simulated/1/1", number, str(number), LEASE_SECONDS)
        self._transactions = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._journal = _Journal(self, _Database(self, world.database))
        self.in_journal(self._journal.live())

    @property
    def is_lost(self) -> bool:
        """Whether it knows that others took it for dead."""
        return self._journal.is_lost

    def do(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run this in the process, once its journal is open."""

        async def there() -> T:
            CURRENT_ENGINE.set(self.engine)
            CURRENT_SCOPE.set(None)
            await self.is_open.wait()
            return await work

        return self._start(there(), "flows")

    def in_journal(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run this on the thread of its journal."""
        self._start(work, "journal")

    def _start(self, work: Coroutine[Any, Any, T], thread: str) -> asyncio.Task[T]:
        token = THREAD.set((self, thread))
        try:
            task = self.world.loop.create_task(work)
        finally:
            THREAD.reset(token)
        self._tasks.append(task)
        return task

    @property
    def has_turns(self) -> bool:
        """Whether something happens in it. One that is stopped ends its transaction before."""
        return not self.is_dead and (not self.is_stopped or self.world.turn.holder is self)

    def kill(self) -> None:
        """It has no further turn, and what it has not written is gone."""
        self.is_dead = True

    def forget(self) -> None:
        """Let go of what it had under way: the garbage collector does not see into all of it."""
        busy = self.engine._busy_scopes  # pyright: ignore[reportPrivateUsage]  # from the inside
        for scope in (self.engine.scope, *busy):
            vars(scope).clear()
        for owner in (self.engine, self._journal):
            vars(owner).clear()
        self._tasks.clear()

    def next_fault(self) -> str | None:
        """What becomes of its next transaction."""
        self._transactions += 1
        return self.faults.get(self._transactions)

    def recorder(self) -> Recorder:
        return self._journal.recorder


class Simulation:
    """The world: its processes, its store, its dice. Made by `simulate`."""

    def __init__(self, seed: int, loop: SimulatedLoop, dice: random.Random) -> None:
        self.seed = seed
        self.loop = loop
        self.dice = dice
        self.database = MemoryDatabase()
        _template().backup(_connection_of(self.database))
        self.turn = _Turn(_connection_of(self.database))
        self._processes: list[SimulatedProcess] = []

    def new_process(self) -> SimulatedProcess:
        """One more process, whose journal is about to open."""
        process = SimulatedProcess(self, len(self._processes) + 1)
        self._processes.append(process)
        return process

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """What the store says now, past all that goes on."""
        return _connection_of(self.database).execute(query).fetchall()

    def end(self) -> None:
        """Nobody has another turn, and the store is gone."""
        for process in self._processes:
            process.kill()
            _dead.append(process)
        _connection_of(self.database).close()


def simulate(main: Callable[[Simulation], Coroutine[Any, Any, T]], seed: int) -> T:
    """Run a simulation to its end; whatever it raises says the seed.

    Raises:
        DeadlockError: everything waits, and no timer is left.
    """
    if len(_graves) > MOST_GRAVES:  # now that nothing holds on to the world before any more
        _let_go_of_the_dead()
    dice = random.Random(seed)
    loop = SimulatedLoop(dice)
    random_state = random.getstate()
    under_way, errands = UNDER_WAY.copy(), ERRANDS.copy()
    random.seed(seed)
    try:
        with _in_place_of_the_real(loop):
            world = Simulation(seed, loop, dice)
            try:
                return loop.run_until_complete(main(world))
            except BaseException as error:
                error.add_note(f"The seed of the simulation is {seed}.")
                raise
            finally:
                world.end()
                UNDER_WAY.intersection_update(under_way)  # who has died never says that it has ended
                ERRANDS.intersection_update(errands)
                _bury(loop)
                del world
    finally:
        random.setstate(random_state)


@contextmanager
def _in_place_of_the_real(loop: SimulatedLoop) -> Generator[None]:
    before = use_clock(_Clock(loop))

    def opener() -> Recorder | None:
        process = THREAD.get((None, ""))[0]
        return process.recorder() if isinstance(process, SimulatedProcess) else None

    found = _opener_now()
    record_with(opener)
    in_main = threading.current_thread() is threading.main_thread()
    before_it: dict[int, Any] = {}
    if in_main:  # flows leave a handler alone that is none of Python's, and none of them lives to put it back
        before_it = {number: signal.signal(number, handler) for number, handler in _HANDLERS.items()}
    try:
        yield
    finally:
        for number, handler in before_it.items():
            signal.signal(number, handler)
        record_with(found)
        use_clock(before)


def _on_ctrl_c(number: int, frame: Any) -> None:
    signal.default_int_handler(number, frame)


def _unheard(number: int, frame: Any) -> None: ...


_HANDLERS: Final[dict[int, Any]] = {signal.SIGINT: _on_ctrl_c} | ({} if SPARE_BELL is None else {SPARE_BELL: _unheard})


def _opener_now() -> Opener | None:
    from upwell.engine import recorder as module

    return module._opener  # pyright: ignore[reportPrivateUsage]  # it is put back


def _bury(loop: SimulatedLoop) -> None:
    """Let what the dead had under way go without a word; none of it runs any more."""
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own
        _graves.append(task)
        _unregister_task(task)
    loop.set_exception_handler(lambda _loop, _context: None)  # nobody looks any more at what others have died of
    loop.close()


_graves: list[asyncio.Task[Any]] = []
"""What nobody goes on with. To let go of a coroutine is to run the ends of its `try` blocks, which complain."""


def _let_go_of_the_dead() -> None:
    before = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _graves.clear()
            while _dead:
                _dead.pop().forget()
            while gc.collect():  # what was let go may let go of more
                pass
    finally:
        sys.unraisablehook = before


_dead: list[SimulatedProcess] = []
"""Whose engines are part of cycles with what is in the graves."""


atexit.register(_let_go_of_the_dead)


__all__ = ["FAULTS", "SimulatedProcess", "Simulation", "simulate"]
