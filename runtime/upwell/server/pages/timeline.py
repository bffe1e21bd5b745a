"""The timeline of a flow run: each run a bar; of very many, each task a row in which one sees how many began when."""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

from markupsafe import Markup, escape
from msgspec import Struct

from upwell.core.model import FlowRunRecord, Page, RunTree, Span, TaskGroup, TaskRun
from upwell.core.states import RUNNING, State, StateType
from upwell.journal.views import Starts, Views
from upwell.server.pages.asked import Asked
from upwell.server.pages.pieces import url
from upwell.server.pages.shown import STATE_ORDER, exact, kind_of, seconds_between, several, took
from upwell.server.parts import Parts

MOST_BARS: Final = 250
"""Of so many runs each has a row; more are shown by task."""
MOST_ROWS: Final = 400
PARTS: Final = 120
LANE: Final = 26
TALL_LANE: Final = 40
DEEPEST: Final = 3

WAIT: Final = "wait"
"""The kind of a block in which nothing runs yet."""

_ROUNDED: Final = {"run": ' rx="2.5"', "flow": ' rx="4"'}


class Block(Struct, frozen=True):
    """A piece of a row, in per cent across and pixels down."""

    kind: str
    x: float
    width: float
    y: float
    height: float
    title: str


class Row(Struct, frozen=True, kw_only=True):
    """One line of the timeline."""

    label: str
    href: str
    kind: str
    depth: int
    style: str
    """flow, group or run"""

    blocks: list[Block]
    took: str
    height: int = LANE
    number: int = 0

    @property
    def drawn(self) -> Markup:
        """Its blocks: there can be hundreds, for each of which a template would take ten times as long."""
        rects: list[str] = []
        for block in self.blocks:
            waits = block.kind == WAIT
            rounded = "" if waits and self.style == "run" else _ROUNDED.get(self.style, "")
            rects.append(
                f'<rect class="{WAIT if waits else f"span is-{block.kind}"}" x="{block.x}%" width="{block.width}%" '
                f'y="{block.y}" height="{block.height}"{rounded}><title>{escape(block.title)}</title></rect>'
            )
        return Markup("".join(rects))


class Tick(Struct, frozen=True):
    x: float
    text: str


class Timeline(Struct, frozen=True, kw_only=True):
    """What is drawn. left_out: how many rows there are beyond those shown."""

    rows: list[Row]
    ticks: list[Tick]
    grouped: bool
    left_out: int = 0
    task: str = ""
    next: str | None = None


class Scale:
    """From times to places across."""

    def __init__(self, start: dt.datetime, end: dt.datetime) -> None:
        self.start = start
        self.seconds = max((end - start).total_seconds(), 0.001)

    def place(self, moment: dt.datetime) -> float:
        part = (moment - self.start).total_seconds() / self.seconds
        return round(100 * min(max(part, 0.0), 1.0), 3)

    def ticks(self) -> list[Tick]:
        """A few round durations."""
        step = _round_step(self.seconds / 6)
        count = int(self.seconds / step)
        return [Tick(round(100 * step * i / self.seconds, 3), _round(step * i)) for i in range(count + 1)]


def _round(seconds: float) -> str:
    return f"{seconds:g} s" if 1 <= seconds < 10 else took(seconds) if seconds else "0"


def _round_step(seconds: float) -> float:
    for size in (0.001, 0.01, 0.1, 1.0):
        for factor in (1, 2, 5):
            if size * factor >= seconds:
                return size * factor
    steps = (10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400)
    return next((step for step in steps if step >= seconds), math.ceil(seconds / 86_400) * 86_400)


def runs_in(tree: RunTree) -> int:
    """How many task runs and flow runs there are in a tree."""
    return sum(group.total for group in tree.tasks) + sum(1 + runs_in(child) for child in tree.flow_runs)


