"""What becomes of a task's results: what its options, those of the flows around, and the settings say together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from upwell.cache_policies import (
    DEFAULT,
    NO_CACHE,
    CachePolicy,
    CompoundCachePolicy,
    Inputs,
    Named,
    RunId,
    cache_key,
    head_of,
)
from upwell.composition import result_folder
from upwell.core.definition import Definition
from upwell.core.errors import ConfigurationError
from upwell.core.keys import CacheContext, hashed_each
from upwell.core.keys_kinds import encode
from upwell.core.options import Options
from upwell.core.storage_keys import render_key
from upwell.engine.loggers import ENGINE
from upwell.engine.records import record_of
from upwell.filesystems import check_storage
from upwell.results import ResultStore
from upwell.serializers import get_serializer
from upwell.settings import current as settings

if TYPE_CHECKING:
    from upwell.engine.future import RunFuture
    from upwell.engine.scope import Scope


KEPT_STORES: Final = 256
"""How many stores of results, each with its own place and serializer, are remembered."""


_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})


class ResultPlan:
    """What is to be done about the results of one task in one scope; see `upwell.engine.caching.Keeping`."""

    def __init__(self, definition: Definition, scope: Scope, options: Options, policy: CachePolicy | None) -> None:
        own = definition.options
        self._definition = definition
        self.policy = policy
        self._flow_run = scope.flow_run
        self._storage_key = own.result_storage_key
        self.context = CacheContext(task=definition.face, flow_run_id=_id(scope))
        self._wants_run = policy is not None and not _is_ours(policy)
        self.flow_parameters: dict[str, Any] = getattr(scope.flow_run, "parameters", None) or {}
        parameters = definition.parameters
        self._takes_one = len(parameters.names) == 1 and parameters.min_positional <= 1 == parameters.max_positional
        self.persists = True
        self.in_memory = options.cache_result_in_memory is not False
        self.caches = policy is not None
        self.refresh = settings().tasks_refresh_cache if own.refresh_cache is None else own.refresh_cache
        self.is_local = policy is not None and _counts_the_run(policy)
        self.known: set[str] | None = set() if self.is_local and scope.durable is None else None
        self.is_exclusive = _isolation_of(policy) != "READ_COMMITTED"
        self.is_inline = self._storage_key is None
        self.expiration = own.cache_expiration.total_seconds() if own.cache_expiration is not None else None
        self.results = _result_store(_place(options), _hashable(options.result_serializer))

    def key_of(self, run: RunFuture[Any]) -> str | None:
        """The key that a run's result is cached under; None: not at all."""
        context, names = self.context, self._definition.parameters.names
        if run.call.unary and self._takes_one and not run.call.kwargs:
            inputs = {names[0]: run.item}  # the commonest case, and the shortest
        else:
            inputs = self._definition.parameters.bind(run.args, run.kwargs)
        if self._wants_run:
            context = CacheContext(task=context.task, task_run=record_of(run), flow_run_id=context.flow_run_id)
            return self.key_for(context, inputs)
        return self.policy.compute_key(context, inputs, self.flow_parameters)  # type: ignore[union-attr]  # it has one

    def keys_of(self, runs: Sequence[RunFuture[Any]]) -> list[str] | None:
        """The keys of runs of one call, in a fraction of the time; None: they are to be made one by one."""
        call = runs[0].call
        if self.policy is None or self._wants_run or not (call.unary and self._takes_one and not call.kwargs):
            return None
        values = [run.item for run in runs]
        return cache_keys(self.policy, self.context, self._definition.parameters.names[0], values, self.flow_parameters)

    def key_for(self, context: CacheContext, inputs: dict[str, Any]) -> str | None:
        """The key of a call with these inputs; None: not at all."""
        return None if self.policy is None else cache_key(self.policy, context, inputs, self.flow_parameters)

    def location_of(self, run: RunFuture[Any]) -> str | None:
        """Where the result is to be stored, if the task says."""
        if self._storage_key is None:
            return None
        inputs = self._definition.parameters.bind(run.args, run.kwargs)
        task_run = {"id": str(run.task_run_id), "name": run.name, "task_name": self._definition.name}
        flow_run = self._flow_run
        about: dict[str, Any] = {}
        if flow_run is not None:
            about = {"id": str(flow_run.id), "name": flow_run.name, "flow_name": flow_run.flow_name}
        return render_key(self._storage_key, inputs, task_run=task_run, flow_run=about)


def cache_keys(
    policy: CachePolicy, context: CacheContext, name: str, values: Sequence[object], flow_parameters: Named
) -> list[str] | None:
    """The keys of calls that differ in their only argument, in a fraction of the time; None: make them one by one.

    name: of that argument. values: what it is, call by call.
    """
    if not _SCALARS.issuperset(map(type, values)):
        return None
    around = _around_inputs(policy, context, flow_parameters)
    if around is None:
        return None
    try:
        written = [encode({name: value}) for value in values]
    except (OverflowError, ValueError):  # an int above 64 bits, a lone surrogate
        return None
    before, after = around
    return [found.hex() for found in hashed_each(before, written, after)]


