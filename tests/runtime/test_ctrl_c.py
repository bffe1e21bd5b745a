"""Ctrl-C, by real signals to real processes: once cancels and says what, twice kills, and handlers are put back."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import pytest

from upwell.engine.interrupts import ONE_PRESS_SECONDS

SECONDS: Final = 60
"""How long a process may take to start, or to end, on a busy machine."""

HEADER: Final = """
import asyncio, os, signal, sys, threading, time
from upwell import Runtime, flow, task

def ready():
    print("ready", os.getpid(), flush=True)

def hear_nothing(wait):
    ready_is_said = False
    while True:
        try:
            if not ready_is_said:
                ready_is_said = True
                ready()
            wait()
        except BaseException:
            pass

@task
async def on_the_loop():
    await asyncio.sleep(60)

@task
def on_a_thread():
    end = time.time() + 60
    while time.time() < end:
        time.sleep(0.002)
"""

SCENARIOS: Final[dict[str, str]] = {
    "a sync flow, in its own code": """
        @flow
        def run():
            ready()
            time.sleep(60)
        run()
    """,
    "a sync flow, in a loop of its own": """
        @flow
        def run():
            ready()
            while True:
                pass
        run()
    """,
    "a sync flow, waiting for a coroutine": """
        @flow
        def run():
            future = on_the_loop.submit()
            ready()
            future.result()
        run()
    """,
    "a sync flow, waiting for a thread": """
        @flow
        def run():
            future = on_a_thread.submit()
            ready()
            future.result()
        run()
    """,
    "a sync flow that has returned and waits for its tasks": """
        @flow
        def run():
            on_the_loop.submit()
            on_a_thread.submit()
            threading.Timer(0.02, ready).start()
        run()
    """,
    "a task called directly in a sync flow": """
        @flow
        def run():
            ready()
            on_a_thread()
        run()
    """,
    "a sync flow in a sync flow": """
        @flow
        def inner():
            future = on_the_loop.submit()
            ready()
            future.result()
        @flow
        def run():
            on_a_thread.submit()
            inner()
        run()
    """,
    "a generator flow": """
        @flow
        def run():
            future = on_the_loop.submit()
            ready()
            yield future.result()
        list(run())
    """,
    "an async flow under asyncio.run": """
        @flow
        async def run():
            ready()
            await asyncio.sleep(60)
        asyncio.run(run())
    """,
    "an async flow with children": """
        @flow
        async def run():
            futures = [on_the_loop.submit(), on_a_thread.submit()]
            ready()
            await futures[0]
        asyncio.run(run())
    """,
    "an async flow that is busy": """
        @flow
        async def run():
            on_the_loop.submit()
            await asyncio.sleep(0)
            ready()
            while True:
                await asyncio.sleep(0)
        asyncio.run(run())
    """,
    "tasks in a runtime": """
        async def main():
            async with Runtime() as runtime:
                ready()
                await runtime.submit(on_the_loop)
        asyncio.run(main())
    """,
}
WITH_CHILDREN: Final = {
    "a sync flow, waiting for a coroutine": ["on-the-loop-0"],
    "a sync flow, waiting for a thread": ["on-a-thread-0"],
    "a sync flow that has returned and waits for its tasks": ["on-the-loop-0", "on-a-thread-0"],
    "a sync flow in a sync flow": ["on-the-loop-0", "on-a-thread-0"],
    "a generator flow": ["on-the-loop-0"],
    "an async flow with children": ["on-the-loop-0", "on-a-thread-0"],
    "an async flow that is busy": ["on-the-loop-0"],
}


def _started(code: str) -> subprocess.Popen[str]:
    """A process that runs this code."""
    return subprocess.Popen(
        [sys.executable, "-c", HEADER + textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def _running(code: str) -> Generator[subprocess.Popen[str], None, None]:
    """A process that runs this code and has said that it is ready; it does not outlive the block."""
    process = _started(code)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("ready"):
            raise AssertionError(f"{line}{process.communicate()[1]}")
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _interrupt(process: subprocess.Popen[str]) -> None:
    time.sleep(0.03)  # it has said that it is ready; now it shall get to where it waits
    process.send_signal(signal.SIGINT)


def _end_of(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err


@pytest.mark.parametrize("scenario", list(SCENARIOS))
def test_one_ctrl_c_cancels_and_ends_as_python_ends_for_it(scenario: str) -> None:
    with _running(SCENARIOS[scenario]) as process:
        _interrupt(process)
        code, _, err = _end_of(process)
    assert code == -signal.SIGINT  # what Python makes of a KeyboardInterrupt that nobody caught
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert err.count("\nKeyboardInterrupt") == 1
    for complaint in ("never retrieved", "never awaited", "Exception ignored", "Exception in", "was destroyed"):
        assert complaint not in err
    if "runtime" not in scenario:
        assert "Press Ctrl-C again to kill" in err
        assert "Interrupted by Ctrl-C" in err
    for name in WITH_CHILDREN.get(scenario, []):
        assert re.search(rf"Cancelled \d+ task run\(s\): .*{name}", err)


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if "runtime" not in name])
def test_what_ctrl_c_shows_is_the_users_code(scenario: str) -> None:
    with _running(SCENARIOS[scenario]) as process:
        _interrupt(process)
        _, _, err = _end_of(process)
    raised = err[err.rindex("Traceback") :]
    assert "in run\n" in raised or "has returned" in scenario
    assert raised.count("During handling of the above exception") == 0


def test_children_in_processes_are_gone_after_ctrl_c() -> None:
    script = """
        if __name__ == "__main__":
            @flow(task_runner="processes")
            def run():
                futures = task(time.sleep).map([60, 60])
                while not _children():
                    time.sleep(0.01)
                time.sleep(0.3)
                print("ready", *_children(), flush=True)
                futures.wait()
            def _children():
                found = []
                for thread in os.listdir("/proc/self/task"):
                    with open(f"/proc/self/task/{thread}/children") as file:
                        found += file.read().split()
                return found
            run()
    """
    process = _started(script)
    try:
        assert process.stdout is not None
        children = [int(pid) for pid in process.stdout.readline().split()[1:]]
        assert children
        _interrupt(process)
        code, _, _ = _end_of(process)
        assert code == -signal.SIGINT
        until = time.monotonic() + SECONDS
        while (left := [pid for pid in children if _is_alive(pid)]) and time.monotonic() < until:
            time.sleep(0.01)
        assert not left
    finally:
        process.kill()
        process.communicate()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.parametrize("deaf", ["a thread", "a coroutine", "the flow"])
def test_a_second_ctrl_c_kills_at_once_whatever_hangs(deaf: str) -> None:
    codes: dict[str, str] = {
        "a thread": """
            @task
            def hang():
                hear_nothing(lambda: time.sleep(60))
            import upwell_runners.threads
            upwell_runners.threads.GRACE_SECONDS = 60  # it is not abandoned before the second one
            @flow
            def run():
                hang.submit().result()
            run()
        """,
        "a coroutine": """
            @task
            async def hang():
                ready()
                while True:
                    try:
                        await asyncio.sleep(60)
                    except BaseException:
                        pass
            @flow
            async def run():
                await hang.submit()
            asyncio.run(run())
        """,
        "the flow": """
            @flow
            def run():
                hear_nothing(lambda: time.sleep(60))
            run()
        """,
    }
    with _running(codes[deaf]) as process:
        _interrupt(process)
        assert process.stderr is not None
        while "Press Ctrl-C again" not in (line := process.stderr.readline()):
            assert line, "it has ended"
        time.sleep(ONE_PRESS_SECONDS)
        process.send_signal(signal.SIGINT)
        code, _, err = _end_of(process)
    assert code == 130
    assert "Killed" in err


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_handler_of_the_applications_own_is_called_and_left_in_place(kind: str) -> None:
    code = f"""
        pressed = []
        def mine(*_):
            pressed.append(1)
            print("pressed", flush=True)
        signal.signal(signal.SIGINT, mine)
        @flow
        def sync_run():
            ready()
            while len(pressed) < 2:
                time.sleep(0.005)
            return count.submit(1).result()
        @flow
        async def async_run():
            ready()
            while len(pressed) < 2:
                await asyncio.sleep(0.005)
            return await count.submit(1)
        @task
        async def count(x):
            return x + 1
        answer = sync_run() if {kind == "sync"} else asyncio.run(async_run())
        assert signal.getsignal(signal.SIGINT) is mine
        print("answer", answer)
    """
    with _running(code) as process:
        assert process.stdout is not None
        _interrupt(process)
        assert process.stdout.readline() == "pressed\n"  # two that nobody has heard yet would be one
        _interrupt(process)
        code_, out, err = _end_of(process)
    assert (code_, out) == (0, "pressed\nanswer 2\n"), err


def test_the_default_handler_is_restored_after_each_flow() -> None:
    code = """
        @flow
        def good():
            inside.append(signal.getsignal(signal.SIGINT))
        @flow
        def bad():
            raise KeyError
        @flow
        async def agood():
            good.fn()
        inside = []
        before = signal.getsignal(signal.SIGINT)
        good()
        assert signal.getsignal(signal.SIGINT) is before is not inside[0]
        try:
            bad()
        except KeyError:
            pass
        assert signal.getsignal(signal.SIGINT) is before
        asyncio.run(agood())
        assert signal.getsignal(signal.SIGINT) is before
        try:
            ready()
            time.sleep(60)
        except KeyboardInterrupt:
            print("interrupted")
    """
    with _running(code) as process:
        _interrupt(process)
        ended, out, err = _end_of(process)
    assert (ended, out) == (0, "interrupted\n"), err
    assert "Press Ctrl-C again" not in err


def test_a_task_that_is_called_directly_is_cancelled_with_its_flow() -> None:
    code = """
        def say(_, run, state):
            print(state, flush=True)
        @task(on_cancellation=[say], on_crashed=[say])
        def inner():
            ready()
            time.sleep(60)
        @flow(on_cancellation=[say], on_crashed=[say])
        def run():
            inner()
        run()
    """
    with _running(code) as process:
        _interrupt(process)
        _, out, err = _end_of(process)
    assert out.splitlines() == ["Cancelled('Interrupted by Ctrl-C.')"] * 2, err


def test_a_program_that_catches_ctrl_c_can_run_another_flow_and_is_told_again() -> None:
    code = """
        @task
        async def count(x):
            return x + 1
        @flow
        def wait():
            futures = [on_the_loop.submit(), on_a_thread.submit()]
            ready()
            futures[0].result()
        @flow
        def again():
            return count.submit(1).result()
        for _ in range(2):
            try:
                wait()
            except KeyboardInterrupt:
                print("caught", flush=True)
        print("answer", again())
    """
    with _running(code) as process:
        _interrupt(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "caught\n"
        assert process.stdout.readline().startswith("ready")
        _interrupt(process)
        ended, out, err = _end_of(process)
    assert (ended, out) == (0, "caught\nanswer 2\n"), err
