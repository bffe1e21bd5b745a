"""Dependencies: inferred from futures in arguments, at any depth, and from `wait_for`; what a failed upstream does."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest
from tests.runtime.given import Run

from upwell import Runtime, allow_failure, flow, quote, task, unmapped
from upwell.core.errors import DependencyCycleError, NotReadyRun, ParameterTypeError
from upwell.futures import wait_async
from upwell.states import State
from upwell.utilities.annotations import opaque


@task
def one(x: Any = 1) -> Any:
    return x


@task
async def one_later(x: Any = 1) -> Any:
    await asyncio.sleep(0)
    return x


@task
def fail(message: str = "boom") -> Any:
    raise ValueError(message)


@task
def show(value: Any, **more: Any) -> Any:
    return (value, more) if more else value


@task
async def show_later(value: Any) -> Any:
    return value


@dataclasses.dataclass
class Pair:
    left: Any
    right: Any


@dataclasses.dataclass(frozen=True)
class Frozen:
    inside: Any


class Record(msgspec.Struct):
    field: Any


class Point(NamedTuple):
    x: Any
    y: Any


def shapes(future: Any) -> list[Any]:
    return [
        future,
        [future],
        (future, 1),
        {"key": future},
        {"a": [{"b": (future,)}]},
        Pair(future, [future]),
        Frozen(future),
        Record(future),
        Record([Pair({"deep": future}, None)]),
        Point(future, 2),
        OrderedDict(first=future),
        [0] * 1_000 + [future],
    ]


@pytest.mark.parametrize("index", range(len(shapes(None))))
def test_futures_are_found_and_resolved_at_any_depth(index: int, run: Run) -> None:
    @flow
    def sync_flow() -> Any:
        shape = shapes(one_later.submit(7))[index]
        return show.submit(shape).result(), show.submit(1, k=shape).result(), show(shape), show.map([shape]).result()

    @flow
    async def async_flow() -> Any:
        shape = shapes(one_later.submit(7))[index]
        return await show_later.submit(shape), await show_later(shape), await show_later.map([shape])

    expected = shapes(7)[index]
    assert sync_flow() == (expected, (1, {"k": expected}), expected, [expected])
    assert run(async_flow()) == (expected, expected, [expected])


def test_futures_in_sets_are_resolved() -> None:
    @flow
    def around() -> Any:
        a, b = one.submit(1), one.submit(2)
        return show.submit({a, b}).result(), show.submit(frozenset([a, b])).result()

    assert around() == ({1, 2}, frozenset({1, 2}))


class Contrary(dict[str, Any]):
    def __copy__(self) -> Contrary:
        raise RuntimeError("there is only one of me")


HOLDING_A_LIST: dict[str, Callable[[Any], Any]] = {
    "set": lambda future: {future},
    "frozenset": lambda future: frozenset([future]),
    "dict": lambda future: {future: 1},
    "Contrary": lambda future: Contrary(key=future),
}


@pytest.mark.parametrize("kind", HOLDING_A_LIST)
def test_a_run_whose_argument_cannot_be_put_together_fails_and_says_what_it_was(kind: str, run: Run) -> None:
    @flow
    async def main() -> dict[str, State]:
        submitted = show.submit(HOLDING_A_LIST[kind](one.submit([1])))
        dependant = show.submit(submitted)
        await wait_async([submitted, dependant], timeout=30)
        called = await show_later(HOLDING_A_LIST[kind](one.submit([1])), return_state=True)
        return {"submitted": submitted.state, "called": called, "dependant": dependant.state}

    states = run(main())
    for state in states["submitted"], states["called"]:
        assert (state.type.value, state.name) == ("FAILED", "Failed")
        assert f"no {kind} can be made with their results" in (state.message or "")
        assert isinstance(state.data, ParameterTypeError)
    assert states["dependant"].name == "NotReady"


@pytest.mark.parametrize("kind", HOLDING_A_LIST)
def test_a_flow_fails_whose_result_or_argument_cannot_be_put_together(kind: str) -> None:
    @flow
    def returns() -> Any:
        return HOLDING_A_LIST[kind](one.submit([1]))

    @flow
    def takes(value: Any) -> Any:
        return value

    @flow
    def gives() -> Any:
        return takes(HOLDING_A_LIST[kind](one.submit([1])), return_state=True)

    states: list[Any] = [returns(return_state=True), gives(return_state=True)]
    for state in states:
        assert state.name == "Failed"
        assert f"no {kind} can be made with their results" in (state.message or "")


def test_the_callers_own_structures_are_not_changed() -> None:
    @flow
    def around() -> None:
        inside = [one.submit(1)]
        pair = Pair(inside, {"k": inside})
        show.submit(pair).result()
        assert isinstance(inside[0], type(one.submit(1)))
        assert pair.left is inside

    around()


def test_a_chain_runs_in_order_and_a_diamond_meets(run: Run) -> None:
    @task
    async def add(x: int, y: int = 0) -> int:
        await asyncio.sleep(0)
        return x + y + 1

    @flow
    async def around() -> int:
        top = add.submit(0)
        left, right = add.submit(top), add.submit(top, 10)
        bottom = add.submit(left, right)
        for _ in range(200):
            bottom = add.submit(bottom)
        return await bottom

    assert run(around()) == 1 + (2 + 12) + 200


def test_wait_for_orders_runs_without_passing_values(run: Run) -> None:
    order: list[str] = []

    @task
    async def note(name: str) -> None:
        await asyncio.sleep(0.002 if name == "first" else 0)
        order.append(name)

    @flow
    async def around() -> None:
        before = note.submit("first")
        note.submit("second", wait_for=[before])
        note.submit("second", wait_for=before)
        note.submit("second", wait_for={"nested": [before]})
        await note.map(["second"] * 2, wait_for=[before])

    run(around())
    assert order == ["first"] + ["second"] * 5


# --- failed upstreams -------------------------------------------------------------------------------------------


def test_a_dependant_of_a_failed_run_never_begins_and_names_it(run: Run) -> None:
    called: list[Any] = []

    @task
    def touch(x: Any) -> None:
        called.append(x)

    @flow
    def all_ways() -> None:
        bad: Any = fail.submit()
        submitted: Any = touch.submit([bad], return_state=True)
        mapped: Any = touch.map([bad, 1], return_state=True)
        ordered: Any = touch.submit(2, wait_for=[bad], return_state=True)
        direct: Any = touch(bad, return_state=True)
        for state in (submitted, mapped[0], ordered, direct):
            assert state.is_not_ready()
            assert state.is_final()
            assert state.type.value == "PENDING"
            assert state.name == "NotReady"
            assert state.message.startswith("Upstream task run 'fail-0' did not reach a 'COMPLETED' state")
            assert "ValueError: boom" in state.message
            assert isinstance(state.result(raise_on_failure=False), NotReadyRun)
            with pytest.raises(NotReadyRun, match="'fail-0'"):
                state.result()
        assert mapped[1].is_completed()
        with pytest.raises(NotReadyRun, match="'fail-0'"):
            touch(bad)
        with pytest.raises(NotReadyRun, match=r"^'touch-\d+' never began: Upstream task run 'fail-0'"):
            touch.submit(bad).result()

    all_ways()
    assert called == [1]


def test_not_ready_goes_down_the_chain_each_naming_its_own_upstream(run: Run) -> None:
    @flow
    async def around() -> tuple[str, str]:
        first = show_later.submit(fail.submit())
        second = show_later.submit(first)
        with pytest.raises(NotReadyRun):
            await second
        return first.state.message or "", second.state.message or ""

    first, second = run(around())
    assert "'fail-0'" in first
    assert "'show-later-0'" in second


@pytest.mark.parametrize("wrapped", ["future", "list", "wait_for", "mapped"])
def test_allow_failure_passes_the_exception_in_as_a_value(wrapped: str, run: Run) -> None:
    @flow
    async def around() -> Any:
        bad: Any = fail.submit("mine")
        good: Any = one.submit(5)
        if wrapped == "future":
            return await show_later.submit(allow_failure(bad)), await show_later(allow_failure(bad))
        if wrapped == "list":
            return (await show_later.submit(allow_failure([bad, good])))[0], (await show_later([allow_failure(bad)]))[0]
        if wrapped == "mapped":
            mapped = await show_later.map(allow_failure([bad, good]))
            return mapped[0], mapped[0]
        assert await show_later.submit(3, wait_for=[allow_failure(bad)]) == 3
        return bad.result(raise_on_failure=False), bad.result(raise_on_failure=False)

    for error in run(around()):
        assert isinstance(error, ValueError)
        assert str(error) == "mine"


def test_allow_failure_of_a_run_that_was_not_ready_passes_its_reason() -> None:
    @flow
    def around() -> Any:
        held_up = show.submit(fail.submit())
        return show.submit(allow_failure(held_up)).result()

    error = around()
    assert isinstance(error, NotReadyRun)
    assert "'fail-0'" in str(error)


def test_quote_passes_futures_as_they_are(run: Run) -> None:
    @flow
    async def around() -> bool:
        future = one_later.submit(3)
        got = await show_later.submit(quote([future]))
        direct = await show_later(quote(future))
        await future
        return got[0] is future and direct is future

    assert run(around())


def test_quote_does_not_wait_for_what_is_inside() -> None:
    @flow
    def around() -> Any:
        bad = fail.submit()
        got = show.submit(quote(bad)).result()
        error: object = got.result(raise_on_failure=False)
        return type(error)

    assert around() is ValueError


def test_opaque_values_are_not_looked_into() -> None:
    @flow
    def around() -> bool:
        future = one.submit(3)
        inside = [future]
        return show.submit(opaque(inside)).result() is inside

    assert around()


def test_unmapped_may_hold_futures_and_allow_failure() -> None:
    @task
    def both(x: int, constant: Any) -> Any:
        return x, constant

    @flow
    def around() -> Any:
        bad, good = fail.submit(), one.submit(["a", "b"])
        first = both.map([1, 2], unmapped(good)).result()
        second = both.map([1, 2], unmapped(allow_failure(bad))).result()
        third = both.map([1, 2], allow_failure(unmapped(bad))).result()
        fourth = both.map([1], constant=unmapped({"deep": [good]})).result()
        return first, [type(e).__name__ for _, e in second + third], fourth

    assert around() == (
        [(1, ["a", "b"]), (2, ["a", "b"])],
        ["ValueError"] * 4,
        [(1, {"deep": [["a", "b"]]})],
    )


# --- states as arguments ------------------------------------------------------------------------------------------


def test_a_state_is_a_value_like_any_other() -> None:
    @flow
    def around() -> Any:
        state = one(3, return_state=True)
        return [show.submit(state).result() is state]

    assert around() == [True]


def test_a_state_in_wait_for_says_how_a_run_has_ended(run: Run) -> None:
    @flow
    async def ends() -> list[str]:
        failed, well = fail(return_state=True), one(return_state=True)
        return [
            (await one_later(wait_for=failed, return_state=True)).name,
            (await one_later.submit(wait_for=[[failed]], return_state=True)).name,
            *[state.name for state in await one_later.map([1], wait_for=[failed], return_state=True)],
            as_flow(wait_for=[failed], return_state=True).name,
            (await one_later.submit(wait_for=[well], return_state=True)).name,
            (await one_later.submit(wait_for=[allow_failure(failed)], return_state=True)).name,
        ]

    as_flow: Any = flow(one.fn)
    assert run(ends()) == ["NotReady"] * 4 + ["Completed"] * 2
    message = one.submit(wait_for=fail(return_state=True), return_state=True).message
    assert "given by its state" in message
    assert "boom" in message


# --- waits that could never end ---------------------------------------------------------------------------------------


def test_a_run_that_waits_for_itself_is_told_so(run: Run) -> None:
    @task
    def waits(box: list[Any]) -> Any:
        return box[0].result()

    @task
    async def waits_later(box: list[Any]) -> Any:
        return await box[0]

    @flow
    async def around(it: Any) -> None:
        box: list[Any] = []
        box.append(it.submit(quote(box)))
        await box[0]

    for it in (waits, waits_later):
        with pytest.raises(DependencyCycleError, match="would wait for itself"):
            run(around(it))


def test_two_runs_that_wait_for_each_other_are_told_so(run: Run) -> None:
    @task
    async def waits(box: dict[str, Any], other: str, ready: asyncio.Event) -> Any:
        await ready.wait()
        return await box[other]

    async def main() -> None:
        async with Runtime() as runtime:
            box: dict[str, Any] = {}
            ready = asyncio.Event()
            box["a"] = runtime.submit(waits, quote(box), "b", ready)
            box["b"] = runtime.submit(waits, quote(box), "a", ready)
            ready.set()
            states = [await future_state(box[name]) for name in "ab"]
            assert any(isinstance(state.data, DependencyCycleError) for state in states)

    run(main())


async def future_state(future: Any) -> State:
    try:
        await future
    except Exception:
        pass
    state: State = future.state
    return state


# --- size ---------------------------------------------------------------------------------------------------------


def test_ten_thousand_runs_may_wait_for_one_and_one_for_ten_thousand(run: Run) -> None:
    @flow
    async def around() -> int:
        source = one_later.submit(1)
        futures = show_later.map([source] * 10_000)
        total = await show_later.submit(futures)
        return sum(total)

    assert run(around()) == 10_000
