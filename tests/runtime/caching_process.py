"""Run by `test_caching_processes`: computes the same keys as its siblings, and writes down what it does.

Arguments: the ledger, how many keys, and with `--die`, after how many computations to be killed in the middle of one:
half of them are in the store by then.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from upwell import flow, task
from upwell.cache_policies import INPUTS
from upwell.composition import flush_journal

LEDGER, KEYS = sys.argv[1], int(sys.argv[2])
DIE_AFTER = int(sys.argv[4]) if "--die" in sys.argv else None
computed = 0


def note(what: str, number: int) -> None:
    ledger = os.open(LEDGER, os.O_WRONLY | os.O_APPEND)
    os.write(ledger, f"{what} {number} {os.getpid()}\n".encode())
    os.close(ledger)


@task(cache_policy=INPUTS, task_runner="sequential")
def compute(number: int) -> int:
    global computed
    note("begin", number)
    if DIE_AFTER is not None and computed == DIE_AFTER // 2:
        flush_journal()
    if computed == DIE_AFTER:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.005)
    computed += 1
    note("end", number)
    return number * number


@flow
def main() -> list[int]:
    return compute.map(range(KEYS)).result()


assert main() == [number * number for number in range(KEYS)]
