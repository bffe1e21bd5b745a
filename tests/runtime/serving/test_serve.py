"""Scripts that serve their flows, and scripts that just run them: real processes, real signals."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from tests.runtime.serving.workplace import PATIENCE_SECONDS, Workplace, served

from upwell.composition import open_control
from upwell.core.deployments import DeploymentSpec
from upwell.history import History

Flows = Callable[[str], Path]


@contextmanager
def script(folder: Path) -> Generator[subprocess.Popen[bytes]]:
    """The folder's `flows.py`, run. What it says goes to a file, for its runs may outlive it."""
    with (folder / "said").open("a") as said:
        process = subprocess.Popen([sys.executable, "flows.py"], cwd=folder, stdout=said, stderr=said)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def end(process: subprocess.Popen[bytes]) -> int:
    return await asyncio.to_thread(process.wait, PATIENCE_SECONDS)


def test_a_script_serves_its_flow_until_it_is_told_to_stop(flows: Flows) -> None:
    folder = flows(
        """
        from upwell.deployments import serve, to_deployment

        @flow
        def hello(name: str = "you"): Path("greeted").write_text(name)

        serve(to_deployment(hello, "test", cron="0 0 1 1 *"))
        """
    )

    async def main(process: subprocess.Popen[bytes]) -> None:
        async with open_control() as control, History() as history:
            work = await served(control, history, "hello")
            elsewhere = DeploymentSpec(flow_name="hello", name="test", entrypoint="/elsewhere.py:hello")
            await control.apply_deployment(elsewhere)  # it serves its own code all the same
            assert (await work.ended(await work.start("hello", name="Ada"))).state_name == "Completed"
            assert (folder / "greeted").read_text() == "Ada"
            assert [worker.online for worker in await control.workers()] == [True]
            process.send_signal(signal.SIGTERM)
            assert await end(process) == 0
            said = (folder / "said").read_text()
            assert "Your flow 'hello' is being served" in said
            assert "upwell deployment run 'hello/test'" in said
            assert [worker.online for worker in await control.workers()] == [False]
            assert (await control.deployment("hello/test")).paused

    with script(folder) as process:
        asyncio.run(main(process))


def test_a_run_outlives_its_worker_and_what_has_not_begun_is_taken_by_the_next(flows: Flows) -> None:
    folder = flows(
        """
        from upwell.deployments import serve, to_deployment

        @flow
        def waits(k: int):
            Path(f"begun-{k}").open("a").write("x")
            while not Path("go").exists():
                time.sleep(0.02)

        serve(to_deployment(waits, "test"), limit=1)
        """
    )

    async def main() -> None:
        async with open_control() as control, History() as history:
            with script(folder) as process:
                work = await served(control, history, "waits")
                runs = [await work.start("waits", k=k) for k in range(3)]
                while not (begun := list(folder.glob("begun-*"))):
                    await asyncio.sleep(0.02)
                process.kill()
            (folder / "go").touch()
            with script(folder) as process:
                for run in runs:
                    assert (await work.ended(run)).state_name == "Completed"
                process.send_signal(signal.SIGINT)
                assert await end(process) == 0
            assert len(begun) == 1
            assert [(folder / f"begun-{k}").read_text() for k in range(3)] == ["x"] * 3

    asyncio.run(main())


def test_a_run_that_a_plain_script_has_started_can_be_cancelled_from_elsewhere(flows: Flows) -> None:
    folder = flows(
        """
        @flow
        def sleeps():
            Path("begun").touch()
            time.sleep(1000)

        if __name__ == "__main__":
            sleeps()
        """
    )

    async def main(process: subprocess.Popen[bytes]) -> None:
        async with open_control() as control, History() as history:
            while not (folder / "begun").exists():
                await asyncio.sleep(0.02)
            work = Workplace(control, history, None, {})
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not (found := (await history.flow_runs()).items):
                    await asyncio.sleep(0.05)
            await control.request_cancel(found[0].id, by="Ada", reason="lunch")
            run = await work.ended(found[0].id)
            assert (run.state_name, run.state.message) == ("Cancelled", "Cancelled by Ada: lunch")
            assert await end(process) == 1
            assert "CancelledRun: Cancelled by Ada: lunch" in (folder / "said").read_text()

    with script(folder) as process:
        asyncio.run(main(process))
