"""Deployments as users make them: what is checked when they are written, what the store then holds, how runs begin."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest

from upwell import aserve, deploy, flow, runtime, serve
from upwell.composition import close_journal, open_control
from upwell.core.deployments import Deployment, WorkPoolSpec
from upwell.core.errors import (
    BlockingWaitError,
    ConfigurationError,
    InvalidNameError,
    InvalidRequestError,
    NotFoundError,
    ParameterTypeError,
)
from upwell.deployments import (
    ConcurrencyLimitConfig,
    ConcurrencyLimitStrategy,
    RunnerDeployment,
    arun_deployment,
    await_for_flow_run,
    run_deployment,
    wait_for_flow_run,
)
from upwell.schedules import Cron, Interval
from upwell.settings import temporary_settings


@flow(version="7")
def report(day: str, count: int = 1) -> str:
    """Report what was sold.

    Args:
        day: which day
    """
    return f"{day} {count}"


@flow
def plain() -> None: ...


def test_a_limit_may_say_what_becomes_of_other_runs() -> None:
    for strategy, when_full in (
        ("ENQUEUE", "queue"),
        ("CANCEL_NEW", "cancel_new"),
        ("CANCEL_RUNNING", "cancel_running"),
    ):
        limit = ConcurrencyLimitConfig(limit=3, collision_strategy=strategy)
        spec = plain.to_deployment("x", concurrency_limit=limit).spec
        assert (spec.concurrency_limit, spec.when_full) == (3, when_full)
    assert ConcurrencyLimitConfig(3).collision_strategy is ConcurrencyLimitStrategy.ENQUEUE
    with pytest.raises(ConfigurationError, match="collision_strategy must be one of ENQUEUE, CANCEL_NEW"):
        ConcurrencyLimitConfig(3, "SKIP")
    with pytest.raises(ConfigurationError, match="say the same"):
        plain.to_deployment("x", concurrency_limit=ConcurrencyLimitConfig(3), when_full="cancel_new")
    with pytest.raises(ConfigurationError, match="concurrency_limit"):
        plain.to_deployment("x", concurrency_limit=ConcurrencyLimitConfig(0))


class Shop:
    @flow
    def sell(self) -> None: ...


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """A store of the test's own."""
    with temporary_settings(home=str(tmp_path), journal="on"):
        yield tmp_path
        close_journal()


def held(name: str) -> Deployment:
    """What the store holds of a deployment."""

    async def ask() -> Deployment:
        async with open_control() as control:
            return await control.deployment(name)

    return asyncio.run(ask())


# --- written ------------------------------------------------------------------------------------------------


def test_a_deployment_is_made_of_a_flow() -> None:
    made = report.to_deployment("nightly", parameters={"day": "monday"}, tags=["b", "a"], cron="0 3 * * *")
    assert (made.name, made.flow_name, made.full_name) == ("nightly", "report", "report/nightly")
    spec = made.spec
    assert spec.entrypoint == f"{__name__}:report"
    assert spec.version == "7"
    assert spec.description == "Report what was sold.", "the parameters' schema tells of them"
    assert spec.tags == ("a", "b")
    assert spec.parameters == {"day": "monday"}
    assert spec.parameter_schema["properties"]["day"]["description"] == "which day"
    assert [it.expression for it in spec.schedules or ()] == ["0 3 * * *"]
    assert (spec.work_pool, spec.concurrency_limit, spec.when_full, spec.paused) == (None, None, "queue", None)


def test_what_is_said_of_the_deployment_goes_before_what_the_flow_says() -> None:
    spec = report.to_deployment(
        "nightly",
        version="8",
        description="Mine.",
        concurrency_limit=3,
        when_full="cancel_new",
        paused=True,
        entrypoint="elsewhere:report",
    ).spec
    assert (spec.version, spec.description, spec.concurrency_limit) == ("8", "Mine.", 3)
    assert (spec.when_full, spec.paused, spec.entrypoint) == ("cancel_new", True, "elsewhere:report")


def test_a_deployment_for_a_pool_names_the_file_by_its_path_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    spec = report.to_deployment("nightly", work_pool_name="big", work_queue_name="fast", job_variables={"a": 1}).spec
    assert (spec.work_pool, spec.work_queue, spec.job_variables) == ("big", "fast", {"a": 1})
    assert spec.entrypoint == f"{Path(__file__).name}:report"
    monkeypatch.chdir("/")
    assert report.to_deployment("nightly", work_pool_name="big").spec.entrypoint == f"{__file__.lstrip('/')}:report"
    said = report.to_deployment("nightly", work_pool_name="big", entrypoint="shop.flows:report")
    assert said.spec.entrypoint == "shop.flows:report"


