"""Jobs in containers: how they are made, that they begin and end, and how they are killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from tests.runtime.serving.engine_of_docker import Engine, docker_engine
from tests.runtime.serving.repository import Repository, served_to
from tests.runtime.serving.workplace import Workplace, until

from upwell.composition import open_control
from upwell.core.deployments import DeploymentSpec, WorkPoolSpec
from upwell.core.errors import ConfigurationError
from upwell.history import History
from upwell.serving.docker import DockerCarrier
from upwell.serving.worker import Worker

docker = pytest.importorskip("docker")

Flows = Callable[[str], Path]


@pytest.fixture
def engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    with docker_engine(folder) as (engine, address):
        monkeypatch.setenv("DOCKER_HOST", address)
        yield engine


@asynccontextmanager
async def at_work(*flows: str) -> AsyncGenerator[Workplace]:
    async with open_control() as control, History() as history:
        await control.put_work_pool("containers", WorkPoolSpec(kind="docker"))
        deployments = {
            flow: await control.apply_deployment(
                DeploymentSpec(
                    flow_name=flow,
                    name="test",
                    entrypoint=f"flows.py:{flow}",
                    work_pool="containers",
                    job_variables={"image": "shop:1", "env": {"COLOUR": "red"}, "cpus": 0.5, "memory": "512m"},
                )
            )
            for flow in flows
        }
        working = asyncio.create_task(Worker("containers").arun())
        try:
            yield Workplace(control, history, None, deployments)
        finally:
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working


def test_a_job_is_carried_out_in_a_container_of_its_own(flows: Flows, engine: Engine) -> None:
    folder = flows("@flow\ndef says(word: str): Path('said').write_text(word + os.environ['COLOUR'])")

    async def main() -> None:
        async with at_work("says") as work:
            run = await work.start("says", word="deep ")
            other = await work.start("says", word="dark ", variables={"image": "shop:2"})
            for started in (run, other):
                assert (await work.ended(started)).state_name == "Completed"
            async with asyncio.timeout(10):
                while engine.created:  # removed when they have ended
                    await asyncio.sleep(0.02)
            assert (folder / "said").read_text() in ("deep red", "dark red")
            assert "POST /images/create" in engine.asked  # shop:2 was not there
        made = [asked for asked in engine.asked if asked == "POST /containers/create"]
        assert len(made) == 2

    asyncio.run(main())


def test_pull_steps_are_carried_out_in_the_container_with_the_tokens_of_the_worker(
    folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "s3cret")
    engine.hidden.add("SHOP_TOKEN")
    repository = Repository(folder / "shop")
    commit = repository.commit(
        flows="""
        import os
        from pathlib import Path
        from upwell import flow, runtime

        @flow
        def says(to: str):
            commit, is_seen = runtime.deployment.commit, "SHOP_TOKEN" in os.environ
            Path(to).write_text(f"{Path.cwd().parent.parent.name} {commit} {is_seen}")
        """
    )

    async def main(address: str) -> None:
        async with at_work("says") as work:
            url = f"{address}/shop/.git"
            steps = [{"git_clone": {"repository": url, "access_token_variable": "SHOP_TOKEN"}}]
            run = await work.start("says", to=str(folder / "said"), variables={"pull_steps": steps})
            lost = await work.start(
                "says", to="nowhere", variables={"pull_steps": [{"git_clone": {"repository": f"{folder}/lost"}}]}
            )
            assert (await work.ended(run)).state_name == "Completed"
            assert (folder / "said").read_text() == f"git {commit} False"
            ended = await work.ended(lost)
            assert ended.state_name == "Crashed"
            assert "Pull step 1 (git_clone) failed. There is no repository" in (ended.state.message or "")

    with served_to("s3cret", folder) as address:
        asyncio.run(main(address))


def test_what_is_asked_of_a_container(flows: Flows, engine: Engine) -> None:
    flows("@flow\ndef waits():\n    while not Path('go').exists(): time.sleep(0.02)")

    async def main() -> None:
        async with at_work("waits") as work:
            run = await work.start("waits")
            await work.running(run)
            (said,) = engine.created.values()
            Path("go").touch()
            assert (await work.ended(run)).state_name == "Completed"
        assert said["Image"] == "shop:1"
        assert said["Cmd"] == ["python", "-m", "upwell.serving.once", "/upwell-job"]
        assert said["Env"] == ["COLOUR=red"]
        assert said["Labels"] == {"upwell.flow-run-id": str(run)}
        assert (said["HostConfig"]["Memory"], said["HostConfig"]["NanoCpus"]) == (512 * 1024**2, 500_000_000)

    asyncio.run(main())


def test_a_container_that_does_not_end_when_it_is_asked_to_is_killed(flows: Flows, engine: Engine) -> None:
    flows(
        """
        @flow
        def stubborn():
            while True:
                try:
                    Path("stubborn").touch()
                    time.sleep(1000)
                except BaseException:
                    pass
        """
    )

    async def main() -> None:
        async with at_work("stubborn") as work:
            run = await work.start("stubborn")
            await work.running(run)
            await until(Path("stubborn").exists)
            await work.control.request_cancel(run, by="me", grace_seconds=0.5)
            ended = await work.ended(run)
            assert ended.state_name == "Cancelled"
            assert "was killed" in (ended.state.message or "")

    asyncio.run(main())


def test_a_job_without_an_image_and_a_machine_without_docker_say_what_is_wrong(
    flows: Flows, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    flows("@flow\ndef quick(): pass")

    async def main() -> None:
        async with at_work("quick") as work:
            ended = await work.ended(await work.start("quick", variables={"image": ""}))
            assert "No image is said" in (ended.state.message or "")

    asyncio.run(main())
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    with pytest.raises(ConfigurationError, match="The Docker engine does not answer"):
        DockerCarrier({})
