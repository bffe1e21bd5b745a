"""The dependency graph of a flow run, laid out from left to right by fast-sugiyama: each run a node, or each task."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

from msgspec import Struct

from upwell.core.model import FlowRunRecord, RunTree, TaskRun
from upwell.core.states import State, StateType
from upwell.journal.views import Views
from upwell.server.pages.asked import Asked
from upwell.server.pages.pieces import url
from upwell.server.pages.shown import STATE_ORDER, kind_of, seconds_between, several, took
from upwell.server.parts import Parts

MOST_NODES: Final = 60
"""Of so many task runs each is a node; of more, each task is one."""
MOST_TASKS: Final = 300
MOST_FLOW_RUNS: Final = 24
MOST_BENDS: Final = 1_500
"""So many layers may all edges cross that are laid out together; those that cross the most are drawn without."""

WIDTH: Final = 188
HEIGHT: Final = 46
ACROSS: Final = 44
"""Between one layer and the next."""
DOWN: Final = 14
MARGIN: Final = 4
COLUMNS: Final = 4
"""In how many columns nodes stand that nothing leads to or from."""
LONGEST_LABEL: Final = 24


class Segment(Struct, frozen=True):
    """A piece of a bar inside a node: which of its runs are in which state."""

    kind: str
    x: float
    width: float


class Node(Struct, frozen=True, kw_only=True):
    """A box. key: what edges know it by."""

    key: str
    x: float
    y: float
    label: str
    title: str
    note: str
    kind: str
    href: str
    segments: list[Segment]


class Drawn(Struct, frozen=True):
    """An edge. many: how many runs depended on runs through it."""

    path: str
    source: str
    target: str
    title: str


class Graph(Struct, frozen=True, kw_only=True):
    width: float
    height: float
    nodes: list[Node]
    edges: list[Drawn]
    grouped: bool
    too_many: bool = False


class Box(Struct, frozen=True, kw_only=True):
    """A node before it has a place."""

    label: str
    note: str
    kind: str
    href: str
    states: Mapping[StateType, int]


Boxes = dict[str, Box]
Edges = dict[tuple[str, str], int]


async def graph(here: Parts, tree: RunTree, by: str) -> Graph:
    """The graph of a flow run. by: `run` or `task`; what fits unless said."""
    few = sum(group.total for group in tree.tasks) <= MOST_NODES
    if few and by != "task":
        boxes, edges = await _by_run(here, tree)
        return await asyncio.to_thread(laid_out, boxes, edges, grouped=False)
    if len(tree.tasks) > MOST_TASKS:
        return Graph(width=0, height=0, nodes=[], edges=[], grouped=True, too_many=True)
    boxes, edges = await _by_task(here, tree)
    return await asyncio.to_thread(laid_out, boxes, edges, grouped=True)  # it may take some tenths of a second


async def _by_run(here: Parts, tree: RunTree) -> tuple[Boxes, Edges]:
    wanted = Asked(run=str(tree.run.id)).task_runs()
    runs = await here.reader.task_runs(wanted, "oldest", MOST_NODES, None)
    boxes = {str(run.id): _of_run(run) for run in runs}
    edges: Edges = Counter()
    for edge in await here.reader.edges(tree.run.id, 1_000, None):
        pair = str(edge.upstream_id), str(edge.task_run_id)
        if pair[0] in boxes and pair[1] in boxes:
            edges[pair] += 1
    return {**boxes, **_flow_boxes(tree)}, edges


async def _by_task(here: Parts, tree: RunTree) -> tuple[Boxes, Edges]:
    boxes: Boxes = {}
    for group in tree.tasks:
        seconds = seconds_between(group.start_time, group.end_time)
        kind = _worst(group.states)
        boxes[f"task:{group.task_name}"] = Box(
            label=group.task_name,
            note=several(group.total, "run") + (f" · {took(seconds)}" if seconds else ""),
            kind=kind,
            href=url(f"/runs/{tree.run.id}", view="tasks", task=group.task_name),
            states=group.states,
        )
    found = await Views(here.session).dependencies(tree.run.id)
    edges: Edges = {
        (f"task:{source}", f"task:{target}"): number
        for source, target, number in found
        if source != target and f"task:{source}" in boxes and f"task:{target}" in boxes
    }
    return {**boxes, **_flow_boxes(tree)}, edges


def _of_run(run: TaskRun) -> Box:
    seconds = seconds_between(run.start_time, run.end_time)
    return Box(
        label=run.name,
        note=run.state.name + (f" · {took(seconds)}" if seconds is not None else ""),
        kind=kind_of(run.state),
        href=f"/task-runs/{run.id}",
        states={},
    )


def _flow_boxes(tree: RunTree) -> Boxes:
    """Flow runs that it started: each, or by flow if they are many."""
    if len(tree.flow_runs) <= MOST_FLOW_RUNS:
        return {str(child.run.id): _of_flow_run(child.run) for child in tree.flow_runs}
    boxes: Boxes = {}
    by_flow = sorted(tree.flow_runs, key=lambda child: child.run.flow_name)
    for name, children in itertools.groupby(by_flow, key=lambda child: child.run.flow_name):
        states = Counter(child.run.state.type for child in children)
        href = url(f"/runs/{tree.run.id}", view="subflows")
        note = several(states.total(), "flow run")
        boxes[f"flow:{name}"] = Box(label=name, note=note, kind=_worst(states), href=href, states=states)
    return boxes


def _of_flow_run(run: FlowRunRecord) -> Box:
    seconds = seconds_between(run.start_time, run.end_time)
    note = f"flow · {run.state.name}" + (f" · {took(seconds)}" if seconds is not None else "")
    return Box(
        label=f"{run.flow_name} / {run.name}", note=note, kind=kind_of(run.state), href=f"/runs/{run.id}", states={}
    )


def _worst(states: Mapping[StateType, int]) -> str:
    order = ("FAILED", "CRASHED", "RUNNING", "CANCELLING", "CANCELLED", "PAUSED", "PENDING", "SCHEDULED", "COMPLETED")
    return kind_of(
        State(type=next((StateType(name) for name in order if states.get(StateType(name))), StateType.PENDING))
    )


# --- places ---------------------------------------------------------------------------------------------------

Point = tuple[float, float]
STEP_X: Final = WIDTH + ACROSS
STEP_Y: Final = HEIGHT + DOWN


def laid_out(boxes: Boxes, edges: Edges, *, grouped: bool = False) -> Graph:
    """The boxes and edges, with their places."""
    places: dict[Hashable, Point] = {}
    paths: list[Drawn] = []
    bottom = 0.0
    pairs, straight = _split(edges)
    for component, hops in _layouts(pairs):
        placed, height = _placed(component, bottom)
        places.update(placed)
        paths += _paths(placed, hops, edges)
        bottom += height + STEP_Y
    paths += [
        Drawn(_curve([places[source], places[target]]), source, target, "")
        for source, target in straight
        if source in places and target in places
    ]
    alone = [key for key in boxes if key not in places]
    columns = COLUMNS if pairs else max(min(COLUMNS, len(alone)), 1)
    for number, key in enumerate(alone):
        places[key] = (number % columns * (WIDTH + DOWN), bottom + number // columns * STEP_Y)
    nodes = [_node(key, box, places[key]) for key, box in boxes.items()]
    return Graph(
        width=max((node.x for node in nodes), default=0) + WIDTH + 2 * MARGIN,
        height=max((node.y for node in nodes), default=0) + HEIGHT + 2 * MARGIN,
        nodes=nodes,
        edges=paths,
        grouped=grouped,
    )


def _split(edges: Edges) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The edges that are laid out, and those that cross too many layers for that."""
    needs: dict[str, set[str]] = {}
    for source, target in edges:
        needs.setdefault(target, set()).add(source)
    layers: dict[str, int] = {}
    for key in _without_circles(needs):
        layers[key] = max((layers[source] + 1 for source in needs[key]), default=0)
    forwards = [pair for pair in edges if pair[0] in needs[pair[1]]]
    backwards = [pair for pair in edges if pair[0] not in needs[pair[1]] and pair[0] != pair[1]]
    ordered = sorted(forwards, key=lambda pair: layers[pair[1]] - layers[pair[0]])
    crossed = itertools.accumulate(layers[target] - layers[source] for source, target in ordered)
    kept = sum(1 for total in crossed if total <= MOST_BENDS)
    return ordered[:kept], [*ordered[kept:], *backwards]


