"""Results that outlive their run: stored with it, read by its id, or a failure that says why not."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from upwell import flow, get_run_context, task
from upwell.cache_policies import INPUTS, NO_CACHE
from upwell.composition import close_journal
from upwell.context import FlowRunContext
from upwell.core.errors import ConfigurationError, MissingResult, SerializationError
from upwell.core.results import ResultDamaged, ResultNotFound, StoredValue
from upwell.settings import temporary_settings
from upwell.stored_results import result_of, result_of_async


@pytest.fixture(params=["on", "memory"], autouse=True)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with temporary_settings(journal=request.param, home=str(tmp_path / "home")):
        yield tmp_path / "home"
        close_journal()


@task(persist_result=True, cache_policy=NO_CACHE)
def pair(size: int) -> tuple[int, str]:
    return size, "a" * size


def id_of(run: Any) -> UUID:
    run.wait()
    return UUID(str(run.task_run_id))


@flow
def two_sizes() -> list[UUID]:
    return [id_of(pair.submit(3)), id_of(pair.submit(50_000))]


def test_results_small_and_large_are_read_by_the_id_of_their_run(home: Path) -> None:
    small, large = two_sizes()
    assert result_of(small) == (3, "aaa")
    assert result_of(str(large)) == (50_000, "a" * 50_000)
    assert len(list((home / "results").glob("??/*"))) == 1


def test_a_result_can_be_awaited() -> None:
    small, _ = two_sizes()
    assert asyncio.run(result_of_async(small)) == (3, "aaa")


def test_a_result_is_read_in_another_process(home: Path, request: pytest.FixtureRequest) -> None:
    if "memory" in request.node.name:
        pytest.skip("what is in memory is of this process")
    small, large = two_sizes()
    close_journal()
    code = f"from upwell.stored_results import result_of; print(result_of('{small}'), len(result_of('{large}')[1]))"
    environment = {**os.environ, "UPWELL_JOURNAL": "on", "UPWELL_HOME": str(home)}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert told.stdout == "(3, 'aaa') 50000\n", told.stderr


def test_the_result_of_a_direct_call_and_of_a_flow_run_are_stored() -> None:
    ids: list[UUID] = []

    @task(persist_result=True)
    def called(value: int) -> int:
        ids.append(get_run_context().task_run.id)  # type: ignore[union-attr]  # inside of a task run
        return value

    @flow(persist_result=True)
    def main() -> dict[str, int]:
        context = FlowRunContext.get()
        assert context is not None
        ids.append(context.flow_run.id)
        return {"called": called(4)}

    main()
    assert [result_of(run_id) for run_id in ids] == [{"called": 4}, 4]


def test_tasks_inherit_what_their_flow_says_unless_they_say_otherwise() -> None:
    @flow(persist_result=True)
    def main() -> list[UUID]:
        inherits = task(lambda: 1)
        refuses = task(persist_result=False)(lambda: 2)
        return [id_of(inherits.submit()), id_of(refuses.submit())]

    inherited, refused = main()
    assert result_of(inherited) == 1
    with pytest.raises(MissingResult, match="was not persisted"):
        result_of(refused)


def test_a_setting_persists_what_says_nothing() -> None:
    with temporary_settings(results_persist_by_default=True, results_default_serializer="json"):

        @flow
        def main() -> UUID:
            return id_of(task(lambda: (1, 2)).submit())

        assert result_of(main()) == [1, 2]


def test_a_cached_run_has_the_result_that_it_found() -> None:
    @task(cache_policy=INPUTS)
    def compute(value: int) -> list[int]:
        return [value]

    @flow
    def main(refresh: bool = False) -> UUID:
        return id_of(compute.with_options(refresh_cache=refresh).submit(1))

    main()
    found = main()
    assert result_of(found) == [1]
    main(refresh=True)
    with pytest.raises(ResultNotFound, match="from the cache"):
        result_of(found)


def test_a_value_that_cannot_be_stored_fails_the_run_with_the_serializers_error() -> None:
    @task(persist_result=True)
    def endless() -> Any:
        return (number for number in range(3))

    @flow
    def main() -> None:
        run = endless.submit()
        run.wait()
        assert run.state.is_failed()
        with pytest.raises(SerializationError, match="generator"):
            run.result()
        endless()

    with pytest.raises(SerializationError, match="generator"):
        main()


def test_a_flow_whose_result_cannot_be_stored_has_failed() -> None:
    @flow(persist_result=True)
    def main() -> Any:
        return (number for number in range(3))

    state: Any = main(return_state=True)
    assert state.is_failed()
    assert "cannot be stored" in (state.message or "")


def test_what_is_not_kept_in_memory_is_read_when_asked() -> None:
    @task(persist_result=True, cache_result_in_memory=False)
    def compute(value: int) -> list[int]:
        return [value]

    @task
    def double(value: list[int]) -> list[int]:
        return value * 2

    @flow
    def main() -> Any:
        run: Any = compute.submit(4)
        assert run.result() == [4]
        assert isinstance(run.value, StoredValue)
        assert run.state.result() == [4]
        return [compute(5), double.submit(run).result(), list(compute.stream([6]))]

    @flow
    async def in_async_code() -> Any:
        return await compute.submit(7)

    assert main() == [[5], [4, 4], [[6]]]
    assert asyncio.run(in_async_code()) == [7]


def test_a_lost_file_says_which_and_what_to_do(tmp_path: Path) -> None:
    placed = pair.with_options(
        result_storage=tmp_path / "kept", result_storage_key="{task_run.name}/{parameters[size]}"
    )

    @flow
    def main() -> list[UUID]:
        return [id_of(placed.submit(1)), id_of(placed.submit(2))]

    gone, damaged = main()
    assert sorted(path.name for path in (tmp_path / "kept").rglob("*") if path.is_file()) == ["1", "2"]
    (tmp_path / "kept/pair-0/1").unlink()
    (tmp_path / "kept/pair-1/2").write_bytes(b"x")
    with pytest.raises(ResultNotFound, match="pair-0/1"):
        result_of(gone)
    with pytest.raises(ResultDamaged, match="pair-1/2"):
        result_of(damaged)


def test_a_run_without_a_result_says_why() -> None:
    @task
    def fails() -> None:
        raise ValueError("boom")

    @flow
    def main() -> UUID:
        return id_of(fails.submit())

    state = main(return_state=True)
    with pytest.raises(MissingResult, match="boom"):
        result_of(state.result())
    with pytest.raises(MissingResult, match="There is no run"):
        result_of("0190a0a0-0000-7000-8000-000000000000")
    with pytest.raises(ConfigurationError, match="UUID"):
        result_of("no id")


def test_without_a_journal_the_reader_says_so() -> None:
    with temporary_settings(journal="off"), pytest.raises(ConfigurationError, match="UPWELL_JOURNAL"):
        result_of("0190a0a0-0000-7000-8000-000000000000")


class HeldUp:
    """A storage whose writes take until they are told to go on."""

    spec = "memory://held-up"

    def __init__(self) -> None:
        self.begun, self.goes_on = threading.Event(), threading.Event()

    def read(self, key: str) -> bytes:
        raise FileNotFoundError(key)

    def write(self, key: str, data: bytes) -> None:
        self.begun.set()
        assert self.goes_on.wait(60)

    def exists(self, key: str) -> bool:
        return False

    def delete(self, key: str) -> None: ...


def test_a_flow_run_that_is_cancelled_while_its_result_is_stored_ends_cancelled() -> None:
    storage, states = HeldUp(), list[str]()

    @flow(persist_result=True, result_storage=storage, on_cancellation=[lambda _, __, state: states.append(state.name)])
    async def big() -> str:
        return "a" * 50_000

    async def main() -> None:
        running = asyncio.create_task(big())
        while not storage.begun.is_set():
            await asyncio.sleep(0.001)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        storage.goes_on.set()

    asyncio.run(main())
    assert states == ["Cancelled"]
