"""Deployments: flows that can be started by a name, served by a script or carried out by workers.

`flow.serve("nightly", cron="0 3 * * *")` makes one and carries its runs out; `serve(a, b)` does so for several;
`run_deployment("flow/nightly")` starts a run of one, from anywhere.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import difflib
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypedDict, TypeVar, Unpack, cast, get_args
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from upwell import runtime
from upwell.composition import flush_journal, open_control
from upwell.core.definition import Definition
from upwell.core.deployments import DeploymentSpec, RunSpec, WhenFull
from upwell.core.errors import BlockingWaitError, ConfigurationError
from upwell.core.model import FlowRunRecord
from upwell.core.names import check_name
from upwell.core.options import check_at_least_one, check_idempotency_key, check_optional, check_tags
from upwell.core.parameter_schema import parameter_schema, plain_parameters
from upwell.engine.clock import ERRANDS, clock
from upwell.engine.steps import Life, Sleep, live_async, live_blocking, run_apart
from upwell.entrypoints import entrypoint_of
from upwell.schedules import ScheduleKeywords, schedules_from
from upwell.tasks import task

if TYPE_CHECKING:
    from upwell.flows import Flow
    from upwell.journal.control import Control

T = TypeVar("T")


class DeploymentKeywords(ScheduleKeywords, total=False):
    """The keywords of `serve`, `deploy` and `to_deployment`, beside those of schedules.

    parameters: of its runs, by name, where nothing else is asked for.
    tags: of its runs. description: the flow's own unless said. version: any text; the flow's own unless said.
    paused: True, and nothing of it begins until it is resumed. Unless said, as it was.
    concurrency_limit: how many of its runs go on at once.
    when_full: what becomes of a run that is due while that many go on: it waits (`"queue"`), is cancelled
        (`"cancel_new"`), or the oldest that goes on is (`"cancel_running"`).
    """

    parameters: Mapping[str, Any] | None
    tags: Iterable[str] | None
    description: str | None
    version: str | None
    paused: bool
    concurrency_limit: int | None
    when_full: WhenFull


class RunnerDeployment(Struct, frozen=True, kw_only=True):
    """A flow and how it is to be deployed; nothing is stored before it is served, deployed or applied.

    entrypoint: where its users said that the flow is found.
    """

    flow: Any
    spec: DeploymentSpec
    entrypoint: str | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def flow_name(self) -> str:
        return self.spec.flow_name

    @property
    def full_name(self) -> str:
        """What people know it by: `flow/deployment`."""
        return f"{self.flow_name}/{self.name}"

    def for_pool(
        self, pool: str, queue: str | None = None, job_variables: Mapping[str, Any] | None = None
    ) -> RunnerDeployment:
        """The same for the workers of a pool, who find its file by the path from here."""
        spec = replace(
            self.spec,
            entrypoint=self.entrypoint or entrypoint_of(self.flow, Path.cwd()),
            work_pool=pool,
            work_queue=queue or self.spec.work_queue,
            job_variables={**self.spec.job_variables, **plain_parameters(job_variables or {})},
        )
        return replace(self, spec=spec)

    def apply(self) -> UUID:
        """Have the store hold it, as it is here; its id."""
        return run_apart(self.aapply())

    async def aapply(self) -> UUID:
        """The same in async code."""
        (found,) = await _apply([self])
        return found


def to_deployment(
    flow: Flow[..., Any],
    name: str,
    *,
    entrypoint: str | None = None,
    work_pool_name: str | None = None,
    work_queue_name: str | None = None,
    job_variables: Mapping[str, Any] | None = None,
    **keywords: Unpack[DeploymentKeywords],
) -> RunnerDeployment:
    """What `Flow.to_deployment` returns.

    Raises:
        TypeError, ConfigurationError, InvalidRequestError: something of it cannot be.
    """
    definition = _definition_of(flow)
    _check_keywords(keywords)
    when_full = keywords.get("when_full", "queue")
    if when_full not in get_args(WhenFull):
        raise ConfigurationError(f"when_full must be one of {', '.join(get_args(WhenFull))}, not {when_full!r}.")
    check_optional("description", keywords.get("description"), str)
    check_optional("version", keywords.get("version"), str)
    spec = DeploymentSpec(
        flow_name=flow.name,
        name=check_name(name),
        entrypoint=entrypoint or entrypoint_of(flow),
        version=keywords.get("version") or flow.version,
        description=inspect.cleandoc(keywords.get("description") or flow.description or "") or None,
        tags=tuple(sorted(check_tags(keywords.get("tags")))),
        parameters=checked_parameters(definition, keywords.get("parameters")),
        parameter_schema=parameter_schema(
            definition.parameters, flow.fn.__doc__, typed=definition.options.validate_parameters
        ),
        work_queue=work_queue_name,
        job_variables=plain_parameters(job_variables or {}),
        concurrency_limit=check_at_least_one("concurrency_limit", keywords.get("concurrency_limit")),
        when_full=when_full,
        paused=keywords.get("paused", False),
        schedules=schedules_from(cast("ScheduleKeywords", keywords)),
    )
    _check_that_ticks_have_parameters(definition, spec)
    made = RunnerDeployment(flow=flow, spec=spec, entrypoint=entrypoint)
    return made if work_pool_name is None else made.for_pool(work_pool_name)


def checked_parameters(definition: Definition, parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Some of a flow's parameters, as JSON can carry them.

    Raises:
        ConfigurationError: the flow has no such parameter. ParameterTypeError: a value that it would not take.
    """
    given = dict(parameters or {})
    names = definition.parameters.names
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" It has: {', '.join(names) or 'none'}."
            raise ConfigurationError(f"The flow {definition.name!r} has no parameter {name!r}.{hint}")
    if definition.options.validate_parameters:
        definition.parameters.validate(given, f"The deployment of flow {definition.name!r}")
    return plain_parameters(given)


