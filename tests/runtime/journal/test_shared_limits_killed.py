"""Eight processes want five slots, and are killed at random: never are six held, and none is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.journal.hosts import hosts, make_limit, settled, soon

from upwell.journal.database import Database

MakeDatabase = Callable[[], Database]
ROOT = Path(__file__).parents[3]


def test_eight_processes_killed_at_random_never_hold_six_of_five(
    make_database: MakeDatabase, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """The ledger is the witness: what is written there was written while a slot was held."""
    seconds, seed = pytestconfig.option.hammer_seconds, pytestconfig.option.first_seed
    random_ = random.Random(seed)
    with hosts(make_database, 1) as (host,):
        make_limit(host, "db", 5)
        database: Any = host.store.database
        url = str(database.path) if hasattr(database, "path") else database._url
        ledger_path = tmp_path / "ledger"
        ledger = os.open(ledger_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.runtime.journal.hammer", url, str(ledger_path), "3"],
                cwd=ROOT, env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'runtime'}"},
            )  # fmt: skip

        def kill(child: subprocess.Popen[bytes]) -> None:
            os.kill(child.pid, signal.SIGSTOP)
            os.waitpid(child.pid, os.WUNTRACED)
            os.write(ledger, f"{child.pid} x 0\n".encode())  # what it held it holds no more
            child.kill()
            child.wait()

        children = [start() for _ in range(8)]
        try:
            wait_for_all(children, ledger_path)
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(random_.uniform(0.05, 0.8))
                place = random_.randrange(8)
                assert children[place].poll() is None, "a child has failed"
                kill(children[place])
                children[place] = start()
            wait_for_all(children, ledger_path)  # those that came later have their turns, too
        finally:
            for child in children:
                kill(child)
            os.close(ledger)
        most, turns = witnessed(ledger_path.read_text())
        assert 1 < most <= 5, f"{most} slots held at once, seed {seed}"
        assert len(turns) > 8

        async def body() -> None:
            held = [await host.take("db") for _ in range(5)]  # all of them are free: none has leaked
            for ticket in held:
                host.give_back("db", ticket)

        soon(body())
        settled(host, [])


def wait_for_all(children: list[subprocess.Popen[bytes]], ledger: Path) -> None:
    until = time.monotonic() + 60
    wanted = {str(child.pid) for child in children}
    while time.monotonic() < until:
        if wanted <= {line.split()[0] for line in ledger.read_text().splitlines()}:
            return
        time.sleep(0.05)
    raise AssertionError("not every process has had a slot within a minute: it starves")


def witnessed(ledger: str) -> tuple[int, Counter[str]]:
    """How many slots were held at once, at most, and how often each process had one."""
    held: defaultdict[str, set[str]] = defaultdict(set)
    most, turns = 0, Counter[str]()
    for line in ledger.splitlines():
        pid, what, name = line.split()
        if what == "+":
            held[pid].add(name)
            turns[pid] += 1
        elif what == "-":
            held[pid].discard(name)
        else:
            held.pop(pid, None)
        most = max(most, sum(len(names) for names in held.values()))
    return most, turns
