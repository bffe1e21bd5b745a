"""Serves deployments: the script that defines their flows carries their runs out, with or without a server."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from typing import Protocol

from upwell import serving
from upwell.core.deployments import Deployment, DeploymentSpec, JobScope
from upwell.core.errors import UpwellError
from upwell.engine.console import ensure_configured
from upwell.journal.control import Control
from upwell.serving.carriers import ProcessCarrier
from upwell.serving.job_templates import PROCESS_TEMPLATE, JobTemplate
from upwell.serving.logs import LOGGER
from upwell.serving.shift import Shift, store_to_work_with, work_until_told


class Served(Protocol):
    """What is needed of a deployment that is to be served."""

    @property
    def spec(self) -> DeploymentSpec: ...


def serve_deployments(
    deployments: Sequence[Served],
    *,
    limit: int | None = None,
    pause_on_shutdown: bool = True,
    print_starting_message: bool = True,
) -> None:
    """Have the store hold these deployments, and carry their runs out until a signal stops it.

    In a process that was started to carry out a run it does nothing: there the same script is imported once more.
    """
    if serving.carries_out_jobs:
        return
    asyncio.run(
        serve_forever(
            deployments,
            limit=limit,
            pause_on_shutdown=pause_on_shutdown,
            print_starting_message=print_starting_message,
        )
    )


async def serve_forever(
    deployments: Sequence[Served],
    *,
    limit: int | None = None,
    pause_on_shutdown: bool = True,
    print_starting_message: bool = True,
) -> None:
    """The same in async code; it may be cancelled, too."""
    if serving.carries_out_jobs:
        return
    ensure_configured()
    async with store_to_work_with() as control:
        held = [await control.apply_deployment(deployment.spec) for deployment in deployments]
        own = {one.id: it.spec.entrypoint or "" for one, it in zip(held, deployments, strict=True)}
        carrier = ProcessCarrier(JobTemplate({}, PROCESS_TEMPLATE), path=tuple(map(os.path.abspath, sys.path)), own=own)
        source = JobScope(deployments=tuple(deployment.id for deployment in held))
        shift = Shift(control, carrier, source, f"{socket.gethostname()}-{os.getpid()}", limit)
        if print_starting_message:
            _greet(held)
        try:
            await work_until_told(shift)
        finally:
            if pause_on_shutdown:
                await _pause(control, held)


async def _pause(control: Control, deployments: Sequence[Deployment]) -> None:
    """Let no runs become late that nobody carries out."""
    for deployment in deployments:
        if not deployment.paused:
            try:
                await control.pause_deployment(deployment.id, True)
            except UpwellError as error:
                LOGGER.warning("The deployment '%s' could not be paused: %s", deployment.full_name, error)


def _greet(deployments: Sequence[Deployment]) -> None:
    what = f"Your flow '{deployments[0].flow_name}' is" if len(deployments) == 1 else "Your deployments are"
    commands = "".join(f"    upwell deployment run '{deployment.full_name}'\n" for deployment in deployments)
    active = [(deployment, it) for deployment in deployments for it in deployment.schedules if it.active]
    schedules = "".join(f"    '{of.full_name}': {it.kind} {it.expression} ({it.timezone})\n" for of, it in active)
    by_themselves = f"Runs begin by themselves:\n\n{schedules}\n" if schedules else ""
    sys.stdout.write(
        f"{what} being served and polling for scheduled runs!\n\n{by_themselves}"
        f"To start a run:\n\n{commands}\nCtrl-C ends this.\n"
    )
    sys.stdout.flush()
