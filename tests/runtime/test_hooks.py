"""Hooks: which are called, with what, in which order, on every way to run; one that raises changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.runtime.given import Run

from upwell import Runtime, flow, runtime, task
from upwell.engine.flow_run import FlowRun
from upwell.testing import run_virtual

KINDS = ["on_completion", "on_failure", "on_running", "on_cancellation", "on_crashed"]
WAYS = ["call", "submit", "map", "stream"]


class Heard:
    """Notes which hooks were called and with what."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.calls: list[tuple[Any, Any, Any]] = []

    def hook(self, name: str) -> Callable[..., None]:
        def hook(face: Any, run: Any, state: Any) -> None:
            self.names.append(name)
            self.calls.append((face, run, state))

        hook.__name__ = name
        return hook

    def later(self, name: str) -> Callable[..., Coroutine[Any, Any, None]]:
        async def hook(face: Any, run: Any, state: Any) -> None:
            await asyncio.sleep(0)
            self.hook(name)(face, run, state)

        return hook

    def options(self) -> dict[str, Any]:
        return {kind: [self.hook(kind), self.later(f"{kind} later")] for kind in KINDS}


async def start(it: Any, way: str) -> Any:
    try:
        if way == "call":
            return await it(1)
        if way == "submit":
            return await it.submit(1)
        if way == "map":
            return await it.map([1])
        return [x async for x in it.stream([1])]
    except ValueError:
        return None


def start_sync(it: Any, way: str) -> Any:
    try:
        if way == "call":
            return it(1)
        if way == "submit":
            return it.submit(1).result()
        if way == "map":
            return it.map([1]).result()
        return list(it.stream([1]))
    except ValueError:
        return None


def good(x: int) -> int:
    return x


def bad(x: int) -> int:
    raise ValueError("boom")


async def good_later(x: int) -> int:
    return x


async def bad_later(x: int) -> int:
    await asyncio.sleep(0)
    raise ValueError("boom")


# --- tasks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("fn", "end"), [(good_later, "on_completion"), (bad_later, "on_failure")])
def test_hooks_of_an_async_task_are_called_in_order(way: str, fn: Any, end: str, run: Run) -> None:
    heard = Heard()
    run(start(task(**heard.options())(fn), way))
    assert heard.names == ["on_running", "on_running later", end, f"{end} later"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("fn", "end"), [(good, "on_completion"), (bad, "on_failure")])
def test_hooks_of_a_sync_task_are_called_in_order(way: str, fn: Any, end: str) -> None:
    heard = Heard()
    start_sync(task(**heard.options())(fn), way)
    assert heard.names == ["on_running", "on_running later", end, f"{end} later"]


@pytest.mark.parametrize("way", ["call", "submit", "map"])
def test_a_hook_gets_the_task_the_run_and_the_state(way: str, run: Run) -> None:
    heard = Heard()
    it: Any = task(tags=["t"], **heard.options())(good_later)

    @flow(name="around", flow_run_name="morning")
    async def around() -> None:
        await start(it, way)

    run(around())
    running, ended = heard.calls[0], heard.calls[-1]
    assert running[0] is it
    assert ended[0] is it
    assert running[2].is_running()
    assert ended[2].is_completed()
    assert ended[2].result() == 1
    record = ended[1]
    assert record.name == "good-later-0"
    assert record.task_name == "good-later"
    assert record.flow_run_name == "morning"
    assert record.tags == {"t"}
    assert record.run_count == 1
    assert record.state is ended[2]
    assert record.state_name == "Completed"
    assert record.start_time is not None
    assert record.end_time is not None
    assert record.created <= record.start_time <= record.end_time
    assert running[1].id == record.id


def test_a_failure_hook_gets_the_exception(run: Run) -> None:
    heard = Heard()
    run(start(task(on_failure=[heard.hook("failed")])(bad_later), "submit"))
    assert isinstance(heard.calls[0][2].result(raise_on_failure=False), ValueError)
    assert "boom" in heard.calls[0][2].message


def test_decorators_add_hooks_after_those_of_the_options(run: Run) -> None:
    heard = Heard()
    it: Any = task(on_completion=[heard.hook("option")])(good)

    @it.on_completion  # type: ignore[untyped-decorator]  # as it is for users
    def first(*_: Any) -> None:
        heard.names.append("first")

    @it.on_completion  # type: ignore[untyped-decorator]  # as it is for users
    async def second(*_: Any) -> None:
        heard.names.append("second")

    assert first.__name__ == "first"
    it(1)
    it.submit(1).result()
    assert heard.names == ["option", "first", "second"] * 2


def test_hooks_of_every_kind_can_be_added_by_decorators() -> None:
    heard = Heard()
    it: Any = task(good)
    of_flow: Any = flow(good)
    for kind in KINDS:
        getattr(it, kind)(heard.hook(f"task {kind}"))
        getattr(of_flow, kind)(heard.hook(f"flow {kind}"))
    it.submit(1).result()
    of_flow(1)
    assert heard.names == ["task on_running", "task on_completion", "flow on_running", "flow on_completion"]


