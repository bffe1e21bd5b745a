"""Random graphs of task runs, and a model that says how each must end: the same on every task runner."""

from __future__ import annotations

import random
from typing import Any, Final, NamedTuple

from upwell.core.annotations import allow_failure
from upwell.core.states import COMPLETED, FAILED, NOT_READY, PENDING, StateType
from upwell.futures import TaskFuture
from upwell.runtime import task_run
from upwell.tasks import Task, task

MOST_NODES: Final = 14
MOST_UPSTREAM: Final = 3
MOST_RETRIES: Final = 2


class NodeFailed(Exception):
    """The failure that a node was made for."""


class Node(NamedTuple):
    """One task run of a graph.

    upstream: the nodes whose results it takes, each with whether their failure is allowed.
    waits_for: the nodes that it only waits for.
    failures: how many attempts fail, before one succeeds.
    """

    number: int
    upstream: tuple[tuple[int, bool], ...]
    waits_for: tuple[int, ...]
    failures: int
    retries: int
    is_async: bool


class End(NamedTuple):
    """How a node ends: its state's type and name, and its value or its exception in words."""

    type: StateType
    name: str
    value: Any


def random_graph(seed: int) -> list[Node]:
    """A graph in an order in which it can be submitted; the same for the same seed."""
    dice = random.Random(seed)
    nodes: list[Node] = []
    for number in range(dice.randint(1, MOST_NODES)):
        chosen = dice.sample(range(number), min(number, dice.randint(0, MOST_UPSTREAM)))
        waits_for = tuple(other for other in chosen if dice.random() < 0.2)
        upstream = tuple((other, dice.random() < 0.3) for other in chosen if other not in waits_for)
        failures = dice.choice((0, 0, 0, 1, 2, 3))
        nodes.append(Node(number, upstream, waits_for, failures, dice.randint(0, MOST_RETRIES), dice.random() < 0.4))
    return nodes


def expected_ends(graph: list[Node]) -> list[End]:
    """How each node must end, worked out without running anything."""
    ends: list[End] = []
    for node in graph:
        required = [other for other, failure_is_allowed in node.upstream if not failure_is_allowed]
        if any(ends[other].type is not COMPLETED for other in (*required, *node.waits_for)):
            ends.append(End(PENDING, NOT_READY, "NotReadyRun"))
        elif node.failures > node.retries:
            ends.append(End(FAILED, "Failed", f"NodeFailed({node.number})"))
        else:
            value = _value(node.number, [ends[other].value for other, _ in node.upstream])
            ends.append(End(COMPLETED, "Completed", value))
    return ends


def ends_on_this_runner(graph: list[Node]) -> list[End]:
    """Submit a graph to the runtime or flow around, and say how each node has ended."""
    futures: list[TaskFuture[Any]] = []
    for node in graph:
        values = [allow_failure(futures[other]) if allowed else futures[other] for other, allowed in node.upstream]
        waits_for = [futures[other] for other in node.waits_for]
        made = (_ASYNC if node.is_async else _SYNC)[node.retries]
        futures.append(made.submit(node.number, node.failures, values, wait_for=waits_for))
    ends: list[End] = []
    for future in futures:
        value = future.result(raise_on_failure=False)
        state = future.state
        ends.append(End(state.type, state.name, _in_words(value)))
    return ends


def _value(number: int, values: list[Any]) -> str:
    return f"{number}({', '.join(map(str, values))})"


def _in_words(value: Any) -> Any:
    """A value as it is; an exception by what it says, but for the words that upwell chooses."""
    if isinstance(value, NodeFailed):
        return f"NodeFailed({value.args[0]})"
    return type(value).__name__ if isinstance(value, BaseException) else value


def _attempt(number: int, failures: int, values: list[Any]) -> str:
    if task_run.run_count <= failures:
        raise NodeFailed(number)
    return _value(number, [_in_words(value) for value in values])


@task
def sync_node(number: int, failures: int, values: list[Any]) -> str:
    return _attempt(number, failures, values)


@task
async def async_node(number: int, failures: int, values: list[Any]) -> str:
    return _attempt(number, failures, values)


_SYNC: Final[list[Task[..., Any]]] = [sync_node.with_options(retries=count) for count in range(MOST_RETRIES + 1)]
_ASYNC: Final[list[Task[..., Any]]] = [async_node.with_options(retries=count) for count in range(MOST_RETRIES + 1)]
