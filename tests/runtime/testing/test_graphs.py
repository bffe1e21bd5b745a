from __future__ import annotations

from upwell.core.states import COMPLETED, FAILED, PENDING
from upwell.testing.graphs import Node, expected_ends, random_graph


def test_a_seed_gives_the_same_graph_each_time() -> None:
    assert random_graph(7) == random_graph(7)
    assert random_graph(7) != random_graph(8)


def test_random_graphs_hold_all_that_can_happen() -> None:
    graphs = [random_graph(seed) for seed in range(100)]
    nodes = [node for graph in graphs for node in graph]
    assert any(node.is_async for node in nodes)
    assert any(node.waits_for for node in nodes)
    assert any(allowed for node in nodes for _, allowed in node.upstream)
    assert any(0 < node.failures <= node.retries for node in nodes)
    assert {end.type for graph in graphs for end in expected_ends(graph)} == {COMPLETED, FAILED, PENDING}


def test_the_model_follows_failures_downstream() -> None:
    graph = [
        Node(0, (), (), failures=1, retries=0, is_async=False),
        Node(1, ((0, False),), (), failures=0, retries=0, is_async=False),
        Node(2, ((0, True), (1, True)), (), failures=0, retries=0, is_async=True),
        Node(3, (), (0,), failures=0, retries=0, is_async=False),
        Node(4, ((2, False),), (), failures=2, retries=2, is_async=False),
    ]
    assert [(end.type, end.name, end.value) for end in expected_ends(graph)] == [
        (FAILED, "Failed", "NodeFailed(0)"),
        (PENDING, "NotReady", "NotReadyRun"),
        (COMPLETED, "Completed", "2(NodeFailed(0), NotReadyRun)"),
        (PENDING, "NotReady", "NotReadyRun"),
        (COMPLETED, "Completed", "4(2(NodeFailed(0), NotReadyRun))"),
    ]
