"""A worker at work: known to the store, claiming jobs, doing the store's upkeep, until it is told to stop.

It is told by signals. The first SIGTERM, or Ctrl-C, lets what runs come to its end and claims nothing more; the second
cancels what runs; the third kills it.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from upwell.composition import is_remote, open_control, open_recorder
from upwell.core.deployments import JobScope
from upwell.core.errors import ConfigurationError, UpwellError
from upwell.engine.finish import until_done
from upwell.engine.interrupts import ONE_PRESS_SECONDS
from upwell.journal.control import Control
from upwell.serving.carriers import Carrier
from upwell.serving.claims import Claims
from upwell.serving.logs import LOGGER
from upwell.settings import current as settings

REGISTER_SECONDS: Final = 10.0
"""How often is looked whether the store knows this worker under its name, and said that it is there."""

GRACE_SECONDS: Final = 10.0
"""How long runs have to end that are cancelled because their worker is stopped."""

SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Shift:
    """One worker, from when it is known to the store until it has nothing more to do.

    control: the store, on a connection of its own. name: for people. limit: how many runs go on at once.
    """

    def __init__(
        self, control: Control, carrier: Carrier, source: JobScope, name: str, limit: int | None = None
    ) -> None:
        self._control = control
        self._carrier = carrier
        self._source = source
        self._name = name
        self._registered: str | None = None
        self._claims = Claims(control, carrier, source, worker_id, limit)
        self._times_told = 0
        self._cancelling: asyncio.Task[None] | None = None

    async def work(self) -> None:
        """Until it is told to stop, and what runs has ended."""
        await self._register()
        await self._carrier.open(self._claims.begun)
        try:
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(self._stay_registered())]
                if not is_remote(settings()):
                    beside.append(group.create_task(self._keep_up()))
                try:
                    await self._claims.run()
                finally:
                    for task in beside:
                        task.cancel()
        finally:
            await self._carrier.close()
            await self._sign_off()

    def stop(self) -> None:
        """Stop: gently, at the second call less so, at the third at once."""
        self._times_told += 1
        running = len(self._claims.under_way)
        self._claims.drain()
        if not running:
            return
        if self._times_told == 1:
            LOGGER.info("Stopping: %s run(s) may come to their end; stop again to cancel them", running)
        elif self._times_told == 2:
            LOGGER.warning("Cancelling %s run(s); stop again to kill them", running)
            self._cancelling = asyncio.create_task(self._claims.cancel_all(self._name, GRACE_SECONDS))
        else:
            LOGGER.warning("Killing %s run(s)", running)
            self._claims.kill_all()

    # --- beside ---------------------------------------------------------------------------------------------

    async def _register(self) -> None:
        """Have the store know this worker."""
        recorder = open_recorder()
        if recorder is None:
            raise _no_journal()
        await asyncio.wrap_future(recorder.journal.ask(_nothing))  # from then on the store knows the process
        process_id = recorder.journal.process.id
        await self._control.register_worker(process_id, self._name, self._source.pool)
        self._registered = process_id

    async def _stay_registered(self) -> None:
        """The process may become another to the store: one that was taken for dead, while its machine slept."""
        while True:
            await asyncio.sleep(REGISTER_SECONDS)
            try:
                await self._register()
            except UpwellError as error:
                LOGGER.debug("The worker could not be registered", exc_info=error)

    async def _keep_up(self) -> None:
        """Where there may be no server, workers make the runs of schedules, and look after late ones."""
        from upwell.server.services.standard import run_services

        await run_services(self._control, settings())

    async def _sign_off(self) -> None:
        if self._registered is not None:
            try:
                await self._control.worker_ended(self._registered)
            except UpwellError as error:  # its lease runs out
                LOGGER.debug("The worker could not take its leave", exc_info=error)


def worker_id() -> str:
    """The process that this is to the store now."""
    recorder = open_recorder()
    if recorder is None:
        raise _no_journal()
    identity: str = recorder.journal.process.id
    return identity


async def work_until_told(shift: Shift) -> None:
    """Have a shift work until signals, or the cancellation of the caller, stop it."""
    working = asyncio.create_task(shift.work())
    with _signals_stop(shift):
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError:
            shift.stop()
            shift.stop()
            await until_done(working)
            raise
    working.result()


@contextmanager
def _signals_stop(shift: Shift) -> Generator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {}
    told_at = -ONE_PRESS_SECONDS

    def stop() -> None:
        nonlocal told_at
        if loop.time() - told_at >= ONE_PRESS_SECONDS:
            told_at = loop.time()
            shift.stop()

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            before[number] = signal.getsignal(number)
            loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            if handler is not None:
                signal.signal(number, handler)


@asynccontextmanager
async def store_to_work_with() -> AsyncGenerator[Control]:
    """The store's control, where jobs can be carried out.

    Raises:
        ConfigurationError: nothing is recorded in this process, or only in memory.
    """
    if settings().journal != "on":
        raise _no_journal()
    async with open_control() as control:
        yield control


def _no_journal() -> ConfigurationError:
    return ConfigurationError(
        "Runs of deployments are carried out by processes that share a store, so they need the journal: set "
        "UPWELL_JOURNAL=on."
    )


async def _nothing(_: Any) -> None:
    """What the store is asked to do, to know that it is open."""
