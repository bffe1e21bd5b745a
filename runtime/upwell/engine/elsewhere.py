"""The run whose code this process executes for another process, where there is no live record of it.

A task runner that executes attempts in other processes (or on other machines) sets `ELSEWHERE` around the
user's function there. It says who the run is, which takes a question to the process that holds the record,
asked only when somebody wants to know.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from msgspec import Struct, convert

from upwell.core.errors import MissingContextError


class RunFacts(Struct, frozen=True):
    """What `Attempt.facts()` says of a run."""

    task_run_id: str = ""
    task_run_name: str = ""
    task_name: str = ""
    tags: tuple[str, ...] = ()
    run_count: int = 1
    flow_run_id: str | None = None
    flow_run_name: str | None = None
    flow_name: str | None = None
    log_prints: bool = False
    flow_version: str | None = None
    flow_tags: tuple[str, ...] = ()
    flow_run_count: int = 0
    flow_run_created: float | None = None
    parent_flow_run_id: str | None = None
    root_flow_run_id: str | None = None
    flow_parameters: bytes | None = None


class RunElsewhere(Struct, eq=False):
    """A run as its own code sees it in a process that does not hold its record.

    ask: gets `Attempt.facts()` from the process that does.
    key: what the runner that made it knows the attempt by.
    fn, args, kwargs: what is being called.
    """

    ask: Callable[[RunElsewhere], Mapping[str, Any]]
    key: int
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    known: RunFacts | None = None

    def facts(self) -> RunFacts:
        """Who the run is; the first call asks the process that holds its record, and blocks meanwhile."""
        if self.known is None:
            self.known = convert(self.ask(self), RunFacts)
        return self.known

    @property
    def task_run_id(self) -> str:
        return self.facts().task_run_id

    @property
    def task_run_name(self) -> str:
        return self.facts().task_run_name

    @property
    def task_name(self) -> str:
        return self.facts().task_name

    @property
    def tags(self) -> tuple[str, ...]:
        return self.facts().tags

    @property
    def run_count(self) -> int:
        return self.facts().run_count

    @property
    def flow_run_id(self) -> str | None:
        return self.facts().flow_run_id

    @property
    def flow_run_name(self) -> str | None:
        return self.facts().flow_run_name

    @property
    def flow_name(self) -> str | None:
        return self.facts().flow_name

    def flow_parameters(self) -> dict[str, Any]:
        """Those of the flow run that it belongs to.

        Raises:
            MissingContextError: they have stayed in the process of the flow run.
        """
        import pickle  # only here: most processes execute no run of another

        facts = self.facts()
        if facts.flow_run_id is None:
            return {}
        if facts.flow_parameters is None:
            raise MissingContextError(
                f"The parameters of flow run {facts.flow_run_name!r} are too large, or cannot be pickled, and so are "
                "not known in this process. Give the task what it needs as an argument."
            )
        return dict(pickle.loads(facts.flow_parameters))  # of a process of ours, as the arguments are

    def parameters(self) -> dict[str, Any]:
        """Argument by name, defaults included."""
        bound = inspect.signature(self.fn).bind(*self.args, **self.kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)


ELSEWHERE: ContextVar[RunElsewhere | None] = ContextVar("upwell_elsewhere", default=None)
"""The run of another process whose code this is; None in the process that holds the record."""