@pytest.mark.parametrize("way", WAYS)
def test_a_hook_that_raises_is_logged_and_the_others_are_called(
    way: str, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()

    def broken(*_: Any) -> None:
        raise KeyError("hook")

    async def broken_later(*_: Any) -> None:
        raise KeyError("hook")

    options: dict[str, Any] = {
        kind: [broken, heard.hook(kind), broken_later, heard.hook(kind)] for kind in ("on_running", "on_completion")
    }
    run(start(task(**options)(good_later), way))
    assert heard.names == ["on_running"] * 2 + ["on_completion"] * 2
    complaints = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert sorted(complaints) == ["The hook 'broken' failed"] * 2 + ["The hook 'broken_later' failed"] * 2
    assert start_sync(task(on_completion=[broken])(good), way) in (1, [1])


def test_ending_hooks_are_not_called_for_an_attempt_that_is_tried_again(run: Run) -> None:
    heard = Heard()
    attempts: list[int] = []

    @task(retries=2, **heard.options())
    async def flaky(x: int) -> int:
        attempts.append(1)
        if len(attempts) < 3:
            raise ValueError("again")
        return x

    run(start(flaky, "submit"))
    attempts.clear()
    run(start(flaky, "call"))
    ends = [name for name in heard.names if "later" not in name and name != "on_running"]
    assert ends == ["on_completion", "on_completion"]


@pytest.mark.parametrize("way", ["call", "submit"])
def test_a_result_is_there_only_when_the_hooks_have_ended(way: str, run: Run) -> None:
    order: list[str] = []

    async def slow_hook(*_: Any) -> None:
        await asyncio.sleep(0.002)
        order.append("hook")

    async def main() -> None:
        await start(task(on_completion=[slow_hook])(good_later), way)
        order.append("result")

    run(main())
    assert order == ["hook", "result"]


def test_a_sync_hook_does_not_block_the_loop(run: Run) -> None:
    import threading

    threads: list[int] = []
    it = task(on_completion=[lambda *_: threads.append(threading.get_ident())])(good_later)  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]  # a lambda needs no annotations here
    run(start(it, "submit"))
    assert threads != [threading.get_ident()]


def test_cancelled_runs_call_their_cancellation_hooks() -> None:
    heard = Heard()

    @task(**heard.options())
    async def stay() -> None:
        await asyncio.sleep(1000)

    @flow(timeout_seconds=1)
    async def around() -> None:
        stay.submit()
        await asyncio.sleep(60)

    run_virtual(around(return_state=True))
    assert heard.names == ["on_running", "on_running later", "on_cancellation", "on_cancellation later"]
    assert "exceeded timeout" in heard.calls[-1][2].message


@pytest.mark.parametrize("phase", ["upstream", "place", "retry"])
def test_a_run_cancelled_before_it_began_calls_its_cancellation_hooks_too(phase: str) -> None:
    heard = Heard()
    futures: list[Any] = []

    @task
    async def stay(x: Any = None) -> None:
        await asyncio.sleep(1000)

    @task(on_cancellation=[heard.hook("cancelled")], retries=1, retry_delay_seconds=500)
    async def held_up(x: Any = None) -> None:
        if phase == "retry":
            raise ValueError("again")
        await asyncio.sleep(1000)

    @flow(timeout_seconds=1)
    async def around() -> None:
        if phase == "upstream":
            futures.append(held_up.submit(stay.submit()))
        elif phase == "place":
            futures.extend(held_up.map([1, 2], max_at_once=1)[1:])
        else:
            futures.append(held_up.submit())
        await asyncio.sleep(60)

    run_virtual(around(return_state=True))
    assert futures[0].state.is_cancelled()
    assert heard.names == ["cancelled"] * (2 if phase == "place" else 1)


@pytest.mark.parametrize("way", ["call", "submit"])
def test_crashed_runs_call_their_crash_hooks(way: str, run: Run) -> None:
    heard = Heard()

    class Abort(BaseException):
        pass

    @task(**heard.options())
    def aborts(x: int) -> None:
        raise Abort("stop")

    async def main() -> None:
        async with Runtime() as runtime:
            state = await runtime.submit(aborts, 1, return_state=True)
            assert state.is_crashed()
            assert "Abort: stop" in state.message

    if way == "submit":
        run(main())
    else:
        with pytest.raises(Abort):
            aborts(1)
    assert heard.names == ["on_running", "on_running later", "on_crashed", "on_crashed later"]


def test_a_hook_may_run_tasks_of_its_own(run: Run) -> None:
    notes: list[int] = []

    @task
    async def note(x: int) -> None:
        notes.append(x)

    async def hook(_task: Any, _run: Any, state: Any) -> None:
        await note(state.result())
        await note.submit(state.result())

    @flow
    async def around() -> None:
        await start(task(on_completion=[hook])(good_later), "submit")
        await start(task(on_completion=[hook])(good_later), "call")

    run(around())
    assert notes == [1] * 4


