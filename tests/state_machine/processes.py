"""Processes on one event loop that write to one store, and do only what they are told: run, write, renew, die.

Each has its engine, its recorder and its connection. What an engine's thread and a journal's thread do by themselves
elsewhere is done here when somebody says so: so that any order of it can be tried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final, Protocol
from uuid import UUID

from tests.state_machine.model import OPEN, PENDING

from upwell import flow, task, unmapped
from upwell.engine import recorder as recorders
from upwell.engine.clock import SystemClock, use_clock
from upwell.engine.current import CURRENT_ENGINE
from upwell.engine.flow_run import FlowRun
from upwell.engine.recorder import Recorder, record_with
from upwell.engine.runtime import Engine
from upwell.engine.scope import CURRENT_SCOPE
from upwell.journal.batch import Batch
from upwell.journal.database import Database
from upwell.journal.durable import Beginnings
from upwell.journal.durable_store import SqlDurable
from upwell.journal.intake import Intake
from upwell.journal.kept import Kept, no_files
from upwell.journal.limit_store import SqlLimits
from upwell.journal.liveness import Observer
from upwell.journal.processes import Process
from upwell.journal.reader_records import task_run_id
from upwell.journal.rows import RowMaker
from upwell.journal.store import SqlStore
from upwell.testing import Fault, FaultyDatabase

LEASE_SECONDS: Final = 8.0
RETRY_SECONDS: Final = 3.0
MOST_CRASHES: Final = 3
TURNS: Final = 30
"""After so many turns of the loop everything has happened that follows at once."""

PATIENCE_SECONDS: Final = 10


class Step(Protocol):
    """One thing that a flow does. labels: of the runs that it submits; none: it ends."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def upstream(self) -> str | None: ...

    @property
    def retries(self) -> bool: ...

    @property
    def fails(self) -> bool: ...


class Script:
    """What one flow does, step by step, as far as that is known; who resumes it does the same again."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._longer = asyncio.Event()

    def add(self, step: Step) -> None:
        self.steps.append(step)
        self._longer.set()
        self._longer = asyncio.Event()

    async def step(self, number: int) -> Step:
        while number >= len(self.steps):
            await self._longer.wait()
        return self.steps[number]


HERE: Final[ContextVar[MachineProcess]] = ContextVar("process of the state machine")


async def attempt(label: str, _: object = None) -> str:
    """The code of every task: it ends when, and how, somebody says so."""
    if await HERE.get().attempt(label):
        raise ValueError(label)
    return label


steady = task(name="steady")(attempt)
flaky = task(name="flaky", retries=1, retry_delay_seconds=RETRY_SECONDS)(attempt)


@flow
async def plain(name: str) -> str:
    return await HERE.get().follow(name)


@flow(durable=True)
async def durable(name: str) -> str:
    return await HERE.get().follow(name)


class MovedLoop(asyncio.SelectorEventLoop):
    """A loop whose time can be put forward."""

    forward = 0.0

    def time(self) -> float:
        return super().time() + self.forward


class MovedClock(SystemClock):
    """The machine's clock, put forward likewise."""

    def __init__(self, loop: MovedLoop) -> None:
        self._loop = loop

    def time(self) -> float:
        return float(SystemClock.time()) + self._loop.forward


