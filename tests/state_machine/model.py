"""What must be in the store: dicts of runs by their ids, and what each event makes of them.

A state is that of a row's type, but for OPEN, which is any of a task run that is under way, and for PENDING, which is a
task run that was submitted, and has no row.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

OPEN: Final = "OPEN"
PENDING: Final = "PENDING"
SCHEDULED: Final = "SCHEDULED"
CRASHED: Final = "CRASHED"
ENDED: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED", "NOT_READY"})


class Step(NamedTuple):
    """One thing that a flow does; see `processes.Step`."""

    labels: tuple[str, ...] = ()
    upstream: str | None = None
    retries: bool = False
    fails: bool = False


class Said(NamedTuple):
    """What a batch says: of flow runs by name, and of task runs by id, where they have changed."""

    flows: dict[str, str]
    task_runs: dict[str, tuple[str, str, str]]
    """Flow, label, state."""


@dataclass
class FlowRow:
    """A flow run in the store. owner: the process that has it; None: nobody, it waits to be resumed."""

    durable: bool
    state: str
    owner: int | None
    crashes: int = 0


@dataclass
class TaskRow:
    """A task run in the store, or PENDING. writer: the process that has said so."""

    flow: str
    label: str
    state: str
    writer: int


@dataclass
class Model:
    """What must be in the store. processes: alive, ended, lost, by number."""

    most_crashes: int
    processes: dict[int, str] = field(default_factory=dict[int, str])
    flows: dict[str, FlowRow] = field(default_factory=dict[str, FlowRow])
    task_runs: dict[str, TaskRow] = field(default_factory=dict[str, TaskRow])
    leases: dict[str, tuple[int, int, str]] = field(default_factory=dict[str, tuple[int, int, str]])
    """Process, slots, held or waiting; in the order of the line."""

    # --- what processes do --------------------------------------------------------------------------------

    def began(self, process: int, name: str) -> None:
        """A durable flow run began, or was taken up again: the store knows at once."""
        found = self.flows.setdefault(name, FlowRow(True, PENDING, process))
        found.state, found.owner = PENDING, process

    def wrote(self, process: int, said: Said, durable: dict[str, bool]) -> None:
        """A batch was written."""
        for name, state in said.flows.items():
            row = self.flows.setdefault(name, FlowRow(durable[name], state, process))
            if row.state not in ENDED or (row.state == CRASHED and row.owner == process):
                row.state, row.owner = state, process
        for run_id, (name, label, state) in said.task_runs.items():
            known = self.task_runs.setdefault(run_id, TaskRow(name, label, state, process))
            if known.state not in ENDED or (known.state == CRASHED and state != PENDING):
                known.state = state

    def was_brought_in(self, process: int, said: Said, durable: dict[str, bool]) -> None:
        """A batch came in after its process was gone; of runs that others have taken over nothing counts."""
        others: set[str] = set()
        left_out: set[str] = set()
        for name, row in self.flows.items():
            if row.owner is None and said.flows.get(name) not in ENDED:
                left_out.add(name)
            elif row.owner not in (None, process):
                others.add(name)
        flows = {name: state for name, state in said.flows.items() if name not in left_out | others}
        task_runs = {run_id: run for run_id, run in said.task_runs.items() if run[0] not in others}
        self.wrote(process, Said(flows, task_runs), durable)
        if self.processes[process] != "alive":
            self._nothing_goes_on(process, set())

    def ended(self, process: int) -> None:
        """A process said goodbye."""
        self.processes[process] = "ended"
        self._drop_leases(process)

    # --- what observers do --------------------------------------------------------------------------------

    def was_looked_at(self) -> None:
        """What those have left who ended, or are known as lost, is seen to whenever somebody looks."""
        for process, state in self.processes.items():
            if state != "alive":
                self._was_left(process)

    def was_lost(self, process: int) -> None:
        """A process was declared lost."""
        self.processes[process] = "lost"
        self._drop_leases(process)
        self._was_left(process)

    def _was_left(self, process: int) -> None:
        left = {name for name, row in self.flows.items() if row.owner == process and row.state not in ENDED}
        for name in left:
            row = self.flows[name]
            row.crashes += 1
            if row.durable and row.crashes < self.most_crashes:
                row.state, row.owner = SCHEDULED, None
            else:
                row.state = CRASHED
        self._nothing_goes_on(process, left)

    def _nothing_goes_on(self, process: int, flows: set[str]) -> None:
        for row in self.task_runs.values():
            if row.state == OPEN and (row.writer == process or row.flow in flows):
                row.state = CRASHED

    # --- slots --------------------------------------------------------------------------------------------

    def turn(self, process: int, slots: int) -> list[str]:
        """Which wishes of a process get their slots now: all come in their order, nobody is overtaken."""
        taken, granted = self.taken(), list[str]()
        for lease, (owner, wanted, state) in self.leases.items():
            if state == "held" or self.processes[owner] != "alive":
                continue
            if taken + wanted > slots:
                break
            taken += wanted
            if owner == process:
                granted.append(lease)
        for lease in granted:
            owner, wanted, _ = self.leases[lease]
            self.leases[lease] = (owner, wanted, "held")
        return granted

    def taken(self) -> int:
        """How many slots the living hold."""
        held = (lease for lease in self.leases.values() if lease[2] == "held")
        return sum(slots for owner, slots, _ in held if self.processes[owner] == "alive")

    def _drop_leases(self, process: int) -> None:
        self.leases = {lease: taken for lease, taken in self.leases.items() if taken[0] != process}

    # --- what is to be read -------------------------------------------------------------------------------

    def safe(self, name: str) -> set[str]:
        """The labels of a flow that are in the store as completed: they must not be run again."""
        return {row.label for row in self.task_runs.values() if row.flow == name and row.state == "COMPLETED"}

    def rows(self) -> dict[str, str]:
        """The task runs that have a row."""
        return {run_id: row.state for run_id, row in self.task_runs.items() if row.state != PENDING}

    def flow_counts(self) -> Counter[str]:
        return Counter(row.state for row in self.flows.values())

    def task_counts(self) -> Counter[str]:
        """By state; those that have not begun, and will not, for their flow has ended, are not counted."""
        counts = Counter(row.state for row in self.task_runs.values() if row.state != PENDING)
        for row in self.task_runs.values():
            if row.state == PENDING and (row.flow not in self.flows or self.flows[row.flow].state not in ENDED):
                counts[PENDING] += 1
        counts[PENDING] += counts.pop("NOT_READY", 0)
        return +counts
