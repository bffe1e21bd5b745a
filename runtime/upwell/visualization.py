"""`flow.visualize`: what a flow would start, and what each of that needs, found without running a task.

The flow's own code is run; what it calls, submits or maps answers with a `Stand`, which stands for the future and for
the result, and is known again where it is passed on. What is done with a result that only a run could give is an error
that says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any, Final, Literal, NoReturn

from msgspec import Struct

from upwell.core.definition import Definition, FunctionKind
from upwell.core.errors import FlowVisualizationError, MissingExtraError, UpwellError
from upwell.core.lifecycle import describe
from upwell.core.states import COMPLETED, State
from upwell.engine.calls import MapOptions
from upwell.engine.current import portal_engine
from upwell.engine.future import TaskFuture
from upwell.engine.scope import CURRENT_SCOPE, Scope
from upwell.engine.submit import FINDER, STATES
from upwell.futures import FutureList
from upwell.logging import disable_run_logger

MOST_NODES: Final = 1_000
"""A flow that has started so many has a loop that only results would end."""

_OWN: Final = ("return_state", "wait_for")
_OWN_UNLESS_TAKEN: Final = ("key", "idempotency_key")

_EQUALS: Final = (bool, int, float, complex, str, bytes)
"""Of these one cannot be told from another that is equal, so what is passed on of them is not followed."""

_COPIED: Any = (list, dict, set)
"""Of a result that is said once, each run gives its own copy, by which it is known again."""


class GraphNode(Struct, frozen=True):
    """A run that a flow would start. runs: how many, for a map; None: as many as a result has items."""

    name: str
    kind: Literal["task", "flow"] = "task"
    runs: int | None = 1

    @property
    def label(self) -> str:
        """The name, and how often."""
        return self.name if self.runs == 1 else f"{self.name} × {'n' if self.runs is None else self.runs}"


class GraphEdge(Struct, frozen=True):
    """What a run needs: both by their place in the list of nodes. waits: it is only waited for."""

    source: int
    target: int
    waits: bool = False


class FlowGraph(Struct, frozen=True):
    """What a flow would start, in the order in which it would. Print it, or ask for Mermaid or SVG."""

    flow_name: str
    nodes: list[GraphNode]
    edges: list[GraphEdge]

    def __str__(self) -> str:
        lines = [self.flow_name]
        for place, node in enumerate(self.nodes):
            needs = ", ".join(self.nodes[edge.source].label for edge in self.edges if edge.target == place)
            lines.append(f"  {node.label}" + (f" <- {needs}" if needs else ""))
        return "\n".join(lines)

    def mermaid(self) -> str:
        """The graph in Mermaid's language, for Markdown and notebooks."""
        lines = ["flowchart LR"]
        for place, node in enumerate(self.nodes):
            label = node.label.replace('"', "#quot;")
            lines.append(f'    n{place}[["{label}"]]' if node.kind == "flow" else f'    n{place}["{label}"]')
        lines += [f"    n{e.source} {'-.->' if e.waits else '-->'} n{e.target}" for e in self.edges]
        return "\n".join(lines)

    def svg(self) -> str:
        """The graph as a drawing that stands for itself, laid out as on the pages.

        Raises:
            MissingExtraError: what lays it out is not installed.
        """
        try:
            from upwell.server.pages.graph import HEIGHT, WIDTH, Box, laid_out  # here: few ask for a drawing
        except ImportError as error:
            raise MissingExtraError("To draw a flow, install `upwell[server]`; `mermaid()` needs nothing.") from error
        boxes = {
            str(place): Box(label=node.label, note=node.kind, kind="", href="", states={})
            for place, node in enumerate(self.nodes)
        }
        drawn = laid_out(boxes, {(str(edge.source), str(edge.target)): 1 for edge in self.edges})
        look = 'font-family="sans-serif" font-size="12" fill="none" stroke="#888"'
        size = f'width="{drawn.width:.0f}" height="{drawn.height:.0f}"'
        parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} {look}>']
        parts += [f'<path d="{edge.path}"/>' for edge in drawn.edges]
        for node in drawn.nodes:
            x, y = node.x + WIDTH / 2, node.y + HEIGHT / 2 + 4
            parts.append(
                f'<g><title>{escape(node.title)}</title><rect x="{node.x}" y="{node.y}" width="{WIDTH}" '
                f'height="{HEIGHT}" rx="{0 if node.note == "flow" else 6}" fill="#fff"/><text x="{x}" y="{y}" '
                f'text-anchor="middle" fill="#222" stroke="none">{escape(node.label)}</text></g>'
            )
        return "\n".join([*parts, "</svg>"])

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """What a notebook shows."""
        return {"text/plain": str(self), "text/vnd.mermaid": self.mermaid()}