def _without_circles(needs: dict[str, set[str]]) -> list[str]:
    """All boxes, each after those that it needs; where tasks need each other in a circle one need is taken back."""
    for sources in list(needs.values()):
        for source in sources:
            needs.setdefault(source, set())
    while True:
        try:
            return list(TopologicalSorter(needs).static_order())
        except CycleError as error:
            circle: list[str] = error.args[1]
            needs[circle[1]].discard(circle[0])


Layout = tuple[Sequence[tuple[Hashable, Point]], list[tuple[Hashable, Hashable]]]


def _layouts(pairs: list[tuple[str, str]]) -> Iterable[Layout]:
    """Each component: places in units, with the bends of long edges, and the hops from one to the next.

    Boxes are numbered, in each component anew: the library numbers bends from there on, whatever names there are.
    """
    if not pairs:
        return
    from fast_sugiyama import from_edges  # here: a library that only graphs need

    for keys in sorted(_components(pairs), key=len, reverse=True):
        numbers = {key: number for number, key in enumerate(keys)}
        ours = [(numbers[source], numbers[target]) for source, target in pairs if source in numbers]
        found: Any = from_edges(ours, vertex_spacing=1, dummy_vertices=True, dummy_size=1, minimum_length=1)
        names: dict[int, Hashable] = dict(enumerate(keys))
        for places, _, _, hops in found:
            named = [(names.get(number, number), place) for number, place in places]
            yield named, [(names.get(one, one), names.get(other, other)) for one, other in hops or ()]


