"""Flow runs that somebody who is not their caller makes end: on a loop, on the main thread, on another one."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from upwell import flow, task
from upwell.core.errors import CancelledRun
from upwell.core.states import State
from upwell.engine.stopping import UNDER_WAY, ids_under_way, stop_flow_run
from upwell.runtime import flow_run


@contextmanager
def stopped(name: str | None = None) -> Generator[None]:
    """As soon as the code inside is ready for it, the run of this flow is asked to end; of the only one unless said."""

    def stop() -> None:
        while not ready.wait(0.005):
            pass
        time.sleep(0.02)
        (found,) = [str(one.run.id) for one in UNDER_WAY if name in (None, one.run.flow_name)]
        stop_flow_run(found, "enough")

    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        yield
    finally:
        ready.set()
        stopper.join()
        ready.clear()


ready = threading.Event()


def test_a_sync_run_on_the_main_thread_is_cut_short(capfd: pytest.CaptureFixture[str]) -> None:
    cleaned: list[bool] = []

    @flow
    def sleeps() -> None:
        try:
            ready.set()
            time.sleep(1000)
        finally:
            cleaned.append(True)

    with stopped(), pytest.raises(CancelledRun, match="enough"):
        sleeps()
    assert cleaned == [True]
    assert "Ctrl-C" not in capfd.readouterr().err
    assert ids_under_way() == []


def is_handled_here(number: int, frame: FrameType | None) -> None:
    """An application's own handler."""


@pytest.mark.parametrize("handler", [signal.SIG_IGN, is_handled_here])
def test_a_sync_run_is_cut_short_where_ctrl_c_is_somebody_elses(handler: Any) -> None:
    """As in a script that another one has started with `&`."""

    @flow
    def sleeps() -> None:
        ready.set()
        time.sleep(1000)

    before = signal.signal(signal.SIGINT, handler)
    try:
        with stopped(), pytest.raises(CancelledRun, match="enough"):
            sleeps()
        assert signal.getsignal(signal.SIGINT) is handler
        assert signal.getsignal(signal.SIGURG) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


@flow
def hears_urgent_data() -> str:
    signal.raise_signal(signal.SIGURG)
    return "went on"


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_a_signal_that_nobody_asked_for_changes_nothing(handler: Any) -> None:
    before = signal.signal(signal.SIGINT, handler)
    try:
        assert hears_urgent_data() == "went on"
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_async_run_ends_and_its_caller_goes_on() -> None:
    @flow
    async def sleeps() -> None:
        ready.set()
        await asyncio.sleep(60)

    async def main() -> State:
        state: State = await sleeps(return_state=True)
        await asyncio.sleep(0)  # nobody has cancelled the caller
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        return state

    with stopped():
        state = asyncio.run(main())
    assert (state.is_cancelled(), state.message) == (True, "enough")


def test_what_a_run_has_started_ends_with_it() -> None:
    states: list[str] = []

    @task
    async def naps() -> None:
        try:
            ready.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            states.append("cancelled")
            raise

    @flow
    def waits() -> None:
        naps.submit().wait()

    with stopped(), pytest.raises(CancelledRun, match="enough"):
        waits()
    assert states == ["cancelled"]


def test_a_run_on_another_thread_is_interrupted() -> None:
    @flow
    def busy() -> None:
        ready.set()
        while True:
            time.sleep(0.001)

    answers: list[State] = []
    with stopped():
        thread = threading.Thread(target=lambda: answers.append(busy(return_state=True)))
        thread.start()
        thread.join(60)
    assert [state.is_cancelled() for state in answers] == [True]


def test_a_stopped_run_takes_along_the_subflow_that_it_is_in() -> None:
    states: list[str] = []

    @flow(on_cancellation=[lambda _flow, run, state: states.append(run.flow_name)])
    def inner() -> None:
        ready.set()
        time.sleep(60)

    @flow(on_cancellation=[lambda _flow, run, state: states.append(run.flow_name)])
    def outer() -> None:
        inner()
        states.append("went on")

    with stopped("outer"), pytest.raises(CancelledRun, match="enough"):
        outer()
    assert states == ["inner", "outer"]


def test_a_subflow_alone_can_be_stopped() -> None:
    @flow
    async def inner() -> None:
        ready.set()
        await asyncio.sleep(60)

    @flow
    async def outer() -> str:
        state: State = await inner(return_state=True)
        await asyncio.sleep(0)
        return state.name or ""

    with stopped("inner"):
        assert asyncio.run(outer()) == "Cancelled"


def test_a_caller_that_is_cancelled_as_well_hears_of_it() -> None:
    @flow
    async def sleeps() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)

    async def main() -> None:
        running = asyncio.create_task(sleeps())
        while not ids_under_way():
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        stop_flow_run(ids_under_way()[0], "enough")
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())


