"""A flow run: its record, and what is left of it once it has ended. Its life is told in `flow_life`."""

# An isinstance check cannot say what a generic future holds, and here nobody needs to know.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import Struct

from upwell.core.definition import Definition
from upwell.core.ids import RANDOM_BITS, uuid7
from upwell.core.names import run_name
from upwell.core.states import (
    PENDING,
    State,
    may_move,
)
from upwell.engine.chance import random_bits
from upwell.engine.clock import clock, moment
from upwell.engine.current import engine_for_blocking_flow, engine_for_flow
from upwell.engine.future import CURRENT_RUN, run_that_waits
from upwell.engine.loggers import RunLogger
from upwell.engine.logs import flow_run_logger
from upwell.engine.recorder import recorder
from upwell.engine.scope import CURRENT_SCOPE, CURRENT_TAGS, Scope

if TYPE_CHECKING:
    from uuid import UUID


MOST_TOLD_BYTES: Final = 1 << 20
"""Parameters that are larger stay in the process of their flow run."""


class FlowRun:
    """One run of a flow: who it is, the state it is in, and the states it has been in.

    id, name, flow_name, tags, parameters: who it is and what it was called with.
    state: the state now; `states`: all of them, oldest first.
    run_count: how often it has begun; crashes: how often its process died, after which another began it again.
    parent_task_run_id, parent_flow_run_id: what started it, if a run did.
    durable: whether another process can go on with it if this one dies; "strict": each step safe before the next.
    arguments, source_hash, entrypoint, result_record: what the store keeps of a durable one, so that it can.
    is_claimed: the store has said which run it is. is_given_up: nobody waits for that any more.
    stop_reason: why somebody who is not its caller has asked it to end; see `stopping`.
    """

    def __init__(
        self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], wish: Wish | None = None
    ) -> None:
        parent_scope = CURRENT_SCOPE.get()
        parent = CURRENT_RUN.get()
        self.created = clock().time()
        self.id = uuid7(self.created, random_bits(RANDOM_BITS))
        self.name = run_name(random_bits(32))
        self.definition = definition
        self.flow_name = definition.name
        self.flow_version: str | None = definition.options.version
        self.tags = CURRENT_TAGS.get()
        self.args, self.kwargs = args, kwargs
        self.parameters: dict[str, Any] = {}
        self.run_count = 0
        self.states: list[State] = []
        self.parent_task_run_id: UUID | None = parent.task_run_id if parent is not None else None
        around: FlowRun | None = parent_scope.flow_run if parent_scope is not None else None
        self.parent_flow_run_id = around.id if around else None
        self.root_flow_run_id: UUID = around.root_flow_run_id if around else self.id
        blocking = not definition.kind.is_async
        self.scope = Scope(
            engine_for_blocking_flow() if blocking else engine_for_flow(),
            f"flow run '{self.name}'",
            parent=parent_scope,
            flow_run=self,
            holder=run_that_waits(),
            task_runner=definition.task_runner or (parent_scope.task_runner if parent_scope else None),
            recorder=recorder(),
        )
        self.wish = wish or Wish()
        self.stop_reason: str | None = None
        if self.wish.assigned is not None:
            self._be(self.wish.assigned)
        self.durable = definition.options.durable
        if self.durable is None and parent_scope is not None and parent_scope.durable is not None:
            self.durable = "strict" if parent_scope.is_strict else True
        if definition.kind.is_generator:
            self.durable = False
        self.is_claimed = self.is_given_up = False
        self.crashes = 0
        self.arguments: bytes | None = None
        self.source_hash: str | None = None
        self.entrypoint: str | None = None
        self.result_record: bytes | None = None
        self.result_file: Any = None
        if not self.needs_claim:
            self.move(State(type=PENDING, name="Pending", message="About to start."))

    def _be(self, assigned: Assigned) -> None:
        """Be the run that the store knows already."""
        if self.root_flow_run_id == self.id:
            self.root_flow_run_id = assigned.id
        self.id, self.name, self.created = assigned.id, assigned.name, assigned.created
        self.tags = self.tags | assigned.tags
        self.scope.name = f"flow run '{self.name}'"

    @property
    def needs_claim(self) -> bool:
        """Whether the store must know of this run before it begins."""
        return bool(self.durable) or self.wish.idempotency_key is not None

    @property
    def state(self) -> State:
        return self.states[-1]

    @property
    def log(self) -> RunLogger:
        return flow_run_logger(self)

    @property
    def is_one(self) -> bool:
        """Whether there is such a run: not while another one is meant, and the store has not said which."""
        return self.is_claimed or not self.wish.means_another

    def move(self, state: State) -> State:
        """Enter a state, now. A move that the table forbids is ignored: a final state stays."""
        stamped = State(
            type=state.type,
            name=state.name or state.type.value.capitalize(),
            timestamp=moment(clock().time()),
            message=state.message,
            data=state.data,
            scheduled_time=state.scheduled_time,
        )
        if not self.states or may_move(self.state.type, stamped.type):
            self.states.append(stamped)
            recorder = self.scope.recorder
            if recorder is not None and self.is_one:
                recorder.flow_moves.append((self, stamped))
                recorder.wake()
        return self.state

    def facts(self) -> dict[str, Any]:
        """What its task runs in other processes are told of it."""
        return {
            **EndedFlowRun(self.id, self.name, self.flow_name).facts(),
            "flow_version": self.flow_version,
            "flow_tags": sorted(self.tags),
            "flow_run_count": self.run_count,
            "flow_run_created": self.created,
            "parent_flow_run_id": self.parent_flow_run_id and str(self.parent_flow_run_id),
            "root_flow_run_id": str(self.root_flow_run_id),
            "flow_parameters": self._parameters_as_bytes(),
        }

    def _parameters_as_bytes(self) -> bytes | None:
        """The parameters as a pickle; None if they are large, or cannot be pickled."""
        from upwell.core.packing_pickle import dumps  # only here: it is slow to load, and most flows need it not

        try:
            pickled = dumps(self.parameters)
        except Exception:
            return None
        return pickled if len(pickled) <= MOST_TOLD_BYTES else None

    def exception(self) -> BaseException:
        """What to raise for a run that did not complete."""
        return self.state.exception()

    def __repr__(self) -> str:
        return f"<FlowRun {self.name!r} of {self.flow_name!r} {self.state}>"


