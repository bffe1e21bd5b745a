"""Pull steps, carried out by a worker: its runs have the code of that moment, or crash with a reason."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import zipfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.serving.repository import Repository
from tests.runtime.serving.workplace import Workplace

from upwell import flow
from upwell.composition import open_control
from upwell.core.deployments import WorkPoolSpec
from upwell.core.errors import SourceError
from upwell.history import History
from upwell.pull_steps import steps_from
from upwell.runner.storage import GitRepository
from upwell.serving.pulling import Puller
from upwell.serving.source_cache import SourceCache
from upwell.serving.worker import Worker
from upwell.settings import temporary_settings

pytestmark = pytest.mark.usefixtures("own_modules")

SHOP = """
    from pathlib import Path
    from upwell import flow, runtime
    from helper import VERSION

    @flow
    def sells(to: str):
        deployment = runtime.deployment
        assert list(runtime.flow_run.job_variables) == ["pull_steps"]
        Path(to).write_text(f"{VERSION} {deployment.commit} {deployment.version} {deployment.parameters == {'to': to}}")
"""


@pytest.fixture
def repository(folder: Path) -> Repository:
    repository = Repository(folder / "shop")
    repository.commit(flows=SHOP, helper="VERSION = 1")
    return repository


@asynccontextmanager
async def at_work(**deployments: Any) -> AsyncGenerator[Workplace]:
    """A worker of the pool `p`, and these deployments for it."""
    async with open_control() as control, History() as history:
        await control.put_work_pool("p", WorkPoolSpec())
        held = {name: await control.apply_deployment(it.for_pool("p").spec) for name, it in deployments.items()}
        working = asyncio.create_task(Worker("p").arun())
        try:
            yield Workplace(control, history, None, held)
        finally:
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working


def test_each_run_has_the_code_of_the_branch_at_its_beginning(
    repository: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPWELL_LOGGING_LEVEL", "INFO")
    sells = flow.from_source(GitRepository(repository.url, branch="main"), "flows.py:sells")
    first = repository.git("rev-parse", "HEAD")

    async def main() -> None:
        async with at_work(nightly=sells.to_deployment("nightly", version="7")) as work:
            run = await work.start("nightly", to=str(folder / "sold"))
            assert (await work.ended(run)).state_name == "Completed"
            assert (folder / "sold").read_text() == f"1 {first} 7 True"
            second = repository.commit(helper="VERSION = 2")
            run = await work.start("nightly", to=str(folder / "sold"))
            assert (await work.ended(run)).state_name == "Completed"
            assert (folder / "sold").read_text() == f"2 {second} 7 True"
            said = [line.message for line in (await work.history.logs(run)).items]
            assert f"The code is of {repository.url}, commit {second}" in said

    asyncio.run(main())


def test_what_cannot_be_had_crashes_its_runs_with_a_reason(repository: Repository, folder: Path) -> None:
    @flow
    def sells(to: str) -> None: ...

    def deployed(name: str, entrypoint: str, **step: Any) -> Any:
        steps = [{"git_clone": {"repository": repository.url, **step}}]
        return sells.to_deployment(name, entrypoint=entrypoint, pull_steps=steps)

    (folder / "outside.py").write_text(SHOP)
    expected = {
        "branch": r"Pull step 1 \(git_clone\) failed. .* has no branch 'nope'. It has: main.",
        "file": r"There is no file wrong.py in .*The code is of file://.* at the commit [0-9a-f]{40}",
        "flow": r"flows.py has no 'wrong'; it has: sells",
        "outside": r"There is no file .*outside.py in .*nothing else may be run",
    }
    deployments = {
        "branch": deployed("branch", "flows.py:sells", branch="nope"),
        "file": deployed("file", "wrong.py:sells"),
        "flow": deployed("flow", "flows.py:wrong"),
        "outside": deployed("outside", f"{folder}/outside.py:sells"),
    }

    async def main() -> None:
        async with at_work(**deployments) as work:
            runs = {name: await work.start(name, to="nowhere") for name in deployments}
            for name, run in runs.items():
                ended = await work.ended(run)
                assert ended.state_name == "Crashed"
                assert re.search(expected[name], ended.state.message or "")

    asyncio.run(main())


def test_steps_lead_from_folder_to_folder(folder: Path) -> None:
    """Commands are run in it with the run's environment, packages are found, the run works in the last one."""
    project = folder / "elsewhere" / "project"
    project.mkdir(parents=True)
    (project / "requirements.txt").write_text("--no-index\n--find-links ../wheels\nshopping==1.0\n")
    (project / "flows.py").write_text(
        "from pathlib import Path\nimport shopping\nfrom upwell import flow\n\n"
        "@flow\ndef sells(): Path('sold').write_text(f'{shopping.NAME} {Path.cwd().name}')\n"
    )
    _wheel(folder / "elsewhere" / "wheels", shopping="NAME = 'a list'")
    says = "import os, sys; open('said', 'a').write(os.environ['COLOUR'] + os.environ['SIZE'] + sys.argv[1])"

    @flow
    def sells() -> None: ...

    made = sells.to_deployment(
        "x",
        entrypoint="flows.py:sells",
        job_variables={"env": {"COLOUR": "red "}},
        pull_steps=[
            {"set_working_directory": {"directory": str(folder / "elsewhere")}},
            {"set_working_directory": {"directory": "project"}},
            {"run_shell_script": {"script": [sys.executable, "-c", says, "$HOME; "], "env": {"SIZE": "small "}}},
            {"pip_install_requirements": {}},
        ],
    )

    async def main() -> None:
        async with at_work(sells=made) as work:
            for _ in range(2):
                assert (await work.ended(await work.start("sells"))).state_name == "Completed"
        assert (project / "sold").read_text() == "a list project"
        assert (project / "said").read_text() == "red small $HOME; " * 2  # before each run, and by no shell

    asyncio.run(main())