def test_a_file_that_workers_could_not_find_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="outside of"):
        report.to_deployment("nightly", work_pool_name="big")


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"name": "a/b"}, InvalidNameError, "a/b"),
    ({"name": ""}, InvalidNameError, "not empty"),
    ({"parameters": {"dya": 1}}, ConfigurationError, "Did you mean 'day'"),
    ({"parameters": {"other": 1}}, ConfigurationError, "It has: day, count"),
    ({"parameters": {"count": "many"}}, ParameterTypeError, "deployment of flow 'report'"),
    ({"parameters": {"day": object()}}, ParameterTypeError, "day"),
    ({"tags": "one"}, TypeError, r"tags=\['one'\]"),
    ({"when_full": "explode"}, ConfigurationError, "queue, cancel_new, cancel_running"),
    ({"concurrency_limit": 0}, ConfigurationError, "at least 1"),
    ({"description": 5}, TypeError, "description"),
    ({"cron": "nonsense", "parameters": {"day": "x"}}, InvalidRequestError, "five fields"),
    ({"cron": "0 3 * * *"}, ConfigurationError, "needs day"),
    ({"schedules": [Interval(5, parameters={"dya": "x"})]}, ConfigurationError, "Did you mean 'day'"),
    ({"schedules": [Interval(5, parameters={"day": "x", "count": "y"})]}, ParameterTypeError, "count"),
    ({"colour": "red"}, TypeError, "no option 'colour'"),
    ({"entrypoint": "no entry point"}, ConfigurationError, "is no entry point"),
]


@pytest.mark.parametrize(("keywords", "error", "words"), WRONG)
def test_what_cannot_be_is_refused_when_it_is_written(
    keywords: dict[str, Any], error: type[Exception], words: str
) -> None:
    anything: Any = report
    with pytest.raises(error, match=words):
        anything.to_deployment(**{"name": "nightly", **keywords})


def test_a_schedule_may_give_the_parameters_that_the_deployment_does_not() -> None:
    made = report.to_deployment("nightly", schedules=[Cron("0 3 * * *", parameters={"day": "x"})])
    assert made.spec.schedules is not None


def test_a_method_is_refused_for_its_object_would_be_missing() -> None:
    with pytest.raises(ConfigurationError, match="is a method"):
        Shop.sell.to_deployment("nightly")


def test_a_served_script_may_be_named_after_its_file() -> None:
    assert plain.to_deployment("/home/me/etl.py").name == "etl"


# --- served and deployed ------------------------------------------------------------------------------------


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """What would be served."""
    calls: list[tuple[Any, dict[str, Any]]] = []

    async def serve_forever(deployments: Any, **how: Any) -> None:
        calls.append((deployments, how))

    monkeypatch.setattr("upwell.serving.serve.serve_forever", serve_forever)
    return calls


def test_serving_hands_over_the_deployments_and_how(served: list[tuple[Any, dict[str, Any]]]) -> None:
    serve(plain.to_deployment("a"), plain.to_deployment("b", paused=True), limit=3, pause_on_shutdown=False)
    ((deployments, how),) = served
    assert [it.spec.name for it in deployments] == ["a", "b"]
    assert [it.spec.paused for it in deployments] == [False, True]
    assert how == {"limit": 3, "pause_on_shutdown": False, "print_starting_message": True}


