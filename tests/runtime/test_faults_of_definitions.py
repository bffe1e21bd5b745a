"""Mistakes in definitions and calls are refused at once, and the message says what to do."""

# Lambdas and options of every kind are passed on: what they are is what the tests are about.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportFunctionMemberAccess=false
from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import pytest

from upwell import Runtime, flow, task, unmapped
from upwell.core.errors import (
    BlockingWaitError,
    DependencyCycleError,
    ForeignFutureError,
    MappingLengthMismatch,
    MappingMissingIterable,
    ParameterBindError,
    ReservedArgumentError,
    RuntimeClosedError,
    UnknownTaskRunnerError,
)

Ends = Callable[..., Any]


def nothing(x: int = 0) -> int:
    return x


@task
def echo(x: Any) -> Any:
    return x


@task
async def aecho(x: Any) -> Any:
    await asyncio.sleep(0)
    return x


# --- at decoration ----------------------------------------------------------------------------------------

WRONG_FOR_BOTH: list[tuple[str, Any]] = [
    ("name", 5),
    ("name", ""),
    ("name", "a/b"),
    ("description", 5),
    ("version", 1.0),
    ("task_runner", 5),
    ("task_runner", object()),
    ("task_runner", dict),
    ("retries", -1),
    ("retries", 1.5),
    ("retries", True),
    ("retries", "3"),
    ("retry_delay_seconds", "soon"),
    ("retry_delay_seconds", -1),
    ("retry_delay_seconds", [1, "x"]),
    ("retry_delay_seconds", float("nan")),
    ("retry_jitter_factor", -0.1),
    ("retry_jitter_factor", "much"),
    ("retry_condition_fn", 5),
    ("timeout_seconds", 0),
    ("timeout_seconds", -1),
    ("timeout_seconds", "1"),
    ("timeout_seconds", float("inf")),
    ("timeout_seconds", float("nan")),
    ("timeout_seconds", True),
    ("log_prints", "yes"),
    *(
        (hook, wrong)
        for hook in ("on_completion", "on_failure", "on_running", "on_cancellation", "on_crashed")
        for wrong in (5, nothing, [5], "text")
    ),
    ("no_such_option", 1),
]
WRONG_FOR_TASKS: list[tuple[str, Any]] = [
    ("tags", "one"),
    ("tags", 5),
    ("tags", [5]),
    ("task_run_name", 5),
    ("task_run_name", "{nobody}"),
    ("task_run_name", "{x"),
    ("task_run_name", lambda a, b: "x"),
    ("flow_run_name", "x"),
]
WRONG_FOR_FLOWS: list[tuple[str, Any]] = [
    ("tags", ["x"]),
    ("flow_run_name", 5),
    ("flow_run_name", "{nobody}"),
    ("validate_parameters", "yes"),
    ("task_run_name", "x"),
]


@pytest.mark.parametrize(("option", "value"), [*WRONG_FOR_BOTH, *WRONG_FOR_TASKS])
def test_a_wrong_option_of_a_task_is_refused_at_decoration_and_named(option: str, value: Any) -> None:
    options: Any = {option: value}
    with pytest.raises((TypeError, ValueError)) as caught:
        task(**options)(nothing)
    assert option in str(caught.value) or ("name" in option and "name" in str(caught.value))


@pytest.mark.parametrize(("option", "value"), [*WRONG_FOR_BOTH, *WRONG_FOR_FLOWS])
def test_a_wrong_option_of_a_flow_is_refused_at_decoration_and_named(option: str, value: Any) -> None:
    options: Any = {option: value}
    with pytest.raises((TypeError, ValueError)) as caught:
        flow(**options)(nothing)
    assert option in str(caught.value) or ("name" in option and "name" in str(caught.value))


@pytest.mark.parametrize(("option", "value"), WRONG_FOR_BOTH)
def test_with_options_refuses_what_decoration_refuses(option: str, value: Any) -> None:
    options: Any = {option: value}
    for made in (task(nothing), flow(nothing)):
        with pytest.raises((TypeError, ValueError)):
            made.with_options(**options)


@pytest.mark.parametrize("decorator", [task, flow])
def test_reserved_parameter_names_are_refused_at_decoration(decorator: Any) -> None:
    def with_return_state(return_state: bool) -> None: ...
    def with_wait_for(x: int, *, wait_for: Any = None) -> None: ...

    for fn, name in ((with_return_state, "return_state"), (with_wait_for, "wait_for")):
        with pytest.raises(ReservedArgumentError, match=name):
            decorator(fn)


@pytest.mark.parametrize("decorator", [task, flow])
@pytest.mark.parametrize("what", [5, None, "name"])
def test_only_functions_can_be_decorated(decorator: Any, what: Any) -> None:
    with pytest.raises(TypeError):
        decorator(what)(5)