def _wheel(folder: Path, **modules: str) -> None:
    folder.mkdir()
    for name, text in modules.items():
        facts = f"{name}-1.0.dist-info"
        with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}.py", text)
            wheel.writestr(f"{facts}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            wheel.writestr(f"{facts}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{facts}/RECORD", f"{name}.py,,\n{facts}/METADATA,,\n{facts}/WHEEL,,\n{facts}/RECORD,,\n")


def test_neither_a_run_that_is_cancelled_nor_a_worker_that_stops_waits_for_code_that_is_fetched(folder: Path) -> None:
    @flow
    def sells() -> None: ...

    waits = f"open({str(folder / 'waits')!r}, 'w'); import time; time.sleep(1000)"
    steps = [{"run_shell_script": {"script": [sys.executable, "-c", waits]}}]
    made = sells.to_deployment("x", entrypoint="flows.py:sells", pull_steps=steps)

    async def main() -> None:
        async with at_work(sells=made) as work:
            run = await work.start("sells")
            while not (folder / "waits").exists():  # another process makes it
                await asyncio.sleep(0.02)
            await work.control.request_cancel(run, by="me", grace_seconds=0)
            assert (await work.ended(run)).state_name == "Cancelled"
            (folder / "waits").unlink()
            other = await work.start("sells")
            while not (folder / "waits").exists():
                await asyncio.sleep(0.02)
            signal.raise_signal(signal.SIGTERM)
            while any(worker.online for worker in await work.control.workers("p")):
                await asyncio.sleep(0.02)
            assert (await work.history.flow_run(other)).state.is_scheduled()  # somebody else may have it

    asyncio.run(main())


def test_a_worker_that_may_not_pull_refuses(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    sells = flow.from_source(repository.url, "flows.py:sells")

    async def main() -> None:
        async with at_work(sells=sells.to_deployment("x")) as work:
            ended = await work.ended(await work.start("sells", to="nowhere"))
            assert ended.state_name == "Crashed"
            assert "UPWELL_WORKER_PULL is false" in (ended.state.message or "")

    with temporary_settings(worker_pull=False):
        asyncio.run(main())


def test_files_of_a_url_are_fetched_and_kept_as_long_as_they_are_the_same(folder: Path) -> None:
    pytest.importorskip("fsspec")
    (folder / "bucket/inner").mkdir(parents=True)
    (folder / "bucket/inner/flows.py").write_text("X = 1")
    puller = Puller(SourceCache(folder / "cache"))
    (step,) = steps_from([{"pull_from_remote_storage": {"url": f"local://{folder}/bucket"}}])

    async def main() -> None:
        first = await puller.pull([step], folder)
        assert (first.folder / "inner/flows.py").read_text() == "X = 1"
        assert (await puller.pull([step], folder)).folder == first.folder
        (folder / "bucket/inner/flows.py").write_text("X = 22")
        second = await puller.pull([step], folder)
        assert (second.folder / "inner/flows.py").read_text() == "X = 22"
        (nothing,) = steps_from([{"pull_from_remote_storage": {"url": f"local://{folder}/nothing"}}])
        with pytest.raises(SourceError, match="There are no files below local://"):
            await puller.pull([nothing], folder)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (
            {"run_shell_script": {"script": "there-is-no-such-thing --at-all"}},
            "There is no there-is-no-such-thing here",
        ),
        ({"run_shell_script": {"script": "sh -c 'echo dear me; exit 3'"}}, "ended with the code 3: dear me"),
        ({"run_shell_script": {"script": "sleep 1000", "timeout_seconds": 0.05}}, "had not ended after 0.05 seconds"),
        ({"set_working_directory": {"directory": "nowhere"}}, "There is no folder /.*/nowhere here"),
        ({"pip_install_requirements": {}}, "There is no file requirements.txt in /"),
        ({"pull_from_remote_storage": {"url": "neverheard://of/it"}}, "cannot be listed: .*neverheard"),
    ],
)
def test_a_step_that_fails_says_which_it_is_and_why(folder: Path, step: dict[str, Any], said: str) -> None:
    ((name, _),) = step.items()
    with pytest.raises(SourceError, match=rf"Pull step 2 \({name}\) failed.*{said}"):
        asyncio.run(
            Puller(SourceCache(folder / "cache")).pull(
                steps_from([{"set_working_directory": {"directory": "."}}, step]), folder
            )
        )
