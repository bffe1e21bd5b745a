"""Workers, templates and children are killed at random: no run is lost, begun twice, or stuck."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from tests.runtime.serving.workplace import Workplace, served

from upwell.composition import open_control
from upwell.core.model import FlowRunRecord
from upwell.history import History

RUNS, KILLS = 24, 10

FLOWS = """
from upwell.deployments import serve, to_deployment
from upwell.runtime import deployment

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

serve(to_deployment(plain, "test", concurrency_limit=3), to_deployment(durable, "test"), pause_on_shutdown=False)
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
        of_kind = [pid for pid in found if (os.getsid(pid) == pid) is (which == "template")]
        if of_kind:
            os.kill(chance.choice(of_kind), signal.SIGKILL)

    def templates_and_children(self) -> list[int]:
        found: list[int] = []
        for entry in Path("/proc").iterdir():
            try:
                is_one = b"upwell.serving.template" in (entry / "cmdline").read_bytes()
                if is_one and os.readlink(entry / "cwd") == str(self._folder):
                    found.append(int(entry.name))
            except (OSError, ValueError):
                continue
        return found

    def end(self) -> int:
        self.worker.send_signal(signal.SIGTERM)
        try:
            return self.worker.wait(20)
        finally:
            self.worker.kill()
            self.worker.wait()
            self._said.close()


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(("seed", "runs_per_process"), [(1, 1), (2, 5)])
def test_whoever_is_killed_and_whenever_each_run_is_carried_out_once(
    flows: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, seed: int, runs_per_process: int
) -> None:
    monkeypatch.setenv("UPWELL_LEASE_SECONDS", "2")
    folder, chance = flows(FLOWS), random.Random(seed)

    async def main() -> dict[UUID, FlowRunRecord]:
        victims = Victims(folder)
        async with open_control() as control, History() as history:
            work: Workplace = await served(control, history, "plain", "durable")
            runs: list[UUID] = []
            try:
                for kill in range(KILLS):
                    while len(runs) < RUNS * (kill + 1) / KILLS:
                        flow = chance.choice(["plain", "durable"])
                        variables = {"runs_per_process": runs_per_process}
                        runs.append(await work.start(flow, variables=variables, k=len(runs)))
                    await asyncio.sleep(chance.uniform(0, 0.5))
                    victims.kill_one(chance)
                ended = {run: await work.ended(run) for run in runs}
            finally:
                code = victims.end()
            assert code == 0
        return ended

    ended = asyncio.run(main())
    ledger: dict[str, Counter[str]] = {}
    for line in (folder / "ledger").read_text().splitlines():
        run, what = line.split()
        ledger.setdefault(run, Counter())[what] += 1
    for record in ended.values():
        done = ledger.get(str(record.id), Counter())
        if record.flow_name == "plain":
            assert done["begin"] <= 1, (record, done)
            assert record.state_name in ("Completed", "Crashed")
            assert (record.state_name == "Completed") <= (done["end"] == 1), (record, done)
        else:
            assert record.state_name == "Completed", (record, done)
            assert done["begin"] <= 1 + record.crashes
            assert all(1 <= done[f"step-{i}"] <= 1 + record.crashes for i in range(4)), (record, done)
