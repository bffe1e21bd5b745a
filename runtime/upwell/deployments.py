"""Deployments: flows that can be started by a name, served by a script or carried out by workers.

`flow.serve("nightly", cron="0 3 * * *")` makes one and carries its runs out; `serve(a, b)` does so for several;
`run_deployment("flow/nightly")` starts a run of one, from anywhere.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Unpack, cast, get_args
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from upwell.composition import open_control
from upwell.core.definition import Definition
from upwell.core.deployments import DeploymentSpec, WhenFull
from upwell.core.errors import ConfigurationError, NotFoundError
from upwell.core.names import check_name
from upwell.core.options import check_at_least_one, check_optional, check_tags
from upwell.core.parameter_schema import described_besides_parameters, parameter_schema, plain_parameters
from upwell.deployment_runs import (
    RunKeywords,
    arun_deployment,
    await_for_flow_run,
    run_deployment,
    wait_for_flow_run,
)
from upwell.engine.loggers import ENGINE
from upwell.engine.steps import refuse_to_block, run_apart
from upwell.entrypoints import entrypoint_of, parse_entrypoint
from upwell.pull_steps import VARIABLE as PULL_STEPS
from upwell.pull_steps import Step, as_written, checked_variables, steps_from
from upwell.schedules import ScheduleKeywords, schedules_from

if TYPE_CHECKING:
    from upwell.flows import Flow
    from upwell.journal.control import Control


class ConcurrencyLimitStrategy(StrEnum):
    """What becomes of a run that is due while its deployment has as many as it may, by Prefect's names."""

    ENQUEUE = "ENQUEUE"
    CANCEL_NEW = "CANCEL_NEW"
    CANCEL_RUNNING = "CANCEL_RUNNING"


class ConcurrencyLimitConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """A limit and what becomes of other runs: `ConcurrencyLimitConfig(limit=3, collision_strategy="CANCEL_NEW")`."""

    limit: int
    collision_strategy: str = ConcurrencyLimitStrategy.ENQUEUE

    def __post_init__(self) -> None:
        if self.collision_strategy not in _WHEN_FULL:
            raise ConfigurationError(
                f"collision_strategy must be one of {', '.join(_WHEN_FULL)}, not {self.collision_strategy!r}."
            )

    @property
    def when_full(self) -> WhenFull:
        return _WHEN_FULL[self.collision_strategy]


_WHEN_FULL: Final[dict[str, WhenFull]] = {
    ConcurrencyLimitStrategy.ENQUEUE: "queue",
    ConcurrencyLimitStrategy.CANCEL_NEW: "cancel_new",
    ConcurrencyLimitStrategy.CANCEL_RUNNING: "cancel_running",
}


class DeploymentKeywords(ScheduleKeywords, total=False):
    """The keywords of `serve`, `deploy` and `to_deployment`, beside those of schedules.

    parameters: of its runs, by name, where nothing else is asked for.
    tags: of its runs. description: the flow's own unless said. version: any text; the flow's own unless said.
    paused: True, and nothing of it begins until it is resumed. Unless said, `deploy` leaves it as it is, and `serve`
        resumes it.
    concurrency_limit: how many of its runs go on at once.
    when_full: what becomes of a run that is due while that many go on: it waits (`"queue"`), is cancelled
        (`"cancel_new"`), or the oldest that goes on is (`"cancel_running"`).
    pull_steps: what is to be done before each of its runs, so that its code is there; see `upwell.pull_steps`.
    """

    parameters: Mapping[str, Any] | None
    tags: Iterable[str] | None
    description: str | None
    version: str | None
    paused: bool | None
    concurrency_limit: int | ConcurrencyLimitConfig | None
    when_full: WhenFull
    pull_steps: Sequence[Mapping[str, Any]] | None


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
            job_variables={**self.spec.job_variables, **checked_variables(job_variables)},
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
    concurrency_limit, when_full = _limit_of(keywords)
    pull_steps = [as_written(step) for step in _steps_of(flow, keywords)]
    if entrypoint is None and flow.origin is not None:
        entrypoint = flow.origin.entrypoint
    check_optional("description", keywords.get("description"), str)
    check_optional("version", keywords.get("version"), str)
    spec = DeploymentSpec(
        flow_name=flow.name,
        name=check_name(Path(name).stem if name.endswith(".py") else name),  # `serve(__file__)` is what people write
        entrypoint=entrypoint_of(flow) if entrypoint is None else str(parse_entrypoint(entrypoint)),
        version=keywords.get("version") or flow.version,
        description=inspect.cleandoc(keywords.get("description") or _description_of(flow)) or None,
        tags=tuple(sorted(check_tags(keywords.get("tags")))),
        parameters=checked_parameters(definition, keywords.get("parameters")),
        parameter_schema=parameter_schema(
            definition.parameters, flow.fn.__doc__, typed=definition.options.validate_parameters
        ),
        work_queue=work_queue_name,
        job_variables={**checked_variables(job_variables), **({PULL_STEPS: pull_steps} if pull_steps else {})},
        concurrency_limit=check_at_least_one("concurrency_limit", concurrency_limit),
        when_full=when_full,
        paused=keywords.get("paused"),
        schedules=schedules_from(cast("ScheduleKeywords", keywords)),
    )
    _check_that_ticks_have_parameters(definition, spec)
    made = RunnerDeployment(flow=flow, spec=spec, entrypoint=entrypoint)
    return made if work_pool_name is None else made.for_pool(work_pool_name)


