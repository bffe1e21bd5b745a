"""The runtime to embed in a service, and where a piece of code runs: `flow_run`, `task_run`, `deployment`."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from collections.abc import Mapping
from contextvars import Token
from typing import TYPE_CHECKING, Any, Final, Self, cast
from uuid import UUID

from msgspec import Struct
from msgspec.json import decode, encode

from upwell.core.definition import Definition
from upwell.core.errors import RuntimeClosedError
from upwell.core.options import check_runner
from upwell.engine.calls import map_task, submit_task
from upwell.engine.current import CURRENT_ENGINE, Portal, recording
from upwell.engine.elsewhere import ELSEWHERE, RunFacts
from upwell.engine.flow_run import FlowRun
from upwell.engine.future import CURRENT_RUN, TaskFuture
from upwell.engine.limits import Limits
from upwell.engine.registry import runner_class
from upwell.engine.runtime import Engine
from upwell.engine.scope import CURRENT_SCOPE
from upwell.futures import FutureList, future_list
from upwell.settings import current as settings
from upwell.settings import page_of_flow_run

if TYPE_CHECKING:
    from upwell.core.deployments import Job


class Runtime:
    """Runs flows and tasks inside a service: `async with Runtime(task_runner="threads", limits={"db": 5}) as rt:`.

    Flows and tasks called inside the block, in its coroutine and in Tasks made there, run in it. Code that
    does not come from there, such as a request's handler, uses `rt.submit`, `rt.map` and `rt.call`. In sync
    code `with Runtime(...) as rt:` runs a loop beside the caller. Leaving the block cancels what is under
    way, waits until it has ended, and stops the workers.

    Args:
        task_runner: for flows and tasks that name none.
        limits: slots by name, or `(slots, slot_decay_per_second)`; `"tag:x"` bounds the task runs with tag x.

    Raises:
        UnknownTaskRunnerError: there is no task runner of this name. TypeError: it is none, or the limits are wrong.
    """

    def __init__(self, task_runner: Any = None, limits: Mapping[str, int | tuple[int, float]] | None = None) -> None:
        check_runner(task_runner)
        if isinstance(task_runner, str):
            runner_class(task_runner)
        Limits(limits)  # here a mistake in them is where it was made
        self._task_runner = task_runner
        self._limits = limits
        self._engine: Engine | None = None
        self._portal: Portal | None = None
        self._token: Token[Engine | None] | None = None

    async def __aenter__(self) -> Self:
        self._begin(Engine(asyncio.get_running_loop(), self._task_runner, self._limits))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        self._check_that_it_is_new()
        self._portal = Portal(self._task_runner, self._limits)
        self._begin(self._portal.engine)
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        if self._portal is not None:
            self._portal.close()

    async def aclose(self) -> None:
        """Cancel what is under way, wait for it, stop the workers; may be called twice."""
        self._end()
        if self._engine is not None:
            await self._engine.close()

    def _check_that_it_is_new(self) -> None:
        if self._engine is not None:
            raise RuntimeClosedError("A Runtime can be opened once; make another one.")

    def _begin(self, engine: Engine) -> None:
        self._check_that_it_is_new()
        self._engine = engine
        self._token = CURRENT_ENGINE.set(engine)

    def _end(self) -> None:
        if self._token is not None:
            try:
                CURRENT_ENGINE.reset(self._token)
            except ValueError:  # closed from another context than it was opened in
                pass
            self._token = None

    @property
    def engine(self) -> Engine:
        """What drives the runs.

        Raises:
            RuntimeClosedError: the runtime is not open.
        """
        if self._engine is None or self._engine.closed:
            raise RuntimeClosedError("This Runtime is not open: use it inside its `async with` or `with` block.")
        return self._engine

    def submit(self, target: Any, *args: Any, **kwargs: Any) -> TaskFuture[Any]:
        """Start a run of a task or flow here; from any thread. See `Task.submit`."""
        return cast("TaskFuture[Any]", submit_task(_definition(target), args, kwargs, recording(self.engine.scope)))

    def map(self, target: Any, *args: Any, **kwargs: Any) -> FutureList[Any]:
        """Start a run of a task or flow for each item here; from any thread. See `Task.map`."""
        return cast(
            "FutureList[Any]", map_task(_definition(target), args, kwargs, future_list, recording(self.engine.scope))
        )

    async def call(self, target: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a task or flow here and return its result."""
        return await self.submit(target, *args, **kwargs)

    def __repr__(self) -> str:
        state = "not open" if self._engine is None else "closed" if self._engine.closed else "open"
        return f"<Runtime {state}>"


