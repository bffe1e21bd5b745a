"""The cache in the store, on every kind of database: kept across journals, and locked by who computes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from upwell import flow, task
from upwell.cache_policies import INPUTS
from upwell.composition import close_journal, flush_journal, make_database, open_recorder
from upwell.journal.cache import JournalCache
from upwell.journal.cache_store import SqlCache
from upwell.journal.database import StoreUnavailable
from upwell.settings import temporary_settings
from upwell.stored_results import result_of


@pytest.fixture(params=["sqlite", "postgres"], autouse=True)
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    url: str | None = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with temporary_settings(journal="on", home=str(tmp_path / "home"), database_url=url):
        yield
        close_journal()


@task(cache_policy=INPUTS, persist_result=True)
def square(number: int) -> int:
    return number * number


@flow
def squares(count: int) -> list[tuple[int, str, str]]:
    runs: Any = square.map(range(count))
    return [(run.result(), run.state.name, str(run.task_run_id)) for run in runs]


async def rows_of(table: str) -> list[tuple[Any, ...]]:
    database = make_database()
    await database.open()
    try:
        return await database.fetch_text(f"SELECT * FROM {table}")
    finally:
        await database.close()


def test_results_are_found_by_the_next_journal_and_no_lock_is_left() -> None:
    computed = squares(600)
    assert {name for _, name, _ in computed} == {"Completed"}
    close_journal()
    assert asyncio.run(rows_of("cache_locks")) == []
    found = squares(600)
    assert {name for _, name, _ in found} == {"Cached"}
    assert [value for value, _, _ in found] == [number * number for number in range(600)]
    assert result_of(found[599][2]) == 599 * 599


@pytest.mark.parametrize("has_time", [True, False])
def test_what_is_in_a_file_is_found_without_the_journal_unless_that_takes_long(
    has_time: bool, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upwell.journal.cache.QUICK_SECONDS", 1e6 if has_time else -1.0)
    monkeypatch.setattr("upwell.journal.beside.STEPS_BETWEEN_LOOKS", 1)
    squares(300)
    close_journal()
    asked: list[int] = []
    look = JournalCache._look  # pyright: ignore[reportPrivateUsage]  # what is asked of the store

    async def counted(self: JournalCache, store: Any, computations: Sequence[Any]) -> Any:
        asked.append(len(computations))
        return await look(self, store, computations)

    monkeypatch.setattr(JournalCache, "_look", counted)
    found = squares(300)
    assert [(value, name) for value, name, _ in found] == [(number * number, "Cached") for number in range(300)]
    assert square(7, return_state=True).name == "Cached"
    in_place = has_time and "sqlite" in request.node.name
    assert sum(asked) == (0 if in_place else 301)


def test_what_is_newer_than_the_file_is_what_is_found(tmp_path: Path) -> None:
    values = iter("ab")

    @task(cache_policy=INPUTS)
    def latest(number: int) -> str:
        return next(values)

    again = latest.with_options(refresh_cache=True)

    @flow
    def main() -> list[str]:
        first = latest(1)
        flush_journal()
        found = latest(1)
        again(1)
        return [first, found, latest(1), *latest.map([1, 1]).result()]

    with temporary_settings(journal_flush_seconds=60.0):
        assert main() == ["a", "a", "b", "b", "b"]
        close_journal()


def test_a_lock_of_a_process_that_has_ended_is_taken_over() -> None:
    explained = square.explain_cache(3)
    recorder = open_recorder()
    assert recorder is not None

    async def lock(store: Any) -> None:
        async with store.database.transaction() as session:
            await session.insert("take_cache_locks", [(explained.key, "somebody", "a process that is no more")])

    recorder.journal.ask(lock).result(10)
    assert squares(4)[3][:2] == (9, "Completed")


def test_two_keys_that_were_stored_twice_in_one_flush_are_one_each(ends: Callable[..., Any]) -> None:
    again = square.with_options(refresh_cache=True)

    @flow
    def main() -> list[int]:
        return [again(2), again(2), again(2)]

    assert ends(main) == [4, 4, 4]
    close_journal()
    assert len(asyncio.run(rows_of("cache_records"))) == 1


def test_a_store_that_fails_computes_and_says_so_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = open_recorder()
    assert recorder is not None

    async def broken(*_: object) -> None:
        raise StoreUnavailable("the disk is gone")

    monkeypatch.setattr(recorder.cache, "_look", broken)
    assert {name for _, name, _ in squares(5)} == {"Completed"}
    assert square(3) == 9
    assert [record.getMessage() for record in caplog.records if "disk is gone" in record.getMessage()] == [
        "The cache cannot be used, so results are computed: the disk is gone"
    ]


def test_a_store_that_does_not_answer_is_named_when_a_call_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answers_never(*_: object) -> None:
        await asyncio.sleep(600)

    monkeypatch.setattr("upwell.journal.cache.PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(SqlCache, "record", answers_never)
    with pytest.raises(StoreUnavailable, match=r"has not answered for 0.01 seconds"):
        square.explain_cache(3)