def _description_of(flow: Flow[..., Any]) -> str:
    """What its flow is described by; of the parameters the schema tells."""
    said = flow.description or ""
    return described_besides_parameters(said) if said == flow.__doc__ else said


def _limit_of(keywords: DeploymentKeywords) -> tuple[int | None, WhenFull]:
    """How many runs go on at once, and what becomes of others."""
    limit, when_full = keywords.get("concurrency_limit"), keywords.get("when_full")
    if isinstance(limit, ConcurrencyLimitConfig):
        if when_full not in (None, limit.when_full):
            raise ConfigurationError("collision_strategy and when_full say the same: say one of them.")
        return limit.limit, limit.when_full
    if when_full not in (None, *get_args(WhenFull)):
        raise ConfigurationError(f"when_full must be one of {', '.join(get_args(WhenFull))}, not {when_full!r}.")
    return limit, when_full or "queue"


def _steps_of(flow: Flow[..., Any], keywords: DeploymentKeywords) -> list[Step]:
    """What is to be done before each run: where the flow is from, and what was said."""
    steps = steps_from(keywords.get("pull_steps"))
    return steps if flow.origin is None else [flow.origin.step, *steps]


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
    refuse_to_block("serve", "aserve")
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
        return [await _apply_one(control, it.spec) for it in deployments]


async def _apply_one(control: Control, spec: DeploymentSpec) -> UUID:
    is_new = await is_of_new_queue(control, spec)
    made = await control.apply_deployment(spec)
    if is_new:
        ENGINE.warning(
            "The work pool '%s' had no work queue '%s': it was made, and workers that are told which queues to take "
            "from have to be told of it",
            spec.work_pool,
            spec.work_queue,
        )
    return made.id


async def is_of_new_queue(control: Control, spec: DeploymentSpec) -> bool:
    """Whether the queue of a deployment is not there yet: it will be made, but may be a slip."""
    if spec.work_pool is None or spec.work_queue is None:
        return False
    try:
        pool = await control.work_pool(spec.work_pool)
    except NotFoundError:  # which is said where the deployment is stored
        return False
    return spec.work_queue not in {queue.name for queue in pool.queues}


def _checked_to_serve(deployments: Sequence[object]) -> list[RunnerDeployment]:
    found: list[RunnerDeployment] = []
    for it in _checked(deployments, "serve"):
        if it.spec.work_pool is not None:
            raise ConfigurationError(
                f"{it.full_name!r} is for the work pool {it.spec.work_pool!r}, whose workers carry it out: "
                f"`upwell worker start --pool {it.spec.work_pool}`."
            )
        found.append(replace(it, spec=replace(it.spec, paused=bool(it.spec.paused))))
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


__all__ = [
    "ConcurrencyLimitConfig",
    "ConcurrencyLimitStrategy",
    "DeploymentKeywords",
    "RunKeywords",
    "RunnerDeployment",
    "arun_deployment",
    "aserve",
    "await_for_flow_run",
    "deploy",
    "run_deployment",
    "serve",
    "to_deployment",
    "wait_for_flow_run",
]
