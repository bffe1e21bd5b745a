"""Cache policies: what the key is made of under which a task's result is found again.

    @task(cache_policy=INPUTS + TASK_SOURCE)      # the same code on the same arguments
    @task(cache_policy=INPUTS - "debug")          # an argument that does not change the result
    @task(cache_key_fn=lambda context, parameters: parameters["day"].isoformat())

A policy says what counts. Every key that these policies make counts the task's function too, by its module and
qualified name (and the constants it was made with, if it was made inside another function): two tasks never share a
result by accident. To let them do so on purpose, return the same text from their `cache_key_fn`.

Keys are the same in every process and on every machine (`upwell.core.keys` says what makes values equal). What cannot
be part of a key raises HashError, which names the argument and the reason.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, ClassVar, Final

from msgspec import Struct

from upwell.core.errors import ConfigurationError
from upwell.core.keys import CacheContext, HashError, digest, encoded, encoded_arguments, hashed
from upwell.core.keys_functions import function_identity, head_with_source, identity, task_source
from upwell.core.keys_kinds import Unhashable, encode

__all__ = [
    "DEFAULT",
    "FLOW_PARAMETERS",
    "INPUTS",
    "NONE",
    "NO_CACHE",
    "RUN_ID",
    "TASK_SOURCE",
    "CacheContext",
    "CacheKeyFnPolicy",
    "CachePolicy",
    "CompoundCachePolicy",
    "FlowParameters",
    "HashError",
    "Inputs",
    "KeyPart",
    "NoCache",
    "RunId",
    "TaskSource",
    "cache_key",
    "explain",
    "task_input_hash",
]

Named = Mapping[str, Any]
CacheKeyFn = Callable[[Any, dict[str, Any]], str | None]

_SAFE: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
"""Keys that may name a file as they are; others are hashed."""


class KeyPart(Struct, frozen=True, kw_only=True):
    """One thing that a cache key is made of, for people. It never shows a value.

    name: `argument 'url'`, `task source`, ...
    what: the type of the value, or what was hashed.
    digest: hexadecimal; None where it does not count, or cannot be hashed.
    error: why it cannot be hashed.
    """

    name: str
    what: str
    digest: str | None = None
    error: str | None = None


class CachePolicy:
    """What a cache key is made of. Subclass it for a policy of your own; policies do not change once made.

    `a + b` counts what either counts; `policy - "argument"` leaves arguments out of the inputs.
    """

    key_storage: Any = None
    isolation_level: Any = None
    lock_manager: Any = None

    def compute_key(
        self, task_ctx: CacheContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        """The key for a call of `task_ctx.task` with these inputs; None: do not cache.

        In a compound, None from any of the parts is None from the whole.

        Raises:
            HashError: something that counts cannot be hashed; says what and why.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how keys are made: give it a `compute_key`")

    def parts(self, context: CacheContext, inputs: Named, flow_parameters: Named) -> list[KeyPart]:
        """What the key is made of, for people; see `explain`."""
        key = self.compute_key(context, dict(inputs), dict(flow_parameters))
        return [KeyPart(name=repr(self), what="do not cache" if key is None else "a key of its own", digest=key)]

    @classmethod
    def from_cache_key_fn(cls, cache_key_fn: CacheKeyFn) -> CacheKeyFnPolicy:
        """The policy whose keys are what `cache_key_fn(context, parameters)` returns."""
        return CacheKeyFnPolicy(cache_key_fn)

    def configure(
        self, *, isolation_level: Any = None, lock_manager: Any = None, key_storage: Any = None
    ) -> CachePolicy:
        """A copy that is used with these; what is None stays as it is."""
        copied = copy.copy(self)
        given = {"isolation_level": isolation_level, "lock_manager": lock_manager, "key_storage": key_storage}
        for name, value in given.items():
            if value is not None:
                object.__setattr__(copied, name, value)
        return copied

    def __add__(self, other: CachePolicy) -> CachePolicy:
        if not isinstance(other, CachePolicy):  # pyright: ignore[reportUnnecessaryIsInstance]  # users without types
            return NotImplemented
        if isinstance(other, NoCache):
            return self
        return _compound((self, other))

    def __sub__(self, arguments: str | Iterable[str]) -> CachePolicy:
        """The policy without these arguments; the same where no arguments count anyway."""
        _argument_names(arguments)
        return self

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _argument_names(arguments: str | Iterable[str]) -> tuple[str, ...]:
    names = (arguments,) if isinstance(arguments, str) else tuple(arguments)
    if not all(isinstance(name, str) for name in names):  # pyright: ignore[reportUnnecessaryIsInstance]  # as above
        raise TypeError(f"only names of arguments can be left out of a cache policy, not {arguments!r}")
    return names


