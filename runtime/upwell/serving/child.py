"""What the process of one job does: take the job for itself, call the flow as the run that it is, and end.

Whether the job is still its own the store says, in one step with noting that the run has begun; a child whose worker
was taken for dead meanwhile, or whose run was cancelled, ends without having run anything.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from upwell.composition import be_a_workers_child, control_of, open_recorder
from upwell.core.definition import Definition, FunctionKind
from upwell.core.deployments import Job
from upwell.core.errors import ConfigurationError, ParameterBindError
from upwell.core.lifecycle import describe
from upwell.engine.calls import call_flow
from upwell.engine.clock import clock
from upwell.engine.console import ensure_configured
from upwell.engine.flow_run import Assigned, Wish
from upwell.engine.loggers import ENGINE, RunLogger
from upwell.engine.logs import FLOW_RUNS
from upwell.entrypoints import load_flow
from upwell.journal.database import StoreError
from upwell.runtime import be_run_of

if TYPE_CHECKING:
    from upwell.journal.journal import Journal

PATIENCE_SECONDS: Final = 30.0
"""How long a child waits for a store that fails, before it gives its job back."""

RETRY_SECONDS: Final = 0.2


class Exit(IntEnum):
    """How a child ends that was not killed.

    DONE: the run has ended, or has been said to have failed. VOID: somebody else has the job, or nobody needs it.
    NOT_BEGUN: the store could not be asked whether it may begin.
    """

    DONE = 0
    VOID = 70
    NOT_BEGUN = 75


class Turn(NamedTuple):
    """One job carried out. leaves_nothing: nothing is seen of it in its process that could disturb another run."""

    exit: Exit
    leaves_nothing: bool = False


def find_definition(entrypoint: str, roots: Sequence[Path] | None) -> Definition:
    """The flow at an entry point, as its runs are called.

    Raises:
        Exception: see `load_flow`.
    """
    return as_called(load_flow(entrypoint, roots)._definition)  # pyright: ignore[reportPrivateUsage]  # one library


def get_ready() -> None:
    """Do what a job needs and what can be done before it is known."""
    be_a_workers_child()
    ensure_configured()
    if (recorder := open_recorder()) is not None:
        with suppress(StoreError):  # it will be asked again, for the job
            recorder.journal.ask(_nothing).result()  # the store is open then, and knows this process


async def _nothing(_store: object) -> None:
    """What the store is asked to do, to know that it is open."""


def carry_out(
    job: Job, roots: Sequence[Path] | None, begun: int | None = None, definition: Definition | None = None
) -> Turn:
    """Carry a job out in this process, which has nothing else to do.

    begun: the pipe on which it says that it began. definition: the flow, where it has been found already.
    """
    journal = _journal_of(job)
    try:
        definition = definition or find_definition(job.entrypoint, roots)
    except Exception as error:
        traceback.print_exc()
        return refuse(job, f"The flow could not be loaded from {job.entrypoint}: {describe(error)}")
    try:
        is_ours = _begin(job, journal, bool(definition.options.durable))
    except StoreError as error:
        ENGINE.error("The run '%s' does not begin here: %s", job.name, error)
        return Turn(Exit.NOT_BEGUN)
    _say_begun(job, begun)
    if not is_ours:
        return Turn(Exit.VOID, leaves_nothing=True)
    if job.commit is not None:
        _logger_of(job).info("The code is of %s, commit %s", job.repository, job.commit)
    has_completed = _call(definition, job)
    return Turn(Exit.DONE, has_completed and not _threads_of_others())


def refuse(job: Job, message: str) -> Turn:
    """Say that a job cannot begin."""
    _journal_of(job).ask(lambda store: control_of(store).fail_job(job, message)).result()
    return Turn(Exit.DONE)


def _journal_of(job: Job) -> Journal:
    """This process's journal; from now on it is the process of this job."""
    be_a_workers_child()
    be_run_of(job)
    recorder = open_recorder()
    if recorder is None:
        raise ConfigurationError("A deployment's runs need the journal, and it is off. Set UPWELL_JOURNAL=on.")
    journal: Journal = recorder.journal
    return journal


