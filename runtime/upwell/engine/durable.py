"""A durable flow run: what it has finished in an earlier process is taken from the store, the rest is run.

Each task run has a key, made of its task and its inputs, or of the task and a `key=` that the user gives: not of the
order of calls, so `gather` and `map` are safe. What was finished stands in a row under its key, in the order of its
submission, and each call takes the next: equal calls get the results of equal calls, each its own. A result counts
only if the task's code is as it was, and if what the run waits for was itself taken from the store: whatever has
to be run again takes its dependants along.

A large map is known again as a whole: if its inputs are as they were, its runs need no keys.
"""

# An isinstance check cannot say what a generic future holds, and here nobody needs to know.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from functools import partial
from hashlib import blake2b
from itertools import count, groupby, islice, repeat
from operator import itemgetter
from typing import Any, Final

from msgspec.msgpack import encode

from upwell.core.definition import Definition
from upwell.core.dependencies import Dependency
from upwell.core.errors import SerializationError, UpwellError
from upwell.core.keys import encoded
from upwell.core.keys_functions import task_source
from upwell.core.keys_kinds import Unhashable
from upwell.core.lifecycle import RAISED, Outcome
from upwell.core.states import COMPLETED
from upwell.engine.durable_records import (
    WAITING,
    Claim,
    FinishedRow,
    FinishedRuns,
    OldMap,
    OldSeries,
    Place,
    Places,
    Waiting,
)
from upwell.engine.future import RunFuture
from upwell.engine.recorder import Recorder
from upwell.engine.scope import Scope, Series
from upwell.engine.submit import FINDER

Run = RunFuture[Any]

KEY_BYTES: Final = 16

LARGE_MAP: Final = 64
"""A map of so many runs is known again as a whole."""

_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})
_COMPLETED: Final[str] = COMPLETED.value


class DurableKeyError(UpwellError, TypeError):
    """What a task of a durable flow was called with cannot be known again in another process."""


