from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator

import pytest

from upwell import flow, task
from upwell.concurrency import remove_limit, set_limit
from upwell.engine.slots import give_all_back, take_all
from upwell.engine.steps import live_blocking
from upwell.testing import LeakError, no_leaks


@contextlib.contextmanager
def leak(words: str) -> Generator[None]:
    with pytest.raises(LeakError, match=words), no_leaks(patience_seconds=0.05):
        yield


@task
def double(n: int) -> int:
    return 2 * n


def test_code_that_leaves_nothing_passes() -> None:
    @flow
    def tidy() -> list[int]:
        return double.map(range(5)).result()

    with no_leaks():
        assert tidy() == [0, 2, 4, 6, 8]


def test_an_unfinished_asyncio_task_is_a_leak_and_named() -> None:
    async def main() -> None:
        with leak("unfinished: asyncio task 'left over'"):
            left = asyncio.create_task(asyncio.sleep(60), name="left over")
            await asyncio.sleep(0)
        left.cancel()

    asyncio.run(main())


def test_a_task_run_under_way_is_a_leak_and_named() -> None:
    @task
    async def linger() -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        with leak("task run 'linger-0'"):
            linger.submit()
            await asyncio.sleep(0.01)

    asyncio.run(main())


def test_a_thread_is_a_leak() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="forgotten")
    with leak("thread 'forgotten'"):
        thread.start()
    stop.set()
    thread.join()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_child_process_is_a_leak() -> None:
    with leak("child process"):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    child.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_open_file_is_a_leak() -> None:
    with leak("open file"):
        ends = os.pipe()
    for end in ends:
        os.close(end)


def test_a_changed_signal_handler_is_a_leak() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with leak("signal SIGUSR1 is handled by"):
        signal.signal(signal.SIGUSR1, lambda number, frame: None)
    signal.signal(signal.SIGUSR1, before)


def test_a_slot_that_nobody_gave_back_is_a_leak() -> None:
    set_limit("seats", 2)
    try:
        with leak("limit 'seats' has 1 slot"):
            held = live_blocking(take_all("seats", 1, None, True))
        give_all_back(held)
    finally:
        remove_limit("seats")


def test_an_exception_of_the_code_goes_before_a_leak() -> None:
    with pytest.raises(ValueError, match="mine"), no_leaks():
        raise ValueError("mine")
