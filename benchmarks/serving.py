"""Runs of a deployment that are due at the same moment: when the last of them has begun, on one worker."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from benchmarks.rows import Measured, Rival, Row, Run, Setting, Side, Unit
from upwell.composition import open_control
from upwell.core.deployments import RunSpec
from upwell.core.errors import NotFoundError
from upwell.core.model import FlowRunRecord
from upwell.history import History
from upwell.journal.control import Control
from upwell.settings import temporary_settings

NAME: Final = "hello/burst"

AHEAD_SECONDS: Final = 3.0
"""So long before they are due the runs are asked for; 200 of them take half of that."""

_SCRIPT: Final = """
from upwell import flow, task
from upwell.deployments import serve, to_deployment
@task
def add(x): return x + 1
@flow
def hello(): return add(1)
if __name__ == "__main__":
    serve(to_deployment(hello, "burst"))
"""


def _last_start(runs_per_process: int) -> Callable[[Setting], Any]:
    """How long after they were due the last of `size` runs began."""

    @contextmanager
    def opened(setting: Setting) -> Generator[Run]:
        variables = {"runs_per_process": runs_per_process}
        with (
            tempfile.TemporaryDirectory(prefix="upwell-serving-") as folder,
            temporary_settings(home=folder, journal="on", logging_level="CRITICAL"),
            _worker(Path(folder)),
        ):
            asyncio.run(_warm(variables))
            yield lambda: asyncio.run(_burst(setting.size, variables))

    return opened


@contextmanager
def _worker(folder: Path) -> Generator[None]:
    (folder / "hello.py").write_text(_SCRIPT)
    environment = {"UPWELL_HOME": str(folder), "UPWELL_JOURNAL": "on", "UPWELL_LOGGING_LEVEL": "CRITICAL"}
    worker = subprocess.Popen(
        [sys.executable, "hello.py"], cwd=folder, env={**os.environ, **environment}, stdout=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait()


async def _warm(variables: dict[str, Any]) -> None:
    """Have the code imported, as it is after any first run."""
    async with open_control() as control, History() as history:
        run = await _ask(control, RunSpec(job_variables=variables))
        await _end(history, run)


async def _ask(control: Control, wanted: RunSpec) -> UUID:
    while True:
        try:
            return (await control.run_deployment(NAME, wanted)).id
        except NotFoundError:  # the worker is about to say what it serves
            await asyncio.sleep(0.05)


async def _end(history: History, flow_run_id: UUID) -> FlowRunRecord:
    while not (run := await history.flow_run(flow_run_id)).state.is_final():  # noqa: ASYNC110  # another process ends it
        await asyncio.sleep(0.05)
    return run


async def _burst(size: int, variables: dict[str, Any]) -> Measured:
    due = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=AHEAD_SECONDS * size / 200 + 1)
    async with open_control() as control, History() as history:
        wanted = RunSpec(due=due, job_variables=variables)
        runs = [await _ask(control, wanted) for _ in range(size)]
        await asyncio.sleep((due - dt.datetime.now(dt.UTC)).total_seconds())
        ended = [await _end(history, run) for run in runs]
        last = max(run.start_time for run in ended if run.start_time is not None)
        return Measured((last - due).total_seconds())


ROWS: Final = [
    Row(
        name="serve-burst",
        measures="200 short runs of a served flow, due at one moment: when the last has begun; a process for each, and "
        "beside it 50 runs a process",
        leaves_out="importing the flow's code, which the worker has done before",
        ours=Side("upwell", _last_start(1)),
        rivals=(Rival("runs_per_process=50", _last_start(50)),),
        size=200,
        quick_size=50,
        unit=Unit.MILLISECONDS,
        most=2_000.0,
        rounds=3,
        warm_up=False,
        peak=False,
    ),
]
