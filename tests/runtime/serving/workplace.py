"""What the tests of serving share: a worker at work in the test's own process, with real templates and children."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from upwell.composition import open_control
from upwell.core.deployments import Deployment, DeploymentSpec, JobScope, RunSpec
from upwell.core.errors import NotFoundError
from upwell.core.model import FlowRunRecord
from upwell.history import History
from upwell.journal.control import Control
from upwell.serving.carriers import Carrier, ProcessCarrier
from upwell.serving.job_templates import PROCESS_TEMPLATE, JobTemplate
from upwell.serving.shift import Shift

PATIENCE_SECONDS = 30.0
"""What has not happened by then never will."""


class Workplace:
    """A worker that serves some deployments, and the store that it works with."""

    def __init__(
        self, control: Control, history: History, shift: Shift | None, deployments: dict[str, Deployment]
    ) -> None:
        self.control = control
        self.history = history
        self.shift = shift
        self.deployments = deployments

    def stop(self) -> None:
        """Tell the worker to stop."""
        assert self.shift is not None
        self.shift.stop()

    async def start(self, flow: str, *, variables: dict[str, Any] | None = None, **parameters: Any) -> UUID:
        """Ask for a run of this flow."""
        wanted = RunSpec(parameters=parameters, job_variables=variables or {})
        return (await self.control.run_deployment(self.deployments[flow].id, wanted)).id

    async def ended(self, flow_run_id: UUID) -> FlowRunRecord:
        """The run, once it has ended."""
        return await self.until(flow_run_id, lambda run: run.state.is_final())

    async def running(self, flow_run_id: UUID) -> FlowRunRecord:
        return await self.until(flow_run_id, lambda run: run.state.is_running())

    async def until(self, flow_run_id: UUID, is_so: Callable[[FlowRunRecord], bool]) -> FlowRunRecord:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                run = await self.history.flow_run(flow_run_id)
                if is_so(run):
                    return run
                await asyncio.sleep(0.02)


@asynccontextmanager
async def at_work(
    folder: Path, *flows: str, limit: int | None = None, carrier: Carrier | None = None, **options: Any
) -> AsyncGenerator[Workplace]:
    """A worker that serves these flows of the folder's `flows.py` while the code inside runs."""
    async with open_control() as control, History() as history:
        deployments = {
            flow: await control.apply_deployment(
                DeploymentSpec(
                    flow_name=flow.replace("_", "-"), name="test", entrypoint=f"{folder}/flows.py:{flow}", **options
                )
            )
            for flow in flows
        }
        source = JobScope(deployments=tuple(deployment.id for deployment in deployments.values()))
        carrier = carrier or ProcessCarrier(JobTemplate({}, PROCESS_TEMPLATE))
        shift = Shift(control, carrier, source, "tester", limit)
        working = asyncio.create_task(shift.work())
        try:
            yield Workplace(control, history, shift, deployments)
        finally:
            shift.stop()
            await working


async def served(control: Control, history: History, *names: str) -> Workplace:
    """What a script serves, once it does."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                deployments = {name: await control.deployment(f"{name}/test") for name in names}
                if await control.workers():
                    return Workplace(control, history, None, deployments)
            except NotFoundError:
                pass
            await asyncio.sleep(0.05)


async def until(is_so: Callable[[], bool]) -> None:
    """Until this is so, to which other processes see."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so():
            await asyncio.sleep(0.02)


def pid_in(folder: Path, name: str = "pid") -> int:
    """The process that a flow has noted in this file."""
    return int((folder / name).read_text())


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