@pytest.mark.parametrize("fn", [bad, bad_later])
def test_hooks_and_retry_conditions_are_called_where_the_run_was_submitted(fn: Any) -> None:
    asked, heard = list[bool](), list[bool]()

    def is_in_its_flow_run(of: Any) -> bool:
        return runtime.flow_run.id == of.flow_run_id and runtime.task_run.id is None

    def wants_retry(_task: Any, of: Any, _state: Any) -> bool:
        asked.append(is_in_its_flow_run(of))
        return True

    def hook(_task: Any, of: Any, _state: Any) -> None:
        heard.append(is_in_its_flow_run(of))

    async def hook_later(_task: Any, of: Any, _state: Any) -> None:
        heard.append(is_in_its_flow_run(of))

    hooks = [hook, hook_later]
    it = task(retries=1, retry_condition_fn=wants_retry, on_running=hooks, on_failure=hooks)(fn)

    @flow
    async def around() -> None:
        await asyncio.gather(*it.map(range(3)), return_exceptions=True)

    async def main() -> None:
        async with Runtime():
            await asyncio.gather(*(around() for _ in range(3)))

    asyncio.run(main())
    assert asked == [True] * 9
    assert heard == [True] * 36


def test_what_a_hook_starts_when_its_flow_is_being_stopped_is_not_stopped_with_it() -> None:
    cleared: list[str] = []

    @task
    async def clear_up() -> None:
        cleared.append("all")

    async def hook(_task: Any, _run: Any, _state: Any) -> None:
        await clear_up.submit()

    @task(on_cancellation=[hook])
    async def stay() -> None:
        await asyncio.sleep(1000)

    @flow(timeout_seconds=1)
    async def around() -> None:
        stay.submit()
        await asyncio.sleep(60)

    run_virtual(around(return_state=True))
    assert cleared == ["all"]


# --- flows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["call", "submit", "map"])
@pytest.mark.parametrize(("fn", "end"), [(good_later, "on_completion"), (bad_later, "on_failure")])
def test_hooks_of_an_async_flow_are_called_in_order(way: str, fn: Any, end: str, run: Run) -> None:
    heard = Heard()
    run(start(flow(**heard.options())(fn), way))
    assert heard.names == ["on_running", "on_running later", end, f"{end} later"]


@pytest.mark.parametrize("way", ["call", "submit", "map"])
@pytest.mark.parametrize(("fn", "end"), [(good, "on_completion"), (bad, "on_failure")])
def test_hooks_of_a_sync_flow_are_called_in_order(way: str, fn: Any, end: str) -> None:
    heard = Heard()
    start_sync(flow(**heard.options())(fn), way)
    assert heard.names == ["on_running", "on_running later", end, f"{end} later"]


def test_a_flows_hook_gets_the_flow_its_run_and_the_state() -> None:
    heard = Heard()
    it: Any = flow(flow_run_name="morning", **heard.options())(good)
    it(1)
    face, run, state = heard.calls[-1]
    assert face is it
    assert isinstance(run, FlowRun)
    assert (run.name, run.flow_name, run.parameters) == ("morning", "good", {"x": 1})
    assert state.result() == 1


def test_a_flow_with_a_hook_that_raises_keeps_its_state(caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("hook")

    state = flow(on_completion=[broken], on_running=[broken])(good)(1, return_state=True)
    assert state.is_completed()
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == ["The hook 'broken' failed"] * 2


def test_a_cancelled_flow_calls_its_cancellation_hooks(run: Run) -> None:
    heard = Heard()

    async def main() -> None:
        begun = asyncio.Event()

        @flow(**heard.options())
        async def stay() -> None:
            begun.set()
            await asyncio.sleep(60)

        running = asyncio.create_task(stay())
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    run(main())
    assert heard.names == ["on_running", "on_running later", "on_cancellation", "on_cancellation later"]
    assert heard.calls[-1][1].state.is_cancelled()


def test_a_crashed_flow_calls_its_crash_hooks() -> None:
    heard = Heard()

    class Abort(BaseException):
        pass

    @flow(**heard.options())
    def aborts() -> None:
        raise Abort("stop")

    with pytest.raises(Abort):
        aborts()
    assert heard.names == ["on_running", "on_running later", "on_crashed", "on_crashed later"]


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decorator", [task, flow])
def test_hooks_that_are_no_list_of_functions_are_refused_at_decoration(decorator: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=kind):
        decorator(**{kind: good})(good)
    with pytest.raises(TypeError, match=kind):
        decorator(**{kind: 3})(good)
    with pytest.raises(TypeError, match=kind):
        decorator(**{kind: ["text"]})(good)


def test_a_hook_that_is_added_between_two_runs_on_one_loop_is_called_for_the_second(run: Run) -> None:
    heard = Heard()

    @task
    async def one() -> None: ...

    async def main() -> None:
        await one.submit()
        one.on_running(heard.hook("on_running"))
        one.on_completion(heard.hook("on_completion"))
        await one.submit()

    run(main())
    assert heard.names == ["on_running", "on_completion"]
