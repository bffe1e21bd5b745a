"""Sees to it that flow runs of this process end when somebody asks the store for it, wherever they were started."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from upwell.engine.loggers import ENGINE
from upwell.engine.stopping import ids_under_way, stop_flow_run
from upwell.journal.database import StoreError
from upwell.journal.processes import Process

if TYPE_CHECKING:
    from uuid import UUID

    from upwell.core.deployments import CancelRequest
    from upwell.journal.control import Jobs

LOOK_SECONDS: Final = 1.0
"""How often the store is asked, while flow runs are under way."""

SPARE_SECONDS: Final = 5.0
"""How much longer than the worker's patience that of a process of one job is, which kills itself at its end."""


class Host(Protocol):
    """What is needed of the journal of this process."""

    process: Process
    closed: bool

    def ask(self, work: Callable[[Any], Any]) -> Any:
        """Have this done with the store, on the journal's loop; it is cancelled when the journal ends."""
        ...


class CancelWatch:
    """Looks for requests as long as a journal is kept. control_of: who answers them, over the journal's store.

    dies: whether this process is there for one job alone, so that it may be killed for a run that does not end.
    """

    def __init__(self, host: Host, control_of: Callable[[Any], Jobs], *, dies: bool = False) -> None:
        self._dies = dies
        self._host = host
        self._control_of = control_of
        self._until: dict[UUID, float] = {}  # when those that have been asked for have no time left
        self._watching: Any = None

    def begin(self) -> None:
        """Do it from when the store is open until the journal ends."""
        self._watching = self._host.ask(self._watch)  # kept: a loop holds its tasks weakly
        self._watching.add_done_callback(self._begin_again)

    def _begin_again(self, asked: Any) -> None:
        """The journal could not open the store: it is asked again."""
        if not self._host.closed and not asked.cancelled() and isinstance(asked.exception(), StoreError):
            self.begin()

    async def _watch(self, store: Any) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not ids_under_way():
                self._until.clear()
                continue
            try:
                control = self._control_of(store)  # not before: most programs have ended by then
                for request in await control.cancel_requests(process_id=self._host.process.id):
                    self._see_to(request)
            except StoreError:
                pass  # there is a next time; whoever writes says what is the matter
            except Exception as error:
                ENGINE.warning("It could not be seen which runs are to be cancelled", exc_info=error)

    def _see_to(self, request: CancelRequest) -> None:
        now = asyncio.get_running_loop().time()
        until = self._until.get(request.flow_run_id)
        if until is None:
            if stop_flow_run(str(request.flow_run_id), reason_of(request)):
                self._until[request.flow_run_id] = now + request.grace_seconds + SPARE_SECONDS
        elif now > until and self._dies and str(request.flow_run_id) in ids_under_way():
            os.killpg(0, signal.SIGKILL)


def reason_of(request: CancelRequest) -> str:
    """Why a run is cancelled, for people."""
    return f"Cancelled by {request.by}: {request.reason}" if request.reason else f"Cancelled by {request.by}."
