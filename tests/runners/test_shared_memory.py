"""Large values to child processes and back, in shared memory."""

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.runners.shared import shared_now

from upwell import Runtime, task
from upwell_runners.processes import ProcessPoolTaskRunner
from upwell_runners.processes.shared_memory import (
    MAX_IDLE_BYTES,
    MAX_LENT_SEGMENTS,
    MIN_SHARED_BYTES,
    Borrower,
    Lender,
)

BIG = 4_000_000

kept: list[Any] = []


class Pair:
    """A lender and a borrower, joined as a socket would join them."""

    def __init__(self) -> None:
        self.announced: list[int] = []
        self.freed = 0
        self.borrower = Borrower(self._freed)
        self.lender = Lender(self._announce, self.borrower.remove)

    def _announce(self, segment_id: int, size: int, descriptor: int) -> None:
        self.announced.append(segment_id)
        self.borrower.add(segment_id, size, descriptor)

    def _freed(self) -> None:
        self.freed += 1

    def close(self) -> None:
        self.lender.close()
        self.borrower.close()

    def lend(self, *buffers: bytes) -> int:
        lent = self.lender.lend([b"head"], buffers)
        assert lent is not None
        return lent[0]


def test_what_is_lent_is_what_the_other_side_sees() -> None:
    pair = Pair()
    lent = pair.lender.lend([b"he", b"ad"], [b"first", b"second"])
    assert lent is not None
    segment, spans = lent
    view = pair.borrower.view(segment)
    parts = [bytes(view[start : start + size]) for start, size in zip(spans[::2], spans[1::2], strict=True)]
    assert parts == [b"head", b"first", b"second"]
    view.release()
    pair.close()


def test_a_segment_is_given_back_when_the_last_view_of_it_has_gone_and_filled_again() -> None:
    pair = Pair()
    segment = pair.lend(b"x")
    view = pair.borrower.view(segment)
    array = np.frombuffer(view, np.uint8)
    part = array[3:]
    del view, array
    assert pair.borrower.take_freed() == []
    del part
    assert pair.freed == 1
    freed = pair.borrower.take_freed()
    assert freed == [segment]
    pair.lender.given_back(freed)
    assert pair.lend(b"y") == segment
    assert pair.announced == [segment]
    pair.close()


def test_a_segment_that_is_in_use_is_never_filled_again() -> None:
    pair = Pair()
    assert pair.lend(b"x") != pair.lend(b"y")
    pair.close()


def test_segments_that_are_lent_are_bounded() -> None:
    pair = Pair()
    for _ in range(MAX_LENT_SEGMENTS):
        pair.lend(b"x")
    assert pair.lender.lend([b"head"], [b"x"]) is None
    pair.close()


def test_idle_memory_is_bounded() -> None:
    pair = Pair()
    size = MAX_IDLE_BYTES // 4 - 4096
    segments = [pair.lender._make(size) for _ in range(6)]  # pyright: ignore[reportPrivateUsage]  # made, not touched
    pair.lender.given_back(segments)
    assert len(pair.borrower._segments) <= 4  # pyright: ignore[reportPrivateUsage]
    pair.close()


def test_views_stay_valid_after_both_sides_closed() -> None:
    pair = Pair()
    view = pair.borrower.view(pair.lend(b"x"))
    pair.close()
    assert bytes(view[:4]) == b"head"


@task
def add_one(array: Any) -> Any:
    array += 1
    return array


@task
def same(value: Any) -> Any:
    return value


@task
def die_with(array: Any) -> Any:
    os._exit(1)


@task
def make(size: int) -> Any:
    return np.ones(size, np.uint8)


def in_runtime(main: Callable[[], Any]) -> Any:
    async def around() -> Any:
        async with Runtime(task_runner=ProcessPoolTaskRunner(1)):
            return await main()

    return asyncio.run(around())


def test_an_array_arrives_writable_and_private_and_the_result_outlives_the_pool() -> None:
    array = np.zeros(BIG, np.uint8)

    async def main() -> Any:
        return await add_one.submit(array)

    result = in_runtime(main)
    gc.collect()
    assert array.sum() == 0
    assert result.sum() == BIG
    result += 1
    assert result.sum() == 2 * BIG


def test_results_that_are_kept_are_not_written_over() -> None:
    async def main() -> None:
        results = [await add_one.submit(np.full(BIG, x, np.uint8)) for x in range(6)]
        assert [int(result[0]) for result in results] == [1, 2, 3, 4, 5, 6]
        assert [int(result[-1]) for result in results] == [1, 2, 3, 4, 5, 6]

    in_runtime(main)


def test_memory_that_nothing_refers_to_is_used_again() -> None:
    """Fresh pages cost several times the copy, so one segment each way is all that a row of calls needs."""

    async def main() -> None:
        runner = ProcessPoolTaskRunner(1)
        async with Runtime(task_runner=runner):
            for _ in range(8):
                await add_one.submit(np.zeros(BIG, np.uint8))
            (worker,) = runner._workers  # pyright: ignore[reportPrivateUsage]
            assert len(worker._lender._segments) <= 2  # pyright: ignore[reportPrivateUsage]
            assert len(worker._borrower._segments) <= 3  # pyright: ignore[reportPrivateUsage]  # and the progress

    asyncio.run(main())


def test_more_large_results_than_segments_can_be_kept() -> None:
    count = MAX_LENT_SEGMENTS + 20

    async def main() -> None:
        results = [await future for future in make.map([MIN_SHARED_BYTES + 5000] * count)]
        assert all(result.flags.writeable and bool(result[0]) for result in results)
        assert len(results) == count

    in_runtime(main)


@pytest.mark.parametrize(
    "value",
    [bytes(range(256)) * 4000, bytearray(BIG), "é" * BIG, [b"x" * BIG, b"y" * BIG], {"a": np.arange(BIG // 8)}],
    ids=["bytes", "bytearray", "str", "two", "dict"],
)
def test_large_values_of_all_kinds_come_back_equal(value: Any) -> None:
    async def main() -> Any:
        return await same.submit(value)

    result = in_runtime(main)
    assert type(result) is type(value)
    if isinstance(value, dict):
        assert result["a"].tolist() == value["a"].tolist()  # pyright: ignore[reportUnknownMemberType]  # any value
    else:
        assert result == value


def test_an_array_that_is_read_only_is_so_on_the_other_side() -> None:
    array = np.zeros(BIG, np.uint8)
    array.flags.writeable = False

    async def main() -> Any:
        return await same.submit(array)

    assert not in_runtime(main).flags.writeable


def test_a_child_that_dies_with_a_large_argument_leaves_nothing() -> None:
    shared, descriptors = shared_now(), len(os.listdir("/proc/self/fd"))

    async def main() -> None:
        future = die_with.submit(np.zeros(BIG, np.uint8))
        await asyncio.gather(future, return_exceptions=True)
        assert await make.submit(3) is not None

    in_runtime(main)
    assert shared_now() <= shared
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_numpy_is_not_imported_by_children_that_see_no_array(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from upwell import flow, task\n"
        "from upwell_runners.processes import ProcessPoolTaskRunner\n"
        "@task\n"
        "def loaded(x):\n"
        "    import sys\n"
        "    return 'numpy' in sys.modules\n"
        "@flow(task_runner=ProcessPoolTaskRunner(1))\n"
        "def main(): return loaded.submit(b'x' * 1_000_000).result()\n"
        "assert main() is False and 'numpy' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
