"""What users' code can do to a run: every fault ends in a final state that says so, and nothing hangs."""

# Lambdas and options of every kind are passed on: what they are is what the tests are about.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportFunctionMemberAccess=false
from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from upwell import flow, task
from upwell.core.states import State, StateType
from upwell.engine.current import close_portal
from upwell.states import Cancelled

Ends = Callable[..., Any]
Kind = Callable[..., Any]


class Custom(BaseException):
    """Neither an Exception nor one of Python's own."""


BASE_EXCEPTIONS: list[type[BaseException]] = [SystemExit, KeyboardInterrupt, GeneratorExit, Custom]


@task
async def acount(x: int) -> int:
    return x + 1


@task
def count(x: int) -> int:
    return x + 1


def _raise(error: BaseException) -> None:
    raise error


async def _araise(error: BaseException) -> None:
    raise error


async def _araise_later(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


def _submitted(fn: Kind, **options: Any) -> Callable[..., State]:
    """Submit it in a flow, and give its final state."""

    @flow
    def run(*args: Any) -> Any:
        future = task(fn, **options).submit(*args)
        future.wait()
        return {"state": future.state}

    def call(*args: Any) -> State:
        found: State = run(*args)["state"]
        return found

    return call


def _called(fn: Kind, **options: Any) -> Callable[..., State]:
    """Call it directly in a flow, and give its final state."""

    @flow
    def run(*args: Any) -> Any:
        try:
            answer: Any = task(fn, **options)(*args, return_state=True)
            return {"state": asyncio.run(answer) if asyncio.iscoroutine(answer) else answer}
        except KeyboardInterrupt as error:  # it rises, whatever was asked for
            return {"state": Cancelled(message=repr(error))}

    def call(*args: Any) -> State:
        found: State = run(*args)["state"]
        return found

    return call


PLACES: dict[str, Callable[..., Callable[..., State]]] = {
    "on the loop": lambda **options: _submitted(_araise, **options),
    "on the loop, suspended": lambda **options: _submitted(_araise_later, **options),
    "on threads": lambda **options: _submitted(_raise, **options),
    "coroutine on threads": lambda **options: _submitted(_araise_later, task_runner="threads", **options),
    "sequential": lambda **options: _submitted(_raise, task_runner="sequential", **options),
    "inline": lambda **options: _called(_raise, **options),
    "inline on a loop": lambda **options: _called(_araise_later, **options),
}


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest) -> Any:
    """Makes what raises its argument in a task, in each of the ways in which a task can be run."""
    return PLACES[request.param]


@pytest.fixture(autouse=True)
def fresh_portal() -> Iterator[None]:
    """What one test does to the loop beside sync code, the next one shall not see."""
    yield
    close_portal()


# --- BaseExceptions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BASE_EXCEPTIONS)
def test_a_base_exception_in_a_task_ends_it_and_hurts_nobody_else(ends: Ends, place: Any, kind: Any) -> None:
    state = ends(place(), kind("boom"))
    assert state.type in (StateType.CRASHED, StateType.CANCELLED)
    assert state.type is StateType.CRASHED or kind is KeyboardInterrupt
    assert kind.__name__ in str(state.message)
    assert ends(_submitted(acount.fn), 1).data == 2
    assert ends(_submitted(count.fn), 1).data == 2


@pytest.mark.parametrize("kind", BASE_EXCEPTIONS)
def test_a_base_exception_in_a_flow_ends_it_and_rises(ends: Ends, kind: Any) -> None:
    error = kind("boom")

    @flow
    def run() -> None:
        count.submit(1)
        raise error

    with pytest.raises(kind) as caught:
        ends(run)
    assert caught.value is error


@pytest.mark.parametrize("kind", [SystemExit, Custom])
def test_a_base_exception_in_an_async_flow_ends_it_and_rises(ends: Ends, kind: Any) -> None:
    @flow
    async def run() -> None:
        acount.submit(1)
        await asyncio.sleep(0)
        raise kind("boom")

    with pytest.raises(kind):
        ends(asyncio.run, run())


# --- users' functions around a run that raise --------------------------------------------------------------


def _fails(*_: Any) -> Any:
    raise ValueError("from the user's function")


async def _fails_async(*_: Any) -> Any:
    raise ValueError("from the user's function")


def _exits(*_: Any) -> Any:
    raise SystemExit(3)