class MachineProcess:
    """One process. is_over: it has died, or ended, and does nothing any more."""

    def __init__(self, number: int, database: Database, scripts: dict[str, Script]) -> None:
        loop = asyncio.get_running_loop()
        self.identity = Process(str(UUID(int=number)), "elsewhere/1/1", number, str(number), LEASE_SECONDS)
        self.database = database
        self.store = SqlStore(database)
        self.limits = SqlLimits(database)
        self.observer = Observer(database, self.identity.id, MOST_CRASHES)
        self.is_over = False
        self.unwritten: list[tuple[Batch, Any]] = []
        self.flow_runs: dict[str, FlowRun] = {}
        self.futures: dict[str, Any] = {}
        self.begun: dict[str, int] = {}
        self.gates: dict[str, asyncio.Future[bool]] = {}
        self.recorder = Recorder(self, self._be_silent)
        self.kept = Kept(no_files)
        self._scripts = scripts
        self._rows = RowMaker(self.identity.id, self.kept.write)
        self._intake = Intake(self.recorder, self._rows)
        self._beginnings = Beginnings(SqlDurable(database, self.identity.id, MOST_CRASHES))
        self._engine = Engine(loop)
        self.flows: dict[str, asyncio.Task[str]] = {}
        self._errands: set[asyncio.Task[None]] = set()
        self._waiting: list[Callable[[], object]] = []
        self._context = self._new_context()

    def _new_context(self) -> Context:
        def enter() -> Context:
            HERE.set(self)
            CURRENT_ENGINE.set(self._engine)
            CURRENT_SCOPE.set(None)
            return copy_context()

        return copy_context().run(enter)

    def _be_silent(self) -> None:
        """Nothing is written before somebody says so."""

    # --- what a journal is to the engine ------------------------------------------------------------------

    def when_written(self, callback: Callable[[], object]) -> None:
        if self.is_over:
            callback()
        else:
            self._waiting.append(callback)

    def begin(self, run: Any) -> Future[Any]:
        answer: Future[Any] = Future()

        async def begin() -> None:
            try:
                answer.set_result(await self._beginnings.begin_flow_run(self._rows, run))
            except BaseException as error:
                answer.set_exception(error)

        errand = asyncio.get_running_loop().create_task(begin())
        self._errands.add(errand)
        errand.add_done_callback(self._errands.discard)
        return answer

    # --- what it runs -------------------------------------------------------------------------------------

    async def follow(self, name: str) -> str:
        """The code of every flow: it does what its script says."""
        scope = CURRENT_SCOPE.get()
        assert scope is not None
        assert scope.flow_run is not None
        self.flow_runs[name] = scope.flow_run
        number = 0
        while (step := await self._scripts[name].step(number)).labels:
            number += 1
            work = flaky if step.retries else steady
            upstream = None if step.upstream is None else self.futures[step.upstream]
            if len(step.labels) == 1:
                self.futures[step.labels[0]] = work.submit(step.labels[0], upstream)
            else:
                self.futures.update(zip(step.labels, work.map(list(step.labels), unmapped(upstream)), strict=True))
        for submitted in self._scripts[name].steps:
            for label in submitted.labels:
                with suppress(Exception):
                    await self.futures[label]
        if step.fails:
            raise ValueError(name)
        return name

    async def attempt(self, label: str) -> bool:
        """Whether this attempt is to fail."""
        self.begun[label] = self.begun.get(label, 0) + 1
        gate: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.gates[label] = gate
        return await gate

    async def start(self, name: str, is_durable: bool) -> None:
        """Begin a flow, or go on with it; until its code runs."""
        call: Callable[[str], Coroutine[Any, Any, str]] = durable if is_durable else plain
        self.flows[name] = asyncio.get_running_loop().create_task(call(name), context=self._context.copy())
        async with asyncio.timeout(PATIENCE_SECONDS):
            while name not in self.flow_runs:
                assert not self.flows[name].done(), self.flows[name]
                await asyncio.sleep(0)
        await turns()

    async def cancel(self, name: str) -> None:
        """Cancel a flow."""
        self.flows[name].cancel()
        await turns()

    # --- what its journal does ----------------------------------------------------------------------------

    async def open(self) -> None:
        self._rows.process_key, _ = await self.store.open(self.identity)

    async def take_in(self, said: Callable[[], Any]) -> None:
        """Make a batch of what has happened. said: what is to be known when it is written."""
        batches: list[Batch] = []
        await self._intake.take(batches.append)
        assert len(batches) <= 1
        self.unwritten += [(batch, said()) for batch in batches]

    async def write(self, fault: Fault | None) -> None:
        """Write the oldest batch, which fails if it is to."""
        database = self.database
        if fault is not None:
            database = FaultyDatabase(database, fail_at=1, fault=fault)
        await SqlStore(database).write(self.unwritten[0][0])

    async def tell_written(self) -> None:
        """Those who wait for what is safe now go on."""
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()
        await turns()

    # --- how it ends --------------------------------------------------------------------------------------

    async def die(self) -> None:
        """It is gone, with all that it has not written."""
        self.is_over = True
        self.recorder.discard()
        for run in self.flows.values():
            run.cancel()
        await self.tell_written()
        left: set[asyncio.Task[Any]] = {*self.flows.values(), *self._errands}
        if left:
            _, stuck = await asyncio.wait(left, timeout=PATIENCE_SECONDS)
            assert not stuck, stuck
        await turns()

    async def let_go(self) -> None:
        """Nobody asks for it any more: the runs that it holds lead back to it, through a `Call`, which hides that."""
        await self._engine.close()
        vars(self).clear()


async def turns() -> None:
    """Until everything has happened that follows at once."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def rows_of_runs(database: Database) -> dict[str, str]:
    """The task runs in the store by their ids, as the model knows their states."""
    rows = await database.fetch_text(
        """SELECT s.base, t.created, t.number, t.state, t.ended IS NULL FROM task_runs t
        JOIN series s ON s.key = t.series"""
    )
    found: dict[str, str] = {}
    for base, created, number, state, is_open in rows:
        if is_open:
            assert state in ("RUNNING", "SCHEDULED")
        known_as = OPEN if is_open else "NOT_READY" if state == PENDING else state
        found[str(task_run_id(base, created, number))] = known_as
    return found


@contextmanager
def moved_time(loop: MovedLoop) -> Generator[None]:
    """The engine goes by this loop's time, and records what the process of the context has to record."""
    before, opener = use_clock(MovedClock(loop)), recorders._opener  # pyright: ignore[reportPrivateUsage]  # put back
    record_with(lambda: process.recorder if (process := HERE.get(None)) is not None else None)
    try:
        yield
    finally:
        record_with(opener)
        use_clock(before)
