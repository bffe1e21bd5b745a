"""A fork that somebody asks for is carried out by a worker: what the run before had finished is not run again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from tests.runtime.serving.workplace import Workplace, at_work

from upwell.core.model import TaskRun

FLOWS = """
@task
def note(word):
    with open("ledger", "a") as file:
        file.write(word + "\\n")
    return word

@flow(durable=True)
def three_steps(words: list[str]):
    said = [note(word) for word in words]
    if not Path("repaired").exists():
        raise ValueError("broken")
    return said
"""


async def task_runs(place: Workplace, run: object) -> list[TaskRun]:
    page = await place.history.task_runs(flow_run_id=run, order="oldest")  # type: ignore[arg-type]
    return sorted(page.items, key=lambda item: item.name)


def test_a_worker_carries_out_forks(flows: Callable[[str], Path]) -> None:
    folder = flows(FLOWS)
    ledger = folder / "ledger"

    async def main() -> None:
        async with at_work(folder, "three_steps") as place:
            first = await place.start("three_steps", words=["a", "b", "c"])
            assert (await place.ended(first)).state.name == "Failed"
            (folder / "repaired").touch()
            fork = await place.control.fork_flow_run(first)
            assert (await place.ended(fork.id)).state.name == "Completed"
            assert ledger.read_text().split() == ["a", "b", "c"], "all of it was taken over"
            second = (await task_runs(place, first))[1]
            partly = await place.control.fork_flow_run(first, before=second.id)
            assert (await place.ended(partly.id)).state.name == "Completed"
            assert ledger.read_text().split() == ["a", "b", "c", "b", "c"], "from the second on it was run anew"

    asyncio.run(main())
