"""Durable flows: go on with a run whose process died, fork one, sleep in a way that survives the process.

A flow is made durable by `@flow(durable=True)`. Call it again with the same arguments, and a run of it whose process
has died goes on; `resume` does so by the run's id.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from upwell.core.errors import ConfigurationError, NotResumableError
from upwell.engine.calls import call_flow
from upwell.engine.clock import clock
from upwell.engine.durability import arguments_in
from upwell.engine.flow_run import Wish
from upwell.engine.recorder import Recorder, recorder
from upwell.engine.scope import CURRENT_SCOPE, current_sketch
from upwell.engine.steps import Written
from upwell.entrypoints import load_flow
from upwell.tasks import task

if TYPE_CHECKING:
    from uuid import UUID

    from upwell.flows import Flow

__all__ = ["fork", "resume", "resume_all", "sleep", "sleep_async"]


def resume(
    flow_run_id: UUID | str,
    flow: Flow[..., Any] | None = None,
    *,
    keep_changed: bool = False,
    return_state: bool = False,
) -> Any:
    """Go on with a durable flow run whose process has died; returns what calling its flow returns.

    What it had finished is taken from the store, the rest is run. For an async flow that is a coroutine to await.
    Runs are resumed without this, too, when their flow is called again with the same arguments.

    Args:
        flow: the flow, where it cannot be found again by its module or file and its name.
        keep_changed: what is finished counts although the code of its task has changed since.
        return_state: answer with its final state, as where a flow is called so.

    Raises:
        UnknownRunError: there is no such run. NotResumableError: it has ended, is at work, or is not durable.
        ConfigurationError: no journal is kept, or the flow cannot be found.
    """
    return _call_again(flow_run_id, flow, Wish(resume=str(flow_run_id), keep_changed=keep_changed), return_state)


def fork(
    flow_run_id: UUID | str,
    before: UUID | str | None = None,
    flow: Flow[..., Any] | None = None,
    *,
    keep_changed: bool = False,
    return_state: bool = False,
) -> Any:
    """Call a durable flow run's flow again as another run, which takes over what that one finished.

    The run may be of any state: a failed one goes on where it failed, once the code is repaired.

    Args:
        before: a task run of it: only what had ended when that one began is taken over, so it and all later ones
            are run anew.
        flow, keep_changed, return_state: as for `resume`.

    Raises:
        UnknownRunError: there is no such flow run or task run. ConfigurationError: the flow cannot be found.
    """
    identity = str(flow_run_id)
    wish = Wish(fork_of=identity, fork_before=None if before is None else str(before), keep_changed=keep_changed)
    return _call_again(flow_run_id, flow, wish, return_state)


def resume_all(*flows: Flow[..., Any]) -> list[Any]:
    """Go on with all durable runs of these flows whose processes have died: for the start of a service.

    Returns what calling each returns, in the order in which they began; for async flows coroutines, to await or gather.
    Runs that another process goes on with meanwhile are left out; the coroutine of one raises NotResumableError then.

    Raises:
        ExceptionGroup: some of them failed; it holds what they raised, after all others have ended.
        ConfigurationError: no journal is kept.
    """
    from upwell.journal.durable import runs_to_resume  # here: so that no program pays for it that resumes nothing

    waiting = _journal().journal.ask(runs_to_resume).result()
    named = {flow.name: flow for flow in flows}
    answers: list[Any] = []
    errors: list[Exception] = []
    for identity, name in waiting:
        if name in named:
            try:
                answers.append(_call_again(identity, named[name], Wish(resume=identity)))
            except NotResumableError:  # another process was faster
                continue
            except Exception as error:
                errors.append(error)
    if errors:
        raise ExceptionGroup(f"{len(errors)} of {len(waiting)} resumed flow runs failed", errors)
    return answers


def sleep(seconds: float) -> None:
    """Let time pass. In a durable flow run the end of the sleep is kept: a resumed one sleeps for what is left."""
    if current_sketch() is not None:
        return
    left = _until.submit(seconds).result() - clock().time() if _is_durable() else seconds
    if _is_durable():
        Written(_journal()).block()
    if left > 0:
        clock().sleep(left)


async def sleep_async(seconds: float) -> None:
    """The same in async code."""
    if current_sketch() is not None:
        return
    left = seconds
    if _is_durable():
        left = await _until.submit(seconds) - clock().time()
        await Written(_journal()).wait()
    if left > 0:
        await asyncio.sleep(left)


@task(name="sleep", task_runner="concurrent")
async def _until(seconds: float) -> float:
    """When a sleep that begins now is over, in seconds since the epoch."""
    return clock().time() + seconds


def _is_durable() -> bool:
    scope = CURRENT_SCOPE.get()
    return scope is not None and scope.durable is not None


def _call_again(flow_run_id: UUID | str, flow: Flow[..., Any] | None, wish: Wish, return_state: bool = False) -> Any:
    from upwell.journal.durable import call_of  # here: so that no program pays for it that resumes nothing

    def ask(store: Any) -> Any:
        return call_of(store, str(flow_run_id))

    name, entrypoint, arguments = _journal().journal.ask(ask).result()
    found = flow or _find_flow(entrypoint, name)
    definition = found._definition  # pyright: ignore[reportPrivateUsage]  # one library
    args, kwargs = definition.parameters.call_args(arguments_in(arguments))
    own = {"return_state": True} if return_state else {}
    return call_flow(definition, args, {**kwargs, **own}, wish)


def _find_flow(entrypoint: str, name: str) -> Flow[..., Any]:
    try:
        return load_flow(entrypoint)
    except (ImportError, OSError, ConfigurationError) as error:
        why = str(error).rstrip(".")
        raise ConfigurationError(
            f"The flow {name!r} is not found at {entrypoint}: {why}. Pass it: resume(flow_run_id, flow), or "
            "--entrypoint FILE.py:FLOW."
        ) from error


def _journal() -> Recorder:
    found = recorder()
    if found is None:
        raise ConfigurationError("Durable runs need the journal, and it is off. Set UPWELL_JOURNAL=on.")
    return found
