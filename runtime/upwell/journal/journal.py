"""The journal of this process: a thread that writes what the engine has recorded, in groups, and renews the lease.

The thread runs an event loop of its own, for all that talks to the store. It looks at the recorder every flush
interval while something happens there, sleeps otherwise, and never makes the engine wait, but for a full recorder.

A store that fails is tried again while runs go on, and that is said once. Who waits for a flush waits so long only;
then what could not be written is spooled to a file, which is as safe, and brought in before anything newer is written.
Where there is no room for that either, it stays in memory, and beyond `ROOM` the oldest is given up: no run ever fails
or waits because of its journal.

Once it has ended, whoever still records in it records into nothing: after `close`, in the child of a fork, and where
the process was declared lost. Each asks anew where to record, and gets another journal, when the next flow begins.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from upwell.core.errors import UpwellError
from upwell.engine.finish import within
from upwell.engine.loggers import ENGINE
from upwell.engine.recorder import ROOM, Recorder
from upwell.journal.batch import Batch
from upwell.journal.database import StoreUnavailable
from upwell.journal.intake import Intake
from upwell.journal.kept import Kept, no_files
from upwell.journal.processes import Process
from upwell.journal.rows import RowMaker
from upwell.journal.spool import Spool
from upwell.journal.store import ProcessLost, Store
from upwell.journal.tidying import Tidy, tidy_at_end, tidy_now_and_then

FIRST_RETRY_SECONDS: Final = 0.05
LAST_RETRY_SECONDS: Final = 2.0

PATIENCE_SECONDS: Final = 2.0
"""How long who waits for a flush waits for a store that fails, before it is spooled; not again while it fails."""

SLOW_SECONDS: Final = 5.0
"""The same for a store that does not say whether it fails: others write to it, or it is stuck."""

LOOK_SECONDS: Final = 0.25
SHORTEST_SECONDS: Final = 0.02
"""How often is looked whether there is patience left, at most and at least."""

GIVE_UP_SECONDS: Final = 2.0
"""How long the end still waits where the user has no patience: after Ctrl-C."""

CLOSE_SECONDS: Final = 20.0
"""For writing, or spooling, what is left at the end."""

GOODBYE_SECONDS: Final = 2.0
"""For taking leave of the store, after everything is safe."""

IDLE_SECONDS: Final = 1.0
"""How often the recorder is looked at although nobody said that there is something."""

OBSERVERS: Final[list[Callable[[Batch, float], object]]] = []
"""Told of each batch that was written, and of its seconds, on the journal's thread."""