# --- The policies whose parts go into one hash -------------------------------------------------------------


class _HashedPolicy(CachePolicy):
    """A policy that writes what counts; the key is the hash of that and of which task it is.

    tag: begins what it writes, so that it is not taken for what another policy writes.
    counts_source: the source of the task's function counts.
    """

    tag: ClassVar[bytes] = b""
    counts_source: ClassVar[bool] = False

    def compute_key(
        self, task_ctx: CacheContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        written = self.written(task_ctx, inputs, flow_parameters)
        if written is None:
            return None
        return hashed(head_of(task_ctx, self.counts_source) + self.tag + written).hex()

    def written(self, context: CacheContext, inputs: Named, flow_parameters: Named) -> bytes | None:
        """What counts, such that it tells where it ends; None: do not cache."""
        raise NotImplementedError


def head_of(context: CacheContext, with_source: bool) -> bytes:
    """What a key begins with: which task it is for, and the digest of its source if that counts."""
    fn = context.task.fn
    if type(fn) is FunctionType:
        return head_with_source(fn) if with_source else function_identity(fn)
    try:
        head = identity(fn, digest)
        return head + b"S" + task_source(fn) if with_source else head
    except HashError as error:
        reason = Unhashable(error.reason)
        reason.steps.append(error.path.removeprefix("value"))
        advice = "Give the task a cache_key_fn, or make its function a plain one."
        raise HashError.at(f"what the function of task {context.task.name!r} is bound to", reason, advice) from error


@dataclass(frozen=True, eq=False, repr=False)
class Inputs(_HashedPolicy):
    """The arguments of the call, but for those left out."""

    exclude: tuple[str, ...] = ()
    tag = b"I"

    def written(self, context: CacheContext, inputs: Named, flow_parameters: Named) -> bytes | None:
        if self.exclude:
            inputs = {name: value for name, value in inputs.items() if name not in self.exclude}
        try:
            return encoded_arguments(inputs)
        except Unhashable as error:
            name = error.steps.pop()[2:-2]
            advice = f"Leave it out with `cache_policy=INPUTS - {name!r}`, or give a cache_key_fn."
            raise HashError.at(f"argument {name!r}", error, advice) from error.__cause__

    def parts(self, context: CacheContext, inputs: Named, flow_parameters: Named) -> list[KeyPart]:
        counted = [
            _explained(f"argument {name!r}", value) for name, value in inputs.items() if name not in self.exclude
        ]
        return counted + [
            KeyPart(name=f"argument {name!r}", what="left out") for name in self.exclude if name in inputs
        ]

    def __sub__(self, arguments: str | Iterable[str]) -> CachePolicy:
        fewer = copy.copy(self)
        names = dict.fromkeys((*self.exclude, *_argument_names(arguments)))
        object.__setattr__(fewer, "exclude", tuple(sorted(names)))
        return fewer

    def __repr__(self) -> str:
        return " - ".join(["INPUTS", *map(repr, self.exclude)])


@dataclass(frozen=True, eq=False, repr=False)
class TaskSource(_HashedPolicy):
    """The source of the task's function, and of the functions in its closure, such as what a decorator wraps.

    Comments, formatting, docstrings, line numbers, the file and decorators do not count; functions that it
    calls by a global name do not either.
    """

    counts_source = True

    def written(self, context: CacheContext, inputs: Named, flow_parameters: Named) -> bytes | None:
        return b""

    def parts(self, context: CacheContext, inputs: Named, flow_parameters: Named) -> list[KeyPart]:
        return [KeyPart(name="task source", what=_function_name(context), digest=task_source(context.task.fn).hex())]

    def __repr__(self) -> str:
        return "TASK_SOURCE"


@dataclass(frozen=True, eq=False, repr=False)
class FlowParameters(_HashedPolicy):
    """The parameters of the flow run around; none outside of a flow."""

    tag = b"P"

    def written(self, context: CacheContext, inputs: Named, flow_parameters: Named) -> bytes | None:
        try:
            return encoded_arguments(flow_parameters or {})
        except Unhashable as error:
            name = error.steps.pop()[2:-2]
            advice = "Use a cache_policy without FLOW_PARAMETERS, or give a cache_key_fn."
            raise HashError.at(f"flow parameter {name!r}", error, advice) from error.__cause__

    def parts(self, context: CacheContext, inputs: Named, flow_parameters: Named) -> list[KeyPart]:
        return [_explained(f"flow parameter {name!r}", value) for name, value in (flow_parameters or {}).items()]

    def __repr__(self) -> str:
        return "FLOW_PARAMETERS"


@dataclass(frozen=True, eq=False, repr=False)
class RunId(_HashedPolicy):
    """The flow run around, or, outside of a flow, the task run: results are found again within one run only."""

    tag = b"R"

    def written(self, context: CacheContext, inputs: Named, flow_parameters: Named) -> bytes | None:
        run_id = _run_id(context)
        return None if run_id is None else encode(getattr(run_id, "bytes", run_id))

    def parts(self, context: CacheContext, inputs: Named, flow_parameters: Named) -> list[KeyPart]:
        name = "flow run" if context.flow_run_id is not None else "task run"
        run_id = _run_id(context)
        return [
            KeyPart(
                name=name, what="no run" if run_id is None else "id", digest=None if run_id is None else str(run_id)
            )
        ]

    def __repr__(self) -> str:
        return "RUN_ID"


def _run_id(context: CacheContext) -> Any:
    if context.flow_run_id is not None:
        return context.flow_run_id
    return getattr(context.task_run, "id", None)


# --- Others --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class NoCache(CachePolicy):
    """Nothing is cached. Added to another policy, it changes nothing."""

    def compute_key(
        self, task_ctx: CacheContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        return None

    def parts(self, context: CacheContext, inputs: Named, flow_parameters: Named) -> list[KeyPart]:
        return []

    def __add__(self, other: CachePolicy) -> CachePolicy:
        return other

    def __repr__(self) -> str:
        return "NO_CACHE"


@dataclass(frozen=True, eq=False, repr=False)
class CacheKeyFnPolicy(CachePolicy):
    """The key is what `cache_key_fn(context, parameters)` returns: a text, or None for not to cache."""

    cache_key_fn: CacheKeyFn

    def compute_key(
        self, task_ctx: CacheContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        return self.cache_key_fn(task_ctx, inputs)

    def __repr__(self) -> str:
        name = getattr(self.cache_key_fn, "__qualname__", type(self.cache_key_fn).__qualname__)
        return f"CacheKeyFnPolicy({name})"


@dataclass(frozen=True, eq=False, repr=False)
class CompoundCachePolicy(CachePolicy):
    """What any of some policies counts; in whichever order they were added, the key is the same."""

    policies: tuple[CachePolicy, ...]
    writers: tuple[_HashedPolicy, ...] = field(init=False)
    others: tuple[CachePolicy, ...] = field(init=False)
    counts_source: bool = field(init=False)

    def __post_init__(self) -> None:
        hashed_policies = [policy for policy in self.policies if isinstance(policy, _HashedPolicy)]
        writers = sorted((policy for policy in hashed_policies if policy.tag), key=lambda policy: policy.tag)
        object.__setattr__(self, "writers", tuple(writers))
        object.__setattr__(self, "counts_source", any(policy.counts_source for policy in hashed_policies))
        others = (policy for policy in self.policies if not isinstance(policy, _HashedPolicy))
        object.__setattr__(self, "others", tuple(others))

    def compute_key(
        self, task_ctx: CacheContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        found = [head_of(task_ctx, self.counts_source)]
        for writer in self.writers:
            written = writer.written(task_ctx, inputs, flow_parameters)
            if written is None:
                return None
            found.append(writer.tag + written)
        if self.others:
            keys = [policy.compute_key(task_ctx, inputs, flow_parameters, **kwargs) for policy in self.others]
            if None in keys:
                return None
            found.append(encoded(sorted(map(_checked, self.others, keys))))
        return hashed(b"".join(found)).hex()

    def parts(self, context: CacheContext, inputs: Named, flow_parameters: Named) -> list[KeyPart]:
        return [part for policy in self.policies for part in policy.parts(context, inputs, flow_parameters)]

    def __sub__(self, arguments: str | Iterable[str]) -> CachePolicy:
        fewer = CompoundCachePolicy(tuple(policy - arguments for policy in self.policies))
        return fewer.configure(**_configuration(self))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CompoundCachePolicy) or _configuration(self) != _configuration(other):
            return False
        return len(self.policies) == len(other.policies) and all(part in other.policies for part in self.policies)

    def __hash__(self) -> int:
        return hash(frozenset(self.policies))

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.policies))


_CONFIGURED: Final = ("key_storage", "isolation_level", "lock_manager")


def _configuration(policy: CachePolicy) -> dict[str, Any]:
    return {name: getattr(policy, name) for name in _CONFIGURED if getattr(policy, name) is not None}


def _compound(policies: Iterable[CachePolicy]) -> CachePolicy:
    """The policies as one, each once, used with what they are all configured with."""
    flat: list[CachePolicy] = []
    configured: dict[str, Any] = {}
    for policy in policies:
        for name, value in _configuration(policy).items():
            if configured.setdefault(name, value) != value:
                raise ConfigurationError(
                    f"cache policies with different {name} cannot be added: {configured[name]!r} and {value!r}; "
                    f"configure the sum instead"
                )
        parts = policy.policies if isinstance(policy, CompoundCachePolicy) else (policy,)
        flat += [part for part in parts if part not in flat]
    if len(flat) == 1:
        return flat[0]
    return CompoundCachePolicy(tuple(flat)).configure(**configured)


INPUTS: Final = Inputs()
TASK_SOURCE: Final = TaskSource()
FLOW_PARAMETERS: Final = FlowParameters()
RUN_ID: Final = RunId()
NO_CACHE: Final = NoCache()
NONE: Final = NO_CACHE
DEFAULT: Final = INPUTS + TASK_SOURCE + RUN_ID


# --- Using them ----------------------------------------------------------------------------------------------


_HASHING: Final = (CompoundCachePolicy, _HashedPolicy)


def cache_key(
    policy: CachePolicy, context: CacheContext, inputs: dict[str, Any], flow_parameters: dict[str, Any] | None = None
) -> str | None:
    """The key that a policy gives a call, safe as the name of a file; None: do not cache.

    A text of the user's that is no safe name, or is too long for one, is hashed.

    Raises:
        HashError: something that counts cannot be hashed. TypeError: the policy gave neither a text nor None.
    """
    key = policy.compute_key(context, inputs, flow_parameters or {})
    if key is None or isinstance(policy, _HASHING):
        return key
    key = _checked(policy, key)
    return key if _SAFE.fullmatch(key) else digest(key).hex()


def _checked(policy: CachePolicy, key: object) -> str:
    if not isinstance(key, str) or not key:
        raise TypeError(f"{policy!r} gave {key!r} for a cache key; it is to give a text, or None for not to cache")
    return key


def explain(
    policy: CachePolicy, context: CacheContext, inputs: Named, flow_parameters: Named | None = None
) -> list[KeyPart]:
    """What the key for a call is made of, each with its own digest, or why it has none. No value is shown.

    Two calls whose keys differ differ in a digest. Empty: nothing is cached.
    """
    parts = policy.parts(context, inputs, flow_parameters or {})
    if not parts or isinstance(policy, CacheKeyFnPolicy):
        return parts
    try:
        which = KeyPart(name="task", what=_function_name(context), digest=head_of(context, False).hex())
    except HashError as error:
        which = KeyPart(name="task", what=_function_name(context), error=str(error))
    return [which, *parts]


def _function_name(context: CacheContext) -> str:
    fn = context.task.fn
    return f"{getattr(fn, '__module__', '?')}.{getattr(fn, '__qualname__', type(fn).__qualname__)}"


def _explained(name: str, value: object) -> KeyPart:
    what = type(value).__qualname__
    try:
        return KeyPart(name=name, what=what, digest=digest(value).hex())
    except HashError as error:
        return KeyPart(name=name, what=what, error=f"{name}{error.path.removeprefix('value')}: {error.reason}")


def task_input_hash(context: CacheContext, arguments: dict[str, Any]) -> str | None:
    """A `cache_key_fn`: the task's function, its source, and all arguments.

    Raises:
        HashError: an argument cannot be hashed; says which and why.
    """
    return _SOURCE_AND_INPUTS.compute_key(context, arguments, {})


_SOURCE_AND_INPUTS: Final = INPUTS + TASK_SOURCE
