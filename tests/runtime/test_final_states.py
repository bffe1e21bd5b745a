"""The final state of a flow run: raised, returned futures and states, failures that nobody looked at."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from tests.runtime.given import Run

from upwell import State, flow, task
from upwell.core.errors import CancelledRun, FailedRun, FlowRunTimeoutError
from upwell.states import Cancelled, Completed, Failed, Paused, Pending, Running, Scheduled


@task
def good(x: Any = 1) -> Any:
    return x


@task
def parse(x: int = 3) -> int:
    if x == 3:
        raise ValueError(f"bad {x}")
    return x


@task
async def parse_later(x: int = 3) -> int:
    await asyncio.sleep(0)
    return parse.fn(x)


def state_of(function: Callable[[], Any]) -> State:
    started: Any = flow(function)
    state: State = started(return_state=True)
    return state


# --- raised and returned -------------------------------------------------------------------------------------------


def test_a_flow_that_raises_has_failed_with_its_exception(run: Run) -> None:
    def raises() -> None:
        raise KeyError("mine")

    state = state_of(raises)
    assert state.is_failed()
    assert state.message == "Flow run encountered an exception: KeyError: 'mine'"
    with pytest.raises(KeyError, match="mine") as caught:
        flow(raises)()
    assert caught.traceback[-1].name == "raises"

    async def raises_later() -> None:
        raise KeyError("mine")

    assert run(flow(raises_later)(return_state=True)).is_failed()


def test_a_plain_value_completes() -> None:
    for value in (None, 0, "text", [1, 2], {"a": 1}, ()):
        state = state_of(lambda value=value: value)  # type: ignore[misc]
        assert state.is_completed()
        assert state.result() == value


def test_a_returned_future_decides(run: Run) -> None:
    assert state_of(lambda: good.submit(5)).result() == 5
    failed = state_of(lambda: parse.submit())
    assert failed.is_failed()
    assert failed.message == "1/1 states failed."
    with pytest.raises(ValueError, match="bad 3"):
        flow(lambda: parse.submit())()

    @flow
    async def later() -> Any:
        return parse_later.submit(4)

    assert run(later()) == 4


def test_returned_futures_decide_together() -> None:
    assert state_of(lambda: [good.submit(1), good.submit(2)]).result() == [1, 2]
    assert state_of(lambda: {"a": good.submit(1), "b": [good.submit(2)]}).result() == {"a": 1, "b": [2]}
    assert state_of(lambda: good.map(range(3))).result() == [0, 1, 2]
    state = state_of(lambda: parse.map(range(5)))
    assert state.is_failed()
    assert state.message == "1/5 states failed."
    with pytest.raises(ValueError, match="bad 3"):
        state.result()


def test_a_returned_future_that_fails_overrules_what_was_looked_at() -> None:
    def returns() -> Any:
        bad = parse.submit()
        bad.wait()
        return [bad, good.submit()]

    assert state_of(returns).message == "1/2 states failed."


def test_a_returned_state_is_used_as_it_is() -> None:
    state = state_of(lambda: Completed("all is well", data=3))
    assert (state.name, state.message, state.result()) == ("Completed", "all is well", 3)
    assert flow(lambda: Completed(data=3))() == 3  # type: ignore[comparison-overlap]  # it gives something else than it is typed
    state = state_of(lambda: Failed("I say so"))
    assert state.is_failed()
    with pytest.raises(FailedRun, match="I say so"):
        state.result()
    assert state_of(lambda: Completed(name="Skipped")).name == "Skipped"
    with pytest.raises(CancelledRun, match="enough"):
        flow(lambda: Cancelled("enough"))()


@pytest.mark.parametrize(
    ("states", "type_", "message"),
    [
        ([Completed(), Completed()], "COMPLETED", "All states completed."),
        ([Completed(), Failed("x")], "FAILED", "1/2 states failed."),
        ([Failed("x"), Failed("x"), Completed()], "FAILED", "2/3 states failed."),
        ([Failed("x"), Cancelled("x")], "CANCELLED", "1/2 states cancelled."),
        ((Completed(), Completed()), "COMPLETED", "All states completed."),
    ],
)
def test_returned_states_decide_together(states: Any, type_: str, message: str) -> None:
    state = state_of(lambda: states)
    assert state.type.value == type_
    assert state.message == message


@pytest.mark.parametrize("state", [Running("x"), Pending("x"), Scheduled(message="x")])
def test_a_returned_state_that_is_not_final_fails_the_flow(state: State) -> None:
    for returned in (state, [state], [state, Completed()]):
        ended = state_of(lambda returned=returned: returned)  # type: ignore[misc]
        assert ended.is_failed()
        assert "not final" in (ended.message or "")


def test_a_flow_run_that_has_returned_a_paused_state_is_not_completed() -> None:
    assert not state_of(lambda: [Paused("x"), Completed()]).is_completed()


# --- never looked at ------------------------------------------------------------------------------------------------


def test_a_failure_that_nobody_looked_at_fails_the_flow_and_is_named(run: Run) -> None:
    def unseen() -> str:
        parse.map(range(9))
        return "fine"

    state = state_of(unseen)
    assert state.is_failed()
    assert state.message == "1 of 9 task runs failed and was never looked at: parse-3"
    with pytest.raises(FailedRun, match="never looked at: parse-3") as caught:
        flow(unseen)()
    assert isinstance(caught.value.__cause__, ValueError)

    @flow
    async def unseen_later() -> None:
        for _ in range(2):
            parse_later.submit()

    state = run(unseen_later(return_state=True))
    assert state.message == "2 of 2 task runs failed and were never looked at: parse-later-0, parse-later-1"


def test_many_failures_are_counted_and_a_few_are_named() -> None:
    def unseen() -> None:
        parse.map([3] * 20)

    message = state_of(unseen).message or ""
    assert message.startswith("20 of 20 task runs failed and were never looked at: parse-")
    assert message.endswith("and 15 more")


def test_a_flow_that_is_tried_again_counts_the_runs_of_its_last_attempt() -> None:
    @flow(retries=1)
    async def around() -> None:
        parse.map([3, 3])

    state: Any = asyncio.run(around(return_state=True))
    assert state.message.startswith("2 of 2 task runs failed and were never looked at")


LOOKS: dict[str, Callable[[Any], object]] = {
    "result": lambda future: future.result(raise_on_failure=False),
    "state": lambda future: (future.wait(), future.state),
    "wait": lambda future: future.wait(),
    "dependant": lambda future: good.submit(future).wait(),
    "wait_for": lambda future: good.submit(1, wait_for=[future]).wait(),
    "callback": lambda future: future.add_done_callback(print),
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_failure_that_was_looked_at_does_not_fail_the_flow(look: str) -> None:
    def seen() -> str:
        LOOKS[look](parse.submit())
        return "fine"

    assert state_of(seen).result() == "fine"


def test_an_awaited_failure_that_was_handled_does_not_fail_the_flow(run: Run) -> None:
    @flow
    async def handles() -> str:
        try:
            await parse_later.submit()
        except ValueError:
            return "handled"
        return "not raised"

    assert run(handles()) == "handled"


def test_a_direct_call_that_was_handled_does_not_fail_the_flow(run: Run) -> None:
    def handles() -> str:
        with pytest.raises(ValueError, match="bad"):
            parse()
        return "handled"

    assert state_of(handles).result() == "handled"
    assert state_of(lambda: str(parse(return_state=True))).is_completed()

    @flow
    async def handles_later() -> str:
        state = await parse_later(return_state=True)
        assert state.is_failed()
        return "handled"

    assert run(handles_later()) == "handled"


def test_a_dependant_nobody_looked_at_is_the_one_that_is_named() -> None:
    def unseen() -> None:
        good.submit(parse.submit())

    state = state_of(unseen)
    assert state.is_failed()
    assert "good-0" in (state.message or "")


def test_a_failure_inside_a_subflow_is_the_subflows(run: Run) -> None:
    @flow
    def inner() -> None:
        parse.submit()

    @flow
    def outer() -> str:
        return inner(return_state=True).name

    assert outer() == "Failed"

    @flow
    def outer_that_raises() -> None:
        inner()

    state = outer_that_raises(return_state=True)
    assert state.is_failed()
    assert isinstance(state.data, FailedRun)


def test_a_submitted_subflow_that_nobody_looked_at_fails_its_parent() -> None:
    @flow
    def inner() -> None:
        raise ValueError("inner")

    @flow
    def outer() -> None:
        inner.submit()

    state = outer(return_state=True)
    assert state.is_failed()
    assert "inner-0" in (state.message or "")


# --- a flow waits for all it has started --------------------------------------------------------------------------


def test_a_flow_waits_for_everything_it_started(run: Run) -> None:
    ended: list[str] = []

    @task
    async def slow(name: str) -> None:
        await asyncio.sleep(0.002)
        ended.append(name)

    @flow
    def sync_flow() -> str:
        slow.submit("sync")
        slow.map(["sync"] * 3)
        return "returned"

    @flow
    async def async_flow() -> str:
        slow.submit("async")
        return "returned"

    assert sync_flow() == "returned"
    assert ended == ["sync"] * 4
    assert run(async_flow()) == "returned"
    assert ended[4:] == ["async"]


def test_after_an_exception_what_runs_is_waited_for_and_what_has_not_begun_never_begins(run: Run) -> None:
    touched: list[str] = []

    async def main() -> None:
        begun = asyncio.Event()

        @task
        async def runs() -> None:
            begun.set()
            await asyncio.sleep(0.003)
            touched.append("runs")

        @task
        async def never(x: Any) -> None:
            touched.append("never")

        futures: list[Any] = []

        @flow
        async def raises() -> None:
            futures.append(runs.submit())
            futures.append(never.submit(futures[0]))
            await begun.wait()
            raise ValueError("mine")

        state = await raises(return_state=True)
        assert state.is_failed()
        assert futures[0].state.is_completed()
        assert futures[1].state.is_cancelled()
        assert "mine" in futures[1].state.message

    run(main())
    assert touched == ["runs"]


# --- what is logged -------------------------------------------------------------------------------------------------


def test_failures_are_logged_at_error_under_the_name_of_their_run(caplog: pytest.LogCaptureFixture, run: Run) -> None:
    @flow(flow_run_name="morning")
    def fails() -> None:
        parse.submit().wait()
        parse(return_state=True)
        raise KeyError("mine")

    fails(return_state=True)
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    by_run = {(r.__dict__["run_kind"], r.__dict__["run_name"]) for r in errors}
    assert by_run == {("Task run", "parse-0"), ("Task run", "parse-1"), ("Flow run", "morning")}
    texts = [r.getMessage() for r in errors if r.__dict__["run_name"] == "parse-0"]
    assert any("ValueError" in text and "bad 3" in text for text in texts)
    assert any(r.exc_info and r.exc_info[1] and str(r.exc_info[1]) == "bad 3" for r in errors)


def test_a_completed_flow_logs_nothing_at_error(caplog: pytest.LogCaptureFixture, run: Run) -> None:
    @flow
    async def fine() -> Any:
        return await good.map(range(3))

    run(fine())
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
    messages = [r.getMessage() for r in caplog.records]
    assert any(message.startswith("Beginning flow run") for message in messages)
    assert any(message.startswith("Finished in state Completed()") for message in messages)


# --- submitted flow runs --------------------------------------------------------------------------------------------


def test_the_run_of_a_submitted_flow_ends_as_the_flow_run_does(run: Run) -> None:
    def ends(state: State) -> Callable[[], State]:
        return lambda: state

    @task
    def fails() -> None:
        raise ValueError("no")

    @flow
    def unseen() -> None:
        fails.submit()

    @flow
    async def late() -> None:
        await asyncio.sleep(60)

    @flow
    def takes(number: int) -> int:
        return number

    given = (Completed(name="Skipped", message="nothing to do"), Failed(name="Odd"), Cancelled(message="no"), Paused())
    flows: list[tuple[Any, tuple[Any, ...]]] = [(flow(ends(state)), ()) for state in given]
    flows += [(unseen, ()), (takes, ("x",)), (takes, (1,))]

    def told(state: State) -> tuple[Any, ...]:
        return state.type.value, state.name, state.message

    @flow
    def sync_main() -> dict[str, Any]:
        called = [told(each(*args, return_state=True)) for each, args in flows]
        futures = [each.submit(*args) for each, args in flows]
        for future in futures:
            future.wait()
        return {"called": called, "submitted": [told(future.state) for future in futures]}

    @flow
    async def async_main() -> dict[str, Any]:
        soon = late.with_options(timeout_seconds=0.01)
        future = soon.submit()
        with pytest.raises(FlowRunTimeoutError):
            await future
        return {"called": told(await soon(return_state=True)), "submitted": told(future.state)}

    seen = sync_main()
    assert seen["submitted"][:3] == seen["called"][:3]
    assert seen["submitted"][4:] == seen["called"][4:]
    assert seen["submitted"][3][0] == "FAILED"  # a run that stands for another has no more to wait for
    seen = run(async_main())
    assert seen["submitted"] == seen["called"]
    assert seen["called"][1] == "TimedOut"