def _around_inputs(policy: CachePolicy, context: CacheContext, flow_parameters: Named) -> tuple[bytes, bytes] | None:
    """What one of our own policies hashes before and after the inputs; None where it is not so simple."""
    compound = policy if isinstance(policy, CompoundCachePolicy) else CompoundCachePolicy((policy,))
    kinds = [type(writer) for writer in compound.writers]
    if compound.others or kinds.count(Inputs) != 1:
        return None
    parts, place = [head_of(context, compound.counts_source)], kinds.index(Inputs)
    for writer in compound.writers:
        written = writer.written(context, {}, flow_parameters) if type(writer) is not Inputs else b""
        if written is None or (isinstance(writer, Inputs) and writer.exclude):
            return None
        parts.append(writer.tag + written)
    return b"".join(parts[: place + 2]), b"".join(parts[place + 2 :])


def result_plan(definition: Definition, scope: Scope) -> ResultPlan | None:
    """What is to be done about the results of this task in this scope; None: nothing."""
    if definition.wraps_flow:
        return None
    options = _with_those_around(definition.options, scope)
    if not options.persist_result:
        return None
    return ResultPlan(definition, scope, options, _policy_of(definition.options))


def flow_results(definition: Definition) -> ResultStore | None:
    """What stores the results of a flow; None: nothing does."""
    options = _with_those_around(definition.options, None)
    if not options.persist_result:
        return None
    return _result_store(_place(options), _hashable(options.result_serializer))


def _with_those_around(own: Options, scope: Scope | None) -> Options:
    """A task's options, with what the flows around it say where it does not say."""
    said: dict[str, Any] = {
        name: getattr(own, name)
        for name in ("persist_result", "result_storage", "result_serializer", "cache_result_in_memory")
        if getattr(own, name) is not None
    }
    if "persist_result" not in said and _asks_for_it(own):
        said["persist_result"] = True
    while scope is not None:
        flow: Options | None = getattr(getattr(scope.flow_run, "definition", None), "options", None)
        if flow is not None:
            for name in ("persist_result", "result_storage", "result_serializer", "cache_result_in_memory"):
                value = getattr(flow, name)
                if value is not None:
                    said.setdefault(name, value)
            if flow.persist_result is None and _asks_for_it(flow):
                said.setdefault("persist_result", True)
        scope = scope.parent
    defaults = settings()
    said.setdefault("persist_result", defaults.results_persist_by_default)
    said.setdefault("result_serializer", defaults.results_default_serializer)
    return Options(**said)


def _asks_for_it(options: Options) -> bool:
    """Whether something is said that only means something if results are persisted."""
    return (
        options.result_storage is not None
        or options.result_storage_key is not None
        or options.result_serializer is not None
        or options.cache_key_fn is not None
        or (options.cache_policy is not None and options.cache_policy != NO_CACHE)
    )


def _policy_of(options: Options) -> CachePolicy | None:
    """What keys are made of; None: there are none."""
    if options.cache_key_fn is not None:
        return CachePolicy.from_cache_key_fn(options.cache_key_fn)
    policy: CachePolicy | None = options.cache_policy
    if policy is None:
        is_placed = options.result_storage_key is not None
        policy = NO_CACHE if is_placed or settings().tasks_default_no_cache else DEFAULT
    return None if policy == NO_CACHE else policy


def _counts_the_run(policy: CachePolicy) -> bool:
    parts = policy.policies if isinstance(policy, CompoundCachePolicy) else (policy,)
    return any(isinstance(part, RunId) for part in parts)


def _is_ours(policy: CachePolicy) -> bool:
    """Whether a policy looks at nothing but inputs, source and flow run."""
    parts = policy.policies if isinstance(policy, CompoundCachePolicy) else (policy,)
    return all(type(part).__module__ == CachePolicy.__module__ and not hasattr(part, "cache_key_fn") for part in parts)


def _isolation_of(policy: CachePolicy | None) -> str | None:
    level = getattr(policy, "isolation_level", None)
    return getattr(level, "name", level)


def _id(scope: Scope) -> Any:
    return None if scope.flow_run is None else scope.flow_run.id


class _Same:
    """Something that may not be hashable, as a key: it is equal to itself."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _hashable(value: Any) -> Any:
    return value if value is None or isinstance(value, str | Path) else _Same(value)


def _place(options: Options) -> Any:
    return result_folder() if options.result_storage is None else _hashable(options.result_storage)


@lru_cache(KEPT_STORES)
def _result_store(storage: Any, serializer: Any) -> ResultStore:
    storage = storage.value if isinstance(storage, _Same) else storage
    serializer = serializer.value if isinstance(serializer, _Same) else serializer
    return ResultStore(storage, serializer or "msgpack")


def default_store() -> ResultStore:
    """What stores results where nobody says anything."""
    return _result_store(result_folder(), settings().results_default_serializer)


def check_options(decorator: str, name: str, options: Options) -> None:
    """Check what is said about results, at decoration.

    Raises:
        TypeError: a policy that is none. ConfigurationError: a storage that cannot be used.
        UnknownSerializerError: no serializer has this name.
    """
    if options.result_storage is not None:
        check_storage(options.result_storage)
    if options.result_serializer is not None:
        get_serializer(options.result_serializer)
    policy: Any = options.cache_policy
    if policy is not None and not isinstance(policy, CachePolicy):
        raise TypeError(f"cache_policy takes a policy such as INPUTS of upwell.cache_policies, not {policy!r}")
    if policy is not None and options.cache_key_fn is not None:
        raise ConfigurationError(
            f"The {decorator} {name!r} has a cache_policy and a cache_key_fn. Leave one of them out; "
            "CachePolicy.from_cache_key_fn makes a policy of a function, which can be added to others."
        )
    if options.persist_result is False and (policy is not None or options.cache_key_fn is not None):
        ENGINE.warning("The task %r is not cached: it says persist_result=False", name)