class Journal:
    """Writes what happens in this process.

    make_store: makes the store, on the journal's thread.
    spool: where to put what the store does not take.
    flush_seconds: how long something may wait to be written.
    tidy: what is done for the store's upkeep now and then, if anything.
    kept: how results that are stored become records, and records results.
    """

    def __init__(
        self,
        make_store: Callable[[], Store],
        process: Process,
        spool: Spool,
        flush_seconds: float = 0.05,
        tidy: Tidy | None = None,
        kept: Kept | None = None,
    ) -> None:
        self.pid = os.getpid()
        self.process = process
        self.recorder = Recorder(self, self._look, lambda: self._tell(self._hurry.set))
        self.closed = False  # nothing is recorded any more, and nobody has to wait
        self.on_lost: Callable[[], object] | None = None  # called on the journal's thread when it is declared dead
        self.problem: BaseException | None = None  # why the store does not take anything now
        self._make_store = make_store
        self._spool = spool
        self._flush_seconds = flush_seconds
        self._tidy = tidy
        self.kept = kept or Kept(no_files)
        self.rows = RowMaker(process.id, self.kept.write)
        self._intake = Intake(self.recorder, self.rows)
        self._unwritten: list[Batch] = []
        self._waiting: list[Callable[[], object]] = []
        self._closing = False
        self._given_up = False
        self._settled = threading.Event()
        self._loop = asyncio.SelectorEventLoop()
        self._loop.slow_callback_duration = 3600.0  # a store's file is used in this thread: nobody else waits for it
        self._looks = asyncio.Event()
        self._hurry = asyncio.Event()
        self._opened = self._lost = False
        self.beginnings: Any = None  # of flow runs that the store must know of first
        self._asked_for: set[asyncio.Task[Any]] = set()
        self._process_key = 0
        self._last_written = 0
        self._writing: asyncio.Task[None] | None = None
        self._failures = 0
        self._put_away_before = self._said_no_room = False  # since the store fails
        self._left_out = 0
        self._thread = threading.Thread(target=self._serve, name="upwell-journal", daemon=True)
        self._thread.start()

    # --- from any thread ----------------------------------------------------------------------------------

    def _look(self) -> None:
        """Something is recorded, after a time in which nothing was."""
        self._tell(self._looks.set)

    def when_written(self, callback: Callable[[], object]) -> None:
        """Call this as soon as everything recorded until now is safe: in the store, or spooled."""
        self._waiting.append(callback)
        if self._settled.is_set():  # looked at after it was added: either this thread sees it, or the journal's
            self._tell_all_who_wait()
        else:
            self.recorder.awake = True
            self._tell(self._be_quick)

    def flush(self, timeout: float | None = None) -> bool:
        """Block until everything recorded until now is safe; whether it was in time."""
        written = threading.Event()
        self.when_written(written.set)
        return written.wait(timeout)

    def begin(self, run: Any) -> Any:
        """Have the store say which run a durable flow run is, on the journal's loop; its Claim, as a future."""
        from upwell.journal.durable import begin_flow_run  # here: it costs a start more than most flows need

        return begin_flow_run(self, run)

    def ask(self, work: Callable[[Store], Any], patience: Callable[[], float] = lambda: PATIENCE_SECONDS) -> Any:
        """Have the store do something on the journal's loop: `work(store)` gives a coroutine; its future.

        Raises (in the future):
            StoreUnavailable: the store could not be opened for so many seconds as `patience` says.
        """
        asked = self._asked(work, patience)
        try:
            return asyncio.run_coroutine_threadsafe(asked, self._loop)
        except RuntimeError:  # the loop has ended
            asked.close()
            refused: Future[Any] = Future()
            refused.set_exception(StoreUnavailable("The journal is closed."))
            return refused

    async def _asked(self, work: Callable[[Store], Any], patience: Callable[[], float]) -> Any:
        if self.closed:  # nobody would wait for it any more
            raise StoreUnavailable("The journal is closed.")
        task = asyncio.current_task()
        assert task is not None
        self._asked_for.add(task)
        try:
            await self._be_open(patience)
            return await work(self._store)
        finally:
            self._asked_for.discard(task)

    async def _be_open(self, patience: Callable[[], float]) -> None:
        began = self._loop.time()
        while not self._opened:
            await self._write_in_background()
            if not self._opened:
                if (left := began + patience() - self._loop.time()) <= 0 or self._closing:
                    raise StoreUnavailable(f"The store cannot be opened: {self.problem}") from self.problem
                await asyncio.sleep(min(self._pause(), left))

    def close(self) -> None:
        """Write or spool what is left, and end the thread; may be called twice.

        Raises:
            KeyboardInterrupt: it came meanwhile; what is left was spooled rather than waited for.
        """
        if self.pid != os.getpid():
            return
        self._closing = True
        self._tell(self._be_quick)
        if threading.current_thread() is self._thread:
            return
        try:
            settled = self._settled.wait(CLOSE_SECONDS)
        except BaseException:
            self._given_up = True
            self._tell(self._be_quick)
            self._settled.wait(GIVE_UP_SECONDS)
            raise
        finally:
            self._stop_recording()
        if not settled:
            self._settle()
            ENGINE.error("The journal did not end within %s s: what happened last may be missing", CLOSE_SECONDS)
        self._thread.join(GOODBYE_SECONDS)

    def abandon(self) -> None:
        """This is the child of a fork: the journal, its thread and its connection are the parent's."""
        self._waiting.clear()
        self._settled = threading.Event()  # the lock of the other may be held by a thread that is not here
        self._settled.set()
        self.recorder.strict.abandon()
        self._stop_recording()

    def _tell(self, what: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:  # the loop has ended
            pass

    def _be_quick(self) -> None:
        self._looks.set()
        self._hurry.set()

    def _stop_recording(self) -> None:
        """Whoever records from here on records into nothing."""
        self.closed = True
        self.recorder.discard()

    def _tell_all_who_wait(self, most: int | None = None) -> None:
        for _ in range(len(self._waiting) if most is None else most):
            try:
                callback = self._waiting.pop(0)
            except IndexError:  # another thread did it
                return
            try:
                callback()
            except Exception as error:  # such as: whoever waited has ended with its event loop
                ENGINE.debug("Nobody waits for this flush any more", exc_info=error)

    # --- on the journal's own thread ------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            self._loop.run_until_complete(self._live())
        except BaseException as error:
            ENGINE.error("The journal has stopped: nothing is recorded in it from here on", exc_info=error)
        finally:
            self._stop_recording()
            self._settle()
            self._spool.close()
            self._loop.close()

    async def _live(self) -> None:
        self._store = self._make_store()
        helpers = [asyncio.create_task(self._keep_alive())]
        if self._tidy is not None:
            helpers.append(asyncio.create_task(tidy_now_and_then(self._tidy, self._open_store)))
        self._write_in_background()  # opens it
        while not self._closing and not self._lost:
            try:
                await self._turn()
            except Exception as error:
                self._failed(error)
                await asyncio.sleep(self._pause())
        await self._end(helpers)

    async def _turn(self) -> None:
        """Wait until there is something to write, and write it. Who records soon after need not wake anybody."""
        if not (self._waiting or self._closing):
            await within(self._pause(), self._until_somebody_waits(or_much=not self._failures))
        if self._has_work():
            await self._flush()
            return
        while not self._has_work():
            self._looks.clear()
            self.recorder.awake = False
            if not self._has_work():  # else it came meanwhile
                await within(IDLE_SECONDS, self._looks.wait())
            self.recorder.awake = True

    async def _until_somebody_waits(self, *, or_much: bool = False) -> None:
        """Somebody who said so may have been served since, by the flush that was under way."""
        while not (self._waiting or self._closing or self._lost or (or_much and self.recorder.is_behind)):
            self._hurry.clear()
            await self._hurry.wait()

    def _has_work(self) -> bool:
        return bool(
            self._closing
            or self._lost
            or self._waiting
            or self._unwritten
            or self._spool.has_own
            or not self.recorder.is_empty()
        )

    def _pause(self) -> float:
        """How long to wait before the next flush: longer while the store fails."""
        if not self._failures:
            return self._flush_seconds
        return float(min(FIRST_RETRY_SECONDS * 2 ** (self._failures - 1), LAST_RETRY_SECONDS))

    async def _flush(self) -> None:
        """Write what was recorded until now; if somebody waits for that, see that it is safe, in the store or not."""
        waiting = len(self._waiting)
        self.recorder.is_busy = True
        self.rows.process_key = self._process_key
        await self._intake.take(self._add)
        if waiting or self._closing:
            await self._make_safe()
        else:
            writing, hurried = self._write_in_background(), asyncio.create_task(self._until_somebody_waits())
            await asyncio.wait([writing, hurried], timeout=IDLE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
            if self._unwritten and sum(batch.size() for batch in self._unwritten) > ROOM:
                self._put_away()
        self.recorder.is_busy = self._writing is not None and not self._writing.done()
        self._tell_all_who_wait(waiting)

    def _add(self, batch: Batch) -> None:
        self._unwritten.append(batch)
        self._write_in_background()  # while the next one is made

    async def _make_safe(self) -> None:
        """Write what there is; what the store does not take in time is spooled."""
        began = self._loop.time()
        while (self._unwritten or self._spool.has_own) and not self._lost:
            writing = self._write_in_background()
            left = began + self._patience() - self._loop.time()
            await asyncio.wait([writing], timeout=max(min(left, LOOK_SECONDS), SHORTEST_SECONDS))
            if writing.done() and not self._failures:
                continue
            if self._loop.time() >= began + self._patience():
                self._put_away()
                return
            if writing.done():
                await asyncio.sleep(self._pause())

    def _patience(self) -> float:
        if self._given_up or self._put_away_before:
            return 0.0
        return PATIENCE_SECONDS if self._failures else SLOW_SECONDS

    # --- writing ----------------------------------------------------------------------------------------------

    def _write_in_background(self) -> asyncio.Task[None]:
        """Have everything written that is ready for it: by the attempt that is under way, or a new one."""
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return self._writing

    async def _write(self) -> None:
        """Write what is ready, oldest first. Never raises."""
        try:
            await self._open()
            while not self._lost:
                while self._spool.has_own:  # and what is spooled while it is brought in: numbers must come in order
                    await self._spool.bring_in_own(self._store)
                if not self._unwritten:
                    break
                batch = self._unwritten[0]
                began = self._loop.time()
                await self._store.write(batch.numbered_from(self._process_key))
                for observe in OBSERVERS:
                    observe(batch, self._loop.time() - began)
                self._last_written = batch.number
                if self.beginnings is not None:
                    self.beginnings.were_written(batch.flow_runs)
                self.recorder.were_written(batch.cache_records, batch.safe_ends)
                if self._unwritten and self._unwritten[0] is batch:  # else it was spooled, too, meanwhile
                    del self._unwritten[0]
        except ProcessLost as error:
            self._is_lost(error)
        except Exception as error:
            self._failed(error)
        else:
            self._works()

    async def _open(self) -> None:
        if self._opened:
            return
        key, written = await self._store.open(self.process)
        if written < self._last_written:  # another store than before
            self.rows.start_over()
        self._process_key, self._opened = key, True
        await self._spool.bring_in_others(self._store)

    def _open_store(self) -> Store | None:
        return self._store if self._opened and not self._lost else None

    def _put_away(self) -> None:
        """Spool what the store does not take."""
        if self.problem is None:
            self._failed(StoreUnavailable(f"The store {self._store.place} has not answered for some seconds."))
        self._put_away_before = True
        unwritten, self._unwritten = self._unwritten, []
        try:
            if unwritten:
                self._spool.keep(unwritten)
        except Exception as error:
            self._unwritten = unwritten
            if not self._said_no_room:
                self._said_no_room = True
                ENGINE.error("The journal cannot write to %s either: %s", self._spool.place, error)
            self._give_up_the_oldest()

    def _give_up_the_oldest(self) -> None:
        """Keep no more in memory than there is room for."""
        size = sum(batch.size() for batch in self._unwritten)
        while size > ROOM:
            size -= self._unwritten[0].size()
            self._left_out += self._unwritten.pop(0).size()

    def _failed(self, error: Exception) -> None:
        self._failures = min(self._failures + 1, 10)
        self._opened = False
        if self.problem is None:
            self.problem = error
            unexpected = None if isinstance(error, UpwellError) else error
            ENGINE.warning("The journal cannot write, and tries again; runs go on: %s", error, exc_info=unexpected)

    def _works(self) -> None:
        self._failures = 0
        self._put_away_before = self._said_no_room = False
        if self.problem is not None:
            self.problem = None
            ENGINE.info("The journal writes again to %s", self._store.place)
            self._report_left_out()

    def _report_left_out(self) -> None:
        if self._left_out:
            ENGINE.error("There was no room to keep %s records, which are lost", self._left_out)
            self._left_out = 0

    def _is_lost(self, error: ProcessLost) -> None:
        if not self._lost:
            self._lost = True
            ENGINE.error("%s", error)
            self._be_quick()

    # --- signs of life, and upkeep ------------------------------------------------------------------------------

    async def _keep_alive(self) -> None:
        """Renew the lease, often enough that a renewal or two may fail."""
        while True:
            await asyncio.sleep(self.process.lease_seconds / 4)
            if not self._opened:
                continue
            try:
                await self._store.renew(self.process)
            except ProcessLost as error:
                self._is_lost(error)
            except Exception as error:
                self._failed(error)
                self._be_quick()  # so that it is opened again

    # --- the end ------------------------------------------------------------------------------------------------

    async def _end(self, helpers: list[asyncio.Task[None]]) -> None:
        self.closed = self._closing = True
        self._intake = self._intake.of(self.recorder.discard())
        if self._lost and self.on_lost is not None:
            self.on_lost()  # only now: an end that this leads to is not what becomes of a run
        for helper in helpers:
            helper.cancel()
        try:
            await self._flush()
            if self._unwritten:  # what a lost process did is brought in by others, as far as it does no harm
                self._put_away()
            if self._spool.has_own and not self._lost:
                ENGINE.info("What the store did not take is kept in %s until it does", self._spool.place)
        finally:
            self._left_out += sum(batch.size() for batch in self._unwritten)
            self._report_left_out()
            self._unwritten.clear()
            self._settle()
        await self._say_goodbye(helpers)

    def _settle(self) -> None:
        self._settled.set()
        self._tell_all_who_wait()

    async def _say_goodbye(self, helpers: list[asyncio.Task[None]]) -> None:
        """Nobody waits for this: it may take as long as a store needs that is stuck."""
        await asyncio.sleep(0)  # what was asked for just before has begun then, and been refused
        for asked in self._asked_for:
            asked.cancel()
        writing = {self._writing} if self._writing is not None else set[asyncio.Task[None]]()
        await asyncio.wait({*helpers, *self._asked_for, *writing})
        store = self._open_store()
        if self._tidy is not None and store is not None:
            await tidy_at_end(self._tidy, store)
        try:
            await self._store.close(self.process)
        except Exception as error:  # its lease runs out
            ENGINE.debug("The journal could not take leave of its store", exc_info=error)
