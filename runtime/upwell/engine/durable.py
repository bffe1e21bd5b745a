"""A durable flow run: what it has finished in an earlier process is taken from the store, the rest is run.

Each task run has a key, made of its task and its inputs, or of the task and a `key=` that the user gives: not of the
order of calls, so `gather` and `map` are safe. What was finished stands in a row under its key, in the order of its
submission, and each call takes the next: equal calls get the results of equal calls, each its own. What a task run
has called is known by that run, too, and counts only if that is run again. A result counts only if the task's code is
as it was, and if what the run waits for was itself taken from the store: whatever has to be run again takes its
dependants along.

A large map is known again as a whole: if its inputs are as they were, its runs need no keys.
"""

# An isinstance check cannot say what a generic future holds, and here nobody needs to know.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from msgspec.structs import replace

from upwell.core.definition import Definition
from upwell.core.errors import MissingResult, SerializationError
from upwell.core.keys import encoded_call
from upwell.core.keys_kinds import Unhashable
from upwell.core.lifecycle import RAISED, Outcome
from upwell.core.states import COMPLETED
from upwell.engine.call import Call
from upwell.engine.durable_children import Children
from upwell.engine.durable_keys import (
    NOBODY,
    Keys,
    Later,
    all_known,
    check_inputs,
    futures_in,
    inputs_of,
    mark_of,
    refused,
)
from upwell.engine.durable_records import (
    Claim,
    FinishedRow,
    FinishedRuns,
    OldMap,
    Place,
    Places,
    Waiting,
    waiting_record,
)
from upwell.engine.durable_series import OldAndNew, new_number, new_numbers
from upwell.engine.future import CURRENT_RUN, RunFuture, read_value
from upwell.engine.kept_columns import SHORT, KeptColumns
from upwell.engine.recorder import Recorder
from upwell.engine.restored_lot import RestoredLot
from upwell.engine.scope import Scope, Series
from upwell.engine.submit import FINDER

Run = RunFuture[Any]

LARGE_MAP: Final = 64
"""A map of so many runs is known again as a whole."""

_COMPLETED: Final[str] = COMPLETED.value


