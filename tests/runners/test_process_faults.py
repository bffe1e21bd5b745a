"""Task runner `processes`: what it promises when processes, arguments, results and exceptions fail (T9)."""

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.runners.shared import shared_now

from upwell import Runtime, task
from upwell.core.errors import CancelledRun, CrashedRun, TaskRunTimeoutError
from upwell.core.states import StateType
from upwell_runners.processes import ProcessPoolTaskRunner
from upwell_runners.processes.faults import UncarriedException

DEATH_SECONDS = 1.0
TRIES = 5  # for others may want the machine just then
"""R7, T9: what happens to a child is known within this time."""


@task
def do(what: str) -> str:
    ACTIONS[what]()
    return what


@task
def be_quick(x: int) -> int:
    return x


@task
def give_back(x: Any) -> Any:
    return x


@task
def lock_of(_: int) -> Any:
    return threading.Lock()


@task(timeout_seconds=0.3)
def hang(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    while True:
        time.sleep(1)


class TwoArguments(Exception):
    """Pickles well and unpickles badly, like so many."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


class HoldsALock(Exception):
    """Cannot be pickled at all."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class UnreadableResult:
    """Pickles well, and cannot be read again."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise RuntimeError("cannot be read")


@task
def fail(how: str) -> None:
    if how == "plain":
        raise ValueError("plain", 7)
    if how == "two arguments":
        raise TwoArguments(7, "two")
    if how == "lock":
        raise HoldsALock("held")
    if how == "caused":
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error
    raise AssertionError(how)


@task
def unreadable(_: int) -> UnreadableResult:
    return UnreadableResult()


class EndsItsReader:
    """Cannot be read, for the code that reads it ends the program."""

    def __reduce__(self) -> Any:
        return sys.exit, ()


@task
def ends_its_reader(_: int) -> EndsItsReader:
    return EndsItsReader()


def _out_of_memory() -> None:
    raise MemoryError("too much")


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _exit_3() -> None:
    os._exit(3)


def _segfault() -> None:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    ctypes.string_at(0)


ACTIONS: dict[str, Callable[[], object]] = {
    "kill": _kill,
    "segfault": _segfault,
    "_exit": _exit_3,
    "exit": lambda: sys.exit("bye"),
    "memory": _out_of_memory,
    "return": lambda: None,
}


def in_runtime(main: Callable[[], Any], workers: int = 2) -> Any:
    async def around() -> Any:
        async with Runtime(task_runner=ProcessPoolTaskRunner(workers)):
            await be_quick.submit(1)
            return await asyncio.wait_for(main(), 30)

    return asyncio.run(around())


def outcome_of(definition: Any, *args: Any, workers: int = 2) -> tuple[StateType, str, Any]:
    """State, message and exception of one run, and the proof that its siblings and the pool are well."""

    async def main() -> tuple[StateType, str, Any]:
        before = be_quick.map(range(200))
        future = definition.submit(*args)
        behind = be_quick.map(range(200))
        await _ended(future)
        assert [await sibling for sibling in [*before, *behind]] == [*range(200), *range(200)]
        assert await be_quick.submit(5) == 5
        state = future.state
        return state.type, state.message or "", future.exception() if not state.is_completed() else None

    result: tuple[StateType, str, Any] = in_runtime(main, workers)
    return result


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("what", "how"),
    [("kill", "was killed by SIGKILL"), ("segfault", "was killed by SIGSEGV"), ("_exit", "exited with code 3")],
)
def test_the_run_whose_process_died_has_crashed_and_says_how(what: str, how: str, workers: int) -> None:
    state, message, error = outcome_of(do, what, workers=workers)
    assert state is StateType.CRASHED
    assert message.endswith(f"{how}.")
    assert "do-0" in message
    assert isinstance(error, CrashedRun)


def test_a_death_is_known_within_a_second() -> None:
    async def main() -> float:
        began = time.monotonic()
        await asyncio.gather(do.submit("kill"), return_exceptions=True)
        return time.monotonic() - began

    assert any(in_runtime(main) < DEATH_SECONDS for _ in range(TRIES))


def test_a_death_in_the_middle_of_a_large_batch_harms_one_run() -> None:
    @task
    def dies_at_700(x: int) -> int:
        if x == 700:
            os._exit(1)
        return x

    async def main() -> None:
        for future in dies_at_700.map(range(500)):
            await future
        futures = dies_at_700.map(range(2000))
        await asyncio.gather(*[_ended(future) for future in futures])
        crashed = [x for x, future in enumerate(futures) if not future.state.is_completed()]
        assert crashed == [700]

    in_runtime(main)


def test_a_crashed_run_is_tried_again_if_it_has_retries(tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")

    @task(retries=1)
    def dies_once() -> str:
        if not os.path.exists(mark):
            Path(mark).touch()
            os._exit(1)
        return "done"

    async def main() -> str:
        future: Any = dies_once.submit()
        result: str = await future
        assert future.run_count == 2
        return result

    assert in_runtime(main) == "done"


async def _ended(future: Any) -> None:
    ended = asyncio.Event()

    def on_done(_: object) -> None:
        ended.set()

    future.add_done_callback(on_done)
    await ended.wait()


def test_system_exit_is_a_crash_and_the_child_lives() -> None:
    state, message, _ = outcome_of(do, "exit")
    assert state is StateType.CRASHED
    assert "SystemExit: bye" in message


def test_a_memory_error_is_a_failure() -> None:
    state, _, error = outcome_of(do, "memory")
    assert state is StateType.FAILED
    assert isinstance(error, MemoryError)


def test_a_run_over_its_time_has_its_process_killed_and_replaced(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    pid.touch()
    state, _, error = outcome_of(hang, str(pid))
    while not pid.read_text():  # its time was up before it could say who it is
        state, _, error = outcome_of(hang, str(pid))
    assert state is StateType.FAILED
    assert isinstance(error, TaskRunTimeoutError)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_cancelling_a_run_kills_its_process_within_a_second(tmp_path: Path) -> None:
    path, futures = tmp_path / "pid", list[Any]()

    @task
    def hang_for_ever() -> None:
        path.write_text(str(os.getpid()))
        while True:
            time.sleep(1)

    async def main() -> float:
        path.write_text("")
        async with Runtime(task_runner=ProcessPoolTaskRunner(1)):
            futures.append(hang_for_ever.submit())
            while not path.read_text():
                await asyncio.sleep(0.005)
            began = time.monotonic()
        return time.monotonic() - began

    assert any(asyncio.run(main()) < DEATH_SECONDS for _ in range(TRIES))
    assert futures[-1].state.type is StateType.CANCELLED
    with pytest.raises(CancelledRun):
        futures[-1].result()
    with pytest.raises(ProcessLookupError):
        os.kill(int(path.read_text()), 0)


def test_an_argument_that_cannot_be_pickled_is_named() -> None:
    state, message, _ = outcome_of(give_back, {"a": [1, threading.Lock()]})
    assert state is StateType.FAILED
    assert "argument 'x' of 'give-back-0'" in message
    assert "['a'][1]: _thread.lock" in message
    assert "threads" in message


def test_an_argument_that_cannot_be_pickled_harms_its_own_run_only() -> None:
    async def main() -> None:
        futures = give_back.map([1, threading.Lock(), 3])
        await asyncio.gather(*[_ended(future) for future in futures])
        assert [future.state.is_completed() for future in futures] == [True, False, True]

    in_runtime(main)


@pytest.mark.parametrize(
    ("definition", "text"), [(lock_of, "_thread.lock"), (unreadable, "cannot be read"), (ends_its_reader, "SystemExit")]
)
def test_a_result_that_cannot_cross_fails_its_run_and_says_so(definition: Any, text: str) -> None:
    state, message, _ = outcome_of(definition, 1)
    assert state is StateType.FAILED
    assert text in message
    assert "The task returned" in message or "What the task returned" in message


def test_an_exception_keeps_type_and_arguments_and_shows_the_childs_traceback() -> None:
    _, _, error = outcome_of(fail, "plain")
    assert type(error) is ValueError
    assert error.args == ("plain", 7)
    text = str(error.__cause__)
    assert "in fail" in text
    assert 'raise ValueError("plain", 7)' in text
    assert "upwell_runners" not in text


def test_the_childs_traceback_shows_causes_too() -> None:
    _, _, error = outcome_of(fail, "caused")
    assert "KeyError: 'inner'" in str(error.__cause__)


@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [("two arguments", "TwoArguments", "7: two"), ("lock", "HoldsALock", "held")],
)
def test_an_exception_that_cannot_cross_is_stood_in_for(how: str, kind: str, text: str) -> None:
    state, _, error = outcome_of(fail, how)
    assert state is StateType.FAILED
    assert isinstance(error, UncarriedException)
    assert kind in str(error)
    assert text in str(error)
    assert "in fail" in str(error.__cause__)


def test_a_function_that_cannot_be_imported_in_the_child_fails_its_run(tmp_path: Path) -> None:
    source = f"import os\nif os.getpid() != {os.getpid()}: raise OSError('gone')\ndef f(x): return x\n"
    (tmp_path / "vanishes.py").write_text(source)
    sys.path.insert(0, str(tmp_path))
    try:
        import vanishes  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]  # made above

        state, message, _ = outcome_of(task(vanishes.f), 1)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("vanishes", None)
    assert state is StateType.FAILED
    assert "'vanishes:f' cannot be loaded in a worker process: OSError: gone" in message


def test_large_arguments_results_and_prints_do_not_block_each_other(caplog: pytest.LogCaptureFixture) -> None:
    size = 20_000_000

    @task(log_prints=True)
    def loud(data: bytes) -> bytes:
        print("x" * len(data))
        return data

    async def main() -> None:
        with caplog.at_level(logging.WARNING):
            futures = loud.map([bytes(size)] * 5)
            assert [len(await future) for future in futures] == [size] * 5

    in_runtime(main)


def test_a_hundred_megabytes_on_stdout_do_no_harm(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from upwell import flow, task\n"
        "from upwell_runners.processes import ProcessPoolTaskRunner\n"
        "@task\n"
        "def write(n):\n"
        "    for _ in range(100): sys.stdout.write('x' * n)\n"
        "    return n\n"
        "@flow(task_runner=ProcessPoolTaskRunner(1))\n"
        "def main(): return write.submit(1_000_000).result()\n"
        "assert main() == 1_000_000\n"
    )
    with open(tmp_path / "out", "wb") as out:
        subprocess.run([sys.executable, script], stdout=out, stderr=subprocess.DEVNULL, timeout=60, check=True)
    assert (tmp_path / "out").stat().st_size == 100_000_000


def test_a_child_that_forks_is_missed_when_it_dies_and_its_grandchild_dies_with_it(tmp_path: Path) -> None:
    path = tmp_path / "grandchild"

    @task
    def fork_and_die() -> None:
        process = subprocess.Popen(["sleep", "60"])
        if os.fork() == 0:
            time.sleep(60)
        path.write_text(str(process.pid))
        os._exit(7)

    state, message, _ = outcome_of(fork_and_die)
    assert state is StateType.CRASHED
    assert "exited with code 7" in message
    assert _gone(int(path.read_text()))


PARENT = """
import os, sys, time
from upwell import flow, task
from upwell_runners.processes import ProcessPoolTaskRunner
@task
def hang(path):
    open(path, "w").write(str(os.getpid()))
    time.sleep(60)
@flow(task_runner=ProcessPoolTaskRunner(1, start_method=sys.argv[2]))
def main(): hang.submit(sys.argv[1]).result()
main()
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_ends_when_its_parent_was_killed_and_leaves_no_memory(tmp_path: Path, method: str) -> None:
    script, path = tmp_path / "script.py", tmp_path / "pid"
    script.write_text(PARENT)
    shared = shared_now()
    parent = subprocess.Popen([sys.executable, script, path, method], stderr=subprocess.PIPE)
    try:
        while not path.exists() or not path.read_text():
            time.sleep(0.01)
    finally:
        parent.kill()
    assert parent.communicate()[1].count(b"Traceback") == 0
    assert _gone(int(path.read_text()))
    assert shared_now() <= shared


def _gone(pid: int, within: float = 30.0) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.01)
    return False