def _check_that_ticks_have_parameters(definition: Definition, spec: DeploymentSpec) -> None:
    """A run that nobody asks for has no parameters but those of its deployment and its schedule."""
    for schedule in spec.schedules or ():
        given = {**spec.parameters, **checked_parameters(definition, schedule.parameters)}
        lacking = [name for name in spec.parameter_schema["required"] if name not in given]
        if lacking:
            raise ConfigurationError(
                f"The flow {definition.name!r} needs {', '.join(lacking)}, and the schedule {schedule.expression!r} of "
                f"its deployment {spec.name!r} gives it no value: say parameters={{{lacking[0]!r}: ...}}, or a default."
            )


def _definition_of(flow: Flow[..., Any]) -> Definition:
    return flow._definition  # pyright: ignore[reportPrivateUsage]  # one library


def _check_keywords(keywords: Mapping[str, Any]) -> None:
    known = DeploymentKeywords.__annotations__
    for name in keywords:
        if name not in known:
            raise TypeError(f"A deployment has no option {name!r}; it has: {', '.join(sorted(known))}")


# --- serving and deploying ----------------------------------------------------------------------------------


def serve(
    *deployments: RunnerDeployment,
    pause_on_shutdown: bool = True,
    print_starting_message: bool = True,
    limit: int | None = None,
) -> None:
    """Carry out the runs of these deployments, until Ctrl-C or SIGTERM; blocks as long.

    Args:
        pause_on_shutdown: their schedules stand still while nobody serves them.
        limit: how many runs go on at once in all.

    Raises:
        BlockingWaitError: called on an event loop's thread, where `await aserve(...)` is right.
    """
    _refuse_to_block("serve", "aserve")
    from upwell.serving.serve import serve_deployments  # here: so that no program pays for it that serves nothing

    serve_deployments(
        _checked_to_serve(deployments),
        limit=check_at_least_one("limit", limit),
        pause_on_shutdown=pause_on_shutdown,
        print_starting_message=print_starting_message,
    )


async def aserve(
    *deployments: RunnerDeployment,
    pause_on_shutdown: bool = True,
    print_starting_message: bool = True,
    limit: int | None = None,
) -> None:
    """The same in async code, until it is cancelled."""
    from upwell.serving.serve import serve_forever

    await serve_forever(
        _checked_to_serve(deployments),
        limit=check_at_least_one("limit", limit),
        pause_on_shutdown=pause_on_shutdown,
        print_starting_message=print_starting_message,
    )


def deploy(
    *deployments: RunnerDeployment, work_pool_name: str, work_queue_name: str | None = None, image: str | None = None
) -> list[UUID]:
    """Have the store hold these deployments, for the workers of a pool to carry out; their ids.

    Workers find each flow by its file's path from the working directory of this call; theirs is its counterpart.

    Args:
        image: of the containers of a pool of type docker.
    """
    variables = {"image": image} if image else None
    wanted = [it.for_pool(work_pool_name, work_queue_name, variables) for it in _checked(deployments, "deploy")]
    return run_apart(_apply(wanted))


async def _apply(deployments: Iterable[RunnerDeployment]) -> list[UUID]:
    async with open_control() as control:
        return [(await control.apply_deployment(it.spec)).id for it in deployments]


def _checked_to_serve(deployments: Sequence[object]) -> list[RunnerDeployment]:
    found = _checked(deployments, "serve")
    for it in found:
        if it.spec.work_pool is not None:
            raise ConfigurationError(
                f"{it.full_name!r} is for the work pool {it.spec.work_pool!r}, whose workers carry it out: "
                f"`upwell worker start --pool {it.spec.work_pool}`."
            )
    return found