class Durable:
    """What one durable flow run has finished, and what of it was taken. From any thread.

    strict: everything that has ended is safe in the store before anything else begins.
    keep_changed: results of tasks whose code has changed count, too.
    children: the subflow runs.
    """

    def __init__(self, claim: Claim, scope: Scope, *, strict: bool, remembers: bool, keep_changed: bool) -> None:
        self.strict = strict
        self.keep_changed = keep_changed
        self.children = Children(claim.children, inherited=claim.inherited, remembers=remembers)
        self._scope = scope
        self.recorder: Recorder = scope.recorder  # type: ignore[assignment]  # no durable run without a journal
        self._flow_run_id = claim.flow_run_id
        self._remembers = remembers
        self._inherited = claim.inherited
        self._lock = threading.Lock()
        self._series = OldAndNew(claim.series, scope, keep_changed=keep_changed, inherited=claim.inherited)
        self._rows: dict[Any, FinishedRuns] = {}
        self._nested: dict[str, list[FinishedRow]] = defaultdict(list)
        for series, rows in groupby(claim.finished, itemgetter(0)):
            self._rows[series] = FinishedRuns(list(rows))
        for row in filter(itemgetter(7), claim.finished):  # of most there are none
            parent = row[7]
            if parent is not None:
                self._nested[parent].append(row)
        self._by_key: dict[bytes, deque[FinishedRow]] | None = None
        self._maps: dict[bytes, deque[OldMap]] = defaultdict(deque)
        for old_map in claim.maps:
            self._maps[old_map.digest].append(old_map)
        self._waiting: dict[bytes, deque[Waiting]] = defaultdict(deque)
        for waiting in claim.waiting:
            self._waiting[waiting.key].append(waiting)
        self._keys = Keys()
        self._kept: list[FinishedRow] = []
        self._records: dict[int, tuple[bytes, bytes | None]] = {}  # of runs that are about to end, if strict
        if strict:
            self.recorder.strict.flow_run_begins()

    def begin_again(self) -> None:
        """The flow run is tried again: what the attempt before has finished counts."""
        with self._lock:
            for row in self._kept:
                self._rows.setdefault(row.series, FinishedRuns([])).put(row)
                if row.parent is not None:
                    self._nested[row.parent].append(row)
            self._kept = []
            self._by_key = None
            self.children.begin_again()

    # --- where a run stands -------------------------------------------------------------------------------

    def place(
        self,
        definition: Definition,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        wait_for: Any,
        given: Any = None,
        *,
        restorable: bool = True,
    ) -> tuple[Series, Place]:
        """Where a single call stands. given: the key that the user gives.

        Raises:
            DurableKeyError: an argument is not the same in another process, and no key is given.
        """
        try:
            if wait_for is None and given is None and FINDER.is_plain(args, kwargs):  # the commonest
                key: Any = self._keys.of(definition, self._caller(), encoded_call(args, kwargs))
            else:
                key = self._key_of_call(definition, args, kwargs, wait_for, given)
        except Unhashable as error:
            raise refused(definition, definition.parameters.bind(args, kwargs).items(), error) from error
        with self._lock:
            if not (self._rows or self._waiting):  # nothing was finished: the shortest
                series = self._series.of(definition)
                return series, Place(new_number(series), key, None)
            row = self._take(definition, key) if restorable else None
            if row is not None and not self._is_inherited(row):
                return self._series.of_row(row, definition), Place(row[1], key, row)
            series = self._series.of(definition)
            return series, Place(new_number(series), key, row, None if row else self._next_waiting(key))

    def _key_of_call(
        self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], wait_for: Any, given: Any
    ) -> bytes | Later:
        """The key of a call that may hold futures, or waits for some, or is given one."""
        upstream = list(futures_in((args, kwargs, wait_for)))
        inputs: tuple[Any, ...] = ((args, kwargs),) if given is None else (("key", given), upstream)
        if wait_for is not None and given is None:
            inputs += (list(futures_in(wait_for)),)
        if all_known(upstream):
            return self._keys.of(definition, self._caller(), *map(inputs_of, inputs))
        check_inputs(inputs[0])
        return Later(definition, self._caller(), inputs)

    def place_map(
        self,
        definition: Definition,
        rows: Sequence[Any],
        kwargs: dict[str, Any],
        wait_for: Any = None,
        labels: Sequence[str] | None = None,
        *,
        as_whole: bool = True,
    ) -> tuple[Series, Places]:
        """Where the runs of a map, or some of a stream, stand.

        rows: what differs by run: the only argument, or a tuple whose values the labels name. kwargs: what does not.
        as_whole: the same rows will come together again.

        Raises:
            DurableKeyError: an argument is not the same in another process.
        """
        try:
            return self._place_map(definition, rows, kwargs, wait_for, as_whole=as_whole)
        except Unhashable as error:
            names = definition.parameters.names
            named = [(name, row) for row in rows for name in names[:1]]
            if labels is not None:
                named = [pair for row in rows for pair in zip(labels, row, strict=False)]
            raise refused(definition, [*kwargs.items(), *named], error) from error

    def series_of(self, definition: Definition) -> Series:
        """The series that numbers this task's new runs."""
        with self._lock:
            return self._series.of(definition)

    def _place_map(
        self, definition: Definition, rows: Sequence[Any], kwargs: dict[str, Any], wait_for: Any, *, as_whole: bool
    ) -> tuple[Series, Places]:
        caller = self._caller()
        upstream = [] if wait_for is None and FINDER.is_plain((), kwargs) else list(futures_in((kwargs, wait_for)))
        shared = (kwargs,) if wait_for is None else (kwargs, list(futures_in(wait_for)))
        if not all_known(upstream):
            for value in (*rows, kwargs):
                check_inputs(value)
            return self._place_new(definition, [Later(definition, caller, (row, *shared)) for row in rows])
        constants = b"".join(map(inputs_of, shared))
        if not FINDER.all_plain(rows):
            return self._place_each(definition, [self._key_of(definition, caller, row, shared) for row in rows])
        if len(rows) < LARGE_MAP or not as_whole or definition.wraps_flow:
            return self._place_each(definition, self._keys.of_plain(definition, caller, rows, constants))
        whole = self._keys.of(definition, caller, b"map", constants, inputs_of(list(rows)))
        with self._lock:
            old = self._old_map(definition, whole, len(rows))
            if old is not None:
                return self._place_again(definition, old, rows, caller, constants)
        series, places = self._place_each(definition, self._keys.of_plain(definition, caller, rows, constants))
        if self._inherited or places.finished is None or not any(places.finished):
            self.recorder.calls.append((self._flow_run_id, whole, series, places.numbers[0], len(rows)))
        return series, places

    def _key_of(self, definition: Definition, caller: bytes, row: Any, shared: tuple[Any, ...]) -> bytes | Later:
        """The key of a row that may hold futures."""
        if all_known((row,) if type(row) is RunFuture else futures_in(row)):
            return self._keys.of(definition, caller, inputs_of(row), *map(inputs_of, shared))
        check_inputs(row)
        return Later(definition, caller, (row, *shared))

    def _place_new(self, definition: Definition, keys: list[Any]) -> tuple[Series, Places]:
        """Where runs stand none of which was finished."""
        with self._lock:
            series = self._series.of(definition)
            return series, Places(new_numbers(series, len(keys)), keys)

    def _place_each(self, definition: Definition, keys: list[Any]) -> tuple[Series, Places]:
        """Where runs stand of which some may have been finished, or waited, each by its key."""
        if not (self._rows or self._waiting):  # nothing was finished: the commonest case, and the shortest
            return self._place_new(definition, keys)
        with self._lock:
            series = self._series.of(definition)
            finished = [self._take(definition, key) for key in keys]
            waiting = [None if row else self._next_waiting(key) for key, row in zip(keys, finished, strict=True)]
            numbers = [new_number(series) if row is None or self._is_inherited(row) else row[1] for row in finished]
            return series, Places(numbers, keys, finished, waiting)

    def _place_again(
        self, definition: Definition, old: OldMap, rows: Sequence[Any], caller: bytes, constants: bytes
    ) -> tuple[Series, Places]:
        """The runs of a map that an earlier process began with the very same inputs."""
        series = self._series.restore(self._series.old[old.series], definition)
        self._scope.series.setdefault(definition, series)
        done = self._rows.setdefault(old.series, FinishedRuns([]))
        numbers = list(range(old.first, old.first + old.runs))
        whole = done.take_all(numbers)
        if whole is not None:
            return series, Places(numbers, list(map(itemgetter(2), whole)), whole, is_whole=True)
        finished = [done.take(number) for number in numbers]
        begun = self._series.old[old.series].begun
        keys = self._keys.of_plain(definition, caller, rows, constants)
        waiting: list[Waiting | None] = []
        for index, row in enumerate(finished):
            if row is None and numbers[index] in begun:  # it was run again, or will be, as another
                row = finished[index] = self._take(definition, keys[index])
                numbers[index] = new_number(series) if row is None else row[1]
            waiting.append(None if row else self._next_waiting(keys[index]))
        return series, Places(numbers, keys, finished, waiting)

    def _caller(self) -> bytes:
        """The key of the task run whose code calls."""
        run = CURRENT_RUN.get()
        if run is None or run.call.scope is not self._scope:
            return b""
        return self._keys.of_run(run) or NOBODY

    # --- what was finished, and what is -------------------------------------------------------------------

    def restore(self, run: Run, row: FinishedRow, calls: dict[Any, Call] | None = None) -> bool:
        """End a run that nobody has seen yet, with what it has finished; whether that was still there.

        calls: of the runs of one map, by what differs.
        """
        try:
            run.value = self.recorder.journal.kept.load(row[3])
        except Exception as error:
            self._is_lost(run, row, error)
            return False
        run.durable_key = row[3]
        run.started, run.ended = row[4], row[5]
        run.status = _COMPLETED
        if self._is_inherited(row):
            run.state_name = "Cached"
            run.done = True
            self.recorder.kept.append((run, row[3], row[2], None))
            self.recorder.ended.append(run)  # the last: the journal may take it at once
            self.recorder.strict.note()
            self.recorder.wake()
            if self._remembers:
                call = run.call
                row = FinishedRow._make(row)._replace(
                    series=call.series, number=run.number, created=int(call.created * 1e6)
                )
        else:
            run.item = None
            run.call = self._call_of(run.call, row, calls)
            run.done = True
        self._was_taken(row)
        return True

    def restored(self, call: Call, places: Places) -> RestoredLot | None:
        """All runs of a map at once, if all were finished; as `restore` does for each, in a fraction of the time."""
        rows: Any = places.finished
        if rows is None or self._inherited or self._remembers or self._nested or self.children:
            return None
        if not places.is_whole and (None in rows or len(set(map(itemgetter(0), rows))) > 1):
            return None
        if len(set(map(itemgetter(6), rows))) > 1:
            return None
        records = list(map(itemgetter(3), rows))
        try:
            values = self.recorder.journal.kept.load_many(records)
        except Exception:  # it will be seen which
            return None
        began, ended = map(itemgetter(4), rows), map(itemgetter(5), rows)
        return RestoredLot(self._call_of(call, rows[0], None), places.numbers, values, began, ended, records)

    def columns(self, places: Places) -> KeptColumns | None:
        """What is kept of runs that wait for no others, as columns; None where more is to be done with each."""
        if self.strict or self._remembers or not (places.finished is None and places.waiting is None):
            return None
        return KeptColumns(places.keys, self.recorder.journal.kept.dump_scalar)

    def _call_of(self, call: Call, row: FinishedRow, calls: dict[Any, Call] | None) -> Call:
        """The call that a run was started by in an earlier process, as far as its id and its row need it."""
        series, created = row[0], row[6]
        found = None if calls is None else calls.get((series, created))
        if found is None:
            with self._lock:
                home = self._series.of_row(row, call.definition)
            found = replace(call, series=home, created=(created + 0.5) / 1e6, is_restored=True, parent_id=row[7])
            found.parent = found.context = found.kwargs = None
            if calls is not None:
                calls[series, created] = found
        return found

    def _is_lost(self, run: Run, row: FinishedRow, error: Exception) -> None:
        """The result of a run cannot be had any more: the run is another one, and not finished."""
        if not self._is_inherited(row):
            call = run.call
            with self._lock:
                if not self._series.is_own(call.series):
                    call.series = self._series.of(call.definition)
                run.number = new_number(call.series)
        why = str(error) if isinstance(error, MissingResult | SerializationError) else repr(error)
        self._scope.flow_run.log.warning("A finished run of task %r is run again: %s", run.call.definition.name, why)

    def _was_taken(self, row: FinishedRow) -> None:
        """A run is not run again: what it has called is not asked for, nor taken for equal calls of others."""
        if self._remembers:
            with self._lock:
                self._kept.append(FinishedRow._make(row))
        if self._nested or self.children:
            identity = self._series.id_of(row)
            with self._lock:
                for nested in self._nested.pop(identity, ()):
                    self._rows[nested[0]].take(nested[1])
                    if self._remembers:
                        self._kept.append(FinishedRow._make(nested))
            self.children.forget_those_of(identity)

    def keep(self, run: Run, outcome: Outcome) -> Outcome:
        """Store what a run has returned; one that cannot be stored has failed, for its work would be lost."""
        key = self._keys.of_run(run)
        kept = self.recorder.journal.kept
        try:
            value = read_value(outcome.value)
            record, file = kept.dump_scalar(value), None
            if record is None:
                record, file = kept.dump(value)
        except SerializationError as error:
            run.durable_key = None
            if run.call.definition.wraps_flow:  # it is run again, then, out of what its own runs have finished
                return outcome
            return Outcome(RAISED, error, f"Its result cannot be stored, and its flow is durable: {error}")
        if self.strict and run.inline and file is None:
            self._records[id(run)] = record, key
        else:
            self.recorder.kept.append((run, record, key, file))
        run.durable_key = mark_of(record)
        if self._remembers and key is not None:
            call = run.call
            parent = call.parent_id or (call.parent.task_run_id if call.parent is not None else None)
            caller = str(parent) if parent else None
            created = int(call.created * 1e6)
            with self._lock:
                self._kept.append(
                    FinishedRow(call.series, run.number, key, record, run.started, run.started, created, caller)
                )
        return outcome

    def keep_quickly(self, run: Run, value: object) -> bool:
        """The same for the commonest results, in the shortest way; False if it is another."""
        key = run.durable_key
        if type(key) is not bytes or self._remembers:
            return False
        record = self.recorder.journal.kept.dump_scalar(value)
        if record is None or len(record) > SHORT:
            return False
        self.recorder.kept.append((run, record, key, None))
        run.durable_key = record  # it stands for itself
        return True

    def record_strictly(self, run: Run) -> None:
        """Record the end of a run; that of a direct call is safe then, if it can be written at once."""
        recorder, is_safe = self.recorder, False
        strict, kept = recorder.strict, self._records.pop(id(run), None)
        try:
            if kept is not None and strict.writer is not None:
                is_safe = strict.writer.record(run, *kept)
            else:
                recorder.record_end(run, kept)
        finally:
            if not is_safe:
                strict.note()

    def keep_waiting(self, run: Run) -> None:
        """Store when the next attempt at a run is due, and how many it has had."""
        key = self._keys.of_run(run)
        if key is not None:
            self.recorder.kept.append((run, waiting_record(run.run_count, run.due), key, None))

    # --- rows and series, under the lock ------------------------------------------------------------------------

    def _is_inherited(self, row: FinishedRow) -> bool:
        """Whether a row is of the run that this one is a fork of."""
        return self._inherited and not isinstance(row[0], Series)

    def _take(self, definition: Definition, key: Any) -> FinishedRow | None:
        """The next finished run under this key that counts."""
        if type(key) is not bytes:
            return None
        if self._by_key is None:
            self._by_key = defaultdict(deque)
            for rows in self._rows.values():
                for row in rows.left():
                    self._by_key[row[2]].append(row)
        found = self._by_key.get(key)
        while found:
            row = found.popleft()
            if self._rows[row[0]].take(row[1]) is None:
                continue  # taken with its map, or with the run that had called it
            old = self._series.old.get(row[0])
            if definition.wraps_flow and self.children.has_open(self._series.id_of(row)):
                continue  # its end was stored, and that of its flow run was not: that one goes on
            if old is None or self._series.is_unchanged(definition, old):
                return row
        return None

    def _next_waiting(self, key: Any) -> Waiting | None:
        waiting = self._waiting.get(key) if self._waiting and type(key) is bytes else None
        return waiting.popleft() if waiting else None

    def _old_map(self, definition: Definition, whole: bytes, runs: int) -> OldMap | None:
        known = self._maps.get(whole)
        while known and not self._inherited:
            old = known.popleft()
            if old.runs == runs and self._series.is_unchanged(definition, self._series.old[old.series]):
                return old if self._series.goes_on_with(old.series, definition) else None
        return None