async def timeline(here: Parts, tree: RunTree, moment: dt.datetime, task: str, after: str | None) -> Timeline:
    """The timeline of a flow run and of all that it started; task: of the runs of that task alone, page by page."""
    scale = _scale(tree, moment)
    if task:
        return await _of_task(here, tree.run, scale, moment, task, after)
    if runs_in(tree) <= MOST_BARS:
        spans = await here.reader.timeline(tree.run.id, MOST_BARS + 50, None)
        rows = list(_bars(tree, spans, scale, moment))
        return Timeline(rows=rows, ticks=scale.ticks(), grouped=False)
    flow_runs = [run.id for run in _flow_runs(tree)]
    starts = await Views(here.session).starts(flow_runs, scale.start, dt.timedelta(seconds=scale.seconds / PARTS))
    rows = list(_groups(tree, starts, scale, moment))
    return Timeline(rows=rows[:MOST_ROWS], ticks=scale.ticks(), grouped=True, left_out=max(len(rows) - MOST_ROWS, 0))


def _flow_runs(tree: RunTree) -> Iterable[FlowRunRecord]:
    yield tree.run
    for child in tree.flow_runs:
        yield from _flow_runs(child)


def _scale(tree: RunTree, moment: dt.datetime) -> Scale:
    """From the beginning of a run to its end, or to now."""
    start = tree.run.start_time or tree.run.created
    end = tree.run.end_time or (moment if tree.run.start_time else start)
    ends = [group.end_time for group in tree.tasks if group.end_time is not None]
    return Scale(start, max([end, *ends]))


# --- a row for each run ---------------------------------------------------------------------------------------


def _bars(tree: RunTree, spans: Page[Span], scale: Scale, moment: dt.datetime) -> Iterable[Row]:
    below: dict[UUID, list[Span]] = defaultdict(list)
    flow_runs = {run.id: run for run in _flow_runs(tree)}
    for span in spans:
        run = flow_runs.get(span.id) if span.is_flow_run else None
        if run is None:
            below[span.flow_run_id].append(span)
        elif run.id != tree.run.id and run.parent_flow_run_id is not None:
            below[run.parent_flow_run_id].append(span)
    yield _flow_row(tree.run, scale, moment, 0)
    yield from _below(tree.run.id, below, flow_runs, scale, moment, 1)


def _below(
    flow_run_id: UUID,
    below: dict[UUID, list[Span]],
    flow_runs: dict[UUID, FlowRunRecord],
    scale: Scale,
    moment: dt.datetime,
    depth: int,
) -> Iterable[Row]:
    for span in below[flow_run_id]:
        if span.is_flow_run:
            yield _flow_row(flow_runs[span.id], scale, moment, depth)
            yield from _below(span.id, below, flow_runs, scale, moment, depth + 1)
        else:
            state = State(type=span.state_type, name=span.state_name)
            yield _run_row(
                span.name,
                f"/task-runs/{span.id}",
                state,
                (span.created, span.start_time, span.end_time),
                scale,
                moment,
                depth,
            )


Times = tuple[dt.datetime, dt.datetime | None, dt.datetime | None]


def _run_row(
    name: str, href: str, state: State, times: Times, scale: Scale, moment: dt.datetime, depth: int, style: str = "run"
) -> Row:
    created, start, end = times
    blocks: list[Block] = []
    kind = kind_of(state)
    first = start or end
    if first is not None:
        last = end or moment
        seconds = seconds_between(start, last) or 0.0
        if style == "run" and (waited := (first - created).total_seconds()) > scale.seconds / 200:
            x = scale.place(created)
            blocks.append(Block(WAIT, x, round(scale.place(first) - x, 3), LANE / 2 - 1, 2, f"waited {took(waited)}"))
        x = scale.place(first)
        width = max(scale.place(last) - x, 0.2)
        title = f"{name}: {state.name}, {took(seconds)}, from {exact(first)}"
        thick = 8 if style == "flow" else 14
        blocks.append(Block(kind, min(x, 99.8), round(width, 3), (LANE - thick) / 2, thick, title))
    length = took(seconds_between(start, end or moment)) if start is not None else state.name
    return Row(label=name, href=href, kind=kind, depth=min(depth, DEEPEST), style=style, blocks=blocks, took=length)


def _flow_row(run: FlowRunRecord, scale: Scale, moment: dt.datetime, depth: int) -> Row:
    times = (run.created, run.start_time, run.end_time)
    return _run_row(f"{run.flow_name} / {run.name}", f"/runs/{run.id}", run.state, times, scale, moment, depth, "flow")


# --- a row for each task --------------------------------------------------------------------------------------


