"""The beginning of a flow run that the store must know of first: a durable one, or one with an idempotency key.

It asks the store who it is: a new run, one that an earlier process began and did not end, or one that has ended.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any
from uuid import UUID

from upwell.core import packing
from upwell.core.errors import ConfigurationError, SerializationError
from upwell.core.keys_functions import task_source
from upwell.core.states import PENDING, State
from upwell.engine.clock import ERRANDS, Gate, moment
from upwell.engine.durable import Durable
from upwell.engine.durable_records import Claim
from upwell.engine.finish import until_done
from upwell.engine.flow_run import FlowRun


class Ask:
    """Wait for what the journal answers, however often the wait is cancelled."""

    def __init__(self, answer: Future[Any]) -> None:
        self._answer = answer

    def block(self) -> Any:
        answered = Gate()
        ERRANDS.add(self)
        try:
            self._answer.add_done_callback(answered.open)
            answered.wait()
        finally:
            ERRANDS.discard(self)
        return self._answer.result()

    async def wait(self) -> Any:
        ERRANDS.add(self)
        try:
            answer = asyncio.wrap_future(self._answer)
            await until_done(answer)
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
    if around is not None:
        begun = around.child(run.flow_name, run.arguments)
        run.wish = run.wish._replace(resume=begun)
    run.states = [State(type=PENDING, name="Pending", message="About to start.", timestamp=moment(run.created))]
    claim: Claim = yield Ask(recorder.journal.begin(run))
    _become(run, claim)
    return claim


def _become(run: FlowRun, claim: Claim) -> None:
    """Be the run that the store says."""
    if str(run.root_flow_run_id) == str(run.id):
        run.root_flow_run_id = UUID(claim.flow_run_id)
    run.id, run.name, run.created = UUID(claim.flow_run_id), claim.name, claim.created
    run.run_count, run.crashes = claim.run_count, claim.crashes
    run.scope.name = f"flow run '{run.name}'"
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
        run.states = [State(type=PENDING, name="Pending", message="Resumed.", timestamp=moment(run.created))]
        run.log.info(
            "Resuming flow run '%s' after crash %s: %s task run(s) had finished", run.name, claim.crashes,
            len(claim.finished),
        )  # fmt: skip
    if claim.source_hash not in (None, run.source_hash):
        run.log.warning(
            "The code of flow '%s' has changed since this run began: what it finished counts where it still fits",
            run.flow_name,
        )


def _packed_arguments(run: FlowRun) -> bytes:
    """The parameters, exactly, for another process to call the flow with.

    Raises:
        SerializationError: one of them cannot be stored.
    """
    for name, value in run.parameters.items():
        try:
            packing.pack(value)
        except SerializationError as error:
            raise SerializationError(
                f"The parameter {name!r} of the durable flow {run.flow_name!r} cannot be stored, so another process "
                f"could not resume the run: {error}"
            ) from error
    return packing.pack(run.parameters)


def entrypoint_of(fn: Callable[..., Any]) -> str:
    """Where a flow is found again: `package.module:name`, or `/path/to/script.py:name` for a script's own."""
    module, name = getattr(fn, "__module__", ""), getattr(fn, "__qualname__", "")
    if module == "__main__":
        file = getattr(sys.modules["__main__"], "__file__", None)
        return f"{os.path.abspath(file)}:{name}" if file else f"__main__:{name}"
    return f"{module}:{name}"
