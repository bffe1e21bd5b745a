"""Pages of runs: whatever is filtered for, and in either order, they are what a plain look at all runs gives."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from upwell.core.errors import UnknownRunError
from upwell.core.ids import uuid7
from upwell.core.model import Page
from upwell.journal import reader_task_runs
from upwell.journal.database import Database
from upwell.journal.migrations import migrate
from upwell.journal.reader import FlowRunFilter, Reader
from upwell.journal.reader_pages import cursor
from upwell.journal.reader_records import random_part, task_run_id
from upwell.journal.reader_task_runs import TaskRunFilter
from upwell.journal.sql import bulk_inserts

START = 1_790_000_000_000_000
STATES = [("COMPLETED", None), ("COMPLETED", "Cached"), ("FAILED", None), ("FAILED", "TimedOut"), ("RUNNING", None)]
TAGS = [None, '["a"]', '["a","b"]', '["c"]']


class Made:
    """A few hundred runs, made up at random, and what is known of them."""

    def __init__(self) -> None:
        self.random = some = random.Random(3)
        self.rows: dict[str, list[dict[str, Any]]] = {"put_flow_runs": [], "put_series": [], "put_task_runs": []}
        self.flow_run_ids: list[str] = []
        self.parents = [self._id(START + n) for n in range(3)]
        for n in range(20):
            self._flow_run(n)
        for key in range(1, 61):
            self._series(key, some.choice([*self.flow_run_ids, None]))

    def _id(self, at: int) -> str:
        return str(uuid7(at / 1e6, self.random.getrandbits(74)))

    def _flow_run(self, n: int) -> None:
        at = START + n // 2 * 1_000_000  # two at a time
        run_id = self._id(at)
        state, name = self.random.choice(STATES)
        self.flow_run_ids.append(run_id)
        parent = self.random.choice([*self.flow_run_ids[:2], None]) if n > 2 else None
        self.rows["put_flow_runs"].append(
            {
                "id": run_id,
                "flow": f"flow-{n % 3}",
                "name": f"Calm-{n}%",
                "state": state,
                "state_name": name,
                "created": at,
                "started": at + 1,
                "ended": None if state == "RUNNING" else at + 9,
                "run_count": 1,
                "tags": self.random.choice(TAGS),
                "parent_flow_run_id": parent,
                "root_flow_run_id": run_id,
                "durable": 0,
            }
        )

    def _series(self, key: int, flow_run_id: str | None) -> None:
        some = self.random
        at = START + some.randrange(10) * 1_000_000
        runs = some.choice([1, 2, 7, 15])
        self.rows["put_series"].append(
            {
                "key": key,
                "base": f"{some.getrandbits(73):019x}",
                "task": some.choice(["fetch", "parse", "Re_parse"]),
                "flow_run_id": flow_run_id,
                "created": at,
                "tags": some.choice(TAGS),
                "submitted": runs,
                "process_id": "p",
            }
        )
        for number in range(runs):
            at += some.choice([0, 0, 0, 500_000, -300_000])  # several of one call; and a clock that is set back
            state, name = some.choice(STATES)
            self.rows["put_task_runs"].append(
                {
                    "series": key,
                    "number": number,
                    "created": at,
                    "started": at + 1,
                    "ended": None if state == "RUNNING" else at + 5,
                    "state": state,
                    "state_name": name,
                    "run_count": 1,
                    "name": some.choice([None, None, f"Own-100%-{number}"]),
                    "parent": some.choice([None, None, *self.parents]),
                    "tags": some.choice([None, None, *TAGS]),
                    "inputs": f"n={number}",
                }
            )

    async def write(self, database: Database) -> None:
        await migrate(database)
        async with database.transaction() as session:
            for query, rows in self.rows.items():
                columns = [name for name in bulk_inserts(database.dialect)[query].row if name.isidentifier()]
                await session.insert(query, [tuple(map(row.get, columns)) for row in rows])

    def task_runs(self, keep: Callable[[dict[str, Any]], bool]) -> list[str]:
        """The ids of those that are kept, newest first."""
        flows = {row["id"]: row for row in self.rows["put_flow_runs"]}
        series = {row["key"]: row for row in self.rows["put_series"]}
        found: list[tuple[Any, str]] = []
        for row in self.rows["put_task_runs"]:
            of = series[row["series"]]
            seen = {**row, "task": of["task"], "flow_run_id": of["flow_run_id"]}
            seen["flow"] = flows[of["flow_run_id"]]["flow"] if of["flow_run_id"] else None
            seen["tags"] = set(json.loads(row["tags"] or of["tags"] or "[]"))
            seen["shown"] = row["name"] or f"{of['task']}-{row['number']}"
            if keep(seen):
                run_id = str(task_run_id(of["base"], row["created"], row["number"]))
                found.append(((row["created"], row["series"], row["number"]), run_id))
        return [run_id for _, run_id in sorted(found, reverse=True)]

    def flow_runs(self, keep: Callable[[dict[str, Any]], bool]) -> list[str]:
        rows = [
            row for row in self.rows["put_flow_runs"] if keep({**row, "tags": set(json.loads(row["tags"] or "[]"))})
        ]
        return [row["id"] for row in sorted(rows, key=lambda row: (row["created"], row["id"]), reverse=True)]


MADE = Made()
A_TIME = dt.datetime.fromtimestamp(START / 1e6 + 3, dt.UTC)
A_LATER_TIME = dt.datetime.fromtimestamp(START / 1e6 + 6, dt.UTC)


def at(moment: dt.datetime) -> int:
    return round(moment.timestamp() * 1e6)


def has_text(row: dict[str, Any], text: str) -> bool:
    own = row["name"] is not None and text in row["name"].lower()
    return own or text in row["task"].lower() or (row["shown"].lower().endswith(text) and row["name"] is None)


FILTERS: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]] = {
    "flow_run": ({"flow_run_id": MADE.flow_run_ids[4]}, lambda row: row["flow_run_id"] == MADE.flow_run_ids[4]),
    "task": ({"task": "fetch"}, lambda row: row["task"] == "fetch"),
    "flow": ({"flow": "flow-1"}, lambda row: row["flow"] == "flow-1"),
    "state": ({"state": "FAILED"}, lambda row: row["state"] == "FAILED"),
    "completed": ({"state": "completed"}, lambda row: row["state"] == "COMPLETED"),
    "name": ({"state": "TimedOut"}, lambda row: row["state_name"] == "TimedOut"),
    "tag": ({"tags": ["a"]}, lambda row: "a" in row["tags"]),
    "tags": ({"tags": ["b", "a"]}, lambda row: {"a", "b"} <= row["tags"]),
    "no tag": ({"tags": ["z"]}, lambda row: False),
    "since": ({"since": A_TIME}, lambda row: row["created"] >= at(A_TIME)),
    "until": ({"until": A_LATER_TIME}, lambda row: row["created"] < at(A_LATER_TIME)),
    "text": ({"text": "PARSE"}, lambda row: has_text(row, "parse")),
    "wild text": ({"text": "00%"}, lambda row: has_text(row, "00%")),
    "text of a wildcard": ({"text": "e_"}, lambda row: has_text(row, "e_")),
    "run": ({"text": "fetch-1"}, lambda row: has_text(row, "fetch-1")),
    "no text": ({"text": "zz"}, lambda row: False),
    "parent": ({"parent": MADE.parents[1]}, lambda row: row["parent"] == MADE.parents[1]),
}
NAMES = sorted(FILTERS)
PAIRS = [(one,) for one in NAMES] + [
    (one, other) for one in NAMES for other in NAMES if one < other and not FILTERS[one][0].keys() & FILTERS[other][0]
]


def all_of(tests: list[Callable[[dict[str, Any]], bool]]) -> Callable[[dict[str, Any]], bool]:
    return lambda row: all(test(row) for test in tests)


async def all_pages(ask: Callable[[str | None], Any]) -> list[str]:
    """The ids on all pages."""
    found: list[str] = []
    after = None
    while True:
        page: Page[Any] = await ask(after)
        found += [str(run.id) for run in page]
        assert bool(page.items) or page.next is None
        if page.next is None:
            return found
        after = page.next


@pytest.mark.parametrize("few", [True, False], ids=["few series", "many series"])
def test_pages_of_task_runs_are_what_a_look_at_all_runs_gives(
    make_database: Callable[[], Database], few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not few:
        monkeypatch.setattr(reader_task_runs, "FEW_SERIES", 3)
        monkeypatch.setattr(reader_task_runs, "FIRST_STEPS", 4)
        monkeypatch.setattr(reader_task_runs, "MOST_STEPS", 40)
        monkeypatch.setattr(reader_task_runs, "FEW_SETS", 1)
        monkeypatch.setattr(reader_task_runs, "STREAMS", 2)
    pairs = random.Random(int(few)).sample(PAIRS[len(NAMES) :], 25) + PAIRS[: len(NAMES)]

    async def look(reader: Reader) -> None:
        for names in [(), *pairs, ("state", "tag", "flow", "until"), ("text", "tag", "name"), ("flow", "task", "run")]:
            wanted: dict[str, Any] = {}
            for name in names:
                wanted |= FILTERS[name][0]
            expected = MADE.task_runs(all_of([FILTERS[name][1] for name in names]))
            for order in ("newest", "oldest"):
                found = await all_pages(partial(reader.task_runs, TaskRunFilter(**wanted), order, 7))
                assert found == (expected if order == "newest" else expected[::-1]), (names, order)

    with_made(make_database, look)


def test_pages_of_flow_runs_are_what_a_look_at_all_runs_gives(make_database: Callable[[], Database]) -> None:
    parent = MADE.flow_run_ids[0]
    filters: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]] = {
        **{name: FILTERS[name] for name in ("flow", "state", "completed", "name", "tag", "tags", "since", "until")},
        "text": ({"text": "calm-1"}, lambda row: "calm-1" in row["name"].lower()),
        "wild text": ({"text": "1%"}, lambda row: "1%" in row["name"]),
        "text of a flow": ({"text": "W-2"}, lambda row: "w-2" in row["flow"]),
        "parent": ({"parent": parent}, lambda row: row["parent_flow_run_id"] == parent),
    }

    async def look(reader: Reader) -> None:
        for names in [
            (),
            *((name,) for name in filters),
            ("flow", "state"),
            ("parent", "tag"),
            ("tag", "until", "text"),
        ]:
            wanted: dict[str, Any] = {}
            for name in names:
                wanted |= filters[name][0]
            expected = MADE.flow_runs(all_of([filters[name][1] for name in names]))
            for order in ("newest", "oldest"):
                found = await all_pages(partial(reader.flow_runs, FlowRunFilter(**wanted), order, 3))
                assert found == (expected if order == "newest" else expected[::-1]), (names, order)

    with_made(make_database, look)


def test_a_page_after_one_of_other_filters_keeps_to_its_own(make_database: Callable[[], Database]) -> None:
    async def look(reader: Reader) -> None:
        newest = await reader.task_runs(TaskRunFilter(), "newest", 1, None)
        page = await reader.task_runs(TaskRunFilter(until=A_TIME, task="fetch"), "newest", 1_000, newest.next)
        expected = MADE.task_runs(lambda row: row["created"] < at(A_TIME) and row["task"] == "fetch")
        assert [str(run.id) for run in page] == expected
        runs = await reader.flow_runs(FlowRunFilter(), "oldest", 1, None)
        late = await reader.flow_runs(FlowRunFilter(since=A_TIME), "oldest", 1_000, runs.next)
        assert [str(run.id) for run in late] == MADE.flow_runs(lambda row: row["created"] >= at(A_TIME))[::-1]

    with_made(make_database, look)


def test_one_run_is_found_by_its_id_and_no_other(make_database: Callable[[], Database]) -> None:
    async def look(reader: Reader) -> None:
        for run_id in MADE.task_runs(lambda row: row["series"] % 5 == 0):
            assert str((await reader.task_run(run_id)).id) == run_id
        for run_id in MADE.flow_run_ids:
            assert str((await reader.flow_run(run_id)).id) == run_id
        for ask in (reader.task_run, reader.flow_run, reader.states):
            with pytest.raises(UnknownRunError, match=r"There is no .* run 01a2002d-6a01-7143-816b-ca90af17019f in "):
                await ask("01a2002d-6a01-7143-816b-ca90af17019f")

    with_made(make_database, look)


@pytest.mark.parametrize(
    ("wanted", "options", "said"),
    [
        ({}, {"order": "best"}, "'newest' or 'oldest'"),
        ({}, {"limit": 0}, "from 1 to 1,000"),
        ({}, {"limit": 1_001}, "from 1 to 1,000"),
        ({}, {"after": "hello"}, "must be the `next` of a page"),
        ({}, {"after": cursor("flow", 1, "x")}, "must be the `next` of a page"),
        ({}, {"after": cursor("run", 1, "x", 2)}, "must be the `next` of a page"),
        ({"parent": "x'; DROP TABLE runs"}, {}, "is no id: ids are UUIDs"),
        ({"tags": "api"}, {}, r"must be several: tags=\['api'\]"),
        ({"since": dt.datetime(2026, 1, 1)}, {}, "says no time zone"),  # that is the mistake
    ],
)
def test_what_means_nothing_is_said(
    make_database: Callable[[], Database], wanted: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    async def look(reader: Reader) -> None:
        given: dict[str, Any] = {"order": "newest", "limit": 50, "after": None, **options}
        with pytest.raises(ValueError, match=said):
            await reader.task_runs(TaskRunFilter(**wanted), **given)

    with_made(make_database, look)


def test_the_random_part_of_an_id_is_what_it_was_made_of() -> None:
    for random_bits in (0, 1, (1 << 62) - 1, 1 << 62, (1 << 74) - 1, 0x1697A6193646F1B78BF):
        assert random_part(uuid7(1_790_000_000.5, random_bits)) == random_bits


def with_made(make_database: Callable[[], Database], look: Callable[[Reader], Any]) -> None:
    async def main() -> None:
        database = make_database()
        await database.open()
        try:
            await MADE.write(database)
            await look(Reader(database, database.place))
        finally:
            await database.close()

    asyncio.run(main())