def _groups(tree: RunTree, starts: Sequence[Starts], scale: Scale, moment: dt.datetime) -> Iterable[Row]:
    found: dict[tuple[UUID, str], list[Starts]] = defaultdict(list)
    for start in starts:
        found[start.flow_run_id, start.task].append(start)
    yield from _group_rows(tree, found, scale, moment, 0)


def _group_rows(
    tree: RunTree, starts: dict[tuple[UUID, str], list[Starts]], scale: Scale, moment: dt.datetime, depth: int
) -> Iterable[Row]:
    yield _flow_row(tree.run, scale, moment, depth)
    for group in sorted(tree.tasks, key=_began):
        yield _group_row(tree.run, group, starts.get((tree.run.id, group.task_name), []), scale, moment, depth + 1)
    for child in tree.flow_runs:
        yield from _group_rows(child, starts, scale, moment, depth + 1)


def _began(group: TaskGroup) -> tuple[bool, float]:
    return group.start_time is None, group.start_time.timestamp() if group.start_time else 0.0


def _group_row(
    run: FlowRunRecord, group: TaskGroup, starts: Sequence[Starts], scale: Scale, moment: dt.datetime, depth: int
) -> Row:
    worst = next((kind for kind in _WORST_FIRST if group.states.get(kind)), StateType.COMPLETED)
    blocks = list(_density(group, starts, scale, moment))
    seconds = seconds_between(group.start_time, _end_of(group, moment))
    return Row(
        label=group.task_name,
        href=url(f"/runs/{run.id}", view="timeline", task=group.task_name),
        kind=kind_of(worst),
        depth=min(depth, DEEPEST),
        style="group",
        blocks=blocks,
        took=took(seconds),
        height=TALL_LANE,
        number=group.total,
    )


_WORST_FIRST: Final = (
    StateType.FAILED,
    StateType.CRASHED,
    StateType.RUNNING,
    StateType.CANCELLING,
    StateType.CANCELLED,
    StateType.PAUSED,
    StateType.PENDING,
    StateType.SCHEDULED,
    StateType.COMPLETED,
)


def _end_of(group: TaskGroup, moment: dt.datetime) -> dt.datetime | None:
    return moment if group.states.get(RUNNING) else group.end_time


def _density(group: TaskGroup, starts: Sequence[Starts], scale: Scale, moment: dt.datetime) -> Iterable[Block]:
    """How many runs began when: as high as the root of their number, so that few can be seen beside many."""
    if group.start_time is not None:
        x, end = scale.place(group.start_time), scale.place(_end_of(group, moment) or moment)
        yield Block(
            WAIT, x, max(round(end - x, 3), 0.2), TALL_LANE - 4, 2, f"{group.task_name}: {several(group.total, 'run')}"
        )
    parts: dict[int, Counter[StateType]] = defaultdict(Counter)
    for start in starts:
        parts[start.part][start.state] += start.runs
    most = max((counts.total() for counts in parts.values()), default=1)
    width = 100 / PARTS
    for part, counts in sorted(parts.items()):
        total = counts.total()
        whole = 4 + (TALL_LANE - 10) * math.sqrt(total / most)
        y = float(TALL_LANE - 5)
        for kind in STATE_ORDER:
            if kind in counts:
                height = max(whole * counts[kind] / total, 1.5)
                y -= height
                title = f"{counts[kind]:,} {kind_of(kind)} began here"
                yield Block(
                    kind_of(kind),
                    round(min(part * width, 100 - width), 3),
                    round(width * 0.86, 3),
                    round(y, 1),
                    round(height, 1),
                    title,
                )


# --- the runs of one task -------------------------------------------------------------------------------------


async def _of_task(
    here: Parts, run: FlowRunRecord, scale: Scale, moment: dt.datetime, task: str, after: str | None
) -> Timeline:
    found = await here.reader.task_runs(Asked(run=str(run.id), task=task).task_runs(), "oldest", MOST_BARS, after)
    rows = [_flow_row(run, scale, moment, 0), *(_task_row(item, scale, moment) for item in found)]
    return Timeline(rows=rows, ticks=scale.ticks(), grouped=False, task=task, next=found.next)


def _task_row(run: TaskRun, scale: Scale, moment: dt.datetime) -> Row:
    times = (run.created, run.start_time, run.end_time)
    return _run_row(run.name, f"/task-runs/{run.id}", run.state, times, scale, moment, 1)


__all__ = ["Timeline", "runs_in", "timeline"]
