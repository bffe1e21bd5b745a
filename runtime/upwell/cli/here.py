"""Flow runs that a command carries out itself, here and now."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from upwell.cli.asking import control, recorded
from upwell.cli.exits import FAILED
from upwell.cli.lookup import find_flow_run, find_task_run
from upwell.cli.output import complain, say
from upwell.core.errors import UpwellError

if TYPE_CHECKING:
    from uuid import UUID

    from upwell.core.model import FlowRunRecord
    from upwell.flows import Flow


def carry_out(name: str, call: Callable[[], Any], tell: Callable[[str], None] = say) -> int:
    """Have a flow run, and tell how it ended; the exit code. call: calls the flow so that it answers with its state."""
    ended, message = _end_of(call())
    try:
        tell(f"{name}: {ended}" + (f": {message}" if message else ""))
    except BrokenPipeError:  # nobody reads it any more; how it ended is still said by the exit code
        pass
    return 0 if ended == "Completed" else FAILED


def find_flow(entrypoint: str) -> Flow[..., Any]:
    """The flow at an entry point; a module is looked for in this folder, too, as `python -m` does.

    Raises:
        ConfigurationError: there is none.
    """
    from upwell.entrypoints import load_flow

    _look_in_this_folder()
    return load_flow(entrypoint)


def resume_here(
    run: FlowRunRecord, entrypoint: str | None, keep_changed: bool, tell: Callable[[str], None] = say
) -> int:
    """Go on with a durable run; the exit code. entrypoint: where its flow is, where the store does not say it."""
    from upwell.durability import resume

    if (refused := why_not_resumed(run)) is not None:
        complain(refused)
        return FAILED
    try:
        _look_in_this_folder()
        flow = None if entrypoint is None else find_flow(entrypoint)
        return carry_out(run.name, lambda: resume(run.id, flow, keep_changed=keep_changed, return_state=True), tell)
    except UpwellError as error:
        complain(str(error))
        return FAILED


def why_not_resumed(run: FlowRunRecord) -> str | None:
    """Why there is nothing to go on with, if so."""
    shown = f"The flow run {run.name!r} is {run.state.name}, so there is nothing to resume"
    if run.state.is_final():
        how = f"`upwell flow-run fork {run.name}` runs it again" if run.durable else "it is not durable, either"
        return f"{shown}; {how}."
    return None if run.state.name == "AwaitingResume" else f"{shown}."


def fork_here(run: str, before: str | None, entrypoint: str | None, keep_changed: bool) -> int:
    """Run a durable run again, as another; the exit code.

    Args:
        before: a task run of it, by id or name.
        entrypoint: as above.

    Raises:
        UpwellError: there is no such run, or its flow is not found.
    """
    import asyncio

    from upwell.durability import fork

    meant, first = asyncio.run(_fork_of(run, before))
    _look_in_this_folder()
    flow = None if entrypoint is None else find_flow(entrypoint)
    return carry_out(
        f"fork of {meant.name}",
        lambda: fork(meant.id, first, flow, keep_changed=keep_changed, return_state=True),
    )


async def fork_by_worker(run: str, before: str | None) -> None:
    """Have a worker run a durable run of a deployment again, as another.

    Raises:
        UpwellError: there is no such run, or it cannot be.
    """
    meant, first = await _fork_of(run, before)
    async with control() as asked:
        made = await asked.fork_flow_run(meant.id, first)
    say(f"{meant.name}: a worker is to run it again as {made.name} ({made.id})")


async def _fork_of(run: str, before: str | None) -> tuple[FlowRunRecord, UUID | None]:
    """The flow run that is meant, and the task run of it."""
    async with recorded() as history:
        meant = await find_flow_run(history, run)
        return meant, None if before is None else (await find_task_run(history, before, of=meant)).id


def _look_in_this_folder() -> None:
    if (folder := os.getcwd()) not in sys.path:
        sys.path.append(folder)


def _end_of(answer: Any) -> tuple[str, str | None]:
    """The name of the state in which a run ended, and what is said about it."""
    import asyncio
    import inspect

    if inspect.isgenerator(answer) or inspect.isasyncgen(answer):
        return _exhaust(answer)
    if inspect.isawaitable(answer):

        async def awaited() -> Any:
            return await answer

        answer = asyncio.run(awaited())
    return "Completed" if answer.is_completed() else answer.name, answer.message


def _exhaust(answer: Any) -> tuple[str, str | None]:
    """Run a generator flow to its end; what it yields is nobody's."""
    import asyncio

    async def iterate() -> None:
        async for _ in answer:
            pass

    try:
        if hasattr(answer, "__aiter__"):
            asyncio.run(iterate())
        else:
            for _ in answer:
                pass
    except Exception as error:
        return "Failed", f"{type(error).__name__}: {error}"
    return "Completed", None