# --- at the call ----------------------------------------------------------------------------------------------


def test_an_unknown_runner_is_named_with_those_that_are_known() -> None:
    @flow
    def run() -> None:
        task(task_runner="thraeds")(nothing).submit(1)

    with pytest.raises(UnknownTaskRunnerError) as caught:
        run()
    for part in ("thraeds", "sequential", "concurrent", "threads", "processes"):
        assert part in str(caught.value)


def test_an_unknown_runner_of_a_flow_is_an_error_of_the_submit_that_needs_it() -> None:
    @flow(task_runner="thraeds")
    def run() -> None:
        echo.submit(1)

    with pytest.raises(UnknownTaskRunnerError, match="known"):
        run()


def test_mapping_lengths_that_differ_are_named_with_their_lengths() -> None:
    @task
    def add(x: int, y: int) -> int:
        return x + y

    @flow
    def run() -> None:
        add.map([1, 2, 3], y=[1, 2])

    with pytest.raises(MappingLengthMismatch) as caught:
        run()
    assert "x has 3" in str(caught.value)
    assert "y has 2" in str(caught.value)


@pytest.mark.parametrize("constant", ["text", b"bytes", 5, None, {"a": 1}, unmapped([1, 2])])
def test_a_map_over_nothing_that_can_be_mapped_is_refused(constant: Any) -> None:
    with pytest.raises(MappingMissingIterable, match="iterable"):
        echo.map(constant)


def test_a_text_given_to_map_gets_the_advice_to_put_it_into_a_list() -> None:
    with pytest.raises(MappingMissingIterable, match=r"\[x\]"):
        echo.map("text")


def test_arguments_that_do_not_fit_are_refused_before_anything_starts(ends: Ends) -> None:
    calls: list[Any] = [echo, echo.submit, aecho.submit, flow(nothing)]
    for call in calls:
        with pytest.raises(ParameterBindError):
            ends(call, 1, 2, 3)
        with pytest.raises(ParameterBindError):
            ends(call, nobody=1)


# --- futures of others, and waits that could never end -------------------------------------------------------


def test_an_unfinished_future_of_another_runtime_is_refused_as_an_argument() -> None:
    release = threading.Event()

    @task
    def wait() -> int:
        return release.wait(60) and 1

    with Runtime() as one, Runtime() as other:
        foreign = one.submit(wait)
        with pytest.raises(ForeignFutureError, match="another runtime"):
            other.submit(echo, [foreign])
        with pytest.raises(ForeignFutureError, match="another runtime"):
            other.map(echo, [1, foreign])
        with pytest.raises(ForeignFutureError):
            other.submit(echo, 1, wait_for=[foreign])
        release.set()
        assert foreign.result(10) == 1
        assert other.submit(echo, [foreign]).result(10) == [1]


def test_a_future_of_another_loop_can_be_awaited() -> None:
    with Runtime() as one:
        foreign = one.submit(aecho, 3)

        async def main() -> Any:
            return await foreign

        assert asyncio.run(main()) == 3


def test_a_sync_task_that_waits_for_itself_is_refused(ends: Ends) -> None:
    @task
    def wait(box: Any) -> Any:
        return box.get()[0].result()

    @flow
    def run() -> Any:
        box = _Box()
        box.put(wait.submit(box))
        return box.get()[0].result()

    with pytest.raises(DependencyCycleError, match="wait-0"):
        ends(run)


def test_an_async_task_that_waits_for_itself_is_refused(ends: Ends) -> None:
    @task
    async def wait(box: Any) -> Any:
        await asyncio.sleep(0)
        return await box.get()[0]

    @flow
    async def run() -> Any:
        box = _Box()
        box.put(wait.submit(box))
        return await box.get()[0]

    with pytest.raises(DependencyCycleError, match="wait-0"):
        ends(asyncio.run, run())


@pytest.mark.parametrize("runner", ["threads", "concurrent"])
def test_two_tasks_that_wait_for_each_other_are_told_so(ends: Ends, runner: Any) -> None:
    @task
    def wait(box: Any, other: int) -> Any:
        return box.get()[other].result()

    @flow(task_runner=runner)
    def run() -> Any:
        box = _Box()
        box.put(*[wait.submit(box, other) for other in (1, 2, 0)])
        return box.get()[0].result()

    with pytest.raises(DependencyCycleError):
        ends(run)


def test_two_coroutines_that_wait_for_each_other_are_told_so(ends: Ends) -> None:
    @task
    async def wait(box: Any, other: int) -> Any:
        await asyncio.sleep(0)
        return await box.get()[other]

    @flow
    async def run() -> Any:
        box = _Box()
        box.put(*[wait.submit(box, other) for other in (1, 2, 0)])
        return await box.get()[0]

    with pytest.raises(DependencyCycleError):
        ends(asyncio.run, run())