def _logger_of(job: Job) -> RunLogger:
    """The logger of the run, which is not there yet."""
    names = {"flow_run_id": str(job.flow_run_id), "flow_run_name": job.name, "flow_name": job.flow_name}
    return RunLogger(FLOW_RUNS, given={"run_kind": "Flow run", "run_name": job.name, **names})


def _begin(job: Job, journal: Journal, durable: bool) -> bool:
    """Whether the run begins here.

    Raises:
        StoreError: the store has failed for some time.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            asked = journal.ask(lambda store: control_of(store).begin_job(job, journal.process.id, durable=durable))
            return bool(asked.result())
        except StoreError:
            if time.monotonic() > until:
                raise
            time.sleep(RETRY_SECONDS)


def _say_begun(job: Job, begun: int | None) -> None:
    """Let the worker know that this start is over, so that it can make another."""
    if begun is not None:
        try:
            os.write(begun, job.flow_run_id.bytes)
        except OSError:  # the worker has gone
            pass


def _call(definition: Definition, job: Job) -> bool:
    """Whether the flow has completed."""
    assigned = Assigned(job.flow_run_id, job.name, job.created.timestamp(), frozenset(job.tags))
    wish = Wish(assigned=assigned)
    if job.resume:
        wish = wish._replace(resume=str(job.flow_run_id))
    elif job.fork_of is not None:
        before = None if job.fork_before is None else str(job.fork_before)
        wish = wish._replace(fork_of=str(job.fork_of), fork_before=before)
    try:
        args, kwargs = definition.parameters.call_args(job.parameters)
    except ParameterBindError:  # then the run says so
        args, kwargs = (), dict(job.parameters)
    try:
        answer = call_flow(definition, args, {**kwargs, "return_state": True}, wish)
        if definition.kind.is_async:
            with asyncio.Runner(loop_factory=clock().new_loop) as runner:
                answer = runner.run(answer)
        return bool(answer.is_completed())
    except (Exception, KeyboardInterrupt, asyncio.CancelledError):
        ENGINE.exception("The call of flow '%s' was interrupted", definition.name)
        return False


def _threads_of_others() -> bool:
    """Whether threads are there besides this one and upwell's own."""
    this = threading.current_thread()
    return any(thread is not this and not thread.name.startswith("upwell-") for thread in threading.enumerate())


def as_called(definition: Definition) -> Definition:
    """A flow whose call is its run: one that is a generator is exhausted, and its result is a list."""
    if not definition.kind.is_generator:
        return definition
    fn = definition.fn

    async def exhaust_async(*args: Any, **kwargs: Any) -> list[Any]:
        return [item async for item in fn(*args, **kwargs)]

    def exhaust(*args: Any, **kwargs: Any) -> list[Any]:
        return list(fn(*args, **kwargs))

    called = functools.wraps(fn)(exhaust_async if definition.kind is FunctionKind.ASYNC_GENERATOR else exhaust)
    copy = Definition(
        called, definition.name, definition.options, definition.parameters, definition.retry, definition.face,
        is_flow=True,
    )  # fmt: skip  # a list of names
    copy.take_hooks_from(definition, ())
    return copy


def end_process(status: int) -> None:
    """End this process, which was forked, as a program would end: after its threads and what is to be done at exit."""
    import atexit
    import logging

    for last in (threading._shutdown, _end_helpers, atexit._run_exitfuncs, logging.shutdown):  # type: ignore[attr-defined]  # pyright: ignore
        try:
            last()
        except BaseException:
            traceback.print_exc()
            status = status or 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(status)


def _end_helpers() -> None:
    """The children of multiprocessing that a program ends at exit."""
    if multiprocessing := sys.modules.get("multiprocessing.util"):
        multiprocessing._exit_function()
