"""Waiting from inside a run: it holds nothing meanwhile; its slots and its worker are free, and taken again after."""

# An isinstance check cannot say what a generic future holds, and here nobody needs to know.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

from upwell.core.states import RUNNING
from upwell.engine.clock import Gate
from upwell.engine.finish import until_done
from upwell.engine.future import RunFuture
from upwell.engine.limits import NamedLimit
from upwell.engine.scope import EngineSeam
from upwell.engine.steps import live_async, live_blocking
from upwell.engine.waits import check_no_cycle, give_back_tickets, holders_of, take_tickets

Run = RunFuture[Any]


class Aside:
    """How the runs of one engine step aside. leave_gates: gives back what a run holds of its call's gates."""

    def __init__(self, engine: EngineSeam, leave_gates: Callable[[Run], None]) -> None:
        self._engine = engine
        self._leave_gates = leave_gates
        self._coming_back: dict[Run, list[Callable[[], object]]] = {}

    @contextmanager
    def step_aside(self, run: Run, target: Run | None) -> Generator[None, None, None]:
        """A worker's thread waits inside a run: its slots and its thread are free for others meanwhile."""
        self._begin_wait(run, target)
        aside = self._leave_places(run)
        try:
            yield
        finally:
            run.waits_for = None
            for holder, limits in aside:
                if holder.call.gates and holder.status == RUNNING:
                    entered = Gate()
                    self._engine.call_soon(partial(self._come_back, holder, holder.run_count, entered.open))
                    entered.wait()
                if limits:
                    holder.tickets = live_blocking(take_tickets(limits))
                if holder.call.runner is not None:
                    holder.call.runner.unblocked(holder)

    async def step_aside_until(self, run: Run, waiter: asyncio.Future[None], target: Run | None) -> None:
        """The same for a wait on the running loop: this one, or that of a worker's thread."""
        self._begin_wait(run, target)
        aside = self._leave_places(run)
        try:
            await waiter
        finally:
            run.waits_for = None
            for holder, limits in aside:
                if holder.call.gates and holder.status == RUNNING:
                    await self._until_back(holder)
                if limits:  # else another of its waits has given them back, and takes them again
                    holder.tickets = await live_async(take_tickets(limits))
                if holder.call.runner is not None and not self._engine.on_loop_thread():
                    holder.call.runner.unblocked(holder)

    def _begin_wait(self, run: Run, target: Run | None) -> None:
        run.waits_for = target  # before the check: of two that begin to wait for each other at once, one must see it
        if target is not None:
            try:
                check_no_cycle(run, target)
            except BaseException:
                run.waits_for = None
                raise

    def _leave_places(self, run: Run) -> list[tuple[Run, list[NamedLimit]]]:
        """Free the slots and the worker of a run that waits, and of those that called it; outermost first."""
        aside: list[tuple[Run, list[NamedLimit]]] = []
        for holder in reversed(holders_of(run)):
            if holder.gates_held:
                self._engine.perform(partial(self._leave, holder))
            if holder.call.runner is not None and not self._engine.on_loop_thread():
                holder.call.runner.blocked(holder)
            aside.append((holder, give_back_tickets(holder)))
        return aside

    async def _until_back(self, holder: Run) -> None:
        loop = asyncio.get_running_loop()
        back: asyncio.Future[None] = loop.create_future()
        elsewhere = loop is not self._engine.loop

        def wake() -> None:
            if elsewhere:
                loop.call_soon_threadsafe(_set, back)
            else:
                _set(back)

        self._engine.perform(partial(self._come_back, holder, holder.run_count, wake))
        await until_done(back)

    def leave_for_good(self, run: Run) -> None:
        """An attempt is over. Its code may be about to come back, if it was given up: it needs no slots any more."""
        if run in self._coming_back:
            run.call.gates[run.gates_held].forget(run)
            self._entered(run)
        self._leave_gates(run)

    def _leave(self, run: Run) -> None:
        if run not in self._coming_back:  # for another of its waits, which will find what it needs
            self._leave_gates(run)

    def _come_back(self, run: Run, attempt: int, entered: Callable[[], object]) -> None:
        """Take a run's slots again after it stepped aside in this attempt, unless that is over."""
        if run.status != RUNNING or run.run_count != attempt:
            entered()
        elif run in self._coming_back:  # several of its waits have ended: it takes each slot once
            self._coming_back[run].append(entered)
        else:
            self._coming_back[run] = [entered]
            self._pass_gates(run)

    def _pass_gates(self, run: Run) -> None:
        gates = run.call.gates
        while run.gates_held < len(gates):
            if not gates[run.gates_held].enter(run, self._gate_opened):
                return
            run.gates_held += 1
        self._entered(run)

    def _gate_opened(self, run: Run) -> None:
        run.gates_held += 1
        self._pass_gates(run)

    def _entered(self, run: Run) -> None:
        for entered in self._coming_back.pop(run):
            entered()


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