def test_a_run_that_waits_for_its_own_dependant_is_refused(ends: Ends) -> None:
    @task
    def wait(box: Any) -> Any:
        return box.get()[0].result()

    @flow
    def run() -> Any:
        box = _Box()
        first = wait.submit(box)
        box.put(echo.submit(first))
        return first.result()

    with pytest.raises(DependencyCycleError, match="echo-0"):
        ends(run)


def test_a_task_that_waits_for_its_flow_through_its_parent_is_refused(ends: Ends) -> None:
    @task
    def inner(box: Any) -> Any:
        return box.get()[0].result()

    @task
    def outer(box: Any) -> Any:
        return inner(box)

    @flow
    def run() -> Any:
        box = _Box()
        box.put(outer.submit(box))
        return box.get()[0].result()

    with pytest.raises(DependencyCycleError):
        ends(run)


def test_a_blocking_wait_on_the_loop_is_refused() -> None:
    @flow
    async def run() -> None:
        future = aecho.submit(1)
        for wait in (future.result, future.wait):
            with pytest.raises(BlockingWaitError, match="await"):
                wait()
        await future

    asyncio.run(run())


class _Box:
    """Hands futures to a task without becoming its dependency."""

    def __init__(self) -> None:
        self._full = threading.Event()
        self._futures: tuple[Any, ...] = ()

    def put(self, *futures: Any) -> None:
        self._futures = futures
        self._full.set()

    def get(self) -> tuple[Any, ...]:
        assert self._full.wait(60)
        return self._futures


# --- too late ---------------------------------------------------------------------------------------------------


def test_submitting_to_a_closed_runtime_is_refused() -> None:
    with Runtime() as runtime:
        assert runtime.submit(echo, 1).result() == 1
    for call in (lambda: runtime.submit(echo, 1), lambda: runtime.map(echo, [1])):
        with pytest.raises(RuntimeClosedError, match="not open"):
            call()


def test_submitting_to_a_closed_runtime_from_a_context_that_still_has_it_is_refused(ends: Ends) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def late() -> None:
            await go.wait()
            with pytest.raises(RuntimeClosedError):
                aecho.submit(1)

        async with Runtime():
            task_of_late = asyncio.create_task(late())
            await asyncio.sleep(0)
        go.set()
        await task_of_late

    ends(asyncio.run, main())


@pytest.mark.parametrize("how", ["submit", "map"])
def test_submitting_in_a_flow_that_has_ended_is_refused(ends: Ends, how: str) -> None:
    go, errors = threading.Event(), list[BaseException]()

    def late() -> None:
        go.wait(60)
        try:
            getattr(echo, how)([1])
        except RuntimeClosedError as error:
            errors.append(error)

    @flow
    def run() -> threading.Thread:
        thread = threading.Thread(target=copy_context().run, args=(late,))
        thread.start()
        return thread

    thread = ends(run)
    go.set()
    thread.join(10)
    assert "has ended" in str(errors[0])


def test_submitting_in_an_async_flow_that_has_ended_is_refused(ends: Ends) -> None:
    async def late(go: asyncio.Event) -> str:
        await go.wait()
        with pytest.raises(RuntimeClosedError) as caught:
            aecho.submit(1)
        return str(caught.value)

    @flow
    async def run(go: Any) -> Any:
        return [asyncio.create_task(late(go))]

    async def main() -> str:
        go = asyncio.Event()
        [background] = await run(go)
        go.set()
        return str(await background)

    assert "has ended" in str(ends(asyncio.run, main()))


def passed_on(fn: Callable[..., Any]) -> Callable[..., Any]:
    """As many decorators are: a plain function around whatever it is given."""

    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return inner


async def later(x: int) -> int:
    return x


@pytest.mark.parametrize("fn", [passed_on(later), functools.partial(passed_on(later))])
def test_a_decorator_that_hides_a_coroutine_function_is_told_so(fn: Any) -> None:
    named: Any = {"name": "later"}
    on_threads, around = task(**named)(fn), flow(**named)(fn)
    states: list[Any] = [
        on_threads(1, return_state=True),
        on_threads.submit(1, return_state=True),
        on_threads.map([1], return_state=True)[0],
        around(1, return_state=True),
        around.submit(1, return_state=True),
    ]
    for state in states:
        assert state.type.value == "FAILED"
        assert "returned a coroutine that nobody has run" in (state.message or "")


def test_a_decorator_that_runs_the_coroutine_itself_is_left_alone() -> None:
    @functools.wraps(later)
    def at_once(x: int) -> int:
        return asyncio.run(later(x))

    assert task(at_once)(1) == 1
    assert task(at_once).submit(1).result() == 1
    assert flow(at_once)(1) == 1
