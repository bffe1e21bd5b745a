"""Pages of task runs: from filters to the few rows that a page shows, along indexes only.

What many runs share (task, flow, tags) is said of their series, so a filter for it is resolved to series first. Then

- a few series: the newest run of each that the filter keeps says which of them a page is made of, and those are read;
- very many: their runs are everywhere, so runs are looked at in their order until a page is full. If that takes long,
  the first way is taken after all, for it takes no longer than there are series.

A filter that two different indexes answer (a tag of the task, or of one run) has a source for each; a page is merged.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any, Final, NamedTuple
from uuid import UUID

from msgspec import Struct, field

from upwell.core.states import PENDING, StateType
from upwell.journal.database import Row, Session
from upwell.journal.reader_pages import (
    LAST,
    Bounds,
    Condition,
    Key,
    Order,
    checked_tags,
    distinct,
    id_text,
    json_text,
    pattern_of,
    state_condition,
    tag_sets,
    times_of,
)
from upwell.journal.reader_records import RUN_COLUMNS, by_default_name

FEW_SERIES: Final = 1_000
"""Of so many it is asked which run is their newest, at a few microseconds each."""

FEW_SETS: Final = 20
"""So many sets of tags are looked for one by one, each in its order; more at once, and sorted."""

FIRST_STEPS: Final = 500
MOST_STEPS: Final = 10_000
"""How many runs are looked at in their order before the series are asked."""

STREAMS: Final = 8
"""How many series are read in one query."""


class TaskRunFilter(Struct, frozen=True, kw_only=True):
    """What task runs are asked for, as the user says it; see `History.task_runs`."""

    flow_run_id: UUID | str | None = None
    task: str | None = None
    flow: str | None = None
    state: StateType | str | None = None
    tags: Iterable[str] | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    text: str | None = None
    parent: UUID | str | None = None


class _Source(NamedTuple):
    """One way to runs that are asked for: by conditions on their series, or by an index of runs.

    driver: what is looked up in that index. sorts: that, or what the series lead to, is all read, and sorted.
    """

    series: tuple[Condition, ...] = ()
    runs: tuple[str, ...] = ()
    driver: Condition | None = None
    sorts: bool = False
    in_index: tuple[str, ...] = ()  # what that index answers besides

    def and_also(self, other: _Source) -> _Source:
        return _Source((*self.series, *other.series), (*self.runs, *other.runs), sorts=self.sorts or other.sorts)

    def where(self, condition: str) -> _Source:
        return self._replace(runs=(*self.runs, condition))


class _Facet(NamedTuple):
    """A filter that several sources answer. check: the whole of it, for runs that were found in another way."""

    by_series: list[_Source]
    driven: list[_Source]
    check: str


_ANY: Final = _Facet([_Source()], [], "1 = 1")


class _Asked(Struct):
    """A filter in words of the store. series: what all sources have in common."""

    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    series: list[Condition] = field(default_factory=list[Condition])
    state: Condition | None = None
    sources: list[_Source] = field(default_factory=list[_Source])


async def newest_rows(session: Session, wanted: TaskRunFilter, order: Order, after: Key | None, n: int) -> list[Row]:
    """The first `n` rows of `RUN_COLUMNS` after a key, in this order."""
    asked = await _in_words_of_the_store(session, wanted)
    bounds = Bounds.of("t", times_of(wanted.since, wanted.until), order, after, asked.parameters)
    if after is not None:
        asked.parameters.update(zip(("after_created", "after_series", "after_number"), after, strict=True))
    found: dict[Key, Row] = {}
    for source in asked.sources:
        for row in await _Reading(session, asked, source, order, bounds).rows(n):
            found[key_of_row(row)] = row
    return order.sorted(found.values(), key_of_row)[:n]


def key_of_row(row: Row) -> Key:
    """Where a row stands among all: when it was created, its series, its number."""
    return row[2], row[0], row[1]


def may_show_not_begun(wanted: TaskRunFilter) -> bool:
    """Whether runs that have no row may be among those that are asked for."""
    return (
        wanted.flow_run_id is not None
        and wanted.parent is None
        and (wanted.state is None or wanted.state.upper() == PENDING.value)
        and wanted.since is None
        and wanted.until is None
    )


# --- from filters to sources --------------------------------------------------------------------------------


async def _in_words_of_the_store(session: Session, wanted: TaskRunFilter) -> _Asked:
    asked = _Asked()
    parameters = asked.parameters
    for name, column, value in (
        ("flow_run_id", "s.flow_run_id", wanted.flow_run_id and id_text(wanted.flow_run_id)),
        ("task", "s.task", wanted.task),
        ("flow", "f.flow", wanted.flow),
    ):
        if value is not None:
            parameters[name] = value
            asked.series.append(Condition(column, f"= :{name}"))
    if wanted.state is not None:
        asked.state = state_condition("t", wanted.state, parameters)
    tags = await _tags(session, checked_tags(wanted.tags), parameters)
    text = await _text(session, wanted.text or "", parameters)
    if wanted.parent is not None:
        parameters["parent"] = id_text(wanted.parent)
        asked.sources = [_Source((), (tags.check, text.check), Condition("t.parent", "= :parent"))]
        return asked
    asked.sources = [one.and_also(other) for one in tags.by_series for other in text.by_series]
    asked.sources += [source.where(text.check) for source in tags.driven]
    asked.sources += [source if tags is _ANY else source.where(tags.check) for source in text.driven]
    return asked


async def _tags(session: Session, tags: list[str], parameters: dict[str, Any]) -> _Facet:
    """A run's own tags count instead of those of its series."""
    if not tags:
        return _ANY
    of_series = await tag_sets(session, "series", tags)
    of_runs = await tag_sets(session, "task_runs", tags)
    parameters["tag_sets"] = json_text({*of_series, *of_runs})
    among = "IN (SELECT value FROM json_each(:tag_sets))"
    by_series = [_Source((Condition("s.tags", among),), ("t.tags IS NULL",))] if of_series else []
    if len(of_runs) > FEW_SETS:
        driven = [_Source(driver=Condition("t.tags", among), sorts=True)]
    else:
        driven = [_Source(driver=Condition("t.tags", f"= :tag_set_{number}")) for number in range(len(of_runs))]
        parameters.update({f"tag_set_{number}": tag_set for number, tag_set in enumerate(of_runs)})
    return _Facet(by_series, driven, f"coalesce(t.tags, s.tags) {among}")


