"""What was recorded is what is read: real flows, and their live futures beside what the history says of them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from upwell import flow, get_run_logger, history, tags, task
from upwell.composition import close_journal
from upwell.core.states import StateType
from upwell.futures import TaskFuture
from upwell.history import History, UnknownRunError
from upwell.runtime import flow_run
from upwell.settings import temporary_settings


@pytest.fixture(params=["file", "memory", "postgres"], autouse=True)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A journal that is kept there."""
    chosen: dict[str, Any] = {"journal": "memory" if request.param == "memory" else "on", "home": str(tmp_path)}
    if request.param == "postgres":
        chosen["database_url"] = request.getfixturevalue("postgres_url")
    with temporary_settings(**chosen):
        yield request.param
        close_journal()


@task(tags=["numbers"])
def add(one: int, other: int = 1) -> int:
    return one + other


@task(retries=2, task_run_name="flaky-{n}")
def flaky(n: int, failures: list[int]) -> int:
    if failures:
        raise ValueError(f"not yet, {failures.pop()}")
    return n


@task
def fail(n: int) -> int:
    raise ValueError(f"{n} is not wanted")


@task
def outer() -> int:
    return add.submit(20).result()


@task
async def wait_for_ever() -> None:
    await asyncio.Event().wait()


def assert_is(future: TaskFuture[Any]) -> None:
    """What is read of this run is what its future says."""
    run: Any = future
    read = history.task_run(run.task_run_id)
    state = future.state
    assert (read.id, read.name, read.tags, read.run_count) == (run.task_run_id, run.name, run.tags, run.run_count)
    assert (read.state.type, read.state.name) == (state.type, state.name)
    assert read.state.message == state.message
    assert abs((read.state.timestamp - state.timestamp).total_seconds()) < 1e-5
    assert read.flow_run_id == run.call.scope.flow_run.id
    assert read.parent_task_run_id == run.call.parent_id


def test_every_run_reads_as_its_future_says_whatever_became_of_it() -> None:
    kept: dict[str, list[Any]] = {}

    @flow
    def below(n: int) -> int:
        return add(n)

    @flow(version="7")
    def everything(limit: int) -> None:
        mapped = add.map(range(5))
        dependent = add.map(mapped, other=mapped[0])
        with tags("special"):
            special = add.submit(7)
        failed = fail.submit(3)
        skipped = add.submit(failed)
        tried = flaky.submit(1, [1, 2])
        nested = outer.submit()
        futures = [*mapped, *dependent, special, failed, skipped, tried, nested]
        for future in futures:
            future.wait()
        below(limit)
        kept["futures"] = futures

    everything(10)
    for future in kept["futures"]:
        assert_is(future)

    run = history.flow_runs(flow="everything").items[0]
    assert (run.flow_version, run.state.name, run.parameters) == ("7", "Completed", {"limit": "10"})
    assert run.start_time is not None
    assert run.end_time is not None
    assert run.created <= run.start_time <= run.end_time
    assert [state.type.value for state in history.states(run.id)] == ["PENDING", "RUNNING", "COMPLETED"]
    (child,) = history.flow_runs(parent=run.id)
    assert (child.flow_name, child.parent_flow_run_id, child.root_flow_run_id) == ("below", run.id, run.id)

    futures = kept["futures"]
    assert len(history.task_runs(flow_run_id=run.id)) == len(futures) + 1  # what `outer` has started
    (started,) = history.task_runs(parent=futures[-1].task_run_id)
    assert (started.name, started.inputs) == ("add-12", "one=20")
    assert [one.name for one in history.task_runs(tags=["special"])] == [futures[10].name]
    assert [one.name for one in history.task_runs(text="FLAKY")] == ["flaky-1"]
    assert [one.state_name for one in history.task_runs(state="NotReady")] == ["NotReady"]


def test_the_states_of_a_run_that_was_tried_again_are_all_there() -> None:
    @flow
    def retrying() -> str:
        future: Any = flaky.submit(1, [1, 2])
        future.wait()
        return str(future.task_run_id)

    states = history.states(retrying())
    assert [(state.type.value, state.name) for state in states] == [
        ("PENDING", "Pending"),
        ("RUNNING", "Running"),
        ("PENDING", "Retrying"),
        ("RUNNING", "Retrying"),
        ("PENDING", "Retrying"),
        ("RUNNING", "Retrying"),
        ("COMPLETED", "Completed"),
    ]
    assert [state.timestamp for state in states] == sorted(state.timestamp for state in states)
    assert "not yet, 2" in str(states[2].message)


def test_edges_say_which_run_fed_which_argument() -> None:
    @flow
    def feeding() -> Any:
        one, two = add.submit(1), add.submit(2)
        add.submit(one, other=two).wait()
        add.submit(5, wait_for=[two]).wait()
        return flow_run.id

    run_id = feeding()
    found = {(edge.upstream_name, edge.task_run_name, edge.argument) for edge in history.edges(run_id)}
    assert found == {("add-0", "add-2", "one"), ("add-1", "add-2", "other"), ("add-1", "add-3", None)}
    first = history.edges(run_id, limit=2)
    rest = history.edges(run_id, after=first.next)
    assert {edge.upstream_id for edge in [*first, *rest]} == {
        run.id for run in history.task_runs(flow_run_id=run_id) if run.name in ("add-0", "add-1")
    }


