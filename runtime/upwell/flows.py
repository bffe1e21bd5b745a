"""`@flow`: a function that owns what it starts, and whose calls are flow runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeVar, Unpack, overload

import upwell.composition  # noqa: F401  # pyright: ignore[reportUnusedImport]  # says where runs are recorded
from upwell.core.definition import Definition
from upwell.core.errors import DefinitionError
from upwell.core.options import FlowKeywords
from upwell.core.states import State
from upwell.decorated import Bound, Decorated
from upwell.engine.caching import keep_flows_with
from upwell.engine.calls import call_flow, flow_as_task, map_task, submit_task
from upwell.engine.future import TaskFuture
from upwell.futures import FutureList, future_list

if TYPE_CHECKING:
    import os
    from uuid import UUID

    from upwell.deployments import DeploymentKeywords, RunnerDeployment
    from upwell.flow_sources import Origin
    from upwell.runner.storage import Storage
    from upwell.visualization import FlowGraph

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
T = TypeVar("T")


class Flow(Decorated[P, R, "BoundFlow"]):
    """A function whose calls are flow runs: each owns the runs that it starts, and outlives them. Made by `@flow`.

    `fn` is the function itself, for tests that want it bare.
    """

    _kind = "flow"
    origin: Origin | None = None
    """Where its code was fetched from; None where it was imported as other code is."""

    def __init__(self, fn: Callable[P, R], **keywords: Unpack[FlowKeywords]) -> None:
        super().__init__(fn, keywords)
        options = self._definition.options
        if options.durable and self._definition.kind.is_generator:
            raise DefinitionError(
                f"The flow {self.name!r} is a generator, and cannot be durable: what it "
                "yielded is with its caller, and gone with its process. Return a list, or let a durable flow call it."
            )

    @overload
    def __call__(
        self: Flow[P, Coroutine[Any, Any, Any]], /, *args: Any, return_state: Literal[True], **kwargs: Any
    ) -> Coroutine[Any, Any, State]: ...
    @overload
    def __call__(self, /, *args: Any, return_state: Literal[True], **kwargs: Any) -> State: ...
    @overload
    def __call__(self, /, *args: Any, wait_for: Any, **kwargs: Any) -> R: ...
    @overload
    def __call__(self, /, *args: Any, idempotency_key: str, **kwargs: Any) -> R: ...  # pyright: ignore[reportOverlappingOverload]  # the other one's keyword is required
    @overload
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run now, and return the value; for an `async def`, a coroutine that does so when awaited.

        The run ends when everything that it started has ended. `return_state=True` gives the final State
        instead, and raises nothing; `wait_for=[...]` are futures to wait for first.
        """
        return call_flow(self._definition, args, kwargs)

    @functools.cached_property
    def _as_task(self) -> Definition:
        return flow_as_task(self._definition)

    @overload
    def submit(self: Flow[P, Coroutine[Any, Any, T]], /, *args: Any, **kwargs: Any) -> TaskFuture[T]: ...
    @overload
    def submit(self: Flow[P, T], /, *args: Any, **kwargs: Any) -> TaskFuture[T]: ...
    def submit(self, /, *args: Any, **kwargs: Any) -> TaskFuture[Any]:
        """Start a run beside the caller; returns its future at once. See `Task.submit`."""
        return submit_task(self._as_task, args, kwargs)  # type: ignore[no-any-return]  # a cast would cost as much as the call

    @overload
    def map(self: Flow[P, Coroutine[Any, Any, T]], /, *args: Any, **kwargs: Any) -> FutureList[T]: ...
    @overload
    def map(self: Flow[P, T], /, *args: Any, **kwargs: Any) -> FutureList[T]: ...
    def map(self, /, *args: Any, **kwargs: Any) -> FutureList[Any]:
        """Start a run for each item of the iterables; returns their futures in order. See `Task.map`."""
        return map_task(self._as_task, args, kwargs, future_list)  # type: ignore[no-any-return]  # a cast would cost as much as the call

    def with_options(self, **keywords: Unpack[FlowKeywords]) -> Flow[P, R]:
        """A copy of this flow with these options changed; hooks that were added are kept unless named."""
        copy = self._copy(keywords)
        copy.origin = self.origin
        return copy

    def visualize(self, /, *args: P.args, **kwargs: P.kwargs) -> FlowGraph:
        """What a call with these arguments would start, and what each of that needs; print it, or see `FlowGraph`.

        The flow's own code is run, its tasks and subflows are not: what stands for their results can only be passed on.

        Raises:
            FlowVisualizationError: the flow needs a result to go on. ParameterBindError: the arguments do not fit.
        """
        from upwell.visualization import visualize  # here, as below: most flows are not looked at

        return visualize(self._definition, args, kwargs)

    async def avisualize(self, *args: P.args, **kwargs: P.kwargs) -> FlowGraph:
        """The same in async code."""
        from upwell.visualization import avisualize

        return await avisualize(self._definition, args, kwargs)

    # --- deployments ------------------------------------------------------------------------------------

    @staticmethod
    def from_source(source: str | os.PathLike[str] | Storage, entrypoint: str) -> Flow[..., Any]:
        """A flow whose code is elsewhere. Deployed, it is fetched by workers whenever a run is to begin.

        Args:
            source: the address of a git repository, a URL that fsspec knows, a folder, or a `GitRepository`,
                `RemoteStorage` or `LocalStorage` of `upwell.runner.storage`.
            entrypoint: where the flow is in there, `path/to/file.py:flow` or `package.module:flow`.

        Raises:
            ConfigurationError: the source or the entry point cannot be. SourceError: the code cannot be had.
        """
        from upwell.flow_sources import flow_from_source  # here, as below: so that no program pays that has no need

        return flow_from_source(source, entrypoint)

    @staticmethod
    async def afrom_source(source: str | os.PathLike[str] | Storage, entrypoint: str) -> Flow[..., Any]:
        """The same in async code."""
        from upwell.flow_sources import aflow_from_source

        return await aflow_from_source(source, entrypoint)

    def to_deployment(
        self,
        name: str,
        *,
        entrypoint: str | None = None,
        work_pool_name: str | None = None,
        work_queue_name: str | None = None,
        job_variables: Mapping[str, Any] | None = None,
        **keywords: Unpack[DeploymentKeywords],
    ) -> RunnerDeployment:
        """This flow with a name under which it can be started, to give to `serve` or `deploy`.

        Args:
            entrypoint: where other processes find the flow, `path/to/file.py:flow` or `package.module:flow`; unless
                said, where it stands.
            work_pool_name, work_queue_name, job_variables: for whose workers it is, and what they are to know.
            keywords: see DeploymentKeywords and ScheduleKeywords: `cron`, `interval`, `rrule`, `timezone`, `schedules`,
                `parameters`, `tags`, `description`, `version`, `paused`, `concurrency_limit`, `when_full`, ...
        """
        from upwell import deployments  # here, as below: so that no program pays for it that deploys nothing

        return deployments.to_deployment(
            self,
            name,
            entrypoint=entrypoint,
            work_pool_name=work_pool_name,
            work_queue_name=work_queue_name,
            job_variables=job_variables,
            **keywords,
        )

    def serve(
        self,
        name: str | None = None,
        *,
        pause_on_shutdown: bool = True,
        print_starting_message: bool = True,
        limit: int | None = None,
        **keywords: Unpack[DeploymentKeywords],
    ) -> None:
        """Deploy this flow, and carry its runs out until Ctrl-C or SIGTERM: a script becomes a scheduled application.

        Args:
            name: of the deployment; the flow's own unless said.
            pause_on_shutdown: its schedules stand still while nobody serves it.
            limit: how many runs go on at once here; `concurrency_limit` counts those of other processes, too.
            keywords: as for `to_deployment`.
        """
        from upwell import deployments

        deployments.serve(
            self.to_deployment(name or self.name, **keywords),
            pause_on_shutdown=pause_on_shutdown,
            print_starting_message=print_starting_message,
            limit=limit,
        )

    def deploy(
        self,
        name: str,
        work_pool_name: str,
        *,
        work_queue_name: str | None = None,
        image: str | None = None,
        job_variables: Mapping[str, Any] | None = None,
        entrypoint: str | None = None,
        **keywords: Unpack[DeploymentKeywords],
    ) -> UUID:
        """Deploy this flow for the workers of a pool to carry out; the deployment's id.

        Args:
            image: of the containers of a pool of type docker.
            keywords, entrypoint, job_variables: as for `to_deployment`.
        """
        from upwell import deployments

        wanted = self.to_deployment(name, entrypoint=entrypoint, job_variables=job_variables, **keywords)
        return deployments.deploy(wanted, work_pool_name=work_pool_name, work_queue_name=work_queue_name, image=image)[
            0
        ]

    def _bound(self, instance: object) -> BoundFlow:
        return BoundFlow(self, instance)