@pytest.mark.parametrize("hook", [_fails, _fails_async])
@pytest.mark.parametrize("name", ["on_running", "on_failure"])
def test_a_hook_that_raises_changes_nothing(ends: Ends, place: Any, name: str, hook: Any) -> None:
    called: list[int] = []
    hooks = [hook, lambda *_: called.append(1)]
    state = ends(place(**{name: hooks}), KeyError("boom"))
    assert repr(state.data) == "KeyError('boom')"
    assert called == [1]


@pytest.mark.parametrize("hook", [_fails, _fails_async, _exits])
def test_a_completion_hook_that_raises_changes_nothing(ends: Ends, hook: Any) -> None:
    for made in (_submitted(acount.fn, on_completion=[hook]), _submitted(count.fn, on_completion=[hook])):
        assert ends(made, 1).data == 2


@pytest.mark.parametrize("fn", [_raise, _araise, _araise_later])
@pytest.mark.parametrize("option", ["on_running", "on_failure", "retry_condition_fn"])
def test_a_hook_that_exits_hangs_nothing_of_what_was_submitted(ends: Ends, option: str, fn: Any) -> None:
    options: Any = {option: _exits if option == "retry_condition_fn" else [_exits], "retries": 1}
    assert repr(ends(_submitted(fn, **options), KeyError("boom")).data) == "KeyError('boom')"
    assert ends(_submitted(acount.fn), 1).data == 2


@pytest.mark.parametrize("option", ["on_running", "on_failure", "retry_condition_fn"])
def test_a_hook_that_exits_rises_from_a_direct_call(ends: Ends, option: str) -> None:
    options: Any = {option: _exits if option == "retry_condition_fn" else [_exits], "retries": 1}
    with pytest.raises(SystemExit):
        ends(_called(_raise, **options), KeyError("boom"))


@pytest.mark.parametrize("condition", [_fails, _fails_async])
def test_a_retry_condition_that_raises_means_no_retry(ends: Ends, place: Any, condition: Any) -> None:
    state = ends(place(retries=3, retry_condition_fn=condition), KeyError("boom"))
    assert repr(state.data) == "KeyError('boom')"


@pytest.mark.parametrize("template", [lambda: _fails(), lambda: 5, "{x.nothing}"])
def test_a_name_template_that_fails_leaves_the_default_name(ends: Ends, template: Any) -> None:
    @flow
    def run() -> Any:
        names: list[str] = []

        @task(task_run_name=template)
        def named(x: int) -> int:
            return x

        future: Any = named.submit(1)
        assert future.result() == 1
        assert named(1) == 1
        names.append(future.name)
        return names

    assert ends(run) == ["named-0"]


def test_a_flow_whose_name_template_fails_fails_with_that_reason(ends: Ends) -> None:
    @flow(flow_run_name=lambda: _fails())
    def run() -> None: ...

    state = ends(run, return_state=True)
    assert state.type is StateType.FAILED
    assert "could not be named" in str(state.message)


