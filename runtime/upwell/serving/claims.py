"""Claims jobs and sees each through to its end: started, cancelled if somebody asks for it, ended in the store.

Who begins a run is decided by the store alone, so that whatever dies here, and whenever, no run is begun twice: a job
that was claimed and never begun waits again, and one that was begun by a process that has died is seen to by whoever
looks after processes.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from uuid import UUID

from msgspec.structs import asdict

from upwell.core.deployments import CancelRequest, ClaimSpec, ExpectSpec, Job, JobScope
from upwell.core.errors import ConfigurationError, UpwellError
from upwell.core.lifecycle import describe
from upwell.engine.clock import clock
from upwell.journal.control import Control
from upwell.serving.carriers import Carried, Carrier, How
from upwell.serving.logs import LOGGER
from upwell.serving.room import room_for_processes

POLL_SECONDS: Final = 0.25
"""How often is looked for jobs that are due."""

FAILED_SECONDS: Final = 5.0
"""The same at most, while the store fails."""

GATHER_SECONDS: Final = 0.05
"""For so long ends of runs gather, to be told to the store together."""

STARTS_AT_ONCE: Final = 4 * (os.cpu_count() or 1)
"""How many may be on their way to their beginning: more would only take the processors from each other."""

AHEAD: Final = 8 * STARTS_AT_ONCE
"""How many are claimed that have not begun; and no fewer than `STARTS_AT_ONCE` more in one go."""

AHEAD_SECONDS: Final = 5.0
"""So long before they are due, processes are made ready for jobs."""

LOOK_AHEAD_SECONDS: Final = 0.5
"""How often is looked for those."""

MOST_EXPECTED: Final = 200
"""For so many jobs at most is made ready."""

PRESENT_SECONDS: Final = 15.0
"""How often a worker that is busy says that it is there, by asking for no job at all."""

CANCELS_SECONDS: Final = 1.0
"""How often is looked for requests to cancel what is under way."""

TIDY_SECONDS: Final = 30.0

MOST_FAILURES: Final = 5
"""A job that has not begun so often at this worker, without anybody's having stopped it, is given up."""


MOST_REMEMBERED: Final = 1_000
"""Of so many jobs at most is known how often they have not begun."""


class _Start:
    """One of those that may be on their way at once; it is over when the run has begun, or will not."""

    def __init__(self, may_start: asyncio.Semaphore) -> None:
        self._may_start: asyncio.Semaphore | None = may_start

    def over(self) -> None:
        if self._may_start is not None:
            self._may_start.release()
            self._may_start = None


