"""`flow.visualize`: what a flow would start, and what each of that needs, without running a task."""

from __future__ import annotations

import asyncio
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest
from tests.runtime.given import Run

from upwell import allow_failure, as_completed, flow, get_run_logger, task, unmapped, wait
from upwell.core.errors import FlowVisualizationError, MissingExtraError, ParameterBindError, ParameterTypeError
from upwell.deployments import arun_deployment, run_deployment
from upwell.durability import sleep, sleep_async
from upwell.visualization import FlowGraph


@task
def load(x: Any) -> str:
    raise AssertionError("it was run")


@task
async def load_later(x: Any) -> str:
    raise AssertionError("it was run")


@task(task_runner="processes")
def merge(values: Any, by: Any = None) -> str:
    raise AssertionError("it was run")


@task(viz_return_value=["a", "b"])
def listing() -> list[str]:
    raise AssertionError("it was run")


@task
def rows() -> Iterator[int]:
    raise AssertionError("it was run")
    yield 1


@flow
def inner(x: Any) -> None:
    raise AssertionError("it was run")


def shown(graph: FlowGraph) -> list[str]:
    return [line.strip() for line in str(graph).splitlines()[1:]]


def test_each_run_is_a_node_and_each_future_that_is_passed_on_an_edge() -> None:
    @flow
    def around() -> Any:
        get_run_logger().info("flows may log")
        first, second = load(1), load.submit(2)
        merge.submit({"deep": [first, (second,)]}, wait_for=[first])
        inner.submit(second)
        inner(allow_failure(first))
        merge.submit(1, wait_for=[second.state])
        return [future.result() for future in as_completed([second])], wait([second]), load(3, return_state=True)

    assert shown(around.visualize()) == [
        "load-0",
        "load-1",
        "merge-0 <- load-0, load-1",
        "inner-0 <- load-1",
        "inner-1 <- load-0",
        "merge-1 <- load-1",
        "load-2",
    ]


def test_a_map_is_one_node_and_says_how_many_if_that_is_known() -> None:
    @flow
    def around(inputs: list[int]) -> Any:
        loaded = load.map(inputs, max_at_once=2)
        merged = merge.map(loaded, by=unmapped(loaded[0]))
        of_many = load.map(load.submit(1))
        load.map(listing())
        load.map(listing.submit())
        for found in load.stream(range(1_000_000)):
            merge(found)
        for row in rows():
            merge(row)
        return merged.result(), of_many.result()

    assert shown(around.visualize([1, 2, 3])) == [
        "load × 3",
        "merge × 3 <- load × 3",
        "load-0",
        "load × n <- load-0",
        "listing-0",
        "load × 2 <- listing-0",
        "listing-1",
        "load × 2 <- listing-1",
        "load × n",
        "merge-0 <- load × n",
        "rows-0",
        "merge-1 <- rows-0",
    ]


def test_async_flows_and_generators_are_looked_at_like_others(run: Run) -> None:
    @flow
    async def around(n: int) -> Any:
        both = await asyncio.gather(load_later(1), load_later.submit(2))
        async with asyncio.TaskGroup() as group:
            third = group.create_task(load_later(both))
        async for found in load_later.stream(range(n)):
            await merge.submit(found)
        return await third

    @flow
    def items() -> Iterator[Any]:
        yield load(1)

    @flow
    async def items_later() -> AsyncIterator[Any]:
        yield await load_later(1)

    expected = ["load-later-0", "load-later-1", "load-later-2 <- load-later-0, load-later-1", "load-later × n"]
    expected.append("merge-0 <- load-later × n")
    assert shown(around.visualize(2)) == shown(run(around.avisualize(2))) == expected
    assert shown(items.visualize()) == shown(run(items.avisualize())) == ["load-0"]
    assert shown(items_later.visualize()) == shown(run(items_later.avisualize())) == ["load-later-0"]


