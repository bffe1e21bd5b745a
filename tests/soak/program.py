"""What is soaked: a process that goes on for long, and begins runs of all kinds at a steady rate.

    python -m tests.soak.program SECONDS SEED

It looks at itself several times a second, and prints what it saw, a line of JSON each.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from upwell import cache_policies, flow, get_run_logger, task
from upwell.composition import flush_journal, home
from upwell.concurrency import set_limit
from upwell.concurrency.asyncio import concurrency
from upwell.journal import retention, sql_control, sqlite

LOADED_LATE: Final = (retention, sql_control)
"""By the journal, when it is time for them: with all that they need they are thousands of blocks, once."""

RUNS_A_SECOND: Final = 50
LOOKS: Final = 30
"""How often it looks at itself, in all."""


class Seen(msgspec.Struct, frozen=True):
    """What is there. blocks: of memory, small ones. resident: MiB. lag: of the loop, the longest since then.

    stored: MiB in the journal's folder.
    """

    at: float
    runs: int
    blocks: int
    resident: float
    files: int
    threads: int
    tasks: int
    lag: float
    stored: float


for name, size in (("CACHE_KIB", 256), ("WAL_BYTES", 1 << 20)):
    assert hasattr(sqlite, name)
    setattr(sqlite, name, size)  # what is kept for speed is soon full, and no more is seen to grow than what should not


@task
async def rest(seconds: float = 0.01) -> float:
    await asyncio.sleep(seconds)
    return seconds


@task
def plain(number: int) -> int:
    return number


@task(retries=2, retry_delay_seconds=0.02)
async def flaky() -> None:
    get_run_logger().info("It may fail")
    if random.random() < 0.5:
        raise ValueError("for once")


@task(timeout_seconds=0.02)
async def slow() -> None:
    await asyncio.sleep(10)


@task(cache_policy=cache_policies.INPUTS, persist_result=True)
async def cached(number: int) -> bytes:
    return bytes(number)


@task(tags=["few"])
async def tagged() -> None:
    async with concurrency("soak"):
        await asyncio.sleep(0.005)


@task
async def squares(number: int) -> AsyncIterator[int]:
    for one in range(number):
        yield one * one


@task(task_runner="processes")
def elsewhere(number: int) -> int:
    return number


@flow(log_prints=True)
async def maps() -> None:
    print("A line")
    await rest.map([0.001] * 5)
    await plain.map(plain.map(range(5)))


@flow
def blocks() -> int:
    return plain(plain.submit(1).result())


@flow
async def streams() -> None:
    async for _ in plain.stream(iter(range(5)), max_at_once=2):
        pass


@flow(durable=True)
async def durable() -> bytes:
    return await cached(random.randrange(3_000))


@flow
async def chains() -> None:
    await maps()
    await tagged.submit()


async def cancelled() -> None:
    running = asyncio.ensure_future(chains())
    await asyncio.sleep(0.01)
    running.cancel()
    await running


async def nobody_looks() -> None:
    rest.submit(0.02)


KINDS: Final[tuple[Callable[[], Awaitable[object]], ...]] = (
    rest, flaky, slow, tagged, maps, streams, durable, chains, cancelled, nobody_looks,
    lambda: cached(random.randrange(20)), lambda: squares.submit(3), lambda: elsewhere.submit(1),
    lambda: asyncio.to_thread(blocks), lambda: plain.submit(1),
)  # fmt: skip  # many of them


async def begin(kind: Callable[[], Awaitable[object]]) -> None:
    try:
        await kind()
    except (Exception, asyncio.CancelledError):
        pass  # it is told by the run's state


class Looking:
    """Looks at this process; how late the loop is, all the time."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._lag = 0.0
        self.runs = 0

    async def watch_the_loop(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.02)
            self._lag = max(self._lag, time.monotonic() - before - 0.02)

    def seen(self) -> Seen:
        flush_journal()
        gc.collect()
        lag, self._lag = self._lag, 0.0
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return Seen(
            at=round(time.monotonic() - self._began, 1),
            runs=self.runs,
            blocks=sys.getallocatedblocks(),
            resident=round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1),
            files=len(os.listdir("/proc/self/fd")),
            threads=threading.active_count(),
            tasks=len(asyncio.all_tasks()),
            lag=round(lag, 3),
            stored=round(sum(file.stat().st_size for file in files_below(home())) / 2**20, 1),
        )


def files_below(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.is_file())


async def main(seconds: float) -> None:
    """Begin runs at that rate; a look is taken when all that began before it has ended."""
    set_limit("soak", 3)
    set_limit("few", 2)
    looking = Looking()
    watching = asyncio.create_task(looking.watch_the_loop())
    for _ in range(LOOKS):
        pending: set[asyncio.Task[Any]] = set()
        for _ in range(max(1, round(seconds / LOOKS * RUNS_A_SECOND))):
            pending.add(asyncio.create_task(begin(KINDS[looking.runs % len(KINDS)])))
            looking.runs += 1
            await asyncio.sleep(1 / RUNS_A_SECOND)
        await asyncio.wait(pending)
        await asyncio.sleep(0.1)
        print(msgspec.json.encode(looking.seen()).decode(), flush=True)
    watching.cancel()


if __name__ == "__main__":
    random.seed(int(sys.argv[2]))
    asyncio.run(main(float(sys.argv[1])))
