"""Reading the history of 1,000,000 task runs: pages of 50 with every kind of filter, a run's tree, counts over time.

The store is filled with made-up runs as many flows would leave it: 30 days, thousands of flow runs that overlap, some
with one task run and one with 100,000; all states; tags of tasks and of single runs; subflows; long names; a flow that
was given up after a day. What a page costs is the worst of all filters at the beginning, the middle and the end.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from benchmarks.rows import Measured, Row, Run, Setting, Side, Unit
from upwell.core.ids import uuid7
from upwell.history import History
from upwell.journal.database import Database, Session
from upwell.journal.migrations import migrate
from upwell.journal.sql import bulk_inserts
from upwell.journal.sqlite import SqliteDatabase
from upwell.settings import temporary_settings

DAY: Final = 86_400_000_000
END: Final = 1_790_000_000_000_000
"""When the last of the runs was created, in microseconds."""
START: Final = END - 30 * DAY

TASKS: Final = ("fetch", "parse", "store", "notify", "resize_image")
FLOWS: Final = tuple(f"flow-{number}" for number in range(20))
TREE_RUNS: Final = 10_000

_STATES: Final = (
    ("COMPLETED", None, 900), ("FAILED", None, 60), ("FAILED", "TimedOut", 10), ("CANCELLED", None, 10),
    ("CRASHED", None, 5), ("PENDING", "NotReady", 10), ("COMPLETED", "Cached", 5),
)  # fmt: skip  # a line a kind would be long
_KINDS: Final = [kind[:2] for kind in _STATES]
_WEIGHTS: Final = [kind[2] for kind in _STATES]


class Store:
    """Makes runs up, and writes them."""

    def __init__(self, database: Database, runs: int) -> None:
        self._database = database
        self._wanted = runs
        self._random = random.Random(1)
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._series = 1 << 28
        self.runs = 0
        self.tree = ""
        self.large = ""
        self.parent = ""

    async def fill(self) -> None:
        """Make and write all."""
        await self._database.open()
        await migrate(self._database)
        scale = self._wanted / 1_000_000
        self.tree = self.flow_run("flow-0", END - DAY)
        self.add_series(self.tree, "fetch", END - DAY, TREE_RUNS // 2)
        for number in range(10):
            below = self.flow_run("flow-1", END - DAY + number, parent=self.tree)
            self.add_series(below, "parse", END - DAY + number, TREE_RUNS // 20)
        self.large = self.flow_run("large", END - 10 * DAY)
        self.add_series(self.large, "crunch", END - 10 * DAY, int(100_000 * scale))
        for _ in range(3):
            self.add_series(self.flow_run("rare", START + self._random.randrange(30 * DAY)), "rarely", END - 5 * DAY, 1)
        for number in range(int(3_000 * scale)):
            at = START + DAY * number // 3_000
            self.add_series(self.flow_run("given-up", at), "fetch", at, 5)
        while self.runs < self._wanted:
            at = START + self._random.randrange(30 * DAY)
            run = self.flow_run(self._random.choice(FLOWS), at, tags=self._random.choice((None, None, ["nightly"])))
            for task in self._random.sample(TASKS, 3):
                self.add_series(run, task, at, self._random.choice((1, 10, 50, 300)))
            if len(self._rows["put_task_runs"]) > 50_000:
                await self._write()
        await self._write()

    async def _write(self) -> None:
        rows, self._rows = self._rows, {}
        async with self._database.transaction() as session:
            for query, made in rows.items():
                await _insert(session, self._database, query, made)

    def _add(self, query: str, **values: Any) -> None:
        self._rows.setdefault(query, []).append(values)

    def flow_run(self, flow: str, at: int, parent: str | None = None, tags: list[str] | None = None) -> str:
        run_id = self._id(at)
        state, name = self._random.choices(_KINDS, _WEIGHTS)[0]
        self._add(
            "put_flow_runs", id=run_id, flow=flow, name=f"quick-{self._random.randrange(1000)}", state=state,
            state_name=name, created=at, started=at + 10, ended=at + 5_000_000, run_count=1, tags=_tags(tags),
            parent_flow_run_id=parent, root_flow_run_id=parent or run_id, durable=0,
        )  # fmt: skip  # one line a few columns
        self._add("put_flow_run_states", flow_run_id=run_id, at=at + 5_000_000, state=state, name=name)
        return run_id

    def add_series(self, flow_run_id: str, task: str, at: int, runs: int) -> None:
        """Runs of one task in one flow run: a map, or one after the other."""
        some = self._random
        self._series += 1
        base = some.getrandbits(73)
        tags = some.choice((None, None, ["api"], ["api", "slow"], ["etl"]))
        self._add(
            "put_series", key=self._series, base=f"{base:019x}", task=task, flow_run_id=flow_run_id, created=at,
            tags=_tags(tags), submitted=runs, process_id="made-up",
        )  # fmt: skip  # likewise
        is_map, parent = some.random() < 0.5 or runs > 1_000, None
        if some.random() < 0.02:
            parent = self._id(at)
            self.parent = self.parent if runs < 50 and self.parent else parent
        for number in range(runs):
            created = at if is_map else at + number * 1_000_000
            state, name = some.choices(_KINDS, _WEIGHTS)[0]
            self._add(
                "put_task_runs", series=self._series, number=number, created=created, started=created + 100 + number,
                ended=created + 300 + number, state=state, state_name=name, run_count=1,
                message="It did not work out." if state == "FAILED" else None,
                name=f"the-{'very-' * 30}long-name-of-{number}" if some.random() < 0.002 else None,
                parent=parent, tags=_tags(["by-hand"]) if some.random() < 0.005 else None, inputs=f"n={number}",
            )  # fmt: skip  # likewise
        self.runs += runs

    def _id(self, at: int) -> str:
        return str(uuid7(at / 1e6, self._random.getrandbits(74)))


def _tags(tags: list[str] | None) -> str | None:
    return json.dumps(tags, separators=(",", ":")) if tags else None


async def _insert(session: Session, database: Database, query: str, rows: list[dict[str, Any]]) -> None:
    columns = [name for name in bulk_inserts(database.dialect)[query].row if name.isidentifier()]
    await session.insert(query, [tuple(map(row.get, columns)) for row in rows])


# --- what is asked ------------------------------------------------------------------------------------------

Asked = dict[str, Any]


def filters(store: Store) -> dict[str, Asked]:
    """Every filter, and what is likely to go wrong when they meet."""
    middle = dt.datetime.fromtimestamp((START + END) / 2e6, dt.UTC)
    first_day = dt.datetime.fromtimestamp(START / 1e6 + 86_400, dt.UTC)
    return {
        "none": {},
        "state": {"state": "FAILED"},
        "most frequent state": {"state": "COMPLETED"},
        "rare state": {"state": "CRASHED"},
        "no such state": {"state": "PAUSED"},
        "name of a state": {"state": "TimedOut"},
        "rare name of a state": {"state": "Cached"},
        "tag": {"tags": ["api"]},
        "two tags": {"tags": ["api", "slow"]},
        "tag of runs": {"tags": ["by-hand"]},
        "no such tag": {"tags": ["nowhere"]},
        "task": {"task": "fetch"},
        "rare task": {"task": "rarely"},
        "one large map": {"task": "crunch"},
        "no such task": {"task": "nowhere"},
        "flow": {"flow": "flow-7"},
        "rare flow": {"flow": "rare"},
        "flow of the past": {"flow": "given-up"},
        "text": {"text": "image"},
        "text of everything": {"text": "e"},
        "text of names": {"text": "long-name"},
        "text of one run": {"text": "fetch-17"},
        "no such text": {"text": "nowhere"},
        "parent": {"parent": store.parent},
        "no such parent": {"parent": "01a2002d-6a01-7143-816b-ca90af17019f"},
        "flow run": {"flow_run_id": store.tree},
        "large flow run": {"flow_run_id": store.large},
        "flow run and state": {"flow_run_id": store.large, "state": "FAILED"},
        "time": {"until": middle, "since": middle - dt.timedelta(hours=5)},
        "flow and task": {"flow": "flow-7", "task": "fetch"},
        "flow and no such task": {"flow": "flow-7", "task": "crunch"},
        "state and task": {"state": "FAILED", "task": "parse"},
        "state and flow": {"state": "CANCELLED", "flow": "flow-3"},
        "state and flow of the past": {"state": "FAILED", "flow": "given-up"},
        "name and rare task": {"state": "TimedOut", "task": "rarely"},
        "state and tag": {"state": "CRASHED", "tags": ["etl"]},
        "tag and text": {"tags": ["etl"], "text": "image"},
        "tag and no such text": {"tags": ["etl"], "text": "nowhere"},
        "tag and time": {"tags": ["etl"], "until": middle},
        "all": {
            "state": "FAILED",
            "tags": ["api"],
            "task": "fetch",
            "flow": "flow-5",
            "until": middle,
            "text": "fetch",
        },
        "all, in the first day": {"state": "FAILED", "tags": ["api"], "flow": "flow-5", "until": first_day},
    }


def flow_run_filters() -> dict[str, Asked]:
    """The same for flow runs."""
    return {
        "none": {},
        "flow": {"flow": "flow-7"},
        "state": {"state": "CRASHED"},
        "tag": {"tags": ["nightly"]},
        "text": {"text": "quick-77"},
        "no such text": {"text": "nowhere"},
        "state and flow": {"state": "FAILED", "flow": "given-up"},
        "tag and state": {"state": "CANCELLED", "tags": ["nightly"]},
    }


Question = Callable[[History], Awaitable[object]]

MOST_PAGES: Final = 100
"""Of 1,000 runs each: so far is gone into a filter that keeps very many runs, to find the middle."""


async def pages(history: History, store: Store) -> dict[str, Question]:
    """The first page of 50 of each filter, one in the middle, and the last but one."""
    found: dict[str, Question] = {}
    kinds: tuple[tuple[str, dict[str, Asked]], ...] = (
        ("task_runs", filters(store)),
        ("flow_runs", flow_run_filters()),
    )
    for kind, asked_of in kinds:
        for name, asked in asked_of.items():
            ask: Any = getattr(history, kind)
            found[f"{kind}, {name}, first"] = _question(kind, asked)
            page = await ask(**asked, limit=1_000)
            cursors = [page.next]
            while page.next is not None and len(cursors) < MOST_PAGES:
                page = await ask(**asked, limit=1_000, after=page.next)
                cursors.append(page.next)
            found[f"{kind}, {name}, middle"] = _question(kind, asked, after=cursors[(len(cursors) - 1) // 2])
            oldest = await ask(**asked, limit=50, order="oldest")
            found[f"{kind}, {name}, last"] = _question(kind, asked, order="oldest", after=oldest.next)
    return found


def _question(kind: str, asked: Asked, **options: Any) -> Question:
    return lambda history: getattr(history, kind)(**asked, limit=50, **options)


async def best_of_three(question: Callable[[], Awaitable[object]]) -> float:
    """Seconds, with the pages of the file that it needs in memory."""
    times: list[float] = []
    for _ in range(3):
        start = time.perf_counter()
        await question()
        times.append(time.perf_counter() - start)
    return min(times)


# --- rows ---------------------------------------------------------------------------------------------------


@cache
def filled(runs: int) -> tuple[Store, tempfile.TemporaryDirectory[str]]:
    """A store of so many task runs, for all rows; gone at the end of the process."""
    folder = tempfile.TemporaryDirectory(prefix="upwell-history-")

    async def fill() -> Store:
        database = SqliteDatabase(Path(folder.name) / "upwell.db")
        store = Store(database, runs)
        await store.fill()
        await database.close()
        return store

    return asyncio.run(fill()), folder


def of_pages(chosen: Callable[[list[float]], float]) -> Callable[[Setting], Any]:
    """What is chosen of the times of all pages."""

    @contextmanager
    def opened(setting: Setting) -> Generator[Run]:
        store, folder = filled(setting.size)

        async def measure() -> Measured:
            async with History() as history:
                asked = await pages(history, store)
                times = [await best_of_three(partial(question, history)) for question in asked.values()]
            return Measured(chosen(times))

        with temporary_settings(home=folder.name, journal="off"):
            yield lambda: asyncio.run(measure())

    return opened


def of_one(question: Callable[[History, Store], Awaitable[object]]) -> Callable[[Setting], Any]:
    """The time of one question."""

    @contextmanager
    def opened(setting: Setting) -> Generator[Run]:
        store, folder = filled(setting.size)

        async def measure() -> Measured:
            async with History() as history:
                return Measured(await best_of_three(lambda: question(history, store)))

        with temporary_settings(home=folder.name, journal="off"):
            yield lambda: asyncio.run(measure())

    return opened


def _last_day(history: History, _: Store) -> Awaitable[object]:
    until = dt.datetime.fromtimestamp(END / 1e6, dt.UTC)
    return history.counts(by="hour", since=until - dt.timedelta(days=1), until=until)


_SIZES: Final[Any] = {"size": 1_000_000, "quick_size": 50_000, "unit": Unit.MILLISECONDS, "peak": False}
_LEFT_OUT: Final = "opening the store (a millisecond or two); reading the file from the disk"

ROWS: Final = [
    Row(
        name="history-page-slowest",
        measures="the slowest page of 50 task or flow runs: each filter and many pairs; first, middle and last page",
        leaves_out=_LEFT_OUT,
        ours=Side("upwell", of_pages(max)),
        most=10.0,
        rounds=3,
        warm_up=False,
        **_SIZES,
    ),
    Row(
        name="history-page-median",
        measures="the same, the page in the middle",
        leaves_out=_LEFT_OUT,
        ours=Side("upwell", of_pages(statistics.median)),
        rounds=3,
        warm_up=False,
        **_SIZES,
    ),
    Row(
        name="history-tree",
        measures="a flow run of 10,000 task runs, half of them in 10 subflows, as a tree with 20 runs of each task",
        leaves_out=_LEFT_OUT,
        ours=Side("upwell", of_one(lambda history, store: history.tree(store.tree))),
        most=50.0,
        **_SIZES,
    ),
    Row(
        name="history-counts",
        measures="task runs of a day by state and hour",
        leaves_out=_LEFT_OUT,
        ours=Side("upwell", of_one(_last_day)),
        most=50.0,
        **_SIZES,
    ),
]
