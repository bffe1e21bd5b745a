"""One computes while the others wait: among processes that share a store, one of which is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

PROCESSES, KEYS = 8, 50
SCRIPT = Path(__file__).with_name("caching_process.py")


def started(ledger: Path, home: Path, *more: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "UPWELL_JOURNAL": "on", "UPWELL_HOME": str(home), "UPWELL_LOGGING_LEVEL": "WARNING"}
    return subprocess.Popen([sys.executable, str(SCRIPT), str(ledger), str(KEYS), *more], env=environment)


def test_each_key_is_computed_once_by_eight_processes_one_of_which_is_killed(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    ledger.touch()
    doomed = started(ledger, tmp_path / "home", "--die", "20")
    until = time.monotonic() + 30
    while not ledger.read_text() and time.monotonic() < until:
        time.sleep(0.005)
    others = [started(ledger, tmp_path / "home") for _ in range(PROCESSES - 1)]
    assert doomed.wait(60) != 0
    assert [process.wait(60) for process in others] == [0] * (PROCESSES - 1)
    lines = [line.split() for line in ledger.read_text().splitlines()]
    begun = Counter(int(number) for what, number, pid in lines if what == "begin" and pid != str(doomed.pid))
    by_the_dead = {int(number) for what, number, pid in lines if what == "end" and pid == str(doomed.pid)}
    again = {number for number, times in begun.items() if times > 1}
    assert not again  # by the living, each at most once
    assert set(begun) | by_the_dead == set(range(KEYS))
    assert len(set(begun) & by_the_dead) <= 10  # what the dead one had not flushed yet


def test_what_one_process_has_computed_is_there_for_the_next(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    ledger.touch()
    assert started(ledger, tmp_path / "home").wait(60) == 0
    lines = ledger.read_text()
    assert started(ledger, tmp_path / "home").wait(60) == 0
    assert ledger.read_text() == lines