async def _text(session: Session, text: str, parameters: dict[str, Any]) -> _Facet:
    """In the name of the task, or in a run's own name; or all of a run's name, `fetch-3`."""
    if not text:
        return _ANY
    tasks = await distinct(session, "series", "task")
    named = [task for task in tasks if text.lower() in task.lower()]
    parameters["text"] = pattern_of(text)
    parameters["tasks"] = json_text(named)
    in_task = Condition("s.task", "IN (SELECT value FROM json_each(:tasks))")
    in_name = "lower(t.name) LIKE :text ESCAPE '!'"
    ways = [in_task.text(), in_name]
    by_series = [_Source((in_task,))] if named else []
    by_number = by_default_name(text)
    if by_number is not None:
        end, parameters["number"] = by_number
        parameters["tasks_by_number"] = json_text(task for task in tasks if task.lower().endswith(end))
        of_task = Condition("s.task", "IN (SELECT value FROM json_each(:tasks_by_number))")
        of_run = ("t.number = :number", "t.name IS NULL")
        ways.append(" AND ".join((of_task.text(), *of_run)))
        by_series.append(_Source((of_task, Condition("s.submitted", "> :number")), of_run, sorts=True))
    driven = [_Source(driver=Condition("t.name", "> ''"), sorts=True, in_index=(in_name,))]
    return _Facet(by_series, driven, f"({' OR '.join(f'({way})' for way in ways)})")


# --- reading one source -------------------------------------------------------------------------------------