class Durable:
    """What one durable flow run has finished, and what of it was taken. From any thread.

    strict: everything that has ended is safe in the store before anything else begins.
    keep_changed: results of tasks whose code has changed count, too.
    """

    def __init__(self, claim: Claim, scope: Scope, *, strict: bool, remembers: bool, keep_changed: bool) -> None:
        self.strict = strict
        self.changed: set[str] = set()  # tasks whose results did not count, for their code has changed
        self._scope = scope
        self._recorder: Recorder = scope.recorder  # type: ignore[assignment]  # no durable run without a journal
        self._flow_run_id = claim.flow_run_id
        self._remembers = remembers
        self._keep_changed = keep_changed
        self._inherited = claim.inherited
        self._lock = threading.Lock()
        self._old = {old.key: old for old in claim.series}
        self._restored: dict[int, Series] = {}
        self._rows: dict[Any, FinishedRuns] = {}
        for series, rows in groupby(claim.finished, itemgetter(0)):
            self._rows[series] = FinishedRuns(list(rows))
        self._by_key: dict[bytes, deque[FinishedRow]] | None = None
        self._maps: dict[bytes, deque[OldMap]] = defaultdict(deque)
        for old_map in claim.maps:
            self._maps[old_map.digest].append(old_map)
        self._children: dict[tuple[str, bytes], deque[str]] = defaultdict(deque)
        for identity, flow, arguments in claim.children:
            self._children[flow, arguments].append(identity)
        self._waiting: dict[bytes, deque[Waiting]] = defaultdict(deque)
        for waiting in claim.waiting:
            self._waiting[waiting.key].append(waiting)
        self._hashers: dict[Definition, Any] = {}
        self._kept: list[FinishedRow] = []

    def begin_again(self) -> None:
        """The flow run is tried again: what the attempt before has finished counts."""
        with self._lock:
            for row in self._kept:
                self._rows.setdefault(row.series, FinishedRuns([])).put(row)
            self._by_key = None

    # --- where a run stands -------------------------------------------------------------------------------

    def place(
        self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], wait_for: Any, given: Any = None
    ) -> tuple[Series, Place]:
        """Where a single call stands. given: the key that the user gives.

        Raises:
            DurableKeyError: an argument is not the same in another process, and no key is given.
        """
        upstream: list[Run] = []
        inputs = self._inputs(definition, (args, kwargs), upstream)
        if given is not None:
            inputs = self._inputs(definition, given, [])
        if wait_for is not None:
            self._inputs(definition, wait_for, upstream)
        key = self._key_of(definition, inputs)
        with self._lock:
            row = self._take(definition, key) if all(map(_is_restored, upstream)) else None
            if row is not None and not self._inherited:
                return self._series_of_row(row, definition), Place(row[1], key, row)
            series = self._series_of(definition)
            return series, Place(self._new_number(series), key, row, self._next_waiting(key))

    def place_map(
        self, definition: Definition, rows: Sequence[Any], kwargs: dict[str, Any], wait_for: Any
    ) -> tuple[Series, Places]:
        """Where the runs of a map stand. rows: what differs by run; kwargs: what does not."""
        shared: list[Run] = []
        constants = self._inputs(definition, kwargs, shared)
        if wait_for is not None:
            self._inputs(definition, wait_for, shared)
        again = all(map(_is_restored, shared))
        plain = FINDER.all_plain(rows)
        whole: bytes | None = None
        if len(rows) >= LARGE_MAP and plain:
            whole = self._key_of(definition, b"map", constants, self._inputs(definition, list(rows), []))
            old = self._old_map(definition, whole, len(rows)) if again else None
            if old is not None:
                return self._place_again(definition, old, rows, constants)
        if plain:
            keys, upstream = self._keys_of(definition, rows, constants), None
        else:
            keyed = [self._keyed(definition, row, constants) for row in rows]
            keys, upstream = [key for key, _ in keyed], [runs for _, runs in keyed]
        with self._lock:
            series = self._series_of(definition)
            if not (self._rows or self._waiting):  # nothing was finished: the commonest case, and the shortest
                places = Places(self._new_numbers(series, len(rows)), keys)
            else:
                places = self._place_each(definition, series, keys, upstream if again else None, again)
        if whole is not None and (self._inherited or places.finished is None or not any(places.finished)):
            self._recorder.calls.append((self._flow_run_id, whole, series, places.numbers[0], len(rows)))
        return series, places

    def _place_each(
        self, definition: Definition, series: Series, keys: list[bytes], upstream: list[list[Run]] | None, again: bool
    ) -> Places:
        """Where runs stand of which some may have been finished, or waited, each by its key."""
        numbers: list[int] = []
        finished: list[FinishedRow | None] = []
        waiting: list[Waiting | None] = []
        for index, key in enumerate(keys):
            restorable = again and (upstream is None or all(map(_is_restored, upstream[index])))
            row = self._take(definition, key, series) if restorable else None
            numbers.append(row[1] if row is not None and not self._inherited else self._new_number(series))
            finished.append(row)
            waiting.append(None if row else self._next_waiting(key))
        return Places(numbers, keys, finished, waiting)

    def _place_again(
        self, definition: Definition, old: OldMap, rows: Sequence[Any], constants: bytes
    ) -> tuple[Series, Places]:
        """The runs of a map that an earlier process began with the very same inputs."""
        with self._lock:
            series = self._restore(self._old[old.series], definition)
            self._scope.series.setdefault(definition, series)
            done = self._rows.setdefault(old.series, FinishedRuns([]))
            numbers = list(range(old.first, old.first + old.runs))
            finished = done.take_all(numbers)
            if finished is not None:
                return series, Places(numbers, [row[2] for row in finished if row is not None], finished)
            finished = [done.take(number) for number in numbers]
            begun = self._old[old.series].begun
            keys: list[bytes] = []
            waiting: list[Waiting | None] = []
            for index, row in enumerate(finished):
                key = row[2] if row is not None else self._keyed(definition, rows[index], constants)[0]
                if row is None and numbers[index] in begun:  # it was run again, or will be, as another
                    row = finished[index] = self._take(definition, key, series)
                    numbers[index] = self._new_number(series) if row is None else row[1]
                keys.append(key)
                waiting.append(None if row else self._next_waiting(key))
            return series, Places(numbers, keys, finished, waiting)

    def child(self, flow: str, arguments: bytes) -> str | None:
        """The flow run that an equal call of this flow has started before; each is taken once."""
        with self._lock:
            known = self._children.get((flow, arguments))
            return known.popleft() if known else None

    # --- what was finished, and what is -------------------------------------------------------------------

    def restore(self, run: Run, finished: FinishedRow) -> None:
        """End a run that nobody has seen yet, with what it has finished."""
        run.value = self._recorder.journal.load(finished[3])
        run.started, run.ended = finished[4] / 1e6, finished[5] / 1e6
        run.status = _COMPLETED
        run.done = True
        if self._inherited:
            run.state_name = "Cached"
            self._recorder.kept.append((run, finished[3], finished[2], None))
            self._recorder.ended.append(run)
        else:
            run.item = None

    def restored(self, call: Any, places: Places) -> list[Run] | None:
        """All runs of a map at once, if all were finished; the same as `restore` for each, in a fraction of the time."""
        rows: Any = places.finished
        if rows is None or None in rows or self._inherited:
            return None
        values = self._recorder.journal.load_many([row[3] for row in rows])
        began = [row[4] / 1e6 for row in rows]
        ended = [row[5] / 1e6 for row in rows]
        same = repeat
        return list(
            map(
                partial(RunFuture, call),
                places.numbers,
                same(None),  # no item
                same(_COMPLETED),
                same(True),  # done
                same(False),  # not looked at
                same(0),  # never begun here
                began,
                ended,
                values,
            )
        )

    def keep(self, run: Run, outcome: Outcome) -> Outcome:
        """Store what a run has returned; one that cannot be stored has failed, for its work would be lost."""
        try:
            record, file = self._recorder.journal.dump(outcome.value)
        except SerializationError as error:
            return Outcome(RAISED, error, f"Its result cannot be stored, and its flow is durable: {error}")
        self._recorder.kept.append((run, record, run.durable_key, file))
        if self._remembers:
            moment = int(run.started * 1e6)
            with self._lock:
                self._kept.append(FinishedRow(run.call.series, run.number, run.durable_key, record, moment, moment))
        return outcome

    def keep_waiting(self, run: Run) -> None:
        """Store when the next attempt at a run is due, and how many it has had."""
        record = WAITING + encode([run.run_count, run.due])
        self._recorder.kept.append((run, record, run.durable_key, None))

    # --- keys ---------------------------------------------------------------------------------------------------

    def _keyed(self, definition: Definition, row: Any, constants: bytes) -> tuple[bytes, list[Run]]:
        upstream: list[Run] = []
        return self._key_of(definition, self._inputs(definition, row, upstream), constants), upstream

    def _keys_of(self, definition: Definition, rows: Sequence[Any], constants: bytes) -> list[bytes]:
        """The keys of rows that hold no runs."""
        if _SCALARS.issuperset(map(type, rows)):
            try:
                inputs: Iterable[bytes] = map(encode, rows)
                return [self._key_of(definition, part, constants) for part in inputs]
            except Exception:  # an int or a text that msgspec does not write
                pass
        return [self._key_of(definition, self._inputs(definition, row, []), constants) for row in rows]

    def _key_of(self, definition: Definition, *parts: bytes) -> bytes:
        hasher = self._hashers.get(definition)
        if hasher is None:
            fn = definition.fn
            who = (getattr(fn, "__module__", ""), getattr(fn, "__qualname__", ""), definition.name)
            hasher = self._hashers[definition] = blake2b(encoded(who), digest_size=KEY_BYTES)
        hasher = hasher.copy()
        hasher.update(b"".join(parts))
        return hasher.digest()

    def _inputs(self, definition: Definition, value: Any, upstream: list[Run]) -> bytes:
        """A value in a form that is the same in every process; runs in it count by their own keys."""
        if not FINDER.is_plain((value,), {}):
            upstream += _runs_in(value)
            value = FINDER.resolve(value, _by_its_key)
        try:
            return encoded(value)
        except Unhashable as error:
            raise DurableKeyError(
                f"The task {definition.name!r} is called in a durable flow with a value that is not the same in "
                f"another process: {error}. Say what the call is known by: `{definition.name}.submit(..., "
                "key='...')`, or make the value inside of the task."
            ) from error

    # --- rows and series, under the lock ------------------------------------------------------------------------

    def _take(self, definition: Definition, key: bytes, series: Series | None = None) -> FinishedRow | None:
        """The next finished run under this key that counts; of this series, if one is given."""
        if self._by_key is None:
            self._by_key = defaultdict(deque)
            for rows in self._rows.values():
                for row in rows.left():
                    self._by_key[row[2]].append(row)
        waiting = self._by_key.get(key)
        while waiting:
            row = waiting.popleft()
            if self._rows[row[0]].take(row[1]) is None:
                continue  # taken with its map
            if series is not None and not self._inherited and self._series_of_row(row, definition) is not series:
                continue
            if self._counts(definition, row):
                return row
        return None

    def _next_waiting(self, key: bytes) -> Waiting | None:
        waiting = self._waiting.get(key) if self._waiting else None
        return waiting.popleft() if waiting else None

    def _counts(self, definition: Definition, row: FinishedRow) -> bool:
        old = self._old.get(row[0])
        return old is None or self._is_unchanged(definition, old)

    def _is_unchanged(self, definition: Definition, old: OldSeries) -> bool:
        """Whether the task's code is as it was; else its runs are to be run again, unless told otherwise."""
        if self._keep_changed or old.source is None or old.source == task_source(definition.fn):
            return True
        self.changed.add(definition.name)
        return False

    def _old_map(self, definition: Definition, whole: bytes, runs: int) -> OldMap | None:
        known = self._maps.get(whole)
        while known and not self._inherited:
            old = known.popleft()
            if old.runs == runs and self._is_unchanged(definition, self._old[old.series]):
                return old
        return None

    def _series_of_row(self, row: FinishedRow, definition: Definition) -> Series:
        return row[0] if isinstance(row[0], Series) else self._restore(self._old[row[0]], definition)

    def _series_of(self, definition: Definition) -> Series:
        """The series that numbers this task's new runs: that of the process before, where there is one."""
        found = self._scope.series.get(definition)
        if found is None:
            in_use = {id(series) for series in self._scope.series.values()}
            for old in self._old.values():
                if (
                    old.task == definition.name
                    and not self._inherited
                    and id(self._restored.get(old.key)) not in in_use
                ):
                    found = self._restore(old, definition)
                    break
            found = self._scope.series[definition] = found or self._scope.series_of(definition)
            found.source = task_source(definition.fn)
        return found

    def _restore(self, old: OldSeries, definition: Definition) -> Series:
        found = self._restored.get(old.key)
        if found is None:
            found = self._restored[old.key] = Series(
                definition,
                self._scope,
                old.base,
                count(old.submitted),
                old.created,
                self._flow_run_id,
                submitted=old.submitted,
                journal_key=old.key,
                journal_submitted=old.submitted,
                source=old.source,
            )
        return found

    def _new_numbers(self, series: Series, runs: int) -> list[int]:
        numbers = list(islice(series.numbers, runs))
        series.submitted = numbers[-1] + 1
        return numbers

    def _new_number(self, series: Series) -> int:
        number = next(series.numbers)
        series.submitted = number + 1
        return number


def _is_restored(run: Run) -> bool:
    """Whether a run was taken from the store: it has completed and never begun."""
    return run.done and run.status == _COMPLETED and not run.run_count


def _by_its_key(future: Any, _allow_failure: bool) -> object:
    if isinstance(future, RunFuture) and future.durable_key is not None:
        return ("run", future.durable_key)
    return future.result()


def _runs_in(value: Any) -> Iterable[Run]:
    for found in FINDER.find(value):
        future = found.future if isinstance(found, Dependency) else found
        if isinstance(future, RunFuture):
            yield future
