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


class RunElsewhere:
    """A run as its own code sees it in a process that does not hold its record.

    fn, args, kwargs: what is being called.
    key: what the runner that made it knows the attempt by.
    """

    __slots__ = ("_ask", "_facts", "args", "fn", "key", "kwargs")

    def __init__(
        self,
        ask: Callable[[RunElsewhere], Mapping[str, Any]],
        key: int,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        self._ask = ask
        self._facts: RunFacts | None = None
        self.key = key
        self.fn = fn
        self.args = args
        self.kwargs = kwargs

    def facts(self) -> RunFacts:
        """Who the run is; the first call asks the process that holds its record, and blocks meanwhile."""
        if self._facts is None:
            self._facts = convert(self._ask(self), RunFacts)
        return self._facts

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

    def parameters(self) -> dict[str, Any]:
        """Argument by name, defaults included."""
        bound = inspect.signature(self.fn).bind(*self.args, **self.kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)


ELSEWHERE: ContextVar[RunElsewhere | None] = ContextVar("upwell_elsewhere", default=None)
"""The run of another process whose code this is; None in the process that holds the record."""