class _Patience:
    """With a run that is to end. until: when there is none left. killed: what to say of it, since there is none."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.killed: str | None = None


class Claims:
    """The jobs that one worker has.

    worker_id: the process that claims, as the store knows it; it may become another.
    limit: how many runs are under way at most; None: any number.
    """

    def __init__(
        self,
        control: Control,
        carrier: Carrier,
        source: JobScope,
        worker_id: Callable[[], str],
        limit: int | None = None,
    ) -> None:
        self._control = control
        self._carrier = carrier
        self._source = source
        self._worker_id = worker_id
        self._limit = limit
        self._jobs: dict[UUID, Job] = {}
        self._unbegun: set[UUID] = set()
        self._carrying: set[UUID] = set()  # those that are not being given back, or told to have ended
        self._failures = Counter[UUID]()
        self._starting: dict[UUID, _Start] = {}
        self._may_start = asyncio.Semaphore(STARTS_AT_ONCE)
        self._patience: dict[UUID, _Patience] = {}
        self._look = asyncio.Event()
        self._has_ended = asyncio.Event()
        self._draining = False
        self._asked = 0.0
        self._dues: list[float] = []
        self._template: dict[str, Any] | None = None

    @property
    def under_way(self) -> Sequence[Job]:
        """What is carried out now."""
        return list(self._jobs.values())

    # --- from the loop's thread ---------------------------------------------------------------------------

    def drain(self) -> None:
        """Claim nothing more; `run` ends with what is under way."""
        self._draining = True
        for flow_run_id in self._carrier.preparing():
            self._carrier.give_up(flow_run_id)
        self._look.set()

    async def cancel_all(self, by: str, grace_seconds: float) -> None:
        """Have everything end that is under way."""
        for flow_run_id in list(self._carrying):
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
        self._unbegun.discard(flow_run_id)
        if (start := self._starting.pop(flow_run_id, None)) is not None:
            start.over()
            self._look.set()

    async def run(self) -> None:
        """Claim and carry out until drained."""
        helpers = [self._look_ahead(), self._see_to_cancels(), self._tell_ends(), self._tidy()]
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
            if free > 0 or self._time() > self._asked + PRESENT_SECONDS:
                try:
                    jobs = await self._claim(max(free, 0))
                    failures = 0
                    if jobs and self._source.pool is not None:
                        await self._see_template(self._source.pool)
                except UpwellError as error:
                    failures += 1
                    if failures == 1:
                        LOGGER.warning("No jobs can be had now, and that is tried again: %s", error)
            for job in jobs:
                self._jobs[job.flow_run_id] = job
                self._unbegun.add(job.flow_run_id)
                group.create_task(self._see_through(job))
            if len(jobs) < free or free <= 0:
                await self._pause(min(POLL_SECONDS * 2 ** min(failures, 8), FAILED_SECONDS))

    def _free(self) -> int:
        free = AHEAD - len(self._unbegun)
        if free < STARTS_AT_ONCE:
            return 0
        return free if self._limit is None else min(free, self._limit - len(self._jobs))

    async def _claim(self, free: int) -> list[Job]:
        source, self._asked = self._source, self._time()
        wanted = ClaimSpec(worker_id=self._worker_id(), limit=free, **asdict(source))
        return await self._control.claim_jobs(wanted)

    async def _see_template(self, name: str) -> None:
        """The pool's base job template may have been changed since the last job."""
        template = (await self._control.work_pool(name)).base_job_template
        if template == self._template:
            return
        self._template = template
        try:
            self._carrier.use_template(template)
        except ConfigurationError as error:
            LOGGER.error("The base job template of the work pool '%s' has been changed: %s", name, error)

    @staticmethod
    def _time() -> float:
        return asyncio.get_running_loop().time()

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until there is a reason to look."""
        now = clock().time()
        seconds = min((due - now for due in self._dues if now < due < now + seconds), default=seconds)
        try:
            async with asyncio.timeout(seconds):
                await self._look.wait()
        except TimeoutError:
            pass

    # --- one job ------------------------------------------------------------------------------------------

    async def _see_through(self, job: Job) -> None:
        try:
            try:
                carried = await self._carried(job)
            except Exception as error:  # of ours, or of a library's: nobody is to wait for it for ever
                LOGGER.exception("The run '%s' could not be carried out", job.name)
                carried = Carried(How.REFUSED, f"It could not be carried out: {describe(error)}")
            await self._ended(job, carried)
        except Exception:
            LOGGER.exception("The store did not hear of the end of the run '%s'", job.name)
        finally:
            if self._jobs.get(job.flow_run_id) is job:  # else it was taken from us meanwhile, and is ours again
                self._jobs.pop(job.flow_run_id)
                self._patience.pop(job.flow_run_id, None)
            self._has_ended.set()
            if self._draining:
                self._look.set()

    async def _carried(self, job: Job) -> Carried:
        started: list[_Start] = []

        async def may_start() -> bool:
            await self._may_start.acquire()
            started.append(_Start(self._may_start))
            self._starting[job.flow_run_id] = started[-1]
            return not self._draining

        self._carrying.add(job.flow_run_id)
        try:
            return await self._carrier.carry(job, may_start)
        finally:
            self._carrying.discard(job.flow_run_id)
            for start in started:
                start.over()
            self.begun(job.flow_run_id)

    async def _ended(self, job: Job, carried: Carried) -> None:
        match carried.how:
            case How.DONE | How.VOID:
                self._failures.pop(job.flow_run_id, None)
            case How.NOT_BEGUN:
                LOGGER.warning("The run '%s' did not begin here: %s", job.name, carried.message)
                await self._give_back(job, carried.message)
            case How.REFUSED:
                LOGGER.error("The run '%s' cannot begin: %s", job.name, carried.message)
                await self._insist(lambda: self._control.fail_job(job, carried.message))
            case How.DIED:
                patience = self._patience.get(job.flow_run_id)
                killed = patience.killed if patience is not None and self._jobs.get(job.flow_run_id) is job else None
                if killed is None:
                    LOGGER.error("The run '%s' has crashed: %s", job.name, carried.message)
                await self._give_back(job, killed or carried.message)

    async def _give_back(self, job: Job, message: str) -> None:
        """If it had not begun somebody else may have it, but not for ever; if it had, it has crashed."""
        if not self._draining:
            self._failures[job.flow_run_id] += 1
        if self._failures[job.flow_run_id] < MOST_FAILURES:
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

    async def _look_ahead(self) -> None:
        """Get ready for what is about to be due."""
        source = self._source
        while not self._draining:
            most = min(MOST_EXPECTED, room_for_processes())
            if self._limit is not None:
                most = min(most, self._limit - len(self._jobs))
            try:
                wanted = ExpectSpec(within_seconds=AHEAD_SECONDS, limit=max(most, 0), **asdict(source))
                jobs = await self._control.expected_jobs(wanted)
            except UpwellError as error:
                LOGGER.debug("It could not be seen what is about to be due", exc_info=error)
                jobs = []
            self._dues = [job.due.timestamp() for job in jobs]
            if jobs:
                self._carrier.expect(jobs)
            await asyncio.sleep(LOOK_AHEAD_SECONDS)

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
                await self._see_to_preparations()
            except UpwellError as error:
                LOGGER.debug("It could not be seen what is to be cancelled", exc_info=error)
                continue
            for request in requests:
                self._see_to(request, loop.time())

    async def _see_to_preparations(self) -> None:
        """Let no code be fetched for runs that are not to begin here any more."""
        if preparing := set(self._carrier.preparing()):
            claimed = {job.flow_run_id for job in await self._control.claimed_jobs(self._worker_id())}
            for flow_run_id in preparing - claimed:
                self._carrier.give_up(flow_run_id)

    def _see_to(self, request: CancelRequest, now: float) -> None:
        job = self._jobs.get(request.flow_run_id)
        if job is None:
            return
        patience = self._patience.setdefault(request.flow_run_id, _Patience(now + request.grace_seconds))
        if now >= patience.until:
            patience.killed = f"It did not end by itself within {request.grace_seconds:g} second(s), and was killed."
            LOGGER.warning("The run '%s' did not end by itself, and is killed", job.name)
            self._carrier.kill(request.flow_run_id)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            await self._carrier.tidy()
            if len(self._failures) > MOST_REMEMBERED:
                self._failures.clear()
