"""The dependency graph: every box has a place of its own, every edge a path, whatever depends on what."""

from __future__ import annotations

import itertools
import random

import pytest

from upwell.server.pages import graph
from upwell.server.pages.graph import HEIGHT, WIDTH, Graph


def drawn(boxes: int, edges: dict[tuple[str, str], int]) -> Graph:
    made = {f"n{i}": graph.Box(label=f"n{i}", note="", kind="completed", href="/", states={}) for i in range(boxes)}
    return graph.laid_out(made, edges, grouped=False)


def check(found: Graph, boxes: int, edges: dict[tuple[str, str], int]) -> None:
    assert len(found.nodes) == boxes
    for one, other in itertools.combinations(found.nodes, 2):
        assert abs(one.x - other.x) >= WIDTH or abs(one.y - other.y) >= HEIGHT, (one.key, other.key)
    assert {(edge.source, edge.target) for edge in found.edges} == set(edges)
    place = {node.key: node.x for node in found.nodes}
    assert all(place[edge.source] < place[edge.target] for edge in found.edges)
    assert all(node.x + WIDTH <= found.width and node.y + HEIGHT <= found.height for node in found.nodes)


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs(seed: int) -> None:
    chance = random.Random(seed)
    boxes = chance.randrange(1, 40)
    pairs = [(i, j) for i in range(boxes) for j in range(i + 1, boxes) if chance.random() < 2 / boxes]
    edges = {(f"n{i}", f"n{j}"): 1 for i, j in pairs}
    check(drawn(boxes, edges), boxes, edges)


def test_nothing_depends_on_anything() -> None:
    check(drawn(9, {}), 9, {})
    assert drawn(0, {}).nodes == []


def test_tasks_that_feed_each_other_in_a_circle() -> None:
    pairs = [("n0", "n1"), ("n1", "n2"), ("n2", "n0"), ("n2", "n2"), ("n1", "n0")]
    found = drawn(3, dict.fromkeys(pairs, 1))
    assert len(found.nodes) == 3
    assert {(edge.source, edge.target) for edge in found.edges} == set(pairs) - {("n2", "n2")}


def test_edges_across_very_many_layers_are_drawn() -> None:
    chain = {(f"n{i}", f"n{i + 1}"): 1 for i in range(249)} | {(f"n{i // 2}", f"n{i}"): 1 for i in range(3, 250)}
    check(drawn(250, chain), 250, chain)