def test_a_tree_holds_all_that_a_flow_run_has_started_and_a_timeline_when() -> None:
    @flow
    def leaf(n: int) -> None:
        add.map(range(n)).result()

    @flow
    def root() -> Any:
        add.map(range(3)).result()
        leaf(2)
        leaf(1)
        return flow_run.id

    run_id = root()
    tree = history.tree(run_id, runs_per_task=2)
    assert tree.run.id == history.flow_run(run_id).id
    ((group,), (two, one)) = tree.tasks, tree.flow_runs
    assert (group.task_name, group.total, group.states) == ("add", 3, {StateType.COMPLETED: 3})
    assert [run.name for run in group.runs] == ["add-0", "add-1"]
    assert [below.tasks[0].total for below in (two, one)] == [2, 1]
    assert two.run.parent_flow_run_id == tree.run.id

    spans = list(history.timeline(run_id))
    assert [span.name for span in spans if span.is_flow_run] == [tree.run.name, two.run.name, one.run.name]
    assert len(spans) == 3 + 6
    assert [span.start_time for span in spans] == sorted(span.start_time for span in spans if span.start_time)
    paged = [*(page := history.timeline(run_id, limit=4)), *history.timeline(run_id, limit=4, after=page.next)]
    assert {span.id for span in paged} == {span.id for span in spans}


def test_runs_that_have_not_begun_are_counted_and_come_last() -> None:
    release = threading.Event()
    seen: dict[str, Any] = {}

    @task
    def hold(n: int) -> None:
        release.wait(100)

    @flow
    def holding() -> None:
        assert flow_run.id is not None
        futures: Any = hold.map(range(7), max_at_once=2)
        while len(history.task_runs(flow_run_id=flow_run.id, state="RUNNING")) < 2:
            pass
        seen["tree"] = history.tree(flow_run.id)
        seen["all"] = history.task_runs(flow_run_id=flow_run.id)
        seen["pages"] = [history.task_runs(flow_run_id=flow_run.id, limit=2)]
        while seen["pages"][-1].next:
            page = history.task_runs(flow_run_id=flow_run.id, limit=2, after=seen["pages"][-1].next)
            seen["pages"].append(page)
        seen["counts"] = history.counts()
        seen["one"] = history.task_run(futures[6].task_run_id)
        seen["states"] = history.states(futures[6].task_run_id)
        release.set()
        futures.wait()

    holding()
    assert seen["tree"].tasks[0].states == {StateType.RUNNING: 2, StateType.PENDING: 5}
    names = [run.name for run in seen["all"]]
    assert names == ["hold-1", "hold-0", "hold-2", "hold-3", "hold-4", "hold-5", "hold-6"]
    assert [run.name for page in seen["pages"] for run in page] == names
    assert sum(span.states.get(StateType.PENDING, 0) for span in seen["counts"]) == 5
    assert (seen["one"].name, seen["one"].state.type, seen["one"].flow_run_name) == (
        "hold-6", StateType.PENDING, seen["tree"].run.name,
    )  # fmt: skip  # one line is enough
    assert seen["states"][0].name == "Pending"
    assert {run.state.type for run in history.task_runs(flow_run_id=seen["tree"].run.id)} == {StateType.COMPLETED}


def test_a_cancelled_run_reads_as_cancelled() -> None:
    async def main() -> Any:
        @flow
        async def stopped() -> None:
            wait_for_ever.submit()
            await asyncio.sleep(0)
            await asyncio.Event().wait()

        running = asyncio.create_task(stopped())
        async with History() as h:
            while not (await h.task_runs(state="RUNNING")).items:
                await asyncio.sleep(0.01)
            running.cancel()
            await asyncio.wait([running])
            (run,) = await h.task_runs()
            (of,) = await h.flow_runs()
            return run, of

    run, of = asyncio.run(main())
    assert (run.state.type, of.state.type) == (StateType.CANCELLED, StateType.CANCELLED)
    assert run.state.message


def test_logs_are_read_in_order_and_by_level() -> None:
    @task
    def talk(n: int) -> None:
        get_run_logger().warning("number %d", n)

    @flow
    def talking() -> Any:
        talk.map(range(3)).result()
        get_run_logger().error("that is all")
        return flow_run.id

    run_id = talking()
    lines = history.logs(run_id, level=logging.WARNING)
    assert sorted(line.message for line in lines)[:3] == ["number 0", "number 1", "number 2"]
    assert lines.items[-1].message == "that is all"
    assert (lines.items[-1].level_name, lines.items[-1].task_run_id) == ("ERROR", None)
    first = history.logs(run_id, limit=2)
    assert [line.timestamp for line in first] == [line.timestamp for line in list(history.logs(run_id))[:2]]
    assert history.logs(run_id, after=first.next).items[0] is not None
    (run,) = history.task_runs(text="talk-1")
    assert [line.message for line in history.logs(run.id)] == ["number 1"]
    with pytest.raises(UnknownRunError):
        history.logs("01a2002d-6a01-7143-816b-ca90af17019f")