def test_a_flow_serves_itself_under_its_own_name_or_another(served: list[tuple[Any, dict[str, Any]]]) -> None:
    plain.serve(interval=60)
    plain.serve("mine", limit=2)
    asyncio.run(aserve(plain.to_deployment("awaited")))
    assert [deployments[0].spec.name for deployments, _ in served] == ["plain", "mine", "awaited"]
    assert [how["limit"] for _, how in served] == [None, 2, None]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: serve(), TypeError, "to_deployment"),
        (lambda: serve(cast(Any, plain)), TypeError, "to_deployment"),
        (lambda: serve(plain.to_deployment("a"), plain.to_deployment("a")), ConfigurationError, "two deployments"),
        (lambda: serve(plain.to_deployment("a"), limit=0), ConfigurationError, "at least 1"),
        (lambda: cast(Any, plain).serve("a", colour="red"), TypeError, "no option 'colour'"),
        (
            lambda: serve(plain.to_deployment("a", work_pool_name="big", entrypoint="shop:plain")),
            ConfigurationError,
            "upwell worker start --pool big",
        ),
    ],
)
def test_what_cannot_be_served_is_refused(make: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("name", ["serve", "run_deployment"])
def test_what_would_block_a_loop_is_refused_and_says_what_to_write(name: str) -> None:
    async def main() -> None:
        if name == "serve":
            plain.serve("a")
        else:
            run_deployment("plain/a")

    with pytest.raises(BlockingWaitError, match=f"await a{name}"):
        asyncio.run(main())


def test_a_deployment_is_applied_and_changed(store: Path) -> None:
    first = plain.to_deployment("a", tags=["old"], interval=60).apply()
    assert held("plain/a").tags == ("old",)
    assert plain.to_deployment("a", tags=["new"]).apply() == first
    now = held("plain/a")
    assert now.tags == ("new",)
    assert [it.expression for it in now.schedules] == ["60"]  # nothing was said of schedules
    plain.to_deployment("a", schedules=[]).apply()
    assert held("plain/a").schedules == ()


def test_applying_again_leaves_a_paused_one_paused(store: Path) -> None:
    plain.to_deployment("a", paused=True).apply()
    plain.to_deployment("a").apply()
    assert held("plain/a").paused
    plain.to_deployment("a", paused=False).apply()
    assert not held("plain/a").paused


def test_deploying_is_for_the_workers_of_a_pool(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    with pytest.raises(NotFoundError, match="big"):
        plain.deploy("a", "big")

    async def make_pool() -> None:
        async with open_control() as control:
            await control.put_work_pool("big", WorkPoolSpec(kind="docker"))

    asyncio.run(make_pool())
    identity = plain.deploy("a", "big", image="shop:1", job_variables={"memory": "1g"}, tags=["x"])
    assert isinstance(identity, UUID)
    found = held("plain/a")
    assert found.id == identity
    assert (found.work_pool, found.tags, found.entrypoint) == ("big", ("x",), f"{Path(__file__).name}:plain")
    assert found.job_variables == {"memory": "1g", "image": "shop:1"}
    assert not caplog.records
    plain.deploy("a", "big", work_queue_name="ugrent")
    assert "had no work queue 'ugrent': it was made" in caplog.text
    caplog.clear()
    plain.deploy("a", "big", work_queue_name="ugrent")
    assert not caplog.records
    both = deploy(plain.to_deployment("b"), report.to_deployment("b"), work_pool_name="big")
    assert both == [held("plain/b").id, held("report/b").id]


# --- started ------------------------------------------------------------------------------------------------


def test_a_run_that_nobody_waits_for_is_scheduled(store: Path) -> None:
    made = report.to_deployment("a", parameters={"day": "monday"}, tags=["of-the-deployment"])
    made.apply()
    run = run_deployment("report/a", {"count": 3}, timeout=0, flow_run_name="mine", tags=["x"])
    assert (run.name, run.flow_name, run.state_type) == ("mine", "report", "SCHEDULED")
    assert run.tags == {"x", "of-the-deployment"}
    assert run.deployment_id == made.apply()
    again = run_deployment(str(made.apply()), timeout=0, idempotency_key="once")
    assert run_deployment(made.apply(), timeout=0, idempotency_key="once").id == again.id != run.id


def test_a_run_can_be_asked_for_later(store: Path) -> None:
    plain.to_deployment("a").apply()
    at = dt.datetime(2099, 1, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    run = run_deployment("plain/a", timeout=0, scheduled_time=at)
    assert run.due == at
    local = run_deployment("plain/a", timeout=0, scheduled_time=dt.datetime(2099, 1, 1, 12))
    assert local.due == dt.datetime(2099, 1, 1, 12).astimezone()


def test_a_wait_that_is_over_returns_the_run_as_it_is(store: Path) -> None:
    plain.to_deployment("a").apply()
    assert run_deployment("plain/a", timeout=0.15).state_type == "SCHEDULED"


def test_a_run_that_somebody_has_started_can_be_waited_for(store: Path) -> None:
    plain.to_deployment("a").apply()
    waiting = run_deployment("plain/a", timeout=0)
    assert wait_for_flow_run(waiting.id, timeout=0.1).state_type == "SCHEDULED"

    async def main() -> None:
        async def cancels() -> None:
            async with open_control() as control:
                await control.request_cancel(waiting.id, by="me")

        ended, _ = await asyncio.gather(await_for_flow_run(waiting.id), cancels())
        assert ended.state_type == "CANCELLED"
        with pytest.raises(BlockingWaitError, match="await_for_flow_run"):
            wait_for_flow_run(waiting.id)

    asyncio.run(main())
    assert wait_for_flow_run(waiting.id).state_type == "CANCELLED"
    with pytest.raises(NotFoundError):
        wait_for_flow_run(UUID(int=7))


@pytest.mark.parametrize(
    ("name", "keywords", "error", "words"),
    [
        ("report/none", {}, NotFoundError, "report/none"),
        ("nonsense", {}, NotFoundError, "flow/deployment"),
        ("report/a", {}, InvalidRequestError, "day"),
        ("report/a", {"parameters": {"day": 5}}, InvalidRequestError, "day"),
        ("report/a", {"parameters": {"day": "x", "dya": 5}}, InvalidRequestError, "dya"),
        ("report/a", {"parameters": {"day": object()}}, InvalidRequestError, "JSON"),
        ("report/a", {"colour": "red"}, TypeError, "no option 'colour'"),
        ("report/a", {"scheduled_time": "tomorrow"}, TypeError, "scheduled_time"),
        ("report/a", {"idempotency_key": ""}, TypeError, "idempotency_key"),
    ],
)
def test_a_run_that_cannot_be_is_refused(
    store: Path, name: str, keywords: dict[str, Any], error: type[Exception], words: str
) -> None:
    report.to_deployment("a").apply()
    with pytest.raises(error, match=words):
        run_deployment(name, timeout=0, **keywords)


# --- inside of flow runs ------------------------------------------------------------------------------------


ELSEWHERE = """
from upwell import flow, runtime, task
from upwell.deployments import run_deployment

@flow
def plain(): ...

@task(task_runner="processes")
def ask():
    return run_deployment("plain/a", timeout=0)

@flow
def around():
    child = ask.submit().result()
    print(child.parent_flow_run_id == runtime.flow_run.id)

if __name__ == "__main__":
    plain.to_deployment("a").apply()
    around()
"""


def test_a_task_in_another_process_starts_a_child_of_its_flow_run(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(ELSEWHERE)
    environment = {**os.environ, "UPWELL_HOME": str(tmp_path), "UPWELL_JOURNAL": "on"}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert done.stdout.splitlines() == ["True"], done.stderr


@pytest.mark.parametrize("is_async", [False, True])
def test_inside_of_a_flow_it_is_a_child_and_a_task_run(store: Path, is_async: bool) -> None:
    from upwell import history

    plain.to_deployment("a").apply()

    @flow
    def around() -> Any:
        return run_deployment("plain/a", timeout=0)

    @flow(name="around")
    async def around_async() -> Any:
        return await arun_deployment("plain/a", timeout=0)

    child = asyncio.run(around_async()) if is_async else around()
    parent = history.flow_runs(flow="around").items[0]
    assert child.parent_flow_run_id == parent.id
    assert child.root_flow_run_id == parent.id
    (its_task_run,) = history.task_runs(flow_run_id=parent.id)
    assert (its_task_run.task_name, its_task_run.id) == ("run-deployment", child.parent_task_run_id)
    assert its_task_run.name == "plain/a"


def test_the_root_of_a_child_is_the_root_of_all(store: Path) -> None:
    plain.to_deployment("a").apply()

    @flow
    def inner() -> Any:
        return run_deployment("plain/a", timeout=0)

    @flow
    def outer() -> Any:
        return runtime.flow_run.id, inner()

    with temporary_settings(journal_flush_seconds=60):
        root, child = outer()
    assert child.root_flow_run_id == root != child.parent_flow_run_id


def test_it_need_not_be_a_child(store: Path) -> None:
    plain.to_deployment("a").apply()

    @flow
    def around() -> Any:
        return run_deployment("plain/a", timeout=0, as_subflow=False)

    assert around().parent_flow_run_id is None


def test_a_runner_deployment_is_what_its_users_know_it_as() -> None:
    assert isinstance(plain.to_deployment("a"), RunnerDeployment)