def test_a_flow_that_needs_a_result_says_which_and_what_to_do() -> None:
    def uses(what: Any) -> Any:
        return flow(name="uses")(lambda: what(load("x")))

    def text(found: Any) -> Any:
        return found.text

    def more(found: Any) -> Any:
        return found + 1

    def item(found: Any) -> Any:
        return found["a"]

    def divide(_: Any) -> Any:
        return 1 / 0

    def same(found: Any) -> Any:
        return found == "ready"

    def one_of(found: Any) -> Any:
        return found in ("ready", "done")

    needs: list[Any] = [bool, list, len, int, text, more, item, same, one_of]
    for what in needs:
        with pytest.raises(FlowVisualizationError, match=r"result of 'load-0'.*viz_return_value"):
            uses(what).visualize()
    with pytest.raises(FlowVisualizationError, match="ZeroDivisionError") as raised:
        uses(divide).visualize()
    assert isinstance(raised.value.__cause__, ZeroDivisionError)

    @flow
    def endless() -> None:
        while True:
            load(1)

    with pytest.raises(FlowVisualizationError, match="1000 runs"):
        endless.visualize()


def test_runs_are_numbered_by_their_task_also_where_the_name_of_another_begins_so() -> None:
    @task
    def load_all() -> str:
        raise AssertionError("it was run")

    @flow
    def around() -> None:
        merge([load_all(), load(1)])

    assert shown(around.visualize()) == ["load-all-0", "load-0", "merge-0 <- load-all-0, load-0"]


def test_of_several_runs_of_a_task_that_says_its_result_each_is_known_by_its_own() -> None:
    @flow
    def around() -> None:
        first, second = listing(), listing()
        merge(first)
        merge(second)

    assert shown(around.visualize()) == ["listing-0", "listing-1", "merge-0 <- listing-0", "merge-1 <- listing-1"]


def test_futures_are_found_again_in_lists_and_sets() -> None:
    @flow
    def around() -> None:
        futures = [load.submit(1), load.submit(2)]
        second = futures[1]
        futures.remove(second)
        merge.submit(futures)
        assert second in {second, futures[0]}

    assert shown(around.visualize()) == ["load-0", "load-1", "merge-0 <- load-0"]


def test_mistakes_in_calls_are_found() -> None:
    @flow
    def around(n: int) -> None:
        merge.submit()

    with pytest.raises(ParameterBindError, match="values"):
        around.visualize(1)
    with pytest.raises(ParameterTypeError, match="expected int"):
        around.visualize(cast("Any", "x"))
    with pytest.raises(ParameterBindError, match="missing"):
        around.visualize()  # type: ignore[call-arg]  # what is to be found


def test_what_is_run_afterwards_is_run() -> None:
    @flow
    def around() -> int:
        return task(lambda: 3).submit().result()

    around.visualize()
    assert around() == 3


def test_a_graph_is_shown_as_mermaid_and_as_a_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    @flow
    def around() -> None:
        odd = task(name='say "hi"')(load.fn)
        inner.submit(odd.submit(1), wait_for=[merge.submit(2)])

    graph = around.visualize()
    assert graph.mermaid().splitlines() == [
        "flowchart LR",
        '    n0["say #quot;hi#quot;-0"]',
        '    n1["merge-0"]',
        '    n2[["inner-0"]]',
        "    n0 --> n2",
        "    n1 -.-> n2",
    ]
    drawing = ET.fromstring(graph.svg())
    assert len(drawing.findall("{*}g")) == 3
    assert len(drawing.findall("{*}path")) == 2
    assert re.search(r">say &quot;hi&quot;-0</text>", graph.svg())
    monkeypatch.setitem(sys.modules, "upwell.server.pages.graph", None)
    with pytest.raises(MissingExtraError, match=r"upwell\[server\]"):
        graph.svg()


def test_nothing_is_asked_of_workers_and_nobody_waits() -> None:
    """There is no such deployment, and the sleep is of a day."""

    @flow
    def asks() -> None:
        run = run_deployment("other/nightly", parameters={"x": load(1)})
        load.delay(run)
        sleep(86_400)

    @flow
    async def asks_later() -> None:
        run = await arun_deployment("other/nightly")
        await load.adelay(run)
        load.delay(run)
        await sleep_async(86_400)

    assert shown(asks.visualize()) == ["load-0", "run-deployment-0 <- load-0", "load-1 <- run-deployment-0"]
    assert shown(asyncio.run(asks_later.avisualize())) == [
        "run-deployment-0", "load-0 <- run-deployment-0", "load-1 <- run-deployment-0"
    ]  # fmt: skip
