"""`@task`: a function whose calls are runs, with states, retries, timeouts and limits."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, Unpack, cast, overload

import upwell.composition  # noqa: F401  # pyright: ignore[reportUnusedImport]  # says where runs are recorded
from upwell.core.options import TaskKeywords
from upwell.core.retries import exponential_backoff as exponential_backoff
from upwell.core.states import State
from upwell.decorated import Bound, Decorated
from upwell.engine.calls import MapOptions, call_task, map_task, submit_task
from upwell.engine.future import TaskFuture
from upwell.futures import FutureList, future_list

if TYPE_CHECKING:
    from upwell.cache_explanations import CacheExplanation
    from upwell.cache_policies import task_input_hash as task_input_hash
    from upwell.flows import Flow
    from upwell.streams import TaskStream
    from upwell.task_worker import DelayedRun

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
T = TypeVar("T")
H = TypeVar("H", bound=Callable[[Any], Any])


class Task(Decorated[P, R, "BoundTask"]):
    """A function whose calls are task runs. Made by `@task`.

    Call it, and it runs now, in this thread or coroutine, and returns its value. `submit` starts it and
    returns a future, `map` starts it for each of many inputs, `stream` does so for inputs without end.
    `fn` is the function itself, for tests that want it bare.
    """

    _kind = "task"

    def __init__(self, fn: Callable[P, R], **keywords: Unpack[TaskKeywords]) -> None:
        super().__init__(fn, keywords)
        self.tags = self._definition.options.tags

    @overload
    def __call__(
        self: Task[P, Coroutine[Any, Any, Any]], /, *args: Any, return_state: Literal[True], **kwargs: Any
    ) -> Coroutine[Any, Any, State]: ...
    @overload
    def __call__(self, /, *args: Any, return_state: Literal[True], **kwargs: Any) -> State: ...
    @overload
    def __call__(self, /, *args: Any, wait_for: Any, **kwargs: Any) -> R: ...
    @overload
    def __call__(self, /, *args: Any, key: Any, **kwargs: Any) -> R: ...  # pyright: ignore[reportOverlappingOverload]  # the other one's keyword is required
    @overload
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run now, and return the value; for an `async def`, a coroutine that does so when awaited.

        `return_state=True` gives the final State instead, and raises nothing; `wait_for=[...]` are futures to
        wait for first.
        """
        return call_task(self._definition, args, kwargs)

    @overload
    def submit(self, /, *args: Any, return_state: Literal[True], **kwargs: Any) -> Any: ...  # a State, or one to await
    @overload
    def submit(self: Task[P, Coroutine[Any, Any, T]], /, *args: Any, **kwargs: Any) -> TaskFuture[T]: ...
    @overload
    def submit(self: Task[P, AsyncIterator[T]], /, *args: Any, **kwargs: Any) -> TaskFuture[list[T]]: ...
    @overload
    def submit(self: Task[P, Iterator[T]], /, *args: Any, **kwargs: Any) -> TaskFuture[list[T]]: ...
    @overload
    def submit(self: Task[P, T], /, *args: Any, **kwargs: Any) -> TaskFuture[T]: ...
    def submit(self, /, *args: Any, **kwargs: Any) -> TaskFuture[Any]:
        """Start a run on its task runner; returns its future at once.

        Futures among the arguments, at any depth, are waited for, and replaced by their results.
        `wait_for=[...]` are more futures to wait for. `return_state=True` waits and gives the final State
        (to await, on an event loop's own thread).

        Raises:
            ParameterBindError: the arguments do not fit. RuntimeClosedError: what is around has ended.
        """
        return submit_task(self._definition, args, kwargs)  # type: ignore[no-any-return]  # a cast would cost as much as the call

    @overload
    def map(self, /, *args: Any, return_state: Literal[True], **kwargs: Any) -> Any: ...  # States, or them to await
    @overload
    def map(self: Task[P, Coroutine[Any, Any, T]], /, *args: Any, **kwargs: Any) -> FutureList[T]: ...
    @overload
    def map(self: Task[P, AsyncIterator[T]], /, *args: Any, **kwargs: Any) -> FutureList[list[T]]: ...
    @overload
    def map(self: Task[P, Iterator[T]], /, *args: Any, **kwargs: Any) -> FutureList[list[T]]: ...
    @overload
    def map(self: Task[P, T], /, *args: Any, **kwargs: Any) -> FutureList[T]: ...
    def map(self, /, *args: Any, **kwargs: Any) -> FutureList[Any]:
        """Start a run for each item of the iterables, taken together as by `zip`; returns their futures in order.

        Wrap in `unmapped` what every run shall get whole; texts, bytes and dicts are always given whole.
        `max_at_once` and `max_per_second` bound how many run, and start; `progress=True` shows a bar;
        `wait_for` and `return_state` as for `submit`.

        Raises:
            MappingLengthMismatch, MappingMissingIterable, ParameterBindError: before anything has started.
        """
        return map_task(self._definition, args, kwargs, future_list)  # type: ignore[no-any-return]  # a cast would cost as much as the call

    @overload
    def stream(
        self,
        inputs: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        return_state: Literal[True],
        max_at_once: int = ...,
        max_per_second: float | None = ...,
        ordered: bool = ...,
        progress: bool | None = ...,
        **constants: Any,
    ) -> TaskStream[State]: ...
    @overload
    def stream(
        self: Task[P, Coroutine[Any, Any, T]],
        inputs: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        max_at_once: int = ...,
        max_per_second: float | None = ...,
        ordered: bool = ...,
        progress: bool | None = ...,
        **constants: Any,
    ) -> TaskStream[T]: ...
    @overload
    def stream(
        self: Task[P, T],
        inputs: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        max_at_once: int = ...,
        max_per_second: float | None = ...,
        ordered: bool = ...,
        progress: bool | None = ...,
        **constants: Any,
    ) -> TaskStream[T]: ...
    def stream(
        self,
        inputs: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        return_state: bool = False,
        max_at_once: int = 256,
        max_per_second: float | None = None,
        ordered: bool = True,
        progress: bool | None = None,
        **constants: Any,
    ) -> TaskStream[Any]:
        """Map over inputs of any number, endless ones too, in constant memory: `async for result in ...`.

        Inputs are taken as results are: `max_at_once` runs are under way or wait to be taken, never more.
        ordered: results come in the order of the inputs; False: as they are ready.
        return_state: final states come in place of results, and a run that has failed raises nothing.
        constants: arguments that all runs are given.
        In sync code `for result in ...` does the same. Leaving the loop early cancels what is under way.

        Raises:
            TypeError: the inputs are no iterable, or what all runs are given holds futures.
            ParameterBindError: the function does not take one input and these arguments.
        """
        from upwell.streams import TaskStream  # only here: it costs a start more than it gives it

        options = MapOptions(max_at_once, max_per_second, progress)
        return TaskStream(self._definition, inputs, options, constants, ordered=ordered, states=return_state)

    def on_commit(self, hook: H) -> H:
        """Call `hook(transaction)` when a run counts: with the transaction around it, or at its own end."""
        import upwell.transactions  # noqa: F401  # pyright: ignore[reportUnusedImport]  # only here: says what a run without one around does

        self._definition.add_commit_hook(hook)
        return hook

    def on_rollback(self, hook: H) -> H:
        """Call `hook(transaction)` when a run completed, and the transaction around it is rolled back."""
        self._definition.rollback_hooks.append(hook)
        return hook

    def explain_cache(self, /, *args: P.args, **kwargs: P.kwargs) -> CacheExplanation:
        """Whether a call with these arguments would find its result in the cache, and why; print it.

        Nothing is run. Works inside of flows and outside; what is asked may block for a moment.
        """
        from upwell.cache_explanations import explain_cache  # only here: it is rarely asked

        return explain_cache(self._definition, args, kwargs)

    # --- in the background ------------------------------------------------------------------------------

    def as_flow(self) -> Flow[..., Any]:
        """A flow that calls this task, the same one each time: what is deployed to have it run in the background."""
        if "_flow" not in self.__dict__:
            from upwell.task_worker import flow_of  # only here, as below: most tasks are not

            self.__dict__["_flow"] = flow_of(self)
        found: Flow[..., Any] = self.__dict__["_flow"]
        return found

    @overload
    def delay(self: Task[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> DelayedRun[T]: ...
    @overload
    def delay(self: Task[P, T], /, *args: P.args, **kwargs: P.kwargs) -> DelayedRun[T]: ...
    def delay(self, /, *args: Any, **kwargs: Any) -> DelayedRun[Any]:
        """Ask for a run in the background: some process that serves this task carries it out, now or when there is one.

        The arguments are kept as JSON. Blocks for the moment that it takes to store them; `await adelay(...)` does not.

        Raises:
            ParameterBindError, ParameterTypeError: the arguments do not fit. InvalidRequestError: JSON cannot say them.
        """
        from upwell.task_worker import delay

        return delay(self, args, kwargs)

    @overload
    async def adelay(self: Task[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> DelayedRun[T]: ...
    @overload
    async def adelay(self: Task[P, T], /, *args: P.args, **kwargs: P.kwargs) -> DelayedRun[T]: ...
    async def adelay(self, /, *args: Any, **kwargs: Any) -> DelayedRun[Any]:
        """The same in async code."""
        from upwell.task_worker import adelay

        return await adelay(self, args, kwargs)

    def serve(self, *, limit: int | None = None) -> None:
        """Carry out what is asked of this task by `delay`, until Ctrl-C or SIGTERM; blocks as long.

        limit: how many runs go on at once. `upwell.task_worker.serve(a, b)` serves several.
        """
        from upwell.task_worker import serve

        serve(self, limit=limit)

    def with_options(self, **keywords: Unpack[TaskKeywords]) -> Task[P, R]:
        """A copy of this task with these options changed; hooks that were added are kept unless named."""
        return self._copy(keywords)

    def bound_to(self, instance: object) -> Task[..., Any]:
        """A task like this one whose first argument is given."""
        keywords: Any = {"name": self.name, **self._keywords}
        bound: Callable[..., Any] = functools.partial(cast("Callable[..., Any]", self.fn), instance)
        return Task(bound, **keywords)

    def _bound(self, instance: object) -> BoundTask:
        return BoundTask(self, instance)


class BoundTask(Bound):
    """A task that is a method, of one object."""

    def __init__(self, task: Task[..., Any], instance: object) -> None:
        super().__init__(task, instance)
        self.task = task

    def stream(self, inputs: Iterable[Any] | AsyncIterable[Any], /, **options: Any) -> TaskStream[Any]:
        """See `Task.stream`."""
        return self.task.bound_to(self.instance).stream(inputs, **options)

    def with_options(self, **keywords: Unpack[TaskKeywords]) -> BoundTask:
        """See `Task.with_options`."""
        return BoundTask(self.task.with_options(**keywords), self.instance)


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(fn: None = None, /, **options: Unpack[TaskKeywords]) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(fn: Callable[..., Any] | None = None, /, **options: Unpack[TaskKeywords]) -> Any:
    """Make a task of a function: sync or async, a generator, a method, a class method.

    Args:
        name: what its runs are called after; the function's name, with `-` for `_`, unless said.
        description: for people; the docstring unless said.
        tags: of all its runs. A limit named `tag:x` bounds how many runs with the tag `x` run at once.
        version: any text, for people.
        task_run_name: a template over the parameters, `"fetch-{url}"`, or a function that returns the name.
        task_runner: `"concurrent"`, `"threads"`, `"processes"`, `"sequential"`, another installed one's
            name, or an object; the flow's unless said.
        retries: how often a failed run is tried again.
        retry_delay_seconds: a number, one for each retry, or `exponential_backoff(factor)`.
        retry_jitter_factor: each delay d is spread over `d * (1 +- factor)`.
        retry_condition_fn: `condition(task, task_run, state) -> bool`: whether this failure is worth a retry.
        timeout_seconds: of one attempt; the code is interrupted, and the attempt fails as TimedOut.
        log_prints: `print` goes to the run's log; like the flow around unless said.
        persist_result: the result is stored, and can be read later and elsewhere. Unless said, what the flow around
            says; True if any of the following is said, but for `cache_result_in_memory`.
        result_storage: where results go that are too large for the database: a folder, a URL that fsspec knows, or
            a store of one's own.
        result_storage_key: under which name, `"reports/{parameters[day]}.json"`; then it always goes there.
        result_serializer: `"msgpack"`, `"json"`, `"pickle"`, `"compressed/..."`, or a serializer of one's own.
        cache_result_in_memory: False: futures do not keep the value, but read it when asked.
        cache_policy: what makes two calls the same, such as `INPUTS + TASK_SOURCE`: then the second takes the first
            one's result. Where results are persisted and nothing is said: `DEFAULT`, within one flow run.
        cache_key_fn: `fn(context, parameters)` that returns the key itself, or None for not to cache.
        cache_expiration: a timedelta: for how long a cached result counts.
        refresh_cache: compute it anyway, and store it anew.
        viz_return_value: what stands for its result in `flow.visualize()`, where the flow itself needs it.
        on_completion, on_failure, on_running, on_cancellation, on_crashed: `hook(task, task_run, state)`.

    Raises:
        TypeError, ValueError: an option that cannot work, at decoration.
        ReservedArgumentError: a parameter named `return_state` or `wait_for`.
    """
    if fn is None:
        return functools.partial(Task, **options)
    return Task(fn, **options)


def __getattr__(name: str) -> Any:
    """`task_input_hash`, where Prefect's users look for it; loaded when it is asked for."""
    if name != "task_input_hash":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from upwell.cache_policies import task_input_hash

    return task_input_hash