class Stand(TaskFuture[Any]):
    """Stands for the future of a run that is not made, and for its result."""

    __slots__ = ("_answer", "name", "place")

    def __init__(self, place: int, name: str, answer: Any) -> None:
        self.place = place
        self.name = name
        self._answer = answer

    @property
    def state(self) -> State:
        return State(type=COMPLETED, name="Completed", data=self.result())

    def wait(self, timeout: float | None = None) -> None: ...

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        return self if self._answer is None else self._answer

    def add_done_callback(self, fn: Callable[[TaskFuture[Any]], object]) -> None:
        fn(self)

    def is_done(self) -> bool:
        return True

    def __getattr__(self, name: str) -> NoReturn:
        raise FlowVisualizationError(_not_known(self, f"its attribute {name!r}"))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Stand):  # as futures, which lists and sets of them compare
            return other is self
        raise FlowVisualizationError(_not_known(self, "__eq__"))

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<result of {self.name}>"


def _not_known(stand: Stand, what: str) -> str:
    return (
        f"The flow uses the result of {stand.name!r} itself ({what}), which is not known before the task has run. "
        "Say what it might be, `@task(viz_return_value=...)`, or do this in a task."
    )


def _refuse(operation: str) -> Callable[..., NoReturn]:
    def refuse(self: Stand, *_: Any) -> NoReturn:
        raise FlowVisualizationError(_not_known(self, operation))

    return refuse


for _operation in (
    "bool", "len", "iter", "aiter", "getitem", "contains", "call", "int", "float", "index", "enter", "aenter",
    "add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "floordiv", "mod", "pow", "neg",
    "lt", "le", "gt", "ge", "and", "or",
):  # fmt: skip  # a list of names
    setattr(Stand, f"__{_operation}__", _refuse(f"__{_operation}__"))


