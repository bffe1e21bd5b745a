"""Tasks in the background: `send.delay("ann")` asks for a run, and a process that serves the task carries it out.

A task that is served is a deployment like others: of a flow that calls it, by the name `background`. So its runs wait
in the store, are claimed by one process, survive both, and are looked at, cancelled and run again as all are.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast
from uuid import UUID

from upwell.composition import open_control
from upwell.core.errors import BlockingWaitError, DefinitionError, NotFoundError
from upwell.core.model import FlowRunRecord
from upwell.core.states import State
from upwell.deployment_runs import RunKeywords, await_for_flow_run, run_spec, wait_for_flow_run
from upwell.deployments import checked_parameters
from upwell.deployments import serve as serve_deployments
from upwell.engine.scope import current_sketch
from upwell.engine.steps import run_apart
from upwell.flows import Flow
from upwell.states import raise_state_exception
from upwell.stored_results import result_of, result_of_async

if TYPE_CHECKING:
    from upwell.core.definition import Definition
    from upwell.tasks import Task

T = TypeVar("T")

DEPLOYMENT: Final = "background"
"""The name of the deployment of every task that is served."""

_OF_BOTH: Final = ("description", "version", "log_prints", "result_storage", "result_serializer")
"""Options of a task that its flow has, too."""


def flow_of(task: Task[..., Any]) -> Flow[..., Any]:
    """A flow that calls this task. Its result is stored unless the task says not to: who has asked for it is elsewhere.

    Raises:
        DefinitionError: it is a generator, which has no one result.
    """
    definition: Definition = task._definition  # pyright: ignore[reportPrivateUsage]  # one library
    if definition.kind.is_generator:
        raise DefinitionError(f"The task {task.name!r} is a generator, and cannot be run in the background.")
    call = cast("Callable[..., Any]", task)

    async def call_async(*args: Any, **kwargs: Any) -> Any:
        return await call(*args, **kwargs)

    def call_sync(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **kwargs)

    called = functools.wraps(task.fn)(call_async if definition.kind.is_async else call_sync)
    options: Any = {name: getattr(definition.options, name) for name in _OF_BOTH}
    persist_result = definition.options.persist_result
    return Flow(called, name=task.name, persist_result=persist_result is not False, **options)


class DelayedRun(Generic[T]):
    """A run that another process carries out. It can be awaited; `result()` blocks until it has ended.

    id, name: of the flow run, by which every command knows it.
    """

    def __init__(self, run: FlowRunRecord) -> None:
        self.id: UUID = run.id
        self.name: str = run.name

    @property
    def state(self) -> State:
        """As the store has it now."""
        return run_apart(await_for_flow_run(self.id, timeout=0)).state

    def wait(self, timeout: float | None = None) -> None:
        """Until it has ended, or so many seconds have passed."""
        _refuse_to_block("wait")
        wait_for_flow_run(self.id, timeout=timeout)

    def result(self, timeout: float | None = None) -> T:
        """What the task has returned.

        Raises:
            TimeoutError: it has not ended in time. RunOutcomeError: it has not completed; says why.
            BlockingWaitError: called on an event loop's thread, where it is to be awaited.
        """
        _refuse_to_block("result")
        _check(wait_for_flow_run(self.id, timeout=timeout), timeout)
        return cast("T", result_of(self.id))

    def __await__(self) -> Generator[Any, None, T]:
        return self._result().__await__()

    async def _result(self) -> T:
        _check(await await_for_flow_run(self.id), None)
        return cast("T", await result_of_async(self.id))

    def __repr__(self) -> str:
        return f"<DelayedRun {self.name!r} {self.id}>"


def _refuse_to_block(name: str) -> None:
    if asyncio._get_running_loop() is not None:
        raise BlockingWaitError(f"{name}() would block the event loop here: await the run itself.")


def _check(run: FlowRunRecord, timeout: float | None) -> None:
    if not run.state.is_final():
        raise TimeoutError(f"The run {run.name!r} has not ended within {timeout:g} second(s): it is {run.state_name}.")
    if not run.state.is_completed():
        raise_state_exception(run.state)


async def adelay(task: Task[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> DelayedRun[Any]:
    """Ask for a run; if nobody has ever served the task, its run waits for who does."""
    definition: Definition = task._definition  # pyright: ignore[reportPrivateUsage]  # one library
    if (stand := _drawn(definition, args, kwargs)) is not None:
        return stand
    definition.parameters.bind(args, kwargs)  # which says what is wrong
    given = definition.parameters.signature.bind(*args, **kwargs).arguments
    wanted = run_spec(checked_parameters(definition, given), RunKeywords(), as_subflow=False)
    async with open_control() as control:
        flow = task.as_flow()
        name = f"{flow.name}/{DEPLOYMENT}"
        try:
            run = await control.run_deployment(name, wanted)
        except NotFoundError:
            await flow.to_deployment(DEPLOYMENT).aapply()
            run = await control.run_deployment(name, wanted)
    return DelayedRun(run)


def delay(task: Task[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> DelayedRun[Any]:
    """The same in sync code, and in async code that may block for a moment."""
    definition: Definition = task._definition  # pyright: ignore[reportPrivateUsage]
    stand = _drawn(definition, args, kwargs)
    return run_apart(adelay(task, args, kwargs)) if stand is None else stand


def _drawn(definition: Definition, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> DelayedRun[Any] | None:
    """What stands for the run where a flow is only drawn; None where it is run."""
    sketch = current_sketch()
    return None if sketch is None else cast("DelayedRun[Any]", sketch.submit(definition, args, dict(kwargs)))


def serve(*tasks: Task[..., Any], limit: int | None = None) -> None:
    """Carry out what is asked of these tasks by `delay`, until Ctrl-C or SIGTERM; blocks as long.

    limit: how many runs go on at once.
    """
    if not tasks:
        raise TypeError("serve takes tasks: serve(send, resize)")
    served = [task.as_flow().to_deployment(DEPLOYMENT) for task in tasks]
    serve_deployments(*served, limit=limit, pause_on_shutdown=False)  # what is asked for meanwhile waits


__all__ = ["DelayedRun", "serve"]
