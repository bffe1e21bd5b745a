"""The beginning of a flow run that the store must know of first: a durable one, or one with an idempotency key.

It asks the store who it is: a new run, one that an earlier process began and did not end, or one that has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import Future
from hashlib import blake2b
from typing import Any
from uuid import UUID

from upwell.core import packing
from upwell.core.errors import ConfigurationError, SerializationError
from upwell.core.ids import RANDOM_BITS, uuid7
from upwell.core.keys import digest
from upwell.core.keys_functions import task_source
from upwell.core.keys_kinds import DIGEST_BYTES, HashError
from upwell.core.states import PENDING, SCHEDULED, State
from upwell.engine.chance import random_bits
from upwell.engine.clock import ERRANDS, Gate, clock, moment
from upwell.engine.durable import Durable
from upwell.engine.durable_records import Claim
from upwell.engine.finish import until_done
from upwell.engine.flow_run import FlowRun
from upwell.engine.places import place_of
from upwell.engine.steps import Sleep


class Ask:
    """Wait for what the store says to a flow run that is about to begin.

    Who is interrupted meanwhile does not wait for another process any more, but for what the store does it waits: else
    the run might be claimed, and nobody would go on with it.
    """

    def __init__(self, run: FlowRun, answer: Future[Any]) -> None:
        self._run = run
        self._answer = answer

    @property
    def claim(self) -> Claim | None:
        """What the store has said, if it has."""
        answer = self._answer
        return answer.result() if answer.done() and not answer.cancelled() and answer.exception() is None else None

    def block(self) -> Any:
        answered = Gate()
        ERRANDS.add(self)
        try:
            self._answer.add_done_callback(answered.open)
            try:
                answered.wait()
            except BaseException:
                self._run.is_given_up = True
                answered.wait()
                raise
        finally:
            ERRANDS.discard(self)
        return self._answer.result()

    async def wait(self) -> Any:
        ERRANDS.add(self)
        try:
            answer = asyncio.wrap_future(self._answer)
            try:
                await asyncio.shield(answer)
            except asyncio.CancelledError:
                self._run.is_given_up = True
                await until_done(answer)
                answer.exception()  # it is not what is raised
                raise
        finally:
            ERRANDS.discard(self)
        return answer.result()


def begin_durably(run: FlowRun) -> Generator[Any, Any, Claim]:
    """Have the store say which run this is; it is that one from then on.

    Raises:
        ConfigurationError: no journal is kept. SerializationError: a parameter cannot be stored; names it.
        StoreError: the store cannot be used.
    """
    recorder = run.scope.recorder
    if recorder is None:
        raise ConfigurationError(
            f"The flow {run.flow_name!r} is durable, or was called with an idempotency key, and that needs the "
            "journal, which is off. Set UPWELL_JOURNAL=on."
        )
    run.arguments = _packed_arguments(run)
    run.source_hash = task_source(run.definition.fn).hex()
    run.entrypoint = entrypoint_of(run.definition.fn)
    around = run.scope.parent.durable if run.scope.parent is not None else None
    if around is not None and run.durable and run.wish.means_a_new_one:
        run.wish = around.children.wish_of(run)._replace(keep_changed=around.keep_changed)
    began = moment(run.created if run.wish.assigned is None else clock().time())
    run.states = [State(type=PENDING, name="Pending", message="About to start.", timestamp=began)]
    asked = Ask(run, recorder.journal.begin(run))
    try:
        claim: Claim = yield asked
    except BaseException:
        if asked.claim is not None and asked.claim.ended is None:
            _become(run, asked.claim)  # so that it is this run that ends as interrupted
        raise
    _become(run, claim)
    if claim.due is not None and claim.due > clock().time():
        message = "Waits for the time of its next attempt, as before its process died."
        run.move(State(type=SCHEDULED, name="AwaitingRetry", message=message, scheduled_time=moment(claim.due)))
        yield Sleep(claim.due - clock().time())
    return claim


def fork_instead(run: FlowRun, claim: Claim) -> Generator[Any, Any, Claim]:
    """Take over what a subflow run has finished whose own result cannot be had any more."""
    run.log.warning("Flow run '%s' is run again out of what it has finished: its result is gone", claim.name)
    run.wish = run.wish._replace(resume=None, fork_of=claim.flow_run_id)
    run.created = clock().time()
    run.id = uuid7(run.created, random_bits(RANDOM_BITS))
    return (yield from begin_durably(run))


def _become(run: FlowRun, claim: Claim) -> None:
    """Be the run that the store says."""
    if str(run.root_flow_run_id) == str(run.id):
        run.root_flow_run_id = UUID(claim.flow_run_id)
    run.id, run.name, run.created = UUID(claim.flow_run_id), claim.name, claim.created
    run.run_count, run.crashes = claim.run_count, claim.crashes
    run.is_claimed = True
    run.scope.name = f"flow run '{run.name}'"
    if claim.resumed:
        run.states = [State(type=PENDING, name="Pending", message="Resumed.", timestamp=moment(clock().time()))]
    if not run.durable or claim.ended is not None:
        return
    run.scope.durable = Durable(
        claim,
        run.scope,
        strict=run.durable == "strict",
        remembers=run.definition.retry.retries > 0,
        keep_changed=run.wish.keep_changed,
    )
    if claim.resumed:
        run.log.info(
            "Resuming flow run '%s' after crash %s: %s task run(s) had finished", run.name, claim.crashes,
            len(claim.finished),
        )  # fmt: skip
    if claim.source_hash not in (None, run.source_hash):
        run.log.warning(
            "The code of flow '%s' has changed since this run began: what it finished counts where it still fits",
            run.flow_name,
        )


def arguments_in(stored: bytes) -> dict[str, Any]:
    """The parameters that `_packed_arguments` packed."""
    found: dict[str, Any] = packing.unpack(memoryview(stored)[DIGEST_BYTES:])
    return found


def _packed_arguments(run: FlowRun) -> bytes | None:
    """The parameters, exactly, for another process to call the flow with; None where it need not.

    A digest stands before them, by which equal calls know each other: what is packed may differ from process to
    process, as sets and the classes of a script do.

    Raises:
        SerializationError: one of them cannot be stored, and the run is durable.
    """
    for name, value in run.parameters.items():
        try:
            packing.pack(value)
        except SerializationError as error:
            if not run.durable:
                return None
            raise SerializationError(
                f"The parameter {name!r} of the durable flow {run.flow_name!r} cannot be stored, so another process "
                f"could not resume the run: {error}"
            ) from error
    packed = packing.pack(run.parameters)
    try:
        known_by = digest(run.parameters)
    except HashError:
        known_by = blake2b(packed, digest_size=DIGEST_BYTES).digest()
    return known_by + packed


def entrypoint_of(fn: Callable[..., Any]) -> str:
    """Where a flow is found again: `package.module:name`, or `/path/to/script.py:name` for a script's own."""
    return f"{place_of(fn)}:{getattr(fn, '__qualname__', '')}"