class _Reading:
    """One source, read in one order after one key."""

    def __init__(self, session: Session, asked: _Asked, source: _Source, order: Order, bounds: Bounds) -> None:
        self._session = session
        self._source = source
        self._order = order
        self._bounds = bounds
        self._parameters = asked.parameters
        self._series = (*asked.series, *source.series)
        self._runs = source.runs
        self._state = asked.state
        direction = order.direction
        self._sorted = f"ORDER BY t.created {direction}, t.series {direction}, t.number {direction}"

    async def rows(self, n: int) -> list[Row]:
        """The first `n` rows."""
        driver, sorts = self._source.driver, self._source.sorts
        if driver is not None:
            conditions = self._conditions(state_indexed=False)
            conditions += [condition.unindexed() for condition in self._series]
            if sorts:
                return await self._sort_driven(n, driver)
            return await self._walk([driver.text(), *conditions], n)
        if sorts:
            conditions = [condition.text() for condition in self._series] + self._conditions(state_indexed=False)
            tables = "FROM series s JOIN task_runs t ON t.series = s.key LEFT JOIN flow_runs f ON f.id = s.flow_run_id"
            return await self._sort(n, tables, [*conditions, *self._beyond()])
        if not self._series:
            return await self._walk(self._conditions(), n)
        from_series = await self._from_series()
        text = f"SELECT s.key {from_series} LIMIT :few"
        keys = [key for (key,) in await self._ask(text, few=FEW_SERIES + 1)]
        if len(keys) <= FEW_SERIES:
            these = "FROM (SELECT CAST(value AS INTEGER) AS key FROM json_each(:keys)) AS s"
            return await self._by_series(these, n, keys=json_text(keys)) if keys else []
        rows = await self._walk_a_while(n)
        return await self._by_series(from_series, n) if rows is None else rows

    def _conditions(self, *, state_indexed: bool = True) -> list[str]:
        """On runs, wherever they are looked for; without where they begin."""
        state = self._state
        conditions = [*self._bounds.conditions, *self._runs]
        if state is not None:
            conditions.append(state.text() if state_indexed else state.unindexed())
        return conditions

    def _beyond(self) -> list[str]:
        if not self._bounds.beyond:
            return []
        key = "(:after_created, :after_series, :after_number)"
        return [f"(t.created, t.series, t.number) {self._order.beyond} {key}"]

    # --- along an index of runs ---

    async def _walk(self, conditions: list[str], n: int, **parameters: Any) -> list[Row]:
        where = _all([*conditions, *self._beyond()])
        text = f"SELECT {RUN_COLUMNS} {_WITH_SERIES} WHERE {where} {self._sorted} LIMIT :n"
        return await self._ask(text, n=n, **parameters)

    async def _sort(
        self, n: int, from_where: str, conditions: list[str], found: str = "", alias: str = "t"
    ) -> list[Row]:
        """Read all runs that these conditions lead to, and sort them."""
        direction = self._order.direction
        # sums, which no index is in the order of: else one would be walked for the sake of it, or of the bounds
        by = ", ".join(f"{alias}.{part} + 0 {direction}" for part in ("created", "series", "number"))
        where = _all(conditions).replace("t.created", "t.created + 0")
        text = (
            f"{found} SELECT {RUN_COLUMNS} FROM ("
            f"SELECT {alias}.series, {alias}.number {from_where} WHERE {where} ORDER BY {by} LIMIT :n"
            f") AS page JOIN task_runs t ON t.series = page.series AND t.number = page.number {_SERIES_OF_RUN}"
        )
        return await self._ask(text, n=n)

    async def _sort_driven(self, n: int, driver: Condition) -> list[Row]:
        """The same along an index of runs, which holds all that is asked of most of them."""
        in_index = [driver.text(), *self._source.in_index, *self._bounds.conditions, *self._beyond()]
        found = (
            "WITH found AS MATERIALIZED (SELECT t.created, t.series, t.number FROM task_runs t "
            f"WHERE {_all(in_index).replace('t.created', 't.created + 0')})"
        )
        others = [*self._runs, *([self._state.unindexed()] if self._state is not None else [])]
        others += [condition.unindexed() for condition in self._series]
        if not others:
            return await self._sort(n, "FROM found", [], found, "found")
        joined = f"FROM found JOIN task_runs t ON t.series = found.series AND t.number = found.number {_SERIES_OF_RUN}"
        return await self._sort(n, joined, others, found)

    async def _walk_a_while(self, n: int) -> list[Row] | None:
        """Look at runs in their order, further if that promises to be enough; None if it is not."""
        steps = FIRST_STEPS
        while steps <= MOST_STEPS:
            rows, is_all = await self._steps(steps, n)
            if is_all or len(rows) >= n:
                return rows
            if not rows:
                return None
            steps = max(2 * steps, steps * n * 3 // (2 * len(rows)))
        return None

    async def _steps(self, steps: int, n: int) -> tuple[list[Row], bool]:
        """What is found among so many runs; whether these are all there are."""
        along = [self._state.text()] if self._state is not None else []
        along += self._bounds.conditions
        last = await self._ask(
            f"SELECT t.created, t.series, t.number FROM task_runs t WHERE {_all([*along, *self._beyond()])} "
            f"{self._sorted} LIMIT 1 OFFSET :steps",
            steps=steps,
        )
        conditions = self._conditions() + [condition.unindexed() for condition in self._series]
        if not last:
            return await self._walk(conditions, n), True
        back = ">=" if self._order.beyond == "<" else "<="
        conditions.append(f"(t.created, t.series, t.number) {back} (:last_created, :last_series, :last_number)")
        until = dict(zip(("last_created", "last_series", "last_number"), last[0], strict=True))
        return await self._walk(conditions, n, **until), False

    # --- by series ---

    async def _from_series(self) -> str:
        """Their series, along the index that leads to the fewest."""
        of_flow = any(condition.column == "f.flow" for condition in self._series)
        tables = "flow_runs f JOIN series s ON s.flow_run_id = f.id" if of_flow else "series s"
        rarest = self._series[0]
        if len(self._series) > 1 and rarest.column != "s.flow_run_id":
            counts = [await self._most_often(condition) for condition in self._series]
            rarest = self._series[counts.index(min(counts))]
        conditions = [one.text() if one is rarest else one.unindexed() for one in self._series]
        return f"FROM {tables} WHERE {_all(conditions)}"

    async def _most_often(self, condition: Condition) -> int:
        """How many series this leads to, or as good as many."""
        table = "flow_runs f" if condition.column == "f.flow" else "series s"
        text = f"SELECT count(*) FROM (SELECT 1 AS one FROM {table} WHERE {condition.text()} LIMIT :few) AS probe"
        return sum(count for (count,) in await self._ask(text, few=FEW_SERIES))

    def _beyond_in_series(self, series: str) -> list[str]:
        """The same as `_beyond` for the runs of one series, in words that its index answers."""
        if not self._bounds.beyond:
            return []
        first, last = ("-1", str(LAST)) if self._order.beyond == ">" else (str(LAST), "-1")
        smaller = "<" if self._order.beyond == "<" else ">"
        number = (
            f"CASE WHEN {series} = :after_series THEN :after_number "
            f"WHEN {series} {smaller} :after_series THEN {first} ELSE {last} END"
        )
        return [f"(t.created, t.number) {self._order.beyond} (:after_created, {number})"]

    async def _by_series(self, from_series: str, n: int, **parameters: Any) -> list[Row]:
        """The newest run of each says whose runs are to be read."""
        direction = self._order.direction
        conditions = _all(["t.series = s.key", *self._conditions(), *self._beyond_in_series("s.key")])
        heads = await self._ask(
            f"""WITH heads AS MATERIALIZED (SELECT s.key AS series, (
                SELECT t.created FROM task_runs t WHERE {conditions}
                ORDER BY t.created {direction}, t.number {direction} LIMIT 1
            ) AS created {from_series})
            SELECT created, series FROM heads WHERE created IS NOT NULL
            ORDER BY created {direction}, series {direction} LIMIT :n""",
            n=n,
            **parameters,
        )
        found: list[Row] = []
        for start in range(0, len(heads), STREAMS):
            group = heads[start : start + STREAMS]
            if len(found) == n and self._order.comes_before(key_of_row(found[-1])[:2], group[0]):
                break
            found += await self._first_of(group, n)
            found = self._order.sorted(found, key_of_row)[:n]
        return found

    async def _first_of(self, group: list[Row], n: int) -> list[Row]:
        """The first `n` runs of each of these series."""
        direction = self._order.direction
        parts: list[str] = []
        for number in range(len(group)):
            conditions = _all(
                [f"t.series = :series_{number}", *self._conditions(), *self._beyond_in_series("t.series")]
            )
            parts.append(
                f"SELECT * FROM (SELECT t.* FROM task_runs t JOIN series s ON s.key = t.series WHERE {conditions} "
                f"ORDER BY t.created {direction}, t.number {direction} LIMIT :n) AS part_{number}"
            )
        keys = {f"series_{number}": series for number, (_, series) in enumerate(group)}
        from_parts = f"FROM ({' UNION ALL '.join(parts)}) AS t {_SERIES_OF_RUN}"
        return await self._ask(f"SELECT {RUN_COLUMNS} {from_parts}", n=n, **keys)

    async def _ask(self, text: str, **parameters: Any) -> list[Row]:
        return await self._session.fetch_text(text, **{**self._parameters, **parameters})


_SERIES_OF_RUN: Final = "JOIN series s ON s.key = t.series LEFT JOIN flow_runs f ON f.id = s.flow_run_id"
_WITH_SERIES: Final = f"FROM task_runs t {_SERIES_OF_RUN}"


def _all(conditions: Iterable[str]) -> str:
    return " AND ".join(conditions) or "1 = 1"
