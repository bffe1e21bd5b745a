"""Timeouts of a process that stands still when they are up, as by Ctrl-Z: heard when it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

STOPPED = """
import asyncio
from upwell import flow, task

@task
async def long():
    await asyncio.sleep(1000)

@flow(timeout_seconds=0.5)
def waits():
    future = long.submit()
    print("begun", flush=True)
    future.result()

print(waits(return_state=True).name)
"""


def test_a_timeout_that_is_up_while_the_process_is_stopped_is_heard_when_it_goes_on() -> None:
    """The system may give the alarm to any of its threads then."""
    environment = {**os.environ, "UPWELL_JOURNAL": "off", "UPWELL_LOGGING_LEVEL": "CRITICAL"}
    command = [sys.executable, "-c", STOPPED]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(5)]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() in ("begun\n", "TimedOut\n")  # the time may be up before, on a busy machine
            child.send_signal(signal.SIGSTOP)
        time.sleep(0.6)
        for child in children:
            child.send_signal(signal.SIGCONT)
        assert {(child.communicate(timeout=60)[0] or "TimedOut\n") for child in children} == {"TimedOut\n"}
    finally:
        for child in children:
            child.kill()
            child.communicate()
