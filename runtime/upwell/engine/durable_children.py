"""The subflow runs of a durable flow run: which of them a call of a flow means."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from upwell.core.keys_kinds import DIGEST_BYTES
from upwell.core.states import CANCELLED, COMPLETED
from upwell.engine.durable_records import Child

if TYPE_CHECKING:
    from upwell.engine.flow_run import FlowRun, Wish


class Children:
    """Those of an earlier process, or of an earlier attempt, each of which is taken once. From any thread.

    inherited: they are of the run that this one is a fork of. remembers: there may be another attempt.
    """

    def __init__(self, known: Sequence[Child], *, inherited: bool, remembers: bool) -> None:
        self._inherited = {child.id for child in known} if inherited else set[str]()
        self._remembers = remembers
        self._lock = threading.Lock()
        self._known: dict[tuple[str, bytes], list[Child]] = defaultdict(list)
        self._kept: list[Child] = []
        for child in known:
            self._known[child.flow, child.arguments].append(child)

    def __bool__(self) -> bool:
        return bool(self._known)

    def wish_of(self, run: FlowRun) -> Wish:
        """What a call of a flow is to be: the run that an equal call has begun, or another that takes it over."""
        assert run.arguments is not None
        with self._lock:
            known = self._known.get((run.flow_name, run.arguments[:DIGEST_BYTES]), [])
            called_by_task = run.parent_task_run_id is not None
            child = next((child for child in known if (child.parent is not None) == called_by_task), None)
            if child is None:
                return run.wish
            known.remove(child)
        as_it_is = child.state == COMPLETED.value and child.has_result and child.source_hash == run.source_hash
        if child.id not in self._inherited and (child.ended is None or as_it_is):
            return run.wish._replace(resume=child.id)
        return run.wish._replace(fork_of=child.id)

    def keep(self, run: FlowRun) -> None:
        """A subflow run has ended."""
        if not self._remembers or run.arguments is None or run.state.type is CANCELLED:
            return
        parent = str(run.parent_task_run_id) if run.parent_task_run_id else None
        state, has_result = run.state.type.value, run.result_record is not None
        with self._lock:
            digest = run.arguments[:DIGEST_BYTES]
            child = Child(str(run.id), run.flow_name, digest, parent, state, 0, run.source_hash, has_result)
            self._kept.append(child)

    def has_open(self, task_run_id: str) -> bool:
        """Whether this task run has started one that has not ended."""
        with self._lock:
            children = (child for known in self._known.values() for child in known)
            return any(child.parent == task_run_id and child.ended is None for child in children)

    def forget_those_of(self, task_run_id: str) -> None:
        """This task run is not run again, so nobody asks for the subflow runs that it has started."""
        with self._lock:
            for known in self._known.values():
                known[:] = [child for child in known if child.parent != task_run_id]

    def begin_again(self) -> None:
        """There is another attempt: what ended in the one before counts."""
        with self._lock:
            for child in self._kept:
                self._known[child.flow, child.arguments].append(child)
            self._kept = []