def _definition(target: Any) -> Definition:
    found = getattr(target, "_as_task", None) or getattr(target, "_definition", None)
    if not isinstance(found, Definition):
        raise TypeError(f"A Runtime runs tasks and flows, not {target!r}.")
    return found


class _FlowRunHere:
    """The flow run whose code reads this; every attribute is None, or empty, outside of flow runs."""

    @property
    def _run(self) -> FlowRun | None:
        scope = CURRENT_SCOPE.get()
        run = scope.flow_run if scope is not None else None
        return run if isinstance(run, FlowRun) else None

    @property
    def id(self) -> UUID | None:
        run, facts = self._run, facts_elsewhere()
        return run.id if run else UUID(facts.flow_run_id) if facts and facts.flow_run_id else None

    @property
    def name(self) -> str | None:
        run, facts = self._run, facts_elsewhere()
        return run.name if run else facts.flow_run_name if facts else None

    @property
    def flow_name(self) -> str | None:
        run, facts = self._run, facts_elsewhere()
        return run.flow_name if run else facts.flow_name if facts else None

    @property
    def flow_version(self) -> str | None:
        run, facts = self._run, facts_elsewhere()
        return run.flow_version if run else facts.flow_version if facts else None

    @property
    def tags(self) -> list[str]:
        run, facts = self._run, facts_elsewhere()
        return sorted(run.tags) if run else list(facts.flow_tags) if facts else []

    @property
    def parameters(self) -> dict[str, Any]:
        run, elsewhere = self._run, ELSEWHERE.get()
        return dict(run.parameters) if run else elsewhere.flow_parameters() if elsewhere else {}

    @property
    def run_count(self) -> int:
        run, facts = self._run, facts_elsewhere()
        return run.run_count if run else facts.flow_run_count if facts else 0

    @property
    def parent_flow_run_id(self) -> UUID | None:
        run, facts = self._run, facts_elsewhere()
        return run.parent_flow_run_id if run else _uuid(facts.parent_flow_run_id) if facts else None

    @property
    def root_flow_run_id(self) -> UUID | None:
        run, facts = self._run, facts_elsewhere()
        return run.root_flow_run_id if run else _uuid(facts.root_flow_run_id) if facts else None

    @property
    def parent_deployment_id(self) -> UUID | None:
        """The deployment that the flow run around it, which called it, is a run of."""
        return deployment.id if self.parent_flow_run_id is not None else None

    @property
    def scheduled_start_time(self) -> dt.datetime | None:
        """When it, or the run that it belongs to, was to begin: its schedule's tick; else when it was asked for."""
        root, job, run, facts = self.root_flow_run_id, _job(), self._run, facts_elsewhere()
        if job is not None and (root is None or str(root) == job.flow_run_id):
            return job.due
        created = run.created if run else facts.flow_run_created if facts else None
        return dt.datetime.fromtimestamp(created, dt.UTC) if created is not None else None

    @property
    def job_variables(self) -> dict[str, Any]:
        """Those of the deployment's run that this process carries out."""
        return dict(_carried_out.job_variables) if _carried_out and self._run else {}

    @property
    def api_url(self) -> str | None:
        """The server's, if this process works through one."""
        return settings().api_url if self.id else None

    @property
    def ui_url(self) -> str | None:
        """The page on which it can be looked at, if this process works through a server."""
        return page_of_flow_run(self.id) if self.id else None


