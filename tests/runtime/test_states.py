"""States: which may follow which, what each stands for, and that each says why."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.runtime.given import double, fail

from upwell import State, flow, states, task
from upwell.core.errors import CancelledRun, CrashedRun, FailedRun, NotReadyRun, PausedRun, UnfinishedRun
from upwell.engine.flow_run import FlowRun
from upwell.engine.settle import finish
from upwell.states import (
    MOVES,
    TERMINAL,
    AwaitingConcurrencySlot,
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Late,
    Paused,
    Pending,
    Retrying,
    Running,
    Scheduled,
    StateType,
    Suspended,
    get_state_exception,
    may_move,
    raise_state_exception,
)
from upwell.testing import run_virtual, virtual_clock

TYPES = list(StateType)


# --- the table ------------------------------------------------------------------------------------------------------


def test_the_table_says_something_of_every_type() -> None:
    assert set(MOVES) == set(TYPES)
    assert {StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED} == TERMINAL


@pytest.mark.parametrize("terminal", sorted(TERMINAL))
@pytest.mark.parametrize("other", TYPES)
def test_a_terminal_state_is_never_left(terminal: StateType, other: StateType) -> None:
    assert not may_move(terminal, other)


@pytest.mark.parametrize("current", [t for t in TYPES if t not in TERMINAL])
def test_every_other_state_can_end_badly(current: StateType) -> None:
    assert may_move(current, StateType.CANCELLED)
    assert may_move(current, StateType.CRASHED)


def test_a_cancelling_run_only_ends() -> None:
    assert MOVES[StateType.CANCELLING] == TERMINAL


@flow
def nothing() -> None:
    pass


@given(st.lists(st.sampled_from(TYPES), max_size=30))
def test_a_run_follows_the_table_whatever_it_is_told(moves: list[StateType]) -> None:
    run = FlowRun(nothing._definition, (), {})  # pyright: ignore[reportPrivateUsage]  # no public way to look at it
    for move in moves:
        run.move(State(type=move, message="why"))
    types = [state.type for state in run.states]
    assert all(may_move(before, after) for before, after in itertools.pairwise(types))
    assert all(type_ not in TERMINAL for type_ in types[:-1])
    stamps = [state.timestamp for state in run.states]
    assert stamps == sorted(stamps)


# --- what they say ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "type_", "name"),
    [
        (Scheduled(), "SCHEDULED", "Scheduled"),
        (Late(), "SCHEDULED", "Late"),
        (AwaitingRetry(), "SCHEDULED", "AwaitingRetry"),
        (AwaitingConcurrencySlot(), "SCHEDULED", "AwaitingConcurrencySlot"),
        (Pending(), "PENDING", "Pending"),
        (Running(), "RUNNING", "Running"),
        (Retrying(), "RUNNING", "Retrying"),
        (Completed(), "COMPLETED", "Completed"),
        (Completed(name="Cached"), "COMPLETED", "Cached"),
        (Failed(), "FAILED", "Failed"),
        (Crashed(), "CRASHED", "Crashed"),
        (Cancelling(), "CANCELLING", "Cancelling"),
        (Cancelled(), "CANCELLED", "Cancelled"),
        (Paused(), "PAUSED", "Paused"),
        (Suspended(), "PAUSED", "Suspended"),
    ],
)
def test_each_constructor_makes_its_state(state: State, type_: str, name: str) -> None:
    assert state.type.value == type_
    assert state.name == name
    questions = [
        "scheduled",
        "pending",
        "running",
        "completed",
        "failed",
        "crashed",
        "cancelled",
        "cancelling",
        "paused",
    ]
    assert [each for each in questions if getattr(state, f"is_{each}")()] == [type_.lower()]
    assert state.is_final() == (state.type in TERMINAL)
    assert state.timestamp.tzinfo is not None
    assert abs(dt.datetime.now(dt.UTC) - state.timestamp) < dt.timedelta(hours=1)


def test_a_scheduled_state_has_a_time() -> None:
    moment = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    assert Scheduled(moment).scheduled_time == moment
    assert Scheduled().scheduled_time is not None
    assert AwaitingRetry(moment, "again").message == "again"


def test_text_and_repr_tell_name_message_type_and_result() -> None:
    assert str(Completed()) == "Completed()"
    assert str(Failed("why")) == "Failed('why')"
    assert str(Completed(name="Cached")) == "Cached(type=COMPLETED)"
    assert str(Failed("late", name="TimedOut")) == "TimedOut('late', type=FAILED)"
    assert repr(Completed(data=3)) == "Completed(message=None, type=COMPLETED, result=3)"
    assert repr(Failed("why")) == "Failed(message='why', type=FAILED)"


def test_a_state_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Completed().name = "Other"  # type: ignore[misc]  # the mistake


# --- what they stand for --------------------------------------------------------------------------------------------


def test_the_result_of_a_completed_state_is_its_value() -> None:
    assert Completed(data=3).result() == 3
    assert Completed().result() is None
    assert Completed(data=ValueError("a value")).result().args == ("a value",)


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (Failed("why"), FailedRun),
        (Crashed("why"), CrashedRun),
        (Cancelled("why"), CancelledRun),
        (Cancelling("why"), CancelledRun),
        (Paused("why"), PausedRun),
        (Suspended("why"), PausedRun),
        (Running("why"), UnfinishedRun),
        (Pending("why"), UnfinishedRun),
        (Scheduled(message="why"), UnfinishedRun),
        (Pending("why", name="NotReady"), NotReadyRun),
    ],
)
def test_the_result_of_any_other_state_raises_what_it_stands_for(state: State, error: type[Exception]) -> None:
    with pytest.raises(error, match="why"):
        state.result()
    assert type(state.result(raise_on_failure=False)) is error
    with pytest.raises(error):
        raise_state_exception(state)
    assert type(get_state_exception(state)) is error


@pytest.mark.parametrize("state", [Failed(), Crashed(), Cancelled(), Paused(), Running(), Pending()])
def test_a_state_without_a_message_still_says_something(state: State) -> None:
    assert state.name in str(state.result(raise_on_failure=False))


def test_a_users_own_exception_comes_out_as_itself() -> None:
    mine = KeyError("mine")
    for state in (Failed("x", data=mine), Crashed("x", data=mine)):
        with pytest.raises(KeyError) as caught:
            state.result()
        assert caught.value is mine
        assert get_state_exception(state) is mine


def test_a_completed_state_stands_for_no_exception() -> None:
    raise_state_exception(Completed(data=1))
    with pytest.raises(ValueError, match="stands for no exception"):
        get_state_exception(Completed())


def test_the_module_offers_what_it_lists() -> None:
    assert all(hasattr(states, name) for name in states.__all__)


# --- states of runs ---------------------------------------------------------------------------------------------------


def test_every_state_that_is_not_running_or_completed_says_why() -> None:
    seen: list[State] = []

    @task(retries=1, retry_delay_seconds=10)
    async def retried() -> None:
        await asyncio.sleep(1)
        raise ValueError("again")

    @task
    async def stay(x: Any = None) -> Any:
        await asyncio.sleep(5)
        return x

    @task(timeout_seconds=3)
    async def slow() -> None:
        await asyncio.sleep(60)

    @flow
    async def around() -> None:
        first = stay.submit()
        futures: list[Any] = [
            retried.submit(),
            first,
            stay.submit(first),
            slow.submit(),
            *stay.map([1, 2], max_at_once=1),
            *stay.map([1, 2], max_per_second=0.1),
        ]
        futures.append(stay.submit(futures[0]))
        futures.append(stay.submit(futures[3]))
        seen.extend(future.state for future in futures)
        for _ in range(40):
            await asyncio.sleep(1)
            seen.extend(future.state for future in futures)

    run_virtual(around(return_state=True))
    names = {state.name for state in seen}
    assert names >= {
        "Pending",
        "Running",
        "AwaitingRetry",
        "AwaitingConcurrencySlot",
        "Completed",
        "Failed",
        "TimedOut",
        "NotReady",
    }
    for state in seen:
        if state.type not in (StateType.RUNNING, StateType.COMPLETED):
            assert state.message, state
        if state.type is StateType.SCHEDULED and state.name == "AwaitingRetry":
            assert state.scheduled_time is not None
            assert "again" in (state.message or "")


def test_a_pending_run_says_for_whom_it_waits() -> None:
    @task
    async def stay(x: Any = None) -> None:
        await asyncio.sleep(5)

    @flow
    async def around() -> str | None:
        upstream = stay.submit()
        waiting = stay.submit(upstream)
        await asyncio.sleep(1)
        return waiting.state.message

    assert run_virtual(around()) == "Waits for 'stay-0'."


def test_the_states_of_a_task_run_never_go_back_once_it_has_ended() -> None:
    @task
    async def stay() -> int:
        await asyncio.sleep(5)
        return 1

    with virtual_clock():
        future: Any = stay.submit()
        future.result()
        ended = future.state
        future.call.scope.engine.perform(lambda: future.call.scope.engine.stop_run(future, "too late"))
        stay.submit().result()
        assert future.state.type is StateType.COMPLETED
        assert future.state.timestamp == ended.timestamp


def test_timestamps_are_those_of_the_change() -> None:
    @task
    async def stay() -> None:
        await asyncio.sleep(100)

    with virtual_clock(start=1_000_000_000.0):
        future = stay.submit()
        future.wait()
        assert future.state.timestamp == dt.datetime.fromtimestamp(1_000_000_100, dt.UTC)


def test_run_states_of_a_flow_are_kept_in_order() -> None:
    runs: list[FlowRun] = []

    @flow(retries=1, on_running=[lambda _flow, run, _state: runs.append(run)])
    def flaky() -> None:
        if len(runs) < 2:
            raise ValueError("again")

    flaky()
    assert [state.name for state in runs[0].states] == ["Pending", "Running", "AwaitingRetry", "Retrying", "Completed"]


@pytest.mark.parametrize("well", [True, False])
def test_what_ends_a_run_a_second_time_is_ignored(well: bool) -> None:
    run: Any = double.submit(1) if well else fail.submit()
    run.wait()
    before, open_runs = (run.state.type, run.state.message, run.state.timestamp), run.call.open
    late = StateType.CRASHED if well else StateType.COMPLETED
    finish(run, late, KeyError("late"), "late", None, run.ended + 60)
    assert (run.state.type, run.state.message, run.state.timestamp) == before
    assert run.call.open == open_runs
