"""A server under load for minutes: its answers' times, and whether its memory, files and threads stay as they were.

    python -m benchmarks.server_load --minutes 10 --rate 200 --runs 1000000

Over a store of so many task runs; meanwhile another process runs flows, and listeners of live changes come and go.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import msgspec

from benchmarks.history import END, Store
from benchmarks.stolen import Stolen
from upwell import servers
from upwell.history import History
from upwell.journal.sqlite import SqliteDatabase
from upwell.settings import temporary_settings

CONNECTIONS: Final = 100
LISTENERS: Final = 10
SAMPLE_SECONDS: Final = 10.0
MOST_LOG: Final = 10_000
"""Characters of the server's log that are printed: its end."""

_FLOWS: Final = """
import asyncio
from upwell import flow, get_run_logger, task

@task
async def step(number):
    await asyncio.sleep(0.01)
    get_run_logger().info("step %s", number)
    return number

@flow
async def live():
    await step.map(range(20), max_at_once=5)

async def main():
    while True:
        await live()
        await asyncio.sleep(0.5)

asyncio.run(main())
"""

Times = defaultdict[str, list[float]]


class Filled(msgspec.Struct):
    """A store of made-up runs. tree: one flow run that has started others."""

    wanted: int
    runs: int
    tree: str


async def load(server: servers.ServerInfo, store: Filled, options: argparse.Namespace) -> None:
    """Ask and listen for so long; print what was measured, and what has become of the server."""
    asked = await addresses(store)
    times: Times = defaultdict(list)
    all_times: Times = defaultdict(list)
    slowest: dict[str, float] = defaultdict(float)
    answers: Counter[str] = Counter()
    used = -cpu_seconds(server.pid)
    print(f"{'minute':>6} {'MiB':>7} {'files':>5} {'threads':>7} {'CPU %':>6} {'stolen':>9}  p50 and p99 in ms")
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(ask_at_a_rate(server, asked, options, times, answers, slowest))]
        running += [group.create_task(listen(server)) for _ in range(LISTENERS)]
        sizes = await watch(server.pid, options.minutes, times, all_times)
        for task in running:
            task.cancel()
    later = sizes[len(sizes) // 3 :]
    used += cpu_seconds(server.pid)
    print(f"answers: {dict(answers)}, for each {1000 * used / max(sum(map(len, all_times.values())), 1):.2f} ms of CPU")
    for kind, seconds in sorted(all_times.items()):
        print(f"  {kind}: p50 and p99 {quantiles(seconds)} ms of {len(seconds):,}")
    for address in sorted(slowest, key=slowest.__getitem__)[-8:]:
        print(f"  {1000 * slowest[address]:7.1f} ms at worst  {address}")
    if len(later) > 1:
        slope = statistics.linear_regression(*zip(*later, strict=True)).slope
        print(f"memory in the last two thirds: {slope:+.3f} MiB a minute, {later[0][1]:.1f} to {later[-1][1]:.1f} MiB")


async def addresses(store: Filled) -> dict[str, list[str]]:
    """What is asked for: every kind of reading, of small and of large flow runs."""
    made_up = dt.datetime.fromtimestamp(END / 1e6, dt.UTC)  # what runs meanwhile is newer
    async with History() as history:
        some = [str(run.id) for run in (await history.flow_runs(limit=100, until=made_up)).items]
        live = [str(run.id) for run in (await history.flow_runs(limit=5)).items]
        tasks = [str(run.id) for run in (await history.task_runs(limit=50)).items]
    runs = [*some, *live, store.tree]
    api = ["/api/health", "/api/version", "/api/flows", "/api/counts", "/api/deployments", "/api/concurrency-limits"]
    api += ["/api/work-pools", "/api/workers", "/api/flow-runs?limit=50", "/api/task-runs?limit=50", "/metrics"]
    api += [f"/api/flow-runs?{urlencode(query)}" for query in ({"state": "FAILED"}, {"flow": "flow-7"}, {"limit": 5})]
    api += [f"/api/task-runs?{urlencode(query)}" for query in ({"state": "FAILED"}, {"task": "fetch"}, {"limit": 5})]
    for run in runs:
        api += [f"/api/flow-runs/{run}{part}" for part in ("", "/tree", "/logs", "/timeline", "/edges")]
    api += [f"/api/task-runs/{run}{part}" for run in tasks for part in ("", "/logs")]
    pages = ["/", "/runs", "/task-runs", "/flows", "/deployments", "/work-pools", "/limits", "/settings"]
    pages += [f"/runs/{run}?view={view}" for run in some[:20] for view in ("timeline", "graph", "tasks", "logs")]
    return {"api": api, "page": pages}


async def ask_at_a_rate(
    server: servers.ServerInfo,
    asked: dict[str, list[str]],
    options: argparse.Namespace,
    times: Times,
    answers: Counter[str],
    slowest: dict[str, float],
) -> None:
    """So many requests a second, whether or not those before have been answered; a time counts from when it was due."""
    idle: list[Connection] = []
    left = CONNECTIONS

    async def ask(kind: str, due: float) -> None:
        nonlocal left
        address, connection = random.choice(asked[kind]), idle.pop() if idle else await Connection.open(server)
        try:
            status = await connection.get(address)
        except (asyncio.IncompleteReadError, ConnectionError):  # nobody has used it for long: the server has closed it
            connection = await Connection.open(server)
            status = await connection.get(address)
        answers[str(status)] += 1
        times[kind].append(time.perf_counter() - due)
        slowest[address] = max(slowest[address], time.perf_counter() - due)
        idle.append(connection)
        left += 1

    due = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            while True:
                due += 1 / options.rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                if left == 0:
                    answers["not asked, for all connections were busy"] += 1
                    continue
                left -= 1
                group.create_task(ask("page" if random.random() < options.pages else "api", due))
    finally:
        for connection in idle:
            connection.close()


class Connection:
    """A connection that is kept; the cheapest client there is, for it shares the machine with the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader = reader
        self._writer = writer
        self._host = host

    @classmethod
    async def open(cls, server: servers.ServerInfo) -> Connection:
        reader, writer = await asyncio.open_connection(server.host, server.port, limit=1 << 24)
        return cls(reader, writer, f"{server.host}:{server.port}")

    def close(self) -> None:
        self._writer.close()

    async def get(self, address: str) -> int:
        """The status of the answer, all of which is read."""
        await self.ask(address, "text/html" if not address.startswith("/api") else "application/json")
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await self._reader.readexactly(int(length.partition(b":")[2]))
        return int(head.split(b" ", 2)[1])

    async def ask(self, address: str, accept: str) -> None:
        self._writer.write(f"GET {address} HTTP/1.1\r\nHost: {self._host}\r\nAccept: {accept}\r\n\r\n".encode())
        await self._writer.drain()

    async def events(self, seconds: float) -> None:
        """Read what is sent for so long."""
        await self.ask("/api/stream?logs=true", "text/event-stream")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while await self._reader.read(1 << 16):
                    pass


async def listen(server: servers.ServerInfo) -> None:
    """Listen to live changes again and again, for seconds each, and go without a word."""
    while True:
        connection = await Connection.open(server)
        try:
            await connection.events(random.uniform(0.5, 20))
        finally:
            connection.close()


async def watch(pid: int, minutes: float, times: Times, all_times: Times) -> list[tuple[float, float]]:
    """Look at the process every few seconds, and print it: minutes and MiB."""
    began, found = time.monotonic(), list[tuple[float, float]]()
    before, then, stolen = cpu_seconds(pid), began, Stolen()
    while (now := time.monotonic()) - began < minutes * 60:
        await asyncio.sleep(min(SAMPLE_SECONDS, began + minutes * 60 - now))
        now, used = time.monotonic(), cpu_seconds(pid)
        minute, mebibytes = (now - began) / 60, resident(pid)
        found.append((minute, mebibytes))
        told = "  ".join(f"{kind} {quantiles(values)}" for kind, values in sorted(times.items()))
        print(
            f"{minute:6.1f} {mebibytes:7.1f} {len(os.listdir(f'/proc/{pid}/fd')):5} "
            f"{len(os.listdir(f'/proc/{pid}/task')):7} {100 * (used - before) / (now - then):6.1f} "
            f"{stolen.share():9.0%}  {told}",
            flush=True,
        )
        before, then, stolen = used, now, Stolen()
        for kind, seconds in times.items():
            all_times[kind] += seconds
        times.clear()
    return found


def quantiles(seconds: list[float]) -> str:
    """The median, and what one in a hundred is above, in milliseconds."""
    ordered = sorted(seconds)
    return f"{1000 * ordered[len(ordered) // 2]:.1f} {1000 * ordered[len(ordered) * 99 // 100]:.1f}"


def resident(pid: int) -> float:
    """MiB in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def cpu_seconds(pid: int) -> float:
    """What it has had of the processors."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def filled(folder: Path, runs: int) -> Filled:
    """A store of so many task runs, as it is found there or else is made."""
    told = folder / "filled.json"
    if told.exists():
        found = msgspec.json.decode(told.read_bytes(), type=Filled)
        if found.wanted != runs:
            raise SystemExit(f"{folder} has a store of {found.wanted:,} task runs: name another folder.")
        return found
    database = SqliteDatabase(folder / "upwell.db")
    store = Store(database, runs)
    await store.fill()
    await database.close()
    made = Filled(wanted=runs, runs=store.runs, tree=store.tree)
    told.write_bytes(msgspec.json.encode(made))
    return made


@contextmanager
def flows_that_run(folder: Path) -> Generator[None]:
    """A process that runs flows, and writes what they do."""
    environment = {**os.environ, "UPWELL_HOME": str(folder), "UPWELL_JOURNAL": "on", "UPWELL_LOGGING_LEVEL": "INFO"}
    process = subprocess.Popen([sys.executable, "-c", _FLOWS], env=environment, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def folder_of(home: Path | None) -> Generator[str]:
    """This folder, which stays; or one that is gone at the end."""
    if home is None:
        with tempfile.TemporaryDirectory(prefix="upwell-load-") as folder:
            yield folder
    else:
        home.mkdir(parents=True, exist_ok=True)
        yield str(home)


async def main(options: argparse.Namespace) -> None:
    os.environ["UPWELL_RETENTION_DAYS"] = "0"  # the runs of the store are old, and shall stay
    with folder_of(options.home) as folder, temporary_settings(home=folder, journal="off"):
        store = await filled(Path(folder), options.runs)
        with flows_that_run(Path(folder)):
            server = await asyncio.to_thread(servers.start_in_background, port=0)
            print(
                f"{store.runs:,} task runs; {options.rate:g} requests a second, {options.pages:.0%} of them for pages"
            )
            try:
                await load(server, store, options)
            finally:
                await asyncio.to_thread(servers.stop_server)
                said = (Path(folder) / "server.log").read_text()
                print(f"the server's log:\n{said[-MOST_LOG:]}" if said.strip() else "the server's log is empty")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server_load", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument(
        "--pages", type=float, default=0.1, help="how many of them are for pages, not for the API: 0 to 1"
    )
    parser.add_argument("--runs", type=int, default=1_000_000, help="task runs in the store")
    parser.add_argument("--home", type=Path, help="where the store is kept, with the server's log, and found again")
    asyncio.run(main(parser.parse_args()))