class Sketch:
    """What a flow has started until now, while it is only looked at: in the place of the engine."""

    def __init__(self, flow_name: str) -> None:
        self._flow_name = flow_name
        self._nodes: list[GraphNode] = []
        self._edges: dict[tuple[int, int], bool] = {}
        self._made: dict[int, tuple[Any, int]] = {}
        self._numbers: Counter[str] = Counter()

    def graph(self) -> FlowGraph:
        """All of that."""
        edges = [GraphEdge(source, target, waits) for (source, target), waits in self._edges.items()]
        return FlowGraph(self._flow_name, self._nodes, edges)

    def call(self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A direct call."""
        stand, own = self._start(definition, args, kwargs)
        answer = stand.state if own.get("return_state") else stand.result()
        kind = definition.kind
        if kind is FunctionKind.COROUTINE:
            return _later(answer)
        if kind is FunctionKind.ASYNC_GENERATOR:
            return _each_later([answer])
        return iter([answer]) if kind is FunctionKind.GENERATOR else answer

    def submit(self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`.submit`."""
        stand, own = self._start(definition, args, kwargs)
        return stand.state if own.get("return_state") else stand

    def map(self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`.map`: one node, whose items are those of what is mapped over, or one where these are not known."""
        own = _take_own(definition, kwargs, MapOptions._fields)
        known = True

        def items(value: Any) -> Any:
            nonlocal known
            if not isinstance(value, Stand):
                return value
            known = known and value.result() is not value
            return [value] if value.result() is value else value.result()  # of items not known one stands for all

        rows = tuple(map(items, args)), {name: items(value) for name, value in kwargs.items()}
        runs = definition.parameters.plan_map(*rows).length
        stand = self._add(definition, (args, kwargs), own, runs if known else None)
        stands: FutureList[Any] = FutureList([stand] * runs)
        return [each.state for each in stands] if own.get("return_state") else stands

    def stream(self, definition: Definition, inputs: Any) -> Any:
        """The one result that stands for all those of a stream."""
        return self._add(definition, inputs, {}, None).result()

    def _start(
        self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Stand, dict[str, Any]]:
        own = _take_own(definition, kwargs)
        definition.parameters.bind(args, kwargs)
        return self._add(definition, (args, kwargs), own, 1), own

    def _add(self, definition: Definition, inputs: Any, own: dict[str, Any], runs: int | None) -> Stand:
        place = len(self._nodes)
        if place >= MOST_NODES:
            raise FlowVisualizationError(
                f"{self._flow_name!r} has started {MOST_NODES} runs, and goes on: a loop in it seems to wait for a "
                "result."
            )
        kind: Literal["task", "flow"] = "flow" if definition.is_flow or definition.wraps_flow else "task"
        name = definition.name
        if runs == 1:
            name += f"-{self._numbers[definition.name]}"
            self._numbers[definition.name] += 1
        for waits, value in ((False, inputs), (True, own.get("wait_for"))):
            for source in self._sources(value):
                self._edges.setdefault((source, place), waits)
        self._nodes.append(GraphNode(name, kind, runs))
        answer = definition.options.viz_return_value
        if isinstance(answer, _COPIED):
            answer = answer.copy()
        if answer is not None and not isinstance(answer, _EQUALS):
            self._made[id(answer)] = answer, place
        return Stand(place, name, answer)

    def _sources(self, value: Any) -> Iterator[int]:
        """The nodes whose futures or results are in a value."""
        states = (found.future.data for found in STATES.find(value))
        for stand in (*(found.future for found in FINDER.find(value)), *states):
            if isinstance(stand, Stand):
                yield stand.place
        for part in _parts(value):
            made = self._made.get(id(part))
            if made is not None and made[0] is part:
                yield made[1]


def _take_own(definition: Definition, kwargs: dict[str, Any], more: tuple[str, ...] = _OWN_UNLESS_TAKEN) -> Any:
    """Take upwell's own keywords out of a call's."""
    free = [name for name in more if not definition.parameters.takes(name)]
    return {name: kwargs.pop(name) for name in (*_OWN, *free) if name in kwargs}


def _parts(value: Any) -> Iterable[Any]:
    """What is in plain containers, at any depth, and the value itself."""
    yield value
    if isinstance(value, dict):
        value = list(value.values())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # users'
    if isinstance(value, list | tuple | set | frozenset):
        for part in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _parts(part)


async def _later(answer: Any) -> Any:
    return answer


async def _each_later(answers: list[Any]) -> AsyncIterator[Any]:
    for answer in answers:
        yield answer


@contextmanager
def _sketching(sketch: Sketch, flow_name: str) -> Generator[None, None, None]:
    scope = Scope(portal_engine, f"the visualization of {flow_name}")
    scope.sketch = sketch
    token = CURRENT_SCOPE.set(scope)
    try:
        with disable_run_logger():
            yield
    except UpwellError:
        raise
    except Exception as error:
        raise FlowVisualizationError(
            f"{flow_name!r} cannot be visualized, for its own code raised {describe(error)}. It is run for that, but "
            "its tasks are not, and what stands for their results can only be passed on."
        ) from error
    finally:
        CURRENT_SCOPE.reset(token)


def _given(definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    parameters = definition.parameters.bind(args, kwargs)
    if definition.options.validate_parameters:
        parameters = definition.parameters.validate(parameters)
    return definition.parameters.call_args(parameters)


def visualize(definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FlowGraph:
    """The graph of a flow."""
    if definition.kind.is_async:
        from upwell.engine.steps import run_apart  # here: most flows that are looked at are not

        return run_apart(avisualize(definition, args, kwargs))
    args, kwargs = _given(definition, args, kwargs)
    sketch = Sketch(definition.name)
    with _sketching(sketch, definition.name):
        answer = definition.fn(*args, **kwargs)
        if definition.kind is FunctionKind.GENERATOR:
            for _ in answer:
                pass
    return sketch.graph()


async def avisualize(definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FlowGraph:
    """The same on the running loop."""
    if not definition.kind.is_async:
        return visualize(definition, args, kwargs)
    args, kwargs = _given(definition, args, kwargs)
    sketch = Sketch(definition.name)
    with _sketching(sketch, definition.name):
        answer = definition.fn(*args, **kwargs)
        if definition.kind is FunctionKind.ASYNC_GENERATOR:
            async for _ in answer:
                pass
        else:
            await answer
    return sketch.graph()


__all__ = ["FlowGraph", "GraphEdge", "GraphNode", "avisualize", "visualize"]
