"""Workers of a work pool: which jobs they take, which code they run, and how their pool sets them up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.serving.workplace import Workplace

from upwell.composition import open_control
from upwell.core.deployments import DeploymentSpec, RunSpec, WorkPoolSpec, WorkQueue
from upwell.core.errors import ConfigurationError, NotFoundError
from upwell.history import History
from upwell.serving.worker import Worker

Flows = Callable[[str], Path]


@asynccontextmanager
async def at_work_in_pool(
    worker: Callable[[], Worker], entrypoints: dict[str, str], template: dict[str, Any] | None = None, **spec: Any
) -> AsyncGenerator[Workplace]:
    """A worker of the pool `p`, and deployments for it."""
    async with open_control() as control, History() as history:
        await control.put_work_pool("p", WorkPoolSpec(base_job_template=template))
        deployments = {
            name: await control.apply_deployment(
                DeploymentSpec(flow_name=name, name="test", entrypoint=entrypoint, work_pool="p", **spec)
            )
            for name, entrypoint in entrypoints.items()
        }
        working = asyncio.create_task(worker().arun())
        try:
            yield Workplace(control, history, None, deployments)
        finally:
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working


def test_a_worker_runs_the_code_below_its_roots_and_no_other(flows: Flows) -> None:
    folder = flows("@flow\ndef writes(): Path('written').write_text(os.environ.get('COLOUR', ''))")
    (folder / "project").mkdir()
    (folder / "flows.py").rename(folder / "project" / "inside.py")
    (folder / "outside.py").write_text("raise SystemExit('it was imported')")
    entrypoints = {
        "inside": "inside.py:writes",
        "outside": f"{folder}/outside.py:writes",
        "above": "../outside.py:writes",
        "module": "os:system",
    }
    template = {
        "job_configuration": {"env": {"COLOUR": "light {{ colour }}"}},
        "variables": {"properties": {"colour": {"default": "red"}}},
    }

    async def main() -> None:
        async with at_work_in_pool(lambda: Worker("p", roots=[folder / "project"]), entrypoints, template) as work:
            runs = {name: await work.start(name) for name in entrypoints}
            elsewhere = await work.start("inside", variables={"working_dir": str(folder)})
            assert (await work.ended(runs.pop("inside"))).state_name == "Completed"
            for run in runs.values():
                ended = await work.ended(run)
                assert ended.state_name == "Crashed"
                assert "nothing else may be run" in (ended.state.message or "")
            assert "outside of" in ((await work.ended(elsewhere)).state.message or "")
        assert (folder / "project" / "written").read_text() == "light red"

    asyncio.run(main())


def test_a_worker_takes_jobs_of_its_queues_alone(flows: Flows) -> None:
    flows("@flow\ndef quick(): pass")

    async def main() -> None:
        async with open_control() as control:
            await control.put_work_pool("p", WorkPoolSpec())
            for name in ("fast", "slow"):
                await control.put_work_queue(
                    "p", WorkQueue(name=name, priority=1, paused=False, concurrency_limit=None)
                )
        entrypoints = {"quick": "flows.py:quick"}
        async with at_work_in_pool(lambda: Worker("p", queues=["fast"]), entrypoints, work_queue="fast") as work:
            slow = await work.control.run_deployment("quick/test", RunSpec(work_queue="slow"))
            assert (await work.ended(await work.start("quick"))).state_name == "Completed"
            assert (await work.history.flow_run(slow.id)).state.is_scheduled()
            assert [(worker.pool, worker.online) for worker in await work.control.workers("p")] == [("p", True)]

    asyncio.run(main())


def test_a_worker_goes_by_the_pools_template_as_it_is_when_a_run_begins(flows: Flows) -> None:
    folder = flows("@flow\ndef writes(): Path('written').write_text(os.environ.get('COLOUR', ''))")

    def painted(colour: str) -> dict[str, Any]:
        return {"job_configuration": {"env": {"COLOUR": colour}}}

    async def main() -> None:
        async with at_work_in_pool(lambda: Worker("p"), {"writes": "flows.py:writes"}, painted("red")) as work:
            for template, expected in ((painted("red"), "red"), (painted("blue"), "blue"), ({"variables": 3}, "blue")):
                await work.control.put_work_pool("p", WorkPoolSpec(base_job_template=template))
                assert (await work.ended(await work.start("writes"))).state_name == "Completed"
                assert (folder / "written").read_text() == expected

    asyncio.run(main())


def test_a_worker_says_what_is_wrong_with_its_pool(folder: Path) -> None:
    with pytest.raises(NotFoundError, match="`upwell work-pool create p` makes one"):
        Worker("p").run()

    async def make() -> None:
        async with open_control() as control:
            await control.put_work_pool("broken", WorkPoolSpec(base_job_template={"job_configuration": []}))

    asyncio.run(make())
    with pytest.raises(ConfigurationError, match="must be an object with `job_configuration` and `variables`"):
        Worker("broken").run()
    with pytest.raises(ConfigurationError, match="limit must be 1 or more"):
        Worker("p", limit=0)
