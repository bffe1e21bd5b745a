"""Names: of flows and tasks, of their runs, made from templates and functions, on every way to run."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.runtime.given import Run

from upwell import flow, runtime, task
from upwell.core.errors import ConfigurationError, DefinitionError, InvalidNameError, ReservedArgumentError

WAYS = ["call", "submit", "map", "stream"]


async def own_name_later(x: Any = 0, day: Any = None) -> str | None:
    await asyncio.sleep(0)
    return runtime.task_run.name


def own_name(x: Any = 0, day: Any = None) -> str | None:
    return runtime.task_run.name


async def start(it: Any, way: str, value: Any = 5) -> Any:
    if way == "call":
        answer = it(value)
        return await answer if asyncio.iscoroutine(answer) else answer
    if way == "submit":
        return await it.submit(value)
    if way == "map":
        return (await it.map([value]))[0]
    return [x async for x in it.stream([value])][0]  # noqa: RUF015  # all of it is taken


# --- flows and tasks ----------------------------------------------------------------------------------------------


def test_a_name_is_the_functions_with_dashes_unless_said() -> None:
    @task
    def fetch_all_pages() -> None:
        pass

    assert fetch_all_pages.name == "fetch-all-pages"
    assert flow(fetch_all_pages.fn).name == "fetch-all-pages"
    assert task(name="Said so")(fetch_all_pages.fn).name == "Said so"
    assert task(lambda: 1).name == "lambda"


@pytest.mark.parametrize("name", ["a/b", "a%b", "a&b", "a>b", "a<b", "", "  "])
def test_a_name_with_a_forbidden_character_is_refused(name: str) -> None:
    with pytest.raises(InvalidNameError):
        task(name=name)(own_name)
    with pytest.raises(InvalidNameError):
        flow(name=name)(own_name)


@pytest.mark.parametrize("decorator", [task, flow])
def test_reserved_parameter_names_are_refused(decorator: Any) -> None:
    def one(return_state: bool) -> None: ...
    def two(wait_for: Any) -> None: ...

    for fn in (one, two):
        with pytest.raises(ReservedArgumentError, match=r"return_state|wait_for") as caught:
            decorator(fn)
        assert isinstance(caught.value, DefinitionError)


# --- task runs ----------------------------------------------------------------------------------------------------


def test_task_runs_are_numbered_by_task_within_their_flow() -> None:
    first, second = task(name="first")(own_name), task(name="second")(own_name)

    @flow
    def around() -> list[Any]:
        return [first(), second(), first.submit().result(), *second.map([1, 2]).result(), *first.stream([1])]

    assert around() == ["first-0", "second-0", "first-1", "second-1", "second-2", "first-2"]
    assert around()[:2] == ["first-0", "second-0"]


def where_it_is() -> str:
    """What a name function finds out about the run that it names."""
    return f"{runtime.flow_run.flow_name}, {runtime.task_run.task_name}: {runtime.task_run.parameters['x']}"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fn", [own_name, own_name_later])
@pytest.mark.parametrize(
    ("template", "name"),
    [  # pyright: ignore[reportUnknownArgumentType]  # a lambda needs no annotations here
        ("run of {x}", "run of 5"),
        ("{x:03d}", "005"),
        ("{parameters[x]}", "5"),
        ("{x}-{day}", "5-None"),
        ("plain", "plain"),
        (lambda: "made", "made"),
        (lambda parameters: f"made of {parameters['x']}", "made of 5"),  # pyright: ignore[reportUnknownLambdaType]  # a lambda needs no annotations here
        (where_it_is, "around, named: 5"),
    ],
)
def test_a_task_run_name_is_made_on_every_way_to_run(way: str, fn: Any, template: Any, name: str) -> None:
    named = task(name="named", task_run_name=template)(fn)

    @flow
    async def around() -> Any:
        return await start(named, way)

    assert asyncio.run(around()) == name


@pytest.mark.parametrize("way", ["call", "submit", "map"])
def test_a_template_sees_results_in_the_place_of_futures(way: str, run: Run) -> None:
    @task
    async def made() -> int:
        return 7

    named: Any = task(task_run_name="run of {x}")(own_name_later)

    @flow
    async def around() -> Any:
        return await start(named, way, made.submit())

    assert run(around()) == "run of 7"


def test_a_name_is_made_once_for_all_attempts() -> None:
    calls: list[int] = []

    def name() -> str:
        calls.append(1)
        return f"name {len(calls)}"

    names: list[Any] = []

    @task(task_run_name=name, retries=2)
    def flaky() -> None:
        names.append(runtime.task_run.name)
        raise ValueError("again")

    @flow
    def around() -> None:
        flaky.submit().wait()

    around()
    assert names == ["name 1"] * 3


@pytest.mark.parametrize("way", WAYS)
def test_a_name_that_cannot_be_made_leaves_the_default_and_is_logged(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> str:
        raise KeyError("name")

    @flow
    async def around() -> Any:
        return await start(task(task_run_name=broken)(own_name_later), way)

    assert asyncio.run(around()) == "own-name-later-0"
    assert any("task_run_name failed" in r.getMessage() for r in caplog.records if r.levelname == "ERROR")


def test_a_named_run_is_named_in_its_log_and_by_its_dependants(caplog: pytest.LogCaptureFixture) -> None:
    @task(task_run_name="bad-{x}")
    def bad(x: int) -> None:
        raise ValueError("boom")

    @flow
    def around() -> Any:
        future: Any = bad.submit(3)
        state: Any = task(own_name).submit(future, return_state=True)
        assert future.name == "bad-3"
        return [state.message]

    (message,) = around()
    assert "'bad-3'" in message
    assert {r.__dict__["run_name"] for r in caplog.records if "failed with" in r.getMessage()} == {"bad-3"}


@pytest.mark.parametrize("template", ["{y}", "{x", "{x.__class__}", "{}"])
def test_a_template_that_cannot_work_is_refused_at_decoration(template: str) -> None:
    with pytest.raises(ConfigurationError):
        task(task_run_name=template)(own_name)
    with pytest.raises(ConfigurationError):
        flow(flow_run_name=template)(own_name)
    with pytest.raises(TypeError):
        flow(flow_run_name=3)(own_name)  # type: ignore[call-overload]  # the mistake


# --- flow runs ----------------------------------------------------------------------------------------------------


def flow_name(x: int = 5, day: dt.date | None = None) -> str | None:
    return runtime.flow_run.name


async def flow_name_later(x: int = 5) -> str | None:
    return runtime.flow_run.name


def test_a_flow_run_has_a_friendly_name_of_its_own() -> None:
    names = {flow(flow_name)() for _ in range(20)}
    assert len(names) > 10
    assert all(re.fullmatch(r"[a-z]+-[a-z]+", name or "") for name in names)


@pytest.mark.parametrize(
    ("template", "name"),
    [  # pyright: ignore[reportUnknownArgumentType]  # a lambda needs no annotations here
        ("run of {x}", "run of 5"),
        ("{day:%Y-%m}", "2024-02"),
        (lambda: "made", "made"),
        (lambda parameters: f"made of {parameters['x']}", "made of 5"),  # pyright: ignore[reportUnknownLambdaType]  # a lambda needs no annotations here
    ],
)
def test_a_flow_run_name_is_made_of_its_parameters(template: Any, name: str, run: Run) -> None:
    named = flow(flow_run_name=template)(flow_name)
    assert named(day=dt.date(2024, 2, 29)) == name
    assert named.submit(day=dt.date(2024, 2, 29)).result() == name
    if "day" not in str(template):
        assert run(flow(flow_run_name=template)(flow_name_later)()) == name


def test_a_function_that_names_a_flow_run_is_asked_inside_of_it() -> None:
    @flow(flow_run_name=lambda: f"{runtime.flow_run.flow_name} {runtime.flow_run.parameters}")
    def inner(x: int) -> str | None:
        return runtime.flow_run.name

    @flow
    def outer(y: int) -> list[str | None]:
        return [inner(y), inner.submit(y + 1).result()]

    assert outer(1) == ["inner {'x': 1}", "inner {'x': 2}"]


def test_a_template_sees_converted_parameters() -> None:
    assert flow(flow_run_name="{x:04d}")(flow_name)("7") == "0007"  # type: ignore[call-overload]  # converted


def test_a_flow_run_name_that_cannot_be_made_fails_the_run_and_says_so() -> None:
    def broken() -> str:
        raise KeyError("name")

    state = flow(flow_run_name=broken)(flow_name)(return_state=True)
    assert state.is_failed()
    assert "could not be named" in (state.message or "")


def test_a_generator_flow_has_its_name() -> None:
    @flow(flow_run_name="gen-{x}")
    def generate(x: int) -> Iterator[str | None]:
        yield runtime.flow_run.name

    assert list(generate(3)) == ["gen-3"]


def test_a_generator_task_has_its_name(run: Run) -> None:
    @task(task_run_name="gen-{x}")
    def generate(x: int) -> Iterator[str | None]:
        yield runtime.task_run.name

    assert list(generate(3)) == ["gen-3"]
    assert generate.submit(3).result() == ["gen-3"]
