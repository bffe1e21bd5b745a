"""What a call in a durable flow is known by in the next process: its task, its inputs, the task run that makes it.

Futures among the inputs count by their results. Until these are there, nobody knows what the call is known by, and
nobody needs to: what waits for a run that has to be run has to be run itself.
"""

# An isinstance check cannot say what a generic future holds, and here nobody needs to know.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from upwell.core.definition import Definition
from upwell.core.errors import DurableKeyError
from upwell.core.keys import digest, encoded, hashed, hashed_each
from upwell.core.keys_functions import identity, task_source
from upwell.core.keys_kinds import HashError, Unhashable, encode
from upwell.core.states import COMPLETED
from upwell.engine.future import RunFuture, read_value
from upwell.engine.kept_columns import SHORT
from upwell.engine.submit import FINDER

Run = RunFuture[Any]

NOBODY: Final = b"?"
"""A calling task run that will not be known again."""

_COMPLETED: Final[str] = COMPLETED.value
_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})


class Later(NamedTuple):
    """What the key of a run is made of that waits for others: with their results it will be known."""

    definition: Definition
    caller: bytes
    inputs: tuple[Any, ...]


class _NoResult(Exception):
    """A future has none by which it could be known."""


class Keys:
    """Makes the keys of one flow run's calls. From any thread."""

    def __init__(self) -> None:
        self._task_keys: dict[Definition, bytes] = {}

    def of(self, definition: Definition, caller: bytes, *parts: bytes) -> bytes:
        """The key of a call. caller: of the task run that makes it, if one does. parts: its inputs, encoded."""
        return hashed(b"".join((self._task_key_of(definition), caller, *parts)))

    def of_plain(self, definition: Definition, caller: bytes, rows: Sequence[Any], constants: bytes) -> list[bytes]:
        """The keys of a map's runs, where no row holds futures."""
        before = self._task_key_of(definition) + caller
        if _SCALARS.issuperset(map(type, rows)):
            try:
                return hashed_each(before, map(encode, rows), constants)
            except Exception:  # an int or a text that msgspec does not write
                pass
        return hashed_each(before, map(encoded, rows), constants)

    def _task_key_of(self, definition: Definition) -> bytes:
        found = self._task_keys.get(definition)
        if found is None:
            found = self._task_keys[definition] = _task_key(definition)
        return found

    def of_run(self, run: Run) -> bytes | None:
        """The key of a run whose upstream has ended; None: it will not be known again."""
        key = run.durable_key
        if isinstance(key, Later):
            try:
                run.durable_key = self.of(key.definition, key.caller, *map(inputs_of, key.inputs))
            except (_NoResult, Unhashable):
                run.durable_key = None
        known: bytes | None = run.durable_key
        return known


def is_restored(run: Run) -> bool:
    """Whether a run was taken from the store: it has completed and never begun."""
    return run.done and run.status == _COMPLETED and not run.run_count


def mark_of(record: bytes) -> bytes:
    """What a result is known by, where it is an input."""
    return record if len(record) <= SHORT else blake2b(record, digest_size=SHORT // 2).digest()


def futures_in(value: Any) -> Iterator[Any]:
    """The futures in a value."""
    for found in FINDER.find(value):
        yield found.future


def all_known(futures: Iterable[Any]) -> bool:
    """Whether what waits for these can have been finished in an earlier process: only if all of them were."""
    return all(map(_is_known, futures))


def _is_known(future: Any) -> bool:
    if not isinstance(future, RunFuture):
        return bool(future.is_done())
    if future.call.scope.durable is None:
        return future.done and future.status == _COMPLETED
    return is_restored(future)


def _task_key(definition: Definition) -> bytes:
    """What tells one task from another."""
    fn = definition.fn
    try:
        return encoded((identity(fn, digest), definition.name))
    except (HashError, Unhashable, AttributeError):  # a callable object
        return encoded((getattr(fn, "__module__", ""), getattr(fn, "__qualname__", ""), definition.name))


def source_of(definition: Definition) -> bytes:
    """A digest of the code of a task; of a submitted flow, of the flow's."""
    fn: Any = definition.fn
    return task_source(fn.__wrapped__ if definition.wraps_flow else fn)


def inputs_of(value: Any) -> bytes:
    """A value in a form that is the same in every process.

    Raises:
        Unhashable: it has none. _NoResult: a future in it has no result.
    """
    if not FINDER.is_plain((value,), {}):
        value = FINDER.resolve(value, _by_its_result)
    return encoded(value)


def check_inputs(value: Any) -> None:
    """Whether a value will have such a form, whatever the futures in it give; raises Unhashable."""
    if type(value) is not RunFuture:
        encoded(value if FINDER.is_plain((value,), {}) else FINDER.resolve(value, lambda _future, _allow_failure: None))


def _by_its_result(future: Any, _allow_failure: bool) -> object:
    if not isinstance(future, RunFuture):
        return future.result()
    if not future.done or future.status != _COMPLETED:
        raise _NoResult
    if future.call.scope.durable is None:
        return read_value(future.value)
    if type(future.durable_key) is not bytes:
        raise _NoResult
    return ("result", mark_of(future.durable_key))


def refused(definition: Definition, arguments: Iterable[tuple[str, Any]], error: Unhashable) -> DurableKeyError:
    """The error for a call with a value that is not the same in another process; names the argument."""
    name, where = definition.name, "one"
    for argument, value in arguments:
        try:
            check_inputs(value)
        except Unhashable as found:
            where, error = f"{argument}{''.join(reversed(found.steps))}", found
            break
    return DurableKeyError(
        f"The task {name!r} is called in a durable flow, and its argument {where} cannot be known again in another "
        f"process: {error.reason}. Say what the call is known by, `{name}.submit(..., key='...')`, or make the value "
        "inside of the task."
    )
