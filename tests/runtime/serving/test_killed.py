"""Workers, templates and children, waiting ones too, are killed at random: no run is lost, begun twice, or stuck."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest
from tests.runtime.serving.workplace import PATIENCE_SECONDS, Workplace, served

from upwell.composition import open_control
from upwell.core.model import FlowRunRecord
from upwell.history import History

RUNS_PER_KILL = 2.4
TICK_MICROS = 1_000_000

FLOWS = """
from upwell.deployments import serve, to_deployment
from upwell.runtime import deployment
from upwell.schedules import Interval

def note(what):
    with open("ledger", "a", buffering=1) as ledger:
        ledger.write(f"{deployment.flow_run_id} {what}\\n")

@flow
def plain(k: int):
    note("begin")
    time.sleep(0.05 * (k % 5))
    note("end")

@task
def step(i: int):
    note(f"step-{i}")
    time.sleep(0.03)

@flow(durable=True)
def durable(k: int):
    note("begin")
    for i in range(4):
        step(i)
    note("end")

@flow
def ticks():
    note("begin")
    note("end")

serve(
    to_deployment(plain, "test", concurrency_limit=3),
    to_deployment(durable, "test"),
    to_deployment(ticks, "test", schedules=[Interval(1, catchup="all")]),
    pause_on_shutdown=False,
)
"""


class Victims:
    """The processes of one folder: its worker, which is started again, its templates and their children."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._said = (folder / "said").open("a")
        self.start()

    def start(self) -> None:
        self.worker = subprocess.Popen(
            [sys.executable, "flows.py"], cwd=self._folder, stdout=self._said, stderr=self._said
        )

    def kill_one(self, chance: random.Random) -> None:
        which = chance.choice(["worker", "template", "child", "child"])
        if which == "worker":
            self.worker.kill()
            self.worker.wait()
            self.start()
            return
        found = self.templates_and_children()
        of_kind = [pid for pid, is_template in found.items() if is_template is (which == "template")]
        if of_kind:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(of_kind), signal.SIGKILL)

    def templates_and_children(self) -> dict[int, bool]:
        """Those that are there now; whether each is a template."""
        found: dict[int, bool] = {}
        for entry in Path("/proc").iterdir():
            try:
                is_one = b"upwell.serving.template" in (entry / "cmdline").read_bytes()
                if is_one and os.readlink(entry / "cwd") == str(self._folder):
                    pid = int(entry.name)
                    found[pid] = os.getsid(pid) == pid
            except (OSError, ValueError):
                continue
        return found

    async def have_gone(self) -> None:
        """Until the last child has ended."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.templates_and_children():  # nobody tells
                await asyncio.sleep(0.02)

    def end(self) -> int:
        self.worker.send_signal(signal.SIGTERM)
        try:
            return self.worker.wait(20)
        finally:
            self.worker.kill()
            self.worker.wait()
            self._said.close()


async def ended_ticks(history: History) -> dict[UUID, FlowRunRecord]:
    """The runs of all ticks until now, once they have ended; there is one for each."""
    now = dt.datetime.now(dt.UTC)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            page = await history.flow_runs(flow="ticks", limit=1000, order="oldest")
            ticks = [run for run in page.items if (run.due or run.created) <= now]
            if all(run.state.is_final() for run in ticks):
                break
            await asyncio.sleep(0.05)
    times = sorted(int((run.idempotency_key or "").rpartition(":")[2]) for run in ticks)  # some may be made late
    assert times == [times[0] + number * TICK_MICROS for number in range(len(times))]
    return {run.id: run for run in ticks}


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(("seed", "runs_per_process"), [(1, 1), (2, 5)])
def test_whoever_is_killed_and_whenever_each_run_is_carried_out_once(
    flows: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    pytestconfig: pytest.Config,
    seed: int,
    runs_per_process: int,
) -> None:
    monkeypatch.setenv("UPWELL_LEASE_SECONDS", "2")
    folder, chance = flows(FLOWS), random.Random(seed + pytestconfig.option.first_seed)

    async def main() -> dict[UUID, FlowRunRecord]:
        victims = Victims(folder)
        async with open_control() as control, History() as history:
            work: Workplace = await served(control, history, "plain", "durable")
            runs: list[UUID] = []
            try:
                for kill in range(pytestconfig.option.worker_kills):
                    while len(runs) < RUNS_PER_KILL * (kill + 1):
                        flow = chance.choice(["plain", "durable"])
                        variables = {"runs_per_process": runs_per_process}
                        runs.append(await work.start(flow, variables=variables, k=len(runs)))
                    await asyncio.sleep(chance.uniform(0, 0.5))
                    victims.kill_one(chance)
                ended = {run: await work.ended(run) for run in runs}
                ticks = await ended_ticks(history)
            finally:
                code = victims.end()
            assert code == 0
            await victims.have_gone()
        return ended | ticks

    ended = asyncio.run(main())
    ledger: dict[str, Counter[str]] = {}
    for line in (folder / "ledger").read_text().splitlines():
        run, what = line.split()
        ledger.setdefault(run, Counter())[what] += 1
    for record in ended.values():
        done = ledger.get(str(record.id), Counter())
        if record.flow_name != "durable":
            assert done["begin"] <= 1, (record, done)
            assert record.state_name in ("Completed", "Crashed")
            assert (record.state_name == "Completed") <= (done["end"] == 1), (record, done)
        else:
            assert record.state_name == "Completed", (record, done)
            assert done["begin"] <= 1 + record.crashes
            assert all(1 <= done[f"step-{i}"] <= 1 + record.crashes for i in range(4)), (record, done)
