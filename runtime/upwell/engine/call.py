"""A call: what the runs of one submit or map have in common, said once."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from upwell.core.definition import Definition
from upwell.core.quick import quickly_set
from upwell.core.shown import shown_arguments
from upwell.engine.scope import Scope, Series


@quickly_set
class Call(Struct, gc=False, eq=False):
    """What the runs of one submit or map have in common.

    context: the submitter's, inherited by each run; let go when the last has ended.
    owns_context: it is that of its one run, which is attempted once: nobody else needs it as it was.
    unary: a run's `item` is its only argument; else it is the tuple of its positional arguments.
    row_names: which keyword arguments differ by run; their values stand at the end of `item`.
    plain: nothing is to be done when a run of it completes: it may take the shortest path to its end.
    direct: a run whose upstream has ended is ready: no gate and no prelude stands between.
    straight: the same, and its runs have no upstream.
    attempt: makes the coroutine of one attempt, for runs on the loop.
    gates: the limits that a run passes, in order, before it starts.
    runner: the task runner that executes the runs; None: the loop.
    has_prelude: its runs have a name to be made, or hooks to be called, before they start.
    keeping: what is to be done about results (see `caching.Keeping`); None: nothing. transaction: what is around.
    open: how many of its runs have been accepted and have not ended.
    failed: how many of its runs have not completed.
    on_end: called after the last has ended.
    record: takes each run that has ended, for the journal; None where none is kept.
    is_restored: its runs were finished in an earlier process.
    is_left: nobody takes the results of its runs any more: it is a stream's, which was left.
    constants: the arguments that all runs have, as histories show them, after they were let go.
    is_simple: nothing is to be done when a run of it completes but to keep its result.
    record_fully: there is more to be recorded of its runs than the shortest row tells.
    """

    series: Series
    definition: Definition
    scope: Scope
    context: Any
    parent: Any
    created: float
    tags: frozenset[str]
    open: int = 0
    unary: bool = False
    kwargs: Any = None
    plain: bool = False
    direct: bool = False
    straight: bool = False
    attempt: Any = None
    gates: Any = ()
    runner: Any = None
    has_prelude: bool = False
    record: Any = None
    record_fully: bool = False
    is_simple: bool = False
    keep: Any = None
    keeping: Any = None
    transaction: Any = None
    owns_context: bool = False
    row_names: tuple[str, ...] = ()
    failed: int = 0
    parent_id: Any = None
    on_end: Any = None
    is_restored: bool = False
    is_left: bool = False
    constants: str = ""

    def let_go(self) -> None:
        """Keep only plain values: the collector does not look into a Call, so no cycle may go through one."""
        if self.kwargs and self.record is not None:
            self.constants = shown_arguments(self.kwargs, self.kwargs.values())
        self.context = self.kwargs = None
        if self.parent is not None:
            self.parent_id = self.parent.task_run_id
            self.parent = None

    def run_ended(self) -> None:
        """The last run of this call has ended: let go of what they shared."""
        self.let_go()
        if self.on_end is not None:
            self.on_end()
        scope = self.scope
        scope.open_calls -= 1
        if not scope.open_calls:
            scope.tell_empty()