def _components(pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
    """The boxes that hang together."""
    near: dict[str, list[str]] = {}
    for source, target in pairs:
        near.setdefault(source, []).append(target)
        near.setdefault(target, []).append(source)
    components: list[list[str]] = []
    while near:
        component = list(near)[:1]
        for key in component:  # which grows meanwhile
            component += [other for other in near.pop(key, ()) if other in near and other not in component]
        components.append(component)
    return components


def _placed(component: Sequence[tuple[Hashable, Point]], top: float) -> tuple[dict[Hashable, Point], float]:
    """From units, top to bottom, to pixels, left to right."""
    last = max(y for _, (_, y) in component)
    least = min(x for _, (x, _) in component)
    placed = {key: ((last - y) * STEP_X, top + (x - least) * STEP_Y) for key, (x, y) in component}
    return placed, max(y for _, y in placed.values()) - top


def _paths(
    places: Mapping[Hashable, Point], hops: Iterable[tuple[Hashable, Hashable]], edges: Edges
) -> Iterable[Drawn]:
    """A curve for each edge, through the bends that it was given."""
    following: dict[Hashable, list[Hashable]] = {}
    for source, target in hops:
        following.setdefault(source, []).append(target)
    for source in [key for key in following if isinstance(key, str)]:
        for target in following[source]:
            line = [source, target]
            while not isinstance(line[-1], str):
                line.append(following[line[-1]][0])
            number = edges.get((source, str(line[-1])), 1)
            title = f"{number:,} dependencies" if number > 1 else ""
            yield Drawn(_curve([places[key] for key in line]), source, str(line[-1]), title)


def _curve(points: Sequence[Point]) -> str:
    x, y = points[0][0] + WIDTH + MARGIN, points[0][1] + HEIGHT / 2 + MARGIN
    said = [f"M{x:.0f} {y:.1f}"]
    for place, (left, top) in enumerate(points[1:], start=1):
        to_x, to_y = left + MARGIN, top + HEIGHT / 2 + MARGIN
        bend = (to_x - x) / 2
        said.append(f"C{x + bend:.0f} {y:.1f} {to_x - bend:.0f} {to_y:.1f} {to_x:.0f} {to_y:.1f}")
        x, y = to_x, to_y
        if place < len(points) - 1:
            x += WIDTH
            said.append(f"H{x:.0f}")
    return "".join(said)


def _node(key: str, box: Box, place: Point) -> Node:
    label = box.label if len(box.label) <= LONGEST_LABEL else f"{box.label[: LONGEST_LABEL - 1]}…"
    return Node(
        key=key,
        x=round(place[0] + MARGIN, 1),
        y=round(place[1] + MARGIN, 1),
        label=label,
        title=f"{box.label}: {box.note}",
        note=box.note,
        kind=box.kind,
        href=box.href,
        segments=_segments(box.states),
    )


def _segments(states: Mapping[StateType, int]) -> list[Segment]:
    total = sum(states.values())
    segments: list[Segment] = []
    x = 0.0
    for kind in STATE_ORDER:
        if states.get(kind):
            width = WIDTH * states[kind] / total
            segments.append(Segment(kind_of(kind), round(x, 2), round(width, 2)))
            x += width
    return segments


__all__ = ["HEIGHT", "WIDTH", "Box", "Graph", "graph", "laid_out"]