def _checked(deployments: Sequence[object], what: str) -> list[RunnerDeployment]:
    if not deployments:
        raise TypeError(f"{what} takes deployments: {what}(my_flow.to_deployment('nightly'), ...)")
    found: list[RunnerDeployment] = []
    for it in deployments:
        if not isinstance(it, RunnerDeployment):
            raise TypeError(f"{what} takes what my_flow.to_deployment('nightly') returns, not {it!r}")
        if any(other.full_name == it.full_name for other in found):
            raise ConfigurationError(f"There are two deployments {it.full_name!r}: give each a name of its own.")
        found.append(it)
    return found


def _refuse_to_block(name: str, twin: str) -> None:
    if asyncio._get_running_loop() is not None:
        raise BlockingWaitError(f"{name}(...) would block the event loop here: write `await {twin}(...)`.")


# --- running one --------------------------------------------------------------------------------------------

FIRST_POLL_SECONDS: Final = 0.05
"""How soon a run that was started is looked at first; then it is twice as long each time, up to the interval."""


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
    _refuse_to_block("run_deployment", "arun_deployment")
    asked = _Asked(str(name), _run_spec(parameters, wanted), timeout, poll_interval)
    if as_subflow and runtime.flow_run.id is not None:
        return _as_task_run(asked.deployment, asked)
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
    asked = _Asked(str(name), _run_spec(parameters, wanted), timeout, poll_interval)
    if as_subflow and runtime.flow_run.id is not None:
        return await _as_task_run_async(asked.deployment, asked)
    return await live_async(_life(asked))


def _run_spec(parameters: Mapping[str, Any] | None, wanted: RunKeywords) -> RunSpec:
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
        job_variables=plain_parameters(wanted.get("job_variables") or {}),
    )


class _Asked(NamedTuple):
    """A run that somebody wants, and how long they wait for its end."""

    deployment: str
    wanted: RunSpec
    timeout: float | None
    poll_interval: float

    def of_this_task_run(self) -> _Asked:
        flush_journal()  # so that the store knows the parent
        return self._replace(wanted=replace(self.wanted, parent_task_run_id=runtime.task_run.id))


@task(name="run-deployment", task_run_name="{deployment}")
def _as_task_run(deployment: str, asked: _Asked) -> FlowRunRecord:
    return live_blocking(_life(asked.of_this_task_run()))


@task(name="run-deployment", task_run_name="{deployment}")
async def _as_task_run_async(deployment: str, asked: _Asked) -> FlowRunRecord:
    return await live_async(_life(asked.of_this_task_run()))


class _Ask(Generic[T]):
    """Ask the store, as a step of a life."""

    def __init__(self, question: Callable[[Control], Coroutine[Any, Any, T]]) -> None:
        self._question = question

    async def _ask(self) -> T:
        async with open_control() as control:
            return await self._question(control)

    def block(self) -> T:
        ERRANDS.add(self)
        try:
            return run_apart(self._ask())
        finally:
            ERRANDS.discard(self)

    async def wait(self) -> T:
        ERRANDS.add(self)
        try:
            return await self._ask()
        finally:
            ERRANDS.discard(self)


def _life(asked: _Asked) -> Life[FlowRunRecord]:
    """A run of a deployment is asked for, and looked at until it has ended or the time is over."""
    name, wanted, timeout, poll_interval = asked
    end = None if timeout is None else clock().time() + timeout
    run: FlowRunRecord = yield _Ask(lambda control: control.run_deployment(_ref(name), wanted))
    pause = FIRST_POLL_SECONDS
    while not run.state.is_final() and (end is None or clock().time() < end):
        left = poll_interval if end is None else end - clock().time()
        yield Sleep(max(min(pause, poll_interval, left), 0))
        pause *= 2
        run = yield _Look(run.id)
    return run


def _ref(name: str) -> UUID | str:
    try:
        return UUID(name)
    except ValueError:
        return name


class _Look(_Ask[FlowRunRecord]):
    """What has become of a run."""

    def __init__(self, flow_run_id: UUID) -> None:
        self._id = flow_run_id

    async def _ask(self) -> FlowRunRecord:
        from upwell.history import History  # here: so that no program pays for it that looks at nothing

        async with History() as history:
            return await history.flow_run(self._id)


__all__ = [
    "DeploymentKeywords",
    "RunKeywords",
    "RunnerDeployment",
    "arun_deployment",
    "aserve",
    "deploy",
    "run_deployment",
    "serve",
    "to_deployment",
]
