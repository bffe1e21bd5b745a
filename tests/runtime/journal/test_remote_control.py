"""What people and workers ask of a server, where answers get lost. What it answers is told in `control/`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.runtime.journal.remote import Loss, Network, Remote, elsewhere, remote

from upwell.core.deployments import ClaimSpec, Deployment, DeploymentSpec, RunSpec, WorkPoolSpec
from upwell.core.errors import AccessError, InvalidRequestError
from upwell.journal import remote_client
from upwell.journal.database import StoreUnavailable
from upwell.journal.remote_control import RemoteControl


@asynccontextmanager
async def served(folder: Path) -> AsyncGenerator[tuple[Remote, RemoteControl, Network, Deployment, str]]:
    """A server, a control over a network, a deployment, and a worker's id."""
    async with remote(folder) as server:
        network, worker = server.network(), elsewhere()
        await server.store().open(worker)
        control = RemoteControl(server.client(network=network))
        deployment = await control.apply_deployment(
            DeploymentSpec(flow_name="report", name="daily", entrypoint="r.py:r")
        )
        yield server, control, network, deployment, worker.id


def test_jobs_whose_claim_was_not_heard_of_are_found_at_the_next(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as (_, control, network, deployment, worker):
            runs = [await control.run_deployment(deployment.id, RunSpec()) for _ in range(3)]
            wanted = ClaimSpec(worker_id=worker, deployments=(deployment.id,))
            (known,) = await control.claim_jobs(wanted)
            network.lose(1, Loss.ANSWER)
            with pytest.raises(StoreUnavailable):
                await control.claim_jobs(wanted)
            (found,) = await control.claim_jobs(wanted)
            (last,) = await control.claim_jobs(wanted)
            assert {job.flow_run_id for job in (known, found, last)} == {run.id for run in runs}
            network.lose(1, Loss.REQUEST)
            with pytest.raises(StoreUnavailable):
                await control.claim_jobs(wanted)
            assert await control.claim_jobs(wanted) == []

    asyncio.run(main())


@pytest.mark.parametrize("loss", list(Loss))
def test_a_job_begins_although_an_answer_was_lost(tmp_path: Path, loss: Loss, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_client, "FIRST_PAUSE_SECONDS", 0.001)

    async def main() -> None:
        async with served(tmp_path) as (server, control, network, deployment, worker):
            await control.run_deployment("report/daily", RunSpec())
            (job,) = await control.claim_jobs(ClaimSpec(worker_id=worker, deployments=(deployment.id,)))
            child = elsewhere(2)
            await server.store().open(child)
            network.lose(1, loss)
            assert await control.begin_job(job, child.id)
            assert await server.rows("SELECT state FROM jobs") == [("begun",)]

    asyncio.run(main())


def test_what_must_not_be_done_twice_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_client, "FIRST_PAUSE_SECONDS", 0.001)

    async def main() -> None:
        async with served(tmp_path) as (server, control, network, deployment, _):
            network.lose(1, Loss.ANSWER)
            with pytest.raises(StoreUnavailable):
                await control.run_deployment(deployment.id, RunSpec())
            network.lose(1, Loss.ANSWER)
            run = await control.run_deployment(deployment.id, RunSpec(idempotency_key="a key"))
            assert run.idempotency_key == "a key"
            assert await server.rows("SELECT count(*) FROM flow_runs") == [(2,)]

    asyncio.run(main())


def test_a_key_does_what_its_scope_allows_and_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as (server, control, _, deployment, _):
            key, secret = await control.create_key("reader", "read")
            server.parts.access.forget()
            reader = RemoteControl(server.client(secret))
            assert await reader.deployment(deployment.id) == deployment
            assert await reader.find_key(secret) == (await server.parts.control.keys())[0]
            assert await reader.find_key("wrong") is None
            assert key.name == "reader"
            for work in (
                reader.run_deployment(deployment.id, RunSpec()),
                reader.create_key("x", "admin"),
                reader.keys(),
            ):
                with pytest.raises(AccessError, match="'reader' has the scope 'read'"):
                    await work

    asyncio.run(main())


@pytest.mark.parametrize("name", ["", ".", "..", "a/b"])
def test_a_name_that_leads_to_another_address_changes_nothing_there(tmp_path: Path, name: str) -> None:
    async def main() -> None:
        async with served(tmp_path) as (_, control, _, deployment, _):
            await control.put_work_pool("pool", WorkPoolSpec())
            with pytest.raises(InvalidRequestError, match="no name"):
                await control.delete_work_queue("pool", name)
            with pytest.raises(InvalidRequestError, match="no name"):
                await control.delete_schedule(deployment.id, name)
            assert await control.work_pool("pool")
            assert await control.deployment(deployment.id)

    asyncio.run(main())


def test_what_is_no_json_is_not_sent(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as (_, control, network, deployment, _):
            requests = network.requests
            with pytest.raises(InvalidRequestError, match="cannot be said in JSON"):
                await control.run_deployment(deployment.id, RunSpec(parameters={"x": object()}))
            assert network.requests == requests

    asyncio.run(main())