class Assigned(Struct, frozen=True):
    """A run that the store knows already and that is to be carried out here: made ahead, by a schedule or a person."""

    id: UUID
    name: str
    created: float
    tags: frozenset[str] = frozenset()


class Wish(NamedTuple):
    """Which run a call of a flow means, where it is not just a new one.

    idempotency_key: the run of this key, if there is one. resume: the run of this id, which died before it had ended.
    fork_of, fork_before: a new one that takes over what that run had finished, before that task run began.
    keep_changed: what is finished counts although the code of its task has changed.
    assigned: the run of this id, which has not begun before, or which is the one that `resume` names.
    """

    idempotency_key: str | None = None
    resume: str | None = None
    fork_of: str | None = None
    fork_before: str | None = None
    keep_changed: bool = False
    assigned: Assigned | None = None

    @property
    def means_a_new_one(self) -> bool:
        """Whether it is just another run."""
        return not self.means_another and self.fork_of is None

    @property
    def means_another(self) -> bool:
        """Whether a run may be meant that the store knows already."""
        return self.idempotency_key is not None or self.resume is not None


class EndedFlowRun(Struct, frozen=True):
    """What runs remember of the flow run that they belonged to. No more: they must not keep its result alive."""

    id: UUID
    name: str
    flow_name: str

    def facts(self) -> dict[str, Any]:
        """As those of one that has not ended."""
        return {"flow_run_id": str(self.id), "flow_run_name": self.name, "flow_name": self.flow_name}
