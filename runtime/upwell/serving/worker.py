"""A worker: carries out the jobs of a work pool, `upwell worker start --pool NAME`."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable
from pathlib import Path

from upwell.core.deployments import JobScope, WorkPool
from upwell.core.errors import ConfigurationError, NotFoundError
from upwell.engine.console import ensure_configured
from upwell.serving.carriers import Carrier, ProcessCarrier
from upwell.serving.job_templates import PROCESS_TEMPLATE, JobTemplate
from upwell.serving.logs import LOGGER
from upwell.serving.shift import Shift, store_to_work_with, work_until_told


class Worker:
    """Carries out the jobs of a work pool, until a signal stops it.

    Args:
        pool: the pool's name.
        name: for people; the machine's name and the process's number unless said.
        queues: of the pool, by name; all unless said.
        limit: how many runs go on at once; any number unless said.
        roots: folders outside of which no code is run; the working directory unless said. Entry points and working
            directories of jobs count from the first.
    """

    def __init__(
        self,
        pool: str,
        *,
        name: str | None = None,
        queues: Iterable[str] = (),
        limit: int | None = None,
        roots: Iterable[str | Path] | None = None,
    ) -> None:
        if limit is not None and limit < 1:
            raise ConfigurationError(f"A worker's limit must be 1 or more, not {limit}.")
        self.pool = pool
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        self._queues = tuple(queues)
        self._limit = limit
        self._roots = tuple(str(Path(root).resolve()) for root in (roots or [Path.cwd()]))

    def run(self) -> None:
        """Work until a signal says to stop; blocks as long.

        Raises:
            NotFoundError: there is no such pool. ConfigurationError: it is of a kind that is not known.
        """
        asyncio.run(self.arun())

    async def arun(self) -> None:
        """The same in async code; it may be cancelled, too."""
        ensure_configured()
        async with store_to_work_with() as control:
            try:
                pool = await control.work_pool(self.pool)
            except NotFoundError as error:
                raise NotFoundError(
                    f"There is no work pool {self.pool!r}. `upwell work-pool create {self.pool}` makes one."
                ) from error
            source = JobScope(pool=pool.name, queues=self._queues)
            shift = Shift(control, self._carrier_of(pool), source, self.name, self._limit)
            LOGGER.info("The worker '%s' takes jobs of the %s pool '%s'", self.name, pool.kind, pool.name)
            await work_until_told(shift)

    def _carrier_of(self, pool: WorkPool) -> Carrier:
        if pool.kind == "process":
            return ProcessCarrier(JobTemplate(pool.base_job_template, PROCESS_TEMPLATE), self._roots)
        if pool.kind == "docker":
            from upwell.serving.docker import DockerCarrier  # here: few workers have Docker

            return DockerCarrier(pool.base_job_template)
        raise ConfigurationError(
            f"The work pool {pool.name!r} is of type {pool.kind!r}, and workers know `process` and `docker`."
        )