@pytest.mark.parametrize(
    ("kind", "ends", "answer"),
    [("on_completion", "well", "Completed"), ("on_failure", "badly", "Failed"), ("on_running", "well", "Cancelled")],
)
def test_who_is_stopped_in_a_hook_ends_and_its_caller_goes_on(kind: str, ends: str, answer: str) -> None:
    left: list[str] = []

    async def hook(_flow: Any, run: Any, _state: Any) -> None:
        try:
            assert stop_flow_run(str(run.id), "enough")
            await asyncio.sleep(60)
        finally:
            left.append(kind)

    hooks: dict[str, Any] = {kind: [hook]}

    @flow(**hooks)
    async def quick() -> None:
        if ends == "badly":
            raise ValueError(ends)

    async def main() -> str:
        state: State = await quick(return_state=True)
        await asyncio.sleep(0)  # nobody has cancelled the caller
        return state.name or ""

    assert (asyncio.run(main()), left) == (answer, [kind])
    assert ids_under_way() == []


def test_a_sync_hook_is_cut_short_and_its_flows_caller_goes_on() -> None:
    def hook(*_: Any) -> None:
        ready.set()
        while True:
            time.sleep(0.001)

    @flow(on_completion=[hook])
    def quick() -> str:
        return "done"

    answers: list[str] = []
    with stopped():
        answers.append(quick())
    with stopped():
        thread = threading.Thread(target=lambda: answers.append(quick()))
        thread.start()
        thread.join(60)
    assert answers == ["done", "done"]


def test_who_is_cancelled_by_its_caller_and_stopped_in_a_hook_tells_its_caller_why() -> None:
    async def hook(_flow: Any, run: Any, _state: Any) -> None:
        stop_flow_run(str(run.id), "enough")
        await asyncio.sleep(60)

    @flow(on_cancellation=[hook])
    async def sleeps() -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        running = asyncio.create_task(sleeps())
        while not ids_under_way():
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        running.cancel("by its caller")
        with pytest.raises(asyncio.CancelledError, match="by its caller"):
            await running

    asyncio.run(main())


def test_who_has_ended_is_not_stopped() -> None:
    seen: list[str] = []

    @flow
    def quick() -> None:
        seen.append(str(flow_run.id))

    quick()
    assert not stop_flow_run(seen[0], "too late")
    quick()


# --- generators: under way while the caller takes from them -------------------------------------------------------


def test_a_generator_is_cut_short_in_a_step() -> None:
    @flow
    def numbers() -> Generator[int]:
        yield 1
        ready.set()
        time.sleep(1000)

    taken: list[int] = []
    with stopped(), pytest.raises(CancelledRun, match="enough"):
        taken.extend(numbers())
    assert ids_under_way() == []


def test_an_async_generator_is_cut_short_in_a_step_and_its_caller_goes_on() -> None:
    @flow
    async def numbers() -> AsyncGenerator[int]:
        yield 1
        ready.set()
        await asyncio.sleep(60)

    async def main() -> list[int]:
        taken: list[int] = []
        try:
            async for number in numbers():
                taken.append(number)
        except CancelledRun:
            await asyncio.sleep(0)  # nobody has cancelled the caller
            taken.append(2)
        return taken

    with stopped():
        assert asyncio.run(main()) == [1, 2]
    assert ids_under_way() == []


def test_who_is_busy_with_an_item_is_left_alone_and_hears_of_it_with_the_next() -> None:
    cleaned: list[str] = []

    @flow
    def numbers() -> Generator[int]:
        try:
            yield from range(10)
        finally:
            cleaned.append("sync")

    @flow
    async def anumbers() -> AsyncGenerator[int]:
        try:
            for number in range(10):
                yield number
        finally:
            cleaned.append("async")

    def busy() -> None:
        stop_flow_run(ids_under_way()[0], "enough")
        time.sleep(0.01)

    def take() -> None:
        for _ in numbers():
            busy()
            taken.append("sync")

    async def atake() -> None:
        async for _ in anumbers():
            busy()
            await asyncio.sleep(0)
            taken.append("async")

    taken: list[str] = []
    with pytest.raises(CancelledRun, match="enough"):
        take()
    with pytest.raises(CancelledRun, match="enough"):
        asyncio.run(atake())
    assert (taken, cleaned) == (["sync", "async"], ["sync", "async"])
    assert ids_under_way() == []


def test_a_generator_that_was_left_is_not_under_way() -> None:
    @flow
    def numbers() -> Generator[int]:
        yield from range(10)

    for _ in numbers():
        assert len(ids_under_way()) == 1
        break
    assert ids_under_way() == []
