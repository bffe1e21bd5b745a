"""Where am I: `upwell.runtime`, `get_run_context` and `tags`, inside and outside of runs, on every way to run."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
from typing import Any
from uuid import UUID

import pytest
from tests.runtime.given import Run

from upwell import flow, get_run_context, runtime, tags, task
from upwell.context import FlowRunContext, TaskRunContext
from upwell.core.errors import MissingContextError
from upwell.settings import temporary_settings


def task_facts(x: int = 1) -> dict[str, Any]:
    here = runtime.task_run
    return {
        "id": here.id,
        "name": here.name,
        "task_name": here.task_name,
        "tags": here.tags,
        "parameters": here.parameters,
        "run_count": here.run_count,
        "flow": runtime.flow_run.name,
        "flow_id": runtime.flow_run.id,
    }


async def task_facts_later(x: int = 1) -> dict[str, Any]:
    await asyncio.sleep(0)
    return task_facts(x)


def test_outside_of_runs_everything_is_none_or_empty() -> None:
    here = runtime.flow_run
    assert (here.id, here.name, here.flow_name, here.flow_version) == (None,) * 4
    assert (here.parent_flow_run_id, here.root_flow_run_id) == (None, None)
    assert (here.tags, here.parameters, here.run_count) == ([], {}, 0)
    assert (here.scheduled_start_time, here.api_url, here.ui_url) == (None,) * 3
    it = runtime.task_run
    assert (it.id, it.name, it.task_name) == (None,) * 3
    assert (it.api_url, it.ui_url, here.parent_deployment_id) == (None,) * 3
    assert (it.tags, it.parameters, it.run_count) == ([], {}, 0)
    assert TaskRunContext.get() is None
    assert FlowRunContext.get() is None
    with pytest.raises(MissingContextError, match="no run here"):
        get_run_context()


def test_in_a_flow_the_flow_run_is_known_and_no_task_run() -> None:
    @flow(name="etl", version="3", flow_run_name="morning")
    def around(x: int, y: str = "b") -> None:
        here = runtime.flow_run
        assert isinstance(here.id, UUID)
        assert (here.name, here.flow_name, here.flow_version) == ("morning", "etl", "3")
        assert here.parameters == {"x": 1, "y": "b"}
        assert here.run_count == 1
        assert here.parent_flow_run_id is None
        assert here.root_flow_run_id == here.id
        assert here.tags == ["t"]
        assert runtime.task_run.id is None
        context = get_run_context()
        assert isinstance(context, FlowRunContext)
        assert context.flow is around
        assert context.flow_run.name == "morning"
        assert context.parameters == {"x": 1, "y": "b"}

    with tags("t"):
        around(1)
    assert runtime.flow_run.id is None


def test_a_flow_that_was_just_called_was_to_begin_then() -> None:
    @flow
    def around() -> None:
        asked = runtime.flow_run.scheduled_start_time
        assert asked is not None
        assert before <= asked <= dt.datetime.now(dt.UTC)

    before = dt.datetime.now(dt.UTC)
    around()


def test_where_a_server_is_known_a_flow_run_says_where_it_can_be_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    @flow
    def inside() -> str | None:
        return runtime.flow_run.ui_url

    @flow
    def around() -> tuple[str | None, str | None]:
        return runtime.flow_run.ui_url, inside()

    with temporary_settings(api_url="http://127.0.0.1:4200/api"), caplog.at_level("INFO", "upwell"):
        ours, theirs = around()
    assert ours is not None
    assert ours.startswith("http://127.0.0.1:4200/runs/")
    assert theirs not in (None, ours)
    assert [line.message for line in caplog.records if line.message.startswith("View")] == [f"View at {ours}"]


@pytest.mark.parametrize("way", ["call", "submit", "map", "stream"])
@pytest.mark.parametrize("fn", [task_facts, task_facts_later])
@pytest.mark.parametrize("runner", ["concurrent", "threads"])
def test_in_a_task_the_task_run_is_known(way: str, fn: Any, runner: str) -> None:
    it: Any = task(tags=["own"], name="facts")(fn)

    @flow(flow_run_name="morning", task_runner=runner)
    async def around() -> tuple[Any, Any]:
        with tags("around"):
            if way == "call":
                answer = it(5)
                facts = await answer if asyncio.iscoroutine(answer) else answer
            elif way == "submit":
                facts = await it.submit(5)
            elif way == "map":
                (facts,) = await it.map([5])
            else:
                (facts,) = [each async for each in it.stream([5])]
        assert runtime.task_run.id is None
        return facts, runtime.flow_run.id

    facts, flow_id = asyncio.run(around())
    assert isinstance(facts.pop("id"), UUID)
    assert facts == {
        "name": "facts-0",
        "task_name": "facts",
        "tags": ["around", "own"],
        "parameters": {"x": 5},
        "run_count": 1,
        "flow": "morning",
        "flow_id": flow_id,
    }


def test_the_id_inside_is_the_id_of_the_future(run: Run) -> None:
    @flow
    async def around() -> None:
        for fn in (task_facts, task_facts_later):
            future: Any = task(fn).submit()
            assert (await future)["id"] == future.task_run_id

    run(around())


def test_outside_of_flows_a_task_knows_itself_and_no_flow() -> None:
    facts = task(task_facts)(3)
    assert facts["parameters"] == {"x": 3}
    assert (facts["flow"], facts["flow_id"]) == (None, None)
    facts = task(task_facts_later).submit(3).result()
    assert facts["parameters"] == {"x": 3}
    assert facts["flow"] is None


def test_defaults_are_among_the_parameters() -> None:
    assert task(task_facts)()["parameters"] == {"x": 1}
    assert task(task_facts).submit().result()["parameters"] == {"x": 1}


def test_a_subflow_knows_its_parent_and_its_root(run: Run) -> None:
    ids: dict[str, Any] = {}

    @flow
    async def innermost() -> None:
        ids["innermost"] = runtime.flow_run.id
        ids["parent of innermost"] = runtime.flow_run.parent_flow_run_id
        ids["root"] = runtime.flow_run.root_flow_run_id

    @flow
    async def inner() -> None:
        ids["inner"] = runtime.flow_run.id
        ids["parent of inner"] = runtime.flow_run.parent_flow_run_id
        await innermost.submit()

    @task
    async def between() -> None:
        await inner()

    @flow
    async def outer() -> None:
        ids["outer"] = runtime.flow_run.id
        await between.submit()
        assert runtime.flow_run.id == ids["outer"]

    run(outer())
    assert ids["parent of inner"] == ids["outer"]
    assert ids["parent of innermost"] == ids["inner"]
    assert ids["root"] == ids["outer"]
    assert len({ids["outer"], ids["inner"], ids["innermost"]}) == 3


def test_in_a_subflow_called_by_a_task_the_task_run_is_not_the_one_here() -> None:
    @flow
    def inner() -> Any:
        return runtime.task_run.name

    @task
    def outer() -> tuple[Any, Any]:
        return inner(), runtime.task_run.name

    assert outer()[0] is None
    assert outer()[1] is not None
    assert outer.submit().result()[0] is None


def test_a_tasks_context_holds_task_run_and_parameters() -> None:
    contexts: list[Any] = []

    @task
    def look(x: int) -> None:
        contexts.append(get_run_context())

    @flow
    def around() -> None:
        look(1)
        look.submit(2).result()

    around()
    assert all(isinstance(context, TaskRunContext) for context in contexts)
    assert [context.parameters for context in contexts] == [{"x": 1}, {"x": 2}]
    assert all(context.task is look for context in contexts)
    assert [context.task_run.name for context in contexts] == ["look-0", "look-1"]
    assert all(context.task_run.state.is_running() for context in contexts)


def test_a_plain_thread_started_by_a_run_knows_no_run() -> None:
    seen: list[Any] = []

    @flow
    def around() -> None:
        thread = threading.Thread(target=lambda: seen.append(runtime.flow_run.id))
        thread.start()
        thread.join()

    around()
    assert seen == [None]


def test_to_thread_and_background_tasks_keep_the_run(run: Run) -> None:
    @task
    async def look() -> list[Any]:
        def name() -> Any:
            return runtime.task_run.name

        async def name_later() -> Any:
            return runtime.task_run.name

        return [await asyncio.to_thread(name), await asyncio.create_task(name_later())]

    @flow
    async def around() -> Any:
        return await look.submit()

    assert run(around()) == ["look-0", "look-0"]


# --- tags ---------------------------------------------------------------------------------------------------------


def test_tags_nest_add_and_end_with_their_block() -> None:
    it = task(tags=["own"])(task_facts)
    with tags("a", "b") as outer:
        assert outer == {"a", "b"}
        with tags("c") as inner:
            assert inner == {"a", "b", "c"}
            assert it()["tags"] == ["a", "b", "c", "own"]
        assert it.submit().result()["tags"] == ["a", "b", "own"]
    assert it()["tags"] == ["own"]


def test_tags_count_for_a_task_that_was_submitted_without_them_before(run: Run) -> None:
    it = task(task_facts_later)

    @flow
    async def around() -> list[list[str]]:
        before = (await it.submit())["tags"]
        with tags("t"):
            inside = (await it.submit())["tags"]
        return [before, inside, (await it.submit())["tags"]]

    assert run(around()) == [[], ["t"], []]


def test_tags_around_a_flow_are_on_it_and_on_its_tasks(run: Run) -> None:
    it = task(task_facts_later)

    @flow
    async def around() -> Any:
        return runtime.flow_run.tags, (await it.submit())["tags"], [facts["tags"] for facts in await it.map([1])]

    with tags("t"):
        assert run(around()) == (["t"], ["t"], [["t"]])


def test_tags_of_one_coroutine_are_not_those_of_another(run: Run) -> None:
    it = task(task_facts_later)

    async def tagged(tag: str) -> list[str]:
        with tags(tag):
            await asyncio.sleep(0)
            facts = await it.submit()
        found: list[str] = facts["tags"]
        return found

    async def main() -> list[list[str]]:
        return await asyncio.gather(*(tagged(tag) for tag in "abc"))

    assert run(main()) == [["a"], ["b"], ["c"]]


def test_tags_that_are_no_texts_are_refused() -> None:
    with pytest.raises(TypeError, match="tags"), tags(3):  # type: ignore[arg-type]  # the mistake
        pass
    with pytest.raises(TypeError, match="tags"):
        task(tags="one")(task_facts)
