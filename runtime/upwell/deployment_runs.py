"""Starts runs of deployments, and waits for them: `run_deployment("flow/nightly", parameters={"day": "monday"})`."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, ParamSpec, TypedDict, TypeVar, Unpack, cast
from uuid import UUID

from msgspec.structs import replace

from upwell import runtime
from upwell.composition import open_control
from upwell.core.deployments import RunSpec
from upwell.core.model import FlowRunRecord
from upwell.core.options import check_idempotency_key, check_optional, check_tags
from upwell.core.parameter_schema import plain_parameters
from upwell.decorated import Bound, Decorated
from upwell.engine.calls import call_task
from upwell.engine.clock import ERRANDS, clock
from upwell.engine.recorder import recorder
from upwell.engine.scope import current_sketch
from upwell.engine.steps import Life, Sleep, Written, live_async, live_blocking, refuse_to_block, run_apart
from upwell.journal.database import StoreUnavailable
from upwell.pull_steps import checked_variables

if TYPE_CHECKING:
    from upwell.history import History
    from upwell.journal.control import Control

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
T = TypeVar("T")

FIRST_POLL_SECONDS: Final = 0.05
"""How soon a run that was started is looked at first."""

POLL_SHARE: Final = 0.1
"""Of the time that has passed is what passes until it is looked at again."""

POLLS_A_SECOND: Final = 100
"""How often a process looks, at most, for all that it waits for."""

RESTART_SECONDS: Final = 60.0
"""For so long a server may be away of which a run is asked that somebody waits for: it goes on meanwhile."""

GONE_PARENT: Final = "The flow run that waited for it does not go on."


class RunKeywords(TypedDict, total=False):
    """The keywords of `run_deployment` that say which run is wanted.

    scheduled_time: when it is to begin; now unless said. A time without a zone is this machine's.
    flow_run_name: its name. tags: beside the deployment's.
    idempotency_key: a second call with the same key means the first one's run.
    work_queue_name, job_variables: for its worker, instead of the deployment's.
    priority: of those that are due, lower ones begin first.
    """

    scheduled_time: dt.datetime | None
    flow_run_name: str | None
    tags: Iterable[str] | None
    idempotency_key: str | None
    work_queue_name: str | None
    job_variables: Mapping[str, Any] | None
    priority: int


def run_deployment(
    name: str | UUID,
    parameters: Mapping[str, Any] | None = None,
    *,
    timeout: float | None = None,
    poll_interval: float = 5,
    as_subflow: bool = True,
    **wanted: Unpack[RunKeywords],
) -> FlowRunRecord:
    """Start a run of a deployment, wait until it has ended, and return its record as it is then.

    Args:
        name: `flow/deployment`, or the deployment's id.
        parameters: by name, instead of the deployment's; checked against the flow's signature.
        timeout: how long to wait; then the record is returned as it is. 0 does not wait at all.
        poll_interval: how often it is looked at, at most; a young run more often.
        as_subflow: inside of a flow run, the run counts as its child, and as a task run of it.
        wanted: see RunKeywords.

    Raises:
        NotFoundError: there is no such deployment. InvalidRequestError: parameters that do not fit.
        BlockingWaitError: called on an event loop's thread, where `await arun_deployment(...)` is right.
    """
    refuse_to_block("run_deployment", "arun_deployment")
    if current_sketch() is not None:  # a drawing: it is only noted
        return _as_task_run(str(name), dict(parameters or {}), _Asked(str(name), RunSpec(), timeout, poll_interval))
    asked = _Asked(str(name), run_spec(parameters, wanted, as_subflow), timeout, poll_interval)
    if asked.is_child:
        return _as_task_run(asked.deployment, asked.wanted.parameters, asked)
    return live_blocking(_life(asked))


async def arun_deployment(
    name: str | UUID,
    parameters: Mapping[str, Any] | None = None,
    *,
    timeout: float | None = None,
    poll_interval: float = 5,
    as_subflow: bool = True,
    **wanted: Unpack[RunKeywords],
) -> FlowRunRecord:
    """The same as `run_deployment` in async code."""
    if current_sketch() is not None:
        return await _as_task_run_async(
            str(name), dict(parameters or {}), _Asked(str(name), RunSpec(), timeout, poll_interval)
        )
    asked = _Asked(str(name), run_spec(parameters, wanted, as_subflow), timeout, poll_interval)
    if asked.is_child:
        return await _as_task_run_async(asked.deployment, asked.wanted.parameters, asked)
    return await _live_async(asked)


def run_spec(parameters: Mapping[str, Any] | None, wanted: RunKeywords, as_subflow: bool) -> RunSpec:
    unknown = [name for name in wanted if name not in RunKeywords.__annotations__]
    if unknown:
        raise TypeError(
            f"run_deployment has no option {unknown[0]!r}; it has: {', '.join(RunKeywords.__annotations__)}"
        )
    due, key = wanted.get("scheduled_time"), wanted.get("idempotency_key")
    check_optional("scheduled_time", due, dt.datetime)
    check_optional("flow_run_name", wanted.get("flow_run_name"), str)
    return RunSpec(
        parameters=plain_parameters(parameters or {}),
        due=None if due is None else due.astimezone(dt.UTC),
        name=wanted.get("flow_run_name"),
        tags=tuple(sorted(check_tags(wanted.get("tags")))),
        idempotency_key=None if key is None else check_idempotency_key(key),
        priority=wanted.get("priority", 0),
        work_queue=wanted.get("work_queue_name"),
        job_variables=checked_variables(wanted.get("job_variables")),
        parent_flow_run_id=runtime.flow_run.id if as_subflow else None,
    )


class _Asked(NamedTuple):
    """A run that somebody wants, and how long they wait for its end."""

    deployment: str
    wanted: RunSpec
    timeout: float | None
    poll_interval: float

    @property
    def is_child(self) -> bool:
        """Whether it belongs to the flow run that asks for it."""
        return self.wanted.parent_flow_run_id is not None

    def of_this_task_run(self) -> _Asked:
        return self._replace(wanted=replace(self.wanted, parent_task_run_id=runtime.task_run.id))


class _AsTaskRun(Decorated[P, R, Bound]):
    """What makes task runs of calls. (Tasks stand above this module: they are deployed, too.)"""

    _kind = "task"

    def __init__(self, fn: Callable[P, R]) -> None:
        super().__init__(fn, {"name": "run-deployment", "task_run_name": "{deployment}"})

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast("R", call_task(self._definition, args, kwargs))


@_AsTaskRun
def _as_task_run(deployment: str, parameters: dict[str, Any], asked: _Asked) -> FlowRunRecord:
    return live_blocking(_life(asked.of_this_task_run()))


@_AsTaskRun
async def _as_task_run_async(deployment: str, parameters: dict[str, Any], asked: _Asked) -> FlowRunRecord:
    return await _live_async(asked.of_this_task_run())


async def _live_async(asked: _Asked) -> FlowRunRecord:
    from upwell.history import History  # here, as below: so that no program pays for it that looks at nothing

    async with History() as history:
        return await live_async(_life(asked, history))


class _Ask(Generic[T]):
    """Ask the store, as a step of a life.

    answer: what it said, also to who was cancelled meanwhile: it may have done what it was asked for.
    """

    def __init__(self, question: Callable[[Control], Coroutine[Any, Any, T]]) -> None:
        self._question = question
        self.answer: T | None = None

    async def _ask(self) -> T:
        async with open_control() as control:
            self.answer = answer = await self._question(control)
            return answer

    async def _ask_to_its_end(self) -> T:
        asking = asyncio.ensure_future(self._ask())
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            try:
                await asyncio.wait([asking])
            finally:
                asking.cancel()
            raise

    def block(self) -> T:
        ERRANDS.add(self)
        try:
            return run_apart(self._ask_to_its_end(), to_its_end=True)
        finally:
            ERRANDS.discard(self)

    async def wait(self) -> T:
        ERRANDS.add(self)
        try:
            return await self._ask_to_its_end()
        finally:
            ERRANDS.discard(self)


def _life(asked: _Asked, history: History | None = None) -> Life[FlowRunRecord]:
    """A run of a deployment is asked for, and looked at until it has ended or the time is over."""
    begun, journal = clock().time(), recorder()
    if journal is not None and asked.is_child:
        yield Written(journal)  # the store knows the parent then
    begin = _Ask(lambda control: control.run_deployment(_ref(asked.deployment), asked.wanted))
    try:
        run: FlowRunRecord = yield begin
        return (yield from _looked_at(run, asked.timeout, asked.poll_interval, begun, history))
    except GeneratorExit:
        raise
    except BaseException:
        if asked.is_child and (child := begin.answer) is not None:  # nothing outlives the flow run that it belongs to
            with suppress(Exception):  # what happened here counts more
                yield _Ask(lambda control: control.request_cancel(child.id, by="parent", reason=GONE_PARENT))
        raise


def _looked_at(
    run: FlowRunRecord, timeout: float | None, poll_interval: float, begun: float, history: History | None
) -> Life[FlowRunRecord]:
    """A run is looked at until it has ended, or the time is over that has begun then."""
    _awaited.add(run.id)
    seen = clock().time()
    try:
        while not run.state.is_final():
            passed = clock().time() - begun
            left = poll_interval if timeout is None else timeout - passed
            if left <= 0:
                break
            pause = max(passed * POLL_SHARE, len(_awaited) / POLLS_A_SECOND, FIRST_POLL_SECONDS)
            yield Sleep(min(pause, poll_interval, left))
            try:
                run = yield _Look(run.id, history)
                seen = clock().time()
            except StoreUnavailable:  # a server may be restarted, and the run goes on meanwhile
                if clock().time() - seen > RESTART_SECONDS:
                    raise
    finally:
        _awaited.discard(run.id)
    return run


def wait_for_flow_run(flow_run_id: UUID, timeout: float | None = None, poll_interval: float = 5) -> FlowRunRecord:
    """A run of any process, once it has ended, or as it is when the time is over.

    Raises:
        UnknownRunError: there is none. BlockingWaitError: called on an event loop's thread.
    """
    refuse_to_block("wait_for_flow_run", "await_for_flow_run")
    return live_blocking(_watched(flow_run_id, timeout, poll_interval))


async def await_for_flow_run(
    flow_run_id: UUID, timeout: float | None = None, poll_interval: float = 5
) -> FlowRunRecord:
    """The same in async code."""
    from upwell.history import History

    async with History() as history:
        return await live_async(_watched(flow_run_id, timeout, poll_interval, history))


def _watched(
    flow_run_id: UUID, timeout: float | None, poll_interval: float, history: History | None = None
) -> Life[FlowRunRecord]:
    begun = clock().time()
    run: FlowRunRecord = yield _Look(flow_run_id, history)
    return (yield from _looked_at(run, timeout, poll_interval, begun, history))


_awaited: Final[set[UUID]] = set()
"""The runs that this process waits for."""


def _ref(name: str) -> UUID | str:
    try:
        return UUID(name)
    except ValueError:
        return name


class _Look:
    """What has become of a run, as a step of a life. history: opened already, on the loop."""

    def __init__(self, flow_run_id: UUID, history: History | None) -> None:
        self._id = flow_run_id
        self._history = history

    def block(self) -> FlowRunRecord:
        from upwell import history

        return history.flow_run(self._id)

    async def wait(self) -> FlowRunRecord:
        assert self._history is not None
        return await self._history.flow_run(self._id)


__all__ = ["RunKeywords", "arun_deployment", "await_for_flow_run", "run_deployment", "wait_for_flow_run"]
