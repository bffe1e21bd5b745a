"""The journal of this process: a thread that writes what the engine has recorded, in groups, and renews the lease.

The thread runs an event loop of its own, for all that talks to the store. It looks at the recorder every flush
interval while something happens there, sleeps otherwise, and never makes the engine wait, but for a full recorder.

A store that fails is tried again while runs go on, and that is said once. Who waits for a flush waits so long only;
then what could not be written is spooled to a file, which is as safe, and brought in later.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any, Final

from upwell.engine.loggers import ENGINE
from upwell.engine.recorder import Recorder
from upwell.journal.batch import Batch
from upwell.journal.database import StoreUnavailable
from upwell.journal.processes import Process
from upwell.journal.rows import RowMaker
from upwell.journal.spool import Spool
from upwell.journal.store import ProcessLost, Store

SLICE: Final = 2_000
"""How many runs are made into rows at a time: a few milliseconds, then other threads get their turn."""

MOST_ROWS: Final = 20_000
"""Of one transaction."""

FIRST_RETRY_SECONDS: Final = 0.05
LAST_RETRY_SECONDS: Final = 2.0

PATIENCE_SECONDS: Final = 2.0
"""How long who waits for a flush waits for a store that fails, before it is spooled."""

CLOSE_SECONDS: Final = 30.0


class Journal:
    """Writes what happens in this process.

    make_store: makes the store, on the journal's thread.
    spool: where to put what the store does not take.
    flush_seconds: how long something may wait to be written.
    """

    def __init__(
        self, make_store: Callable[[], Store], process: Process, spool: Spool, flush_seconds: float = 0.05
    ) -> None:
        self.pid = os.getpid()
        self.process = process
        self.recorder = Recorder(self, self._look)
        self.closed = False
        self.problem: BaseException | None = None  # why the store does not take anything now
        self.lost = False
        self._make_store = make_store
        self._spool = spool
        self._flush_seconds = flush_seconds
        self._rows = RowMaker(process.id)
        self._unwritten: list[Batch] = []
        self._waiting: list[Callable[[], object]] = []
        self._closing = False
        self._loop = asyncio.SelectorEventLoop()
        self._looks = asyncio.Event()
        self._hurry = asyncio.Event()
        self._opened = False
        self._failures = 0
        self._thread = threading.Thread(target=self._serve, name="upwell-journal", daemon=True)
        self._thread.start()

    # --- from any thread ----------------------------------------------------------------------------------

    def _look(self) -> None:
        """Something is recorded, after a time in which nothing was."""
        self._tell(self._looks.set)

    def when_written(self, callback: Callable[[], object]) -> None:
        """Call this as soon as everything recorded until now is safe: in the store, or spooled."""
        if self.closed:
            callback()
            return
        self._waiting.append(callback)
        self.recorder.awake = True
        self._tell(self._be_quick)

    def flush(self, timeout: float | None = None) -> bool:
        """Block until everything recorded until now is safe; whether it was in time."""
        written = threading.Event()
        self.when_written(written.set)
        return written.wait(timeout)

    def ask(self, work: Callable[[Store], Any]) -> Any:
        """Have the store do something on the journal's loop: `work(store)` gives a coroutine; its future."""

        async def asked() -> Any:
            while not self._opened:
                await self._try_to_open()
            return await work(self._store)

        return asyncio.run_coroutine_threadsafe(asked(), self._loop)

    def close(self) -> None:
        """Write or spool what is left, and end the thread; may be called twice."""
        if self.closed or self.pid != os.getpid():
            return
        self._closing = True
        self._tell(self._be_quick)
        self._thread.join(CLOSE_SECONDS)
        self.closed = True

    def _tell(self, what: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:  # the loop has ended
            pass

    def _be_quick(self) -> None:
        self._looks.set()
        self._hurry.set()

    # --- on the journal's own thread ------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            self._loop.run_until_complete(self._live())
        except BaseException as error:
            ENGINE.error("The journal has stopped: nothing is recorded from here on", exc_info=error)
        finally:
            self.closed = True
            waiting, self._waiting = self._waiting, []
            for callback in waiting:
                callback()
            self._loop.close()

    async def _live(self) -> None:
        self._store = self._make_store()
        renewing = asyncio.create_task(self._keep_alive())
        try:
            while not self._closing:
                await self._turn()
        finally:
            await self._write_all(patience=0.0 if self.problem else PATIENCE_SECONDS)
            renewing.cancel()
            await asyncio.wait([renewing])
            await self._say_goodbye()

    async def _turn(self) -> None:
        """Wait until there is something to write, and write it."""
        recorder = self.recorder
        if recorder.is_empty() and not self._waiting and not self._unwritten:
            self._looks.clear()
            recorder.awake = False
            if recorder.is_empty() and not self._waiting and not self._closing:  # else it came meanwhile
                await self._looks.wait()
            recorder.awake = True
        if not self._waiting and not self._closing:
            try:
                await asyncio.wait_for(self._hurry.wait(), self._pause())
            except TimeoutError:
                pass
        self._hurry.clear()
        await self._write_all(PATIENCE_SECONDS)

    def _pause(self) -> float:
        """How long to wait before the next flush: longer while the store fails."""
        if not self._failures:
            return self._flush_seconds
        return float(min(FIRST_RETRY_SECONDS * 2**self._failures, LAST_RETRY_SECONDS))

    async def _write_all(self, patience: float) -> None:
        """Write everything recorded until now; spool it, if somebody waits for it and the store does not take it."""
        waiting = len(self._waiting)
        until = self._loop.time() + patience
        await self._take()
        while self._unwritten and not await self._write():
            if not waiting and not self._closing:
                if self.recorder.is_full():
                    self._spool_all()
                return
            if self._loop.time() >= until:
                self._spool_all()
                break
            await asyncio.sleep(min(self._pause(), max(until - self._loop.time(), 0.0)))
        for callback in _take(self._waiting, waiting):
            callback()

    async def _take(self) -> None:
        """Make rows of what was recorded, a slice at a time."""
        recorder, rows = self.recorder, self._rows
        ends = len(recorder.ended)
        batch = self._unwritten.pop() if self._unwritten and not self.problem else rows.new_batch()
        flow_moves = _take(recorder.flow_moves)
        rows.add_flow_moves(batch, flow_moves)
        rows.add_moves(batch, _take(recorder.moves))
        rows.add_edges(batch, _take(recorder.fed))
        begun = _take(recorder.begun)
        while ends > 0:
            slice_ = recorder.ended[: min(SLICE, ends)]
            ends -= len(slice_)
            rows.add_ended(batch, slice_)
            del recorder.ended[: len(slice_)]
            await asyncio.sleep(0)
            if batch.size() > MOST_ROWS:
                rows.add_series(batch)
                self._unwritten.append(batch)
                batch = rows.new_batch()
        rows.add_begun(batch, begun)
        batch.logs += _take(recorder.logs)
        rows.add_series(batch)
        if not batch.is_empty():
            self._unwritten.append(batch)

    async def _write(self) -> bool:
        """Write what is there to be written; False if the store does not take it now."""
        if self.lost:
            self._unwritten.clear()
            return True
        try:
            if not self._opened:
                await self._open()
            while self._unwritten:
                await self._store.write(self._unwritten[0].numbered_from(self._rows.process_key))
                self._unwritten.pop(0)
        except StoreUnavailable as error:
            self._failed(error)
            return False
        except ProcessLost as error:
            self._is_lost(error)
            return True
        self._works()
        return True

    async def _open(self) -> None:
        self._rows.process_key = await self._store.open(self.process)
        self._opened = True
        await self._spool.bring_in(self._store)

    async def _try_to_open(self) -> None:
        try:
            if not self._opened:
                await self._open()
        except StoreUnavailable as error:
            self._failed(error)
            await asyncio.sleep(self._pause())

    # --- a store that fails -----------------------------------------------------------------------------------

    def _failed(self, error: BaseException) -> None:
        self._failures = min(self._failures + 1, 10)
        if self.problem is None:
            self.problem = error
            ENGINE.warning("The journal cannot write, and tries again; runs go on: %s", error)

    def _works(self) -> None:
        self._failures = 0
        if self.problem is not None:
            self.problem = None
            ENGINE.info("The journal writes again to %s", self._store.place)

    def _is_lost(self, error: BaseException) -> None:
        if not self.lost:
            self.lost = True
            ENGINE.error("%s", error)
        self._unwritten.clear()

    def _spool_all(self) -> None:
        """Put what the store does not take into a file."""
        unwritten, self._unwritten = self._unwritten, []
        try:
            self._spool.keep(self.process, unwritten)
        except OSError as error:
            self._unwritten = unwritten
            ENGINE.error("The journal cannot write to %s either: %s", self._spool.path, error)

    # --- signs of life -------------------------------------------------------------------------------------------

    async def _keep_alive(self) -> None:
        """Renew the lease, often enough that a renewal or two may fail."""
        while True:
            await asyncio.sleep(self.process.lease_seconds / 4)
            if not self._opened or self.lost:
                continue
            try:
                await self._store.renew(self.process)
            except StoreUnavailable as error:
                self._failed(error)
            except ProcessLost as error:
                self._is_lost(error)

    async def _say_goodbye(self) -> None:
        if self._unwritten:
            self._spool_all()
        if self._opened:
            try:
                await self._store.close(self.process)
            except StoreUnavailable:
                pass  # its lease runs out


def _take(items: list[Any], most: int | None = None) -> list[Any]:
    """Take everything, or the first so many, out of a list to which others append."""
    taken = items[:most]
    del items[: len(taken)]
    return taken