def _flow_results(definition: Definition) -> Any:
    from upwell.persistence import flow_results  # only here: most flows say nothing about their results

    return flow_results(definition)


keep_flows_with(_flow_results)


class BoundFlow(Bound):
    """A flow that is a method, of one object."""

    def __init__(self, flow: Flow[..., Any], instance: object) -> None:
        super().__init__(flow, instance)
        self.flow = flow

    def with_options(self, **keywords: Unpack[FlowKeywords]) -> BoundFlow:
        """See `Flow.with_options`."""
        return BoundFlow(self.flow.with_options(**keywords), self.instance)


class _FlowDecorator:
    """What `flow` is: it makes flows of functions, and `flow.from_source` of code that is elsewhere."""

    from_source = staticmethod(Flow.from_source)
    afrom_source = staticmethod(Flow.afrom_source)

    @overload
    def __call__(self, fn: Callable[P, R], /) -> Flow[P, R]: ...
    @overload
    def __call__(
        self, fn: None = None, /, **options: Unpack[FlowKeywords]
    ) -> Callable[[Callable[P, R]], Flow[P, R]]: ...
    def __call__(self, fn: Callable[..., Any] | None = None, /, **options: Unpack[FlowKeywords]) -> Any:
        """Make a flow of a function: sync or async, a generator, a method, a class method.

        Args:
            name: what the flow is called; the function's name, with `-` for `_`, unless said.
            description: for people; the docstring unless said.
            version: any text, for people.
            flow_run_name: a template over the parameters, `"report-{day:%F}"`, or a function that returns the name.
            task_runner: for its tasks that name none: `"concurrent"` (the default), `"threads"`, `"processes"`,
                `"sequential"`, another installed one's name, or an object.
            retries, retry_delay_seconds, retry_jitter_factor, retry_condition_fn: as for `task`.
            timeout_seconds: of one attempt; the code is interrupted, what it started is cancelled.
            validate_parameters: check the arguments against the annotations, and convert where that is safe.
            log_prints: `print` goes to the run's log.
            durable: True if a run whose process dies is to go on where it stopped; `"strict"`: each task run is safe in
                the store before the next begins. Unless said, as the flow around. See docs/durability.md.
            persist_result, result_storage, result_serializer, cache_result_in_memory: as for `task`; for the flow's own
                result, and for its tasks that do not say.
            on_completion, on_failure, on_running, on_cancellation, on_crashed: `hook(flow, flow_run, state)`.

        Raises:
            TypeError, ValueError: an option that cannot work, at decoration.
            ReservedArgumentError: a parameter named `return_state` or `wait_for`.
        """
        if fn is None:
            return functools.partial(Flow, **options)
        return Flow(fn, **options)


flow: Final = _FlowDecorator()


def __getattr__(name: str) -> Any:
    """`load_flow_from_entrypoint`, where Prefect's users look for it; loaded when it is asked for."""
    if name != "load_flow_from_entrypoint":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from upwell.entrypoints import load_flow

    return load_flow
