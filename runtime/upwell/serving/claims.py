"""Claims jobs and sees each through to its end: started, cancelled if somebody asks for it, ended in the store.

Who begins a run is decided by the store alone, so that whatever dies here, and whenever, no run is begun twice: a job
that was claimed and never begun waits again, and one that was begun by a process that has died is seen to by whoever
looks after processes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from upwell.core.deployments import CancelRequest, Job
from upwell.core.errors import UpwellError
from upwell.journal.control import Control
from upwell.serving.carriers import Carried, Carrier, How
from upwell.serving.logs import LOGGER

POLL_SECONDS: Final = 1.0
"""How often is looked for jobs that are due."""

FAILED_SECONDS: Final = 5.0
"""The same at most, while the store fails."""

GATHER_SECONDS: Final = 0.05
"""For so long ends of runs gather, to be told to the store together."""

STARTS_AT_ONCE: Final = 4 * (os.cpu_count() or 1)
"""How many may be on their way to their beginning: more would only take the processors from each other."""

CANCELS_SECONDS: Final = 1.0
"""How often is looked for requests to cancel what is under way."""

TIDY_SECONDS: Final = 30.0

MOST_CLAIMS: Final = 5
"""A job that has been claimed so often, and never begun, is given up."""


class Source(NamedTuple):
    """Whose jobs: of these deployments, or of this work pool and these queues of it (none: all)."""

    deployments: tuple[UUID, ...] = ()
    pool: str | None = None
    queues: tuple[str, ...] = ()


class Claims:
    """The jobs that one worker has.

    worker_id: the process that claims, as the store knows it; it may become another.
    limit: how many runs are under way at most; None: any number.
    """

    def __init__(
        self,
        control: Control,
        carrier: Carrier,
        source: Source,
        worker_id: Callable[[], str],
        limit: int | None = None,
    ) -> None:
        self._control = control
        self._carrier = carrier
        self._source = source
        self._worker_id = worker_id
        self._limit = limit
        self._jobs: dict[UUID, Job] = {}
        self._starting: set[UUID] = set()
        self._killed_at: dict[UUID, float] = {}
        self._look = asyncio.Event()
        self._has_ended = asyncio.Event()
        self._draining = False

    @property
    def under_way(self) -> Sequence[Job]:
        """What is carried out now."""
        return list(self._jobs.values())

    # --- from the loop's thread ---------------------------------------------------------------------------

    def drain(self) -> None:
        """Claim nothing more; `run` ends with what is under way."""
        self._draining = True
        self._look.set()

    async def cancel_all(self, by: str, grace_seconds: float) -> None:
        """Have everything end that is under way."""
        for flow_run_id in list(self._jobs):
            try:
                await self._control.request_cancel(
                    flow_run_id, by=by, reason="It was stopped with its worker.", grace_seconds=grace_seconds
                )
            except UpwellError as error:
                LOGGER.warning("The run %s could not be cancelled: %s", flow_run_id, error)

    def kill_all(self) -> None:
        """The same, at once."""
        for flow_run_id in self._jobs:
            self._carrier.kill(flow_run_id)

    def begun(self, flow_run_id: UUID) -> None:
        """A run has begun, or need not."""
        if flow_run_id in self._starting:
            self._starting.discard(flow_run_id)
            self._look.set()

    async def run(self) -> None:
        """Claim and carry out until drained."""
        helpers = [self._see_to_cancels(), self._tell_ends(), self._tidy()]
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(helper) for helper in helpers]
            await self._claim_until_drained(group)
            while self._jobs:
                self._look.clear()
                await self._look.wait()
            for task in beside:
                task.cancel()
        await self._reap()

    # --- claiming -----------------------------------------------------------------------------------------

    async def _claim_until_drained(self, group: asyncio.TaskGroup) -> None:
        failures = 0
        while not self._draining:
            self._look.clear()
            free = self._free()
            jobs: list[Job] = []
            if free > 0:
                try:
                    jobs = await self._claim(free)
                    failures = 0
                except UpwellError as error:
                    failures += 1
                    if failures == 1:
                        LOGGER.warning("No jobs can be had now, and that is tried again: %s", error)
            for job in jobs:
                self._jobs[job.flow_run_id] = job
                self._starting.add(job.flow_run_id)
                group.create_task(self._see_through(job))
            if len(jobs) < free or free <= 0:
                await self._pause(min(POLL_SECONDS * 2 ** min(failures, 8), FAILED_SECONDS))

    def _free(self) -> int:
        free = STARTS_AT_ONCE - len(self._starting)
        return free if self._limit is None else min(free, self._limit - len(self._jobs))

    async def _claim(self, free: int) -> list[Job]:
        source = self._source
        return await self._control.claim_jobs(
            self._worker_id(), deployments=source.deployments, pool=source.pool, queues=source.queues, limit=free
        )

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until there is a reason to look."""
        try:
            async with asyncio.timeout(seconds):
                await self._look.wait()
        except TimeoutError:
            pass

    # --- one job ------------------------------------------------------------------------------------------

    async def _see_through(self, job: Job) -> None:
        try:
            carried = await self._carrier.carry(job)
            await self._ended(job, carried)
        except Exception:
            LOGGER.exception("The run '%s' could not be carried out", job.name)
        finally:
            if self._jobs.get(job.flow_run_id) is job:  # else it was taken from us meanwhile, and is ours again
                self._jobs.pop(job.flow_run_id)
                self._starting.discard(job.flow_run_id)
                self._killed_at.pop(job.flow_run_id, None)
            self._has_ended.set()
            if self._draining:
                self._look.set()

    async def _ended(self, job: Job, carried: Carried) -> None:
        match carried.how:
            case How.DONE | How.VOID:
                return
            case How.NOT_BEGUN:
                LOGGER.warning("The run '%s' did not begin here: %s", job.name, carried.message)
                await self._give_back(job, carried.message)
            case How.REFUSED:
                LOGGER.error("The run '%s' cannot begin: %s", job.name, carried.message)
                await self._insist(lambda: self._control.fail_job(job, carried.message))
            case How.DIED:
                LOGGER.error("The run '%s' has crashed: %s", job.name, carried.message)
                await self._give_back(job, carried.message)

    async def _give_back(self, job: Job, message: str) -> None:
        """If it had not begun somebody else may have it, but not for ever; if it had, it has crashed."""
        if job.claim < MOST_CLAIMS:
            await self._insist(lambda: self._control.release_job(job, message))
        await self._insist(lambda: self._control.fail_job(job, message))

    async def _insist(self, tell: Callable[[], Awaitable[object]]) -> None:
        """Tell the store, until it has heard."""
        pause = GATHER_SECONDS
        while True:
            try:
                await tell()
                return
            except UpwellError as error:
                LOGGER.debug("The store did not hear of the end of a run", exc_info=error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, FAILED_SECONDS)

    # --- beside -------------------------------------------------------------------------------------------

    async def _tell_ends(self) -> None:
        """Runs that have ended make room for others of their deployment: tell the store, and look again."""
        while True:
            await self._has_ended.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._has_ended.clear()
            await self._reap()
            self._look.set()

    async def _reap(self) -> None:
        try:
            await self._control.reap_jobs()
        except UpwellError as error:  # the next time, or whoever looks after the store
            LOGGER.debug("Jobs that have ended could not be told", exc_info=error)

    async def _see_to_cancels(self) -> None:
        """Kill what was asked to end, and has not when its time is over."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(CANCELS_SECONDS)
            if not self._jobs:
                continue
            try:
                requests = await self._control.cancel_requests(list(self._jobs))
            except UpwellError as error:
                LOGGER.debug("It could not be seen what is to be cancelled", exc_info=error)
                continue
            for request in requests:
                self._see_to(request, loop.time())

    def _see_to(self, request: CancelRequest, now: float) -> None:
        job = self._jobs.get(request.flow_run_id)
        if job is None:
            return
        until = self._killed_at.setdefault(request.flow_run_id, now + request.grace_seconds)
        if now >= until:
            LOGGER.warning("The run '%s' did not end by itself, and is killed", job.name)
            self._carrier.kill(request.flow_run_id)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            await self._carrier.tidy()