class _TaskRunHere:
    """The task run whose code reads this; every attribute is None, or empty, outside of task runs."""

    @property
    def id(self) -> UUID | None:
        run, facts = CURRENT_RUN.get(), facts_elsewhere()
        return run.task_run_id if run else UUID(facts.task_run_id) if facts else None

    @property
    def name(self) -> str | None:
        run, facts = CURRENT_RUN.get(), facts_elsewhere()
        return run.name if run else facts.task_run_name if facts else None

    @property
    def task_name(self) -> str | None:
        run, facts = CURRENT_RUN.get(), facts_elsewhere()
        return run.call.definition.name if run else facts.task_name if facts else None

    @property
    def tags(self) -> list[str]:
        run, facts = CURRENT_RUN.get(), facts_elsewhere()
        return sorted(run.tags) if run else sorted(facts.tags) if facts else []

    @property
    def parameters(self) -> dict[str, Any]:
        run, elsewhere = CURRENT_RUN.get(), ELSEWHERE.get()
        return run.parameters() if run else elsewhere.parameters() if elsewhere else {}

    @property
    def run_count(self) -> int:
        run, facts = CURRENT_RUN.get(), facts_elsewhere()
        return run.run_count if run else facts.run_count if facts else 0

    @property
    def api_url(self) -> str | None:
        """The server's, if this process works through one."""
        return settings().api_url if self.id else None

    @property
    def ui_url(self) -> str | None:
        """The page of the flow run that it belongs to, if this process works through a server."""
        return flow_run.ui_url if self.id else None


def _uuid(text: str | None) -> UUID | None:
    return UUID(text) if text else None


JOB_VARIABLE: Final = "UPWELL_JOB"
"""Says in the environment of a deployment's run what it is; processes that it starts inherit that."""


class JobFacts(Struct, frozen=True, omit_defaults=True):
    """What is known of the deployment whose run this process, or one that has started it, carries out."""

    flow_run_id: str
    deployment_id: str
    deployment_name: str
    due: dt.datetime
    version: str | None = None
    commit: str | None = None


_carried_out: Job | None = None
"""What this very process carries out."""


def be_run_of(job: Job) -> None:
    """Note whose run this process is; those that it starts inherit the facts, and nothing that could be a secret."""
    global _carried_out
    _carried_out = job
    deployment_id, name = str(job.deployment_id or ""), job.deployment_name or ""
    facts = JobFacts(str(job.flow_run_id), deployment_id, name, job.due, job.deployment_version, job.commit)
    os.environ[JOB_VARIABLE] = encode(facts).decode()


def _job() -> JobFacts | None:
    text = os.environ.get(JOB_VARIABLE)
    return decode(text, type=JobFacts) if text else None


class _DeploymentHere:
    """The deployment whose run this code belongs to; every attribute is None, or empty, outside of such runs."""

    @property
    def id(self) -> UUID | None:
        job = _job()
        return UUID(job.deployment_id) if job and job.deployment_id else None

    @property
    def name(self) -> str | None:
        job = _job()
        return job.deployment_name or None if job else None

    @property
    def flow_run_id(self) -> UUID | None:
        job = _job()
        return UUID(job.flow_run_id) if job else None

    @property
    def version(self) -> str | None:
        job = _job()
        return job.version if job else None

    @property
    def parameters(self) -> dict[str, Any]:
        """Those of the deployment's run, as they were asked for."""
        return dict(_carried_out.parameters) if _carried_out else {}

    @property
    def commit(self) -> str | None:
        """Which commit the code is of, where a worker has fetched it from a repository."""
        job = _job()
        return job.commit if job else None


def facts_elsewhere() -> RunFacts | None:
    """Who the run is whose code this is, in a process that does not hold its record."""
    elsewhere = ELSEWHERE.get()
    return elsewhere.facts() if elsewhere is not None and CURRENT_RUN.get() is None else None


flow_run = _FlowRunHere()
task_run = _TaskRunHere()
deployment = _DeploymentHere()

__all__ = ["Runtime", "deployment", "flow_run", "task_run"]