@pytest.mark.parametrize("when", ["before the end", "after the end"])
def test_a_done_callback_that_raises_is_logged_and_disturbs_nobody(
    ends: Ends, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    called: list[int] = []

    @flow
    def run() -> int:
        go = threading.Event()

        @task
        def wait() -> int:
            go.wait(60)
            return 1

        future = wait.submit()
        if when == "after the end":
            go.set()
            future.wait()
        future.add_done_callback(_fails)
        future.add_done_callback(lambda _: called.append(1))
        go.set()
        return future.result() + acount.submit(1).result()

    assert ends(run) == 3
    assert called == [1]
    assert "from the user's function" in caplog.text


@pytest.mark.parametrize("kind", [SystemExit, asyncio.CancelledError, Custom])
def test_a_base_exception_in_a_done_callback_disturbs_nobody(ends: Ends, kind: Any) -> None:
    @flow
    async def run() -> int:
        for fn in (_nothing, _suspend):
            future = task(fn).submit()
            future.add_done_callback(lambda _: _raise(kind("boom")))
            await future
        return await acount.submit(1)

    assert ends(asyncio.run, run()) == 2


async def _nothing() -> None: ...


async def _suspend() -> None:
    await asyncio.sleep(0)


class _Broken(logging.Handler):
    records = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.records += 1
        raise RuntimeError("the disk is full")


@pytest.fixture
def broken_log() -> Iterator[None]:
    handler, logger = _Broken(), logging.getLogger("upwell")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
    assert handler.records


@pytest.mark.usefixtures("broken_log")
def test_a_log_handler_that_raises_fails_no_run(ends: Ends, place: Any) -> None:
    state = ends(place(retries=1), KeyError("boom"))
    assert repr(state.data) == "KeyError('boom')"


@pytest.mark.usefixtures("broken_log")
def test_a_log_handler_that_raises_fails_no_flow(ends: Ends) -> None:
    @flow
    def good() -> int:
        return count.submit(1).result()

    @flow(retries=1)
    def bad() -> None:
        raise KeyError("boom")

    assert ends(good) == 2
    with pytest.raises(KeyError):
        ends(bad)


# --- strange values -------------------------------------------------------------------------------------------


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Hostile:
    """Raises whatever it is asked."""

    def _refuse(self, *_: Any) -> Any:
        raise RuntimeError("do not ask me")

    __eq__ = __ne__ = __lt__ = __bool__ = __len__ = __iter__ = __str__ = __repr__ = __contains__ = _refuse
    __hash__ = __getattr__ = __format__ = _refuse


def test_an_exception_that_cannot_be_shown_ends_its_run_all_the_same(ends: Ends, place: Any) -> None:
    error = Mute()
    state = ends(place(retries=1), error)
    assert state.data is error
    assert "Mute" in str(state.message)


def test_an_exception_that_cannot_be_shown_ends_its_flow_all_the_same(ends: Ends) -> None:
    @flow(retries=1)
    def run() -> None:
        raise Mute

    with pytest.raises(Mute):
        ends(run)


def _give_back(x: Any) -> Any:
    return x


async def _give_back_async(x: Any) -> Any:
    await asyncio.sleep(0)
    return x


@pytest.mark.parametrize("fn", [_give_back, _give_back_async])
def test_a_value_that_raises_whatever_it_is_asked_goes_in_and_out(ends: Ends, fn: Any) -> None:
    hostile = Hostile()

    @flow
    def run() -> Any:
        back = task(fn)
        first = back.submit(hostile)
        second = back.submit(x=[first])
        third = back.map([hostile, hostile])
        return [first.result(), second.result(), *third.result(), hostile]

    found = ends(run)
    assert found[0] is hostile
    assert found[1][0] is hostile
    assert all(value is hostile for value in found[2:])


def test_a_value_that_raises_whatever_it_is_asked_can_be_a_flows_argument_and_result(ends: Ends) -> None:
    hostile = Hostile()

    @flow
    def run(x: Any) -> Any:
        return task(_give_back)(x)

    assert ends(run, hostile) is hostile


@pytest.mark.parametrize("runner", ["threads", "sequential"])
def test_a_generator_task_that_raises_midway_fails_with_that(ends: Ends, runner: Any) -> None:
    def numbers(_: int) -> Iterator[int]:
        yield 1
        raise KeyError("midway")

    state = ends(_submitted(numbers, task_runner=runner), 1)
    assert repr(state.data) == "KeyError('midway')"


def test_a_generator_called_directly_gives_what_it_has_and_then_raises(ends: Ends) -> None:
    @task
    def numbers() -> Iterator[int]:
        yield 1
        raise KeyError("midway")

    @flow
    def run() -> Any:
        taken: list[int] = []
        with pytest.raises(KeyError, match="midway"):
            taken.extend(numbers())
        return taken

    assert ends(run) == [1]


def test_a_generator_flow_that_raises_midway_fails_with_that(ends: Ends) -> None:
    @flow
    def numbers() -> Iterator[int]:
        yield count.submit(0).result()
        raise KeyError("midway")

    taken: list[int] = []

    def take() -> None:
        for number in numbers():
            taken.append(number)

    with pytest.raises(KeyError, match="midway"):
        ends(take)
    assert taken == [1]


# --- code that does not go along -------------------------------------------------------------------------------


def test_user_code_that_closes_the_running_loop_fails_with_its_own_error(ends: Ends) -> None:
    async def close() -> None:
        asyncio.get_running_loop().close()

    state = ends(_submitted(close))
    assert "Cannot close a running event loop" in str(state.message)
    assert ends(_submitted(acount.fn), 1).data == 2


def test_user_code_that_stops_the_loop_beside_sync_code_does_not_stop_the_flow(ends: Ends) -> None:
    async def stop() -> None:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)

    ends(_submitted(stop))
    assert ends(_submitted(acount.fn), 1).data == 2
