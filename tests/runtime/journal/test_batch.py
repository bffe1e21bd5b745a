"""Batches: rows that are held by columns are the same rows to whoever writes, sends or renumbers them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.runtime.journal.conftest import MakeDatabase

from upwell.journal.batch import BLOCK, MOST, SERIES_BITS, Batch
from upwell.journal.database import Columns
from upwell.journal.processes import this_process
from upwell.journal.store import SqlStore

RUNS = BLOCK * 2 + 1


def columns_of_runs(series: int, first: int = 0, runs: int = RUNS) -> list[list[Any]]:
    numbers = list(range(first, first + runs))
    ended = [number + 3 for number in numbers]
    return [[series] * runs, numbers, [1] * runs, [2] * runs, ended, [f"x={number}" for number in numbers]]


def columns_of_results(series: int, record: bytes, first: int = 0, runs: int = RUNS) -> list[list[Any]]:
    return [[series] * runs, list(range(first, first + runs)), [record] * runs, [b"key"] * runs]


def written(make_database: MakeDatabase, *batches: Batch) -> list[tuple[Any, ...]]:
    """What is in the store after these were written, one after the other."""

    async def main() -> list[tuple[Any, ...]]:
        process = this_process(30.0)
        store = SqlStore(make_database())
        key, _ = await store.open(process)
        for number, batch in enumerate(batches, 1):
            batch.process_id, batch.number = process.id, number
            await store.write(batch.numbered_from(key))
        text = """
            SELECT t.series, t.number, t.started, t.ended, t.state, t.inputs, r.record, r.durable_key
            FROM task_runs t LEFT JOIN task_run_results r ON r.series = t.series AND r.number = t.number
            ORDER BY t.series, t.number
        """
        found = await store.database.fetch_text(text)
        await store.close(process)
        return [(series & ((1 << SERIES_BITS) - 1), *rest) for series, *rest in found]

    return asyncio.run(main())


def test_what_is_held_by_columns_is_written_as_rows_are(make_database: MakeDatabase) -> None:
    batch = Batch("", 0)
    batch.add_columns("completed_runs", columns_of_runs(1))
    batch.add_columns("results", columns_of_results(1, b"yes"))
    assert batch.blocks
    assert not batch.completed_runs
    assert batch.size() == 2 * RUNS
    by_rows = batch.by_rows()
    assert not by_rows.blocks
    assert len(by_rows.completed_runs) == len(by_rows.results) == RUNS
    found = written(make_database, batch)
    assert found == [(1, n, 2, n + 3, "COMPLETED", f"x={n}", b"yes", b"key") for n in range(RUNS)]


def test_of_two_results_of_a_run_the_later_counts_however_few_come_with_it(make_database: MakeDatabase) -> None:
    batch, later = Batch("", 0), Batch("", 0)
    batch.add_columns("completed_runs", columns_of_runs(1))
    batch.add_columns("results", columns_of_results(1, b"waits"))
    later.add_columns("results", columns_of_results(1, b"has it", first=3, runs=1))
    assert not later.blocks
    batch.add(later)
    records = {row[1]: row[6] for row in written(make_database, batch)}
    assert records == {n: b"has it" if n == 3 else b"waits" for n in range(RUNS)}


def test_a_row_that_is_refused_takes_no_other_of_its_block_with_it(make_database: MakeDatabase) -> None:
    batch = Batch("", 0)
    columns = columns_of_runs(1)
    columns[2][5] = None  # it must say when it was made
    batch.add_columns("completed_runs", columns)
    assert [row[1] for row in written(make_database, batch)] == [n for n in range(RUNS) if n != 5]


def test_keys_of_series_are_moved_in_columns_as_in_rows() -> None:
    old = 7 << SERIES_BITS
    batch = Batch("p", 7)
    batch.add_columns("completed_runs", columns_of_runs(old + 1))
    batch.add_columns("results", columns_of_results((3 << SERIES_BITS) + 1, b""))  # of an earlier process
    moved = batch.numbered_from(9)
    assert moved.blocks
    assert moved.by_rows() == batch.by_rows().numbered_from(9)
    assert {row[0] for row in moved.by_rows().completed_runs} == {(9 << SERIES_BITS) + 1}
    assert {row[0] for row in moved.by_rows().results} == {(3 << SERIES_BITS) + 1}


def test_blocks_of_one_kind_in_a_row_become_as_large_as_a_statement() -> None:
    batch = Batch("p", 0)
    for first in range(0, 3 * MOST // 2, MOST // 2):
        part = Batch("p", 0)
        part.add_columns("completed_runs", columns_of_runs(1, first, MOST // 2))
        batch.add(part)
    assert [len(block.rows()) for block in batch.blocks] == [MOST, MOST // 2]
    assert [row[1] for row in batch.by_rows().completed_runs] == list(range(3 * MOST // 2))


def test_runs_and_results_that_come_in_turns_fill_blocks_and_what_fills_none_is_for_the_next_batch(
    make_database: MakeDatabase,
) -> None:
    batch, runs = Batch("", 0), MOST + BLOCK
    for first in range(0, runs, BLOCK):
        batch.add_columns("results", columns_of_results(1, b"yes", first, BLOCK))
        batch.add_columns("completed_runs", columns_of_runs(1, first, BLOCK))
    rest = batch.cut()
    assert [(block.kind, len(block.rows())) for block in batch.blocks] == [("results", MOST), ("completed_runs", MOST)]
    assert [(block.kind, len(block.rows())) for block in rest.blocks] == [("results", BLOCK), ("completed_runs", BLOCK)]
    found = written(make_database, batch, rest)
    assert found == [(1, n, 2, n + 3, "COMPLETED", f"x={n}", b"yes", b"key") for n in range(runs)]


def test_a_column_of_rows_of_two_kinds_stays_as_it_is_as_more_rows_come(make_database: MakeDatabase) -> None:
    batch = Batch("", 0)
    for first in (0, RUNS, 2 * RUNS):
        runs, results = columns_of_runs(1, first), columns_of_results(1, b"yes")
        batch.add_columns("completed_runs", runs)
        batch.add_columns("results", [runs[0], runs[1], *results[2:]])
    found = written(make_database, batch)
    assert found == [(1, n, 2, n + 3, "COMPLETED", f"x={n}", b"yes", b"key") for n in range(3 * RUNS)]


def test_columns_of_different_lengths_are_no_rows() -> None:
    with pytest.raises(ValueError, match="shorter"):
        list(Columns([[1, 2], [1]]))


def test_no_row_gets_ahead_of_another_that_may_be_of_the_same_run() -> None:
    batch = Batch("", 0)
    found: list[list[Any]] = [[1] * BLOCK, list(range(BLOCK)), [1] * BLOCK, [2] * BLOCK, [None] * BLOCK, [None] * BLOCK]
    batch.add_columns("completed_runs", columns_of_runs(1))
    batch.add_columns("found_runs", found)
    batch.add_columns("completed_runs", columns_of_runs(1, RUNS))
    assert [block.kind for block in batch.blocks] == ["completed_runs", "found_runs", "completed_runs"]
    assert [block.kind for block in batch.cut().blocks] == ["found_runs", "completed_runs"]
    assert [block.kind for block in batch.blocks] == ["completed_runs"]
