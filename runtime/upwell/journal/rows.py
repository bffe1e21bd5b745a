"""From what the engine recorded to rows: each run is looked at once, and let go.

Runs that completed and have nothing special about them, which is most, become short rows of their own kind.
"""

# An isinstance check cannot say what a generic future holds, and here nobody needs to know.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from math import floor
from typing import Any, Final

import msgspec

from upwell.core.shown import HIDDEN, is_secret, shown, shown_arguments, shown_parameters
from upwell.core.states import COMPLETED, RUNNING, State
from upwell.engine.call import Call
from upwell.engine.flow_run import FlowRun
from upwell.engine.future import RunFuture
from upwell.engine.lot import Stretch
from upwell.engine.scope import Series
from upwell.engine.submit import FINDER
from upwell.journal.batch import FIRST_KEY, SERIES_BITS, Batch
from upwell.journal.database import Row

Run = RunFuture[Any]

_COMPLETED: Final[str] = COMPLETED.value
_RUNNING: Final[str] = RUNNING.value
_AS_IS: Final = frozenset({int, float, bool, type(None)})

KEPT_LABELS: Final = 1024
"""How many lists of arguments' names are remembered: a program has few."""


def micros(seconds: float) -> int:
    """Seconds since the epoch as the store has them."""
    return int(seconds * 1e6)


class RowMaker:
    """Makes the rows of one process. Not for more than one thread at a time, but for `row_of_end` and `series_row`.

    write_file: of a large result.
    """

    def __init__(self, process_id: str, write_file: Callable[[Any], None]) -> None:
        self._process_id = process_id
        self._write_file = write_file
        self.process_key = 0
        self._numbers = itertools.count(1)
        self._first = 1
        self._changed: dict[int, Series] = {}
        self._naming = threading.Lock()

    def new_batch(self) -> Batch:
        return Batch(self._process_id, self.process_key)

    def start_over(self) -> None:
        """What is written from here on goes to another store: no series is known there."""
        self._first = next(self._numbers)

    # --- series -----------------------------------------------------------------------------------------

    def key_of(self, series: Series) -> int:
        """The key of a series, which is written with the next batch if it is new or has grown."""
        key = self._named(series)
        if series.submitted != series.journal_submitted:
            self._changed[key] = series
        return key

    def _named(self, series: Series) -> int:
        if series.journal_key < self._first:
            with self._naming:
                if series.journal_key < self._first:  # else another thread has named it this moment
                    series.journal_submitted = -1
                    series.journal_key = next(self._numbers)
        key = series.journal_key
        if key < FIRST_KEY:  # else it is a series of an earlier process, which a durable flow run goes on with
            key += self.process_key << SERIES_BITS
        return key

    def add_series(self, batch: Batch) -> None:
        """The rows of all series that have changed since."""
        changed, self._changed = self._changed, {}
        for key, series in changed.items():
            series.journal_submitted = series.submitted
            batch.series.append(self.series_row(key, series))

    def series_row(self, key: int, series: Series) -> Row:
        """The row of a series, as it is now. From any thread."""
        definition = series.definition
        return (
            key, f"{series.id_base:019x}", definition.name, series.flow_run_id, micros(series.created),
            _tags(definition.options.tags), series.source, series.submitted, self._process_id,
        )  # fmt: skip  # one line a few columns

    # --- task runs --------------------------------------------------------------------------------------

    def add_ended(self, batch: Batch, runs: list[Run]) -> None:
        """Runs in their final state, in the order in which they ended; most are of one call in a row."""
        for call, group in itertools.groupby(runs, _call_of_many):
            if call is None:
                self._add_direct(batch, group)
                continue
            key = self.key_of(call.series)
            created = int(call.created * 1e6)
            if _is_full(call):
                batch.task_runs += self._full_rows(key, created, group)
                continue
            members = list(group)
            short = [run for run in members if run.run_count == 1 and run.status == _COMPLETED and run.own_name is None]
            if len(short) < len(members):
                known = set(map(id, short))
                self._add_others(batch, key, created, call, [run for run in members if id(run) not in known])
            if short:
                batch.add_columns("completed_runs", self._columns(key, created, call, short))
            for run in short:
                run.item = None

    def add_ended_in_lots(self, batch: Batch, stretches: list[Stretch]) -> None:
        """Runs that have completed and are no objects."""
        for stretch in stretches:
            lot, start, stop = stretch.lot, stretch.start, stretch.stop
            call, size = lot.call, stop - start
            key, created = self.key_of(call.series), int(call.created * 1e6)
            numbers = range(lot.first + start, lot.first + stop)
            if lot.kept is not None:
                kept = lot.kept.records[start:stop], lot.kept.keys[start:stop]
                batch.add_columns("results", [[key] * size, list(numbers), *kept])
            ended = [floor(seconds * 1e6) for seconds in lot.ended[start:stop]]
            columns: list[list[Any]] = [
                [key] * size,
                list(numbers),
                [created] * size,
                [floor(lot.started[start] * 1e6), *ended[:-1]],  # each has begun when the one before had ended
                ended,
                self._inputs_shown(call, stretch.items()),
            ]
            batch.add_columns("completed_runs", columns)
            lot.let_go(start, stop)

    def _add_direct(self, batch: Batch, runs: Iterable[Run]) -> None:
        """Runs that were called directly, each by a call of its own."""
        rows: list[Row] = []
        for run in runs:
            call = run.call
            key, created = self.key_of(call.series), int(call.created * 1e6)
            if _is_short(run):
                rows.append(self._short_row(key, created, run))
                run.item = None
            elif _is_full(call):
                batch.task_runs += self._full_rows(key, created, [run])
            else:
                self._add_others(batch, key, created, call, [run])
        if rows:
            batch.add_columns("completed_runs", [list(column) for column in zip(*rows, strict=True)])

    def _columns(self, key: int, created: int, call: Call, runs: list[Run]) -> list[list[Any]]:
        """Runs with nothing special about them."""
        return [
            [key] * len(runs),
            [run.number for run in runs],
            [created] * len(runs),
            [int(run.started * 1e6) for run in runs],
            [int(run.ended * 1e6) for run in runs],
            self._inputs_shown(call, [run.item for run in runs]),
        ]

    def _inputs_shown(self, call: Call, items: list[Any]) -> list[Any]:
        """Most have one argument, that need not be looked at to be shown."""
        around = _around_the_only(call)
        if around is not None and _AS_IS.issuperset(map(type, items)):
            before, after = around
            try:
                return [f"{before}{item}{after}" for item in items]
            except ValueError:  # one of them is a number that Python does not write
                pass
        return list(map(self._inputs_of(call), items))

    def _add_others(self, batch: Batch, key: int, created: int, call: Call, runs: list[Run]) -> None:
        """Runs whose results were found, and those with something to say: a name, a message, another end."""
        found = [run for run in runs if run.state_name == "Cached" and run.own_name is None and not run.run_count]
        if len(found) < len(runs):
            known = set(map(id, found))
            batch.task_runs += self._full_rows(key, created, [run for run in runs if id(run) not in known])
        if found:
            columns: list[list[Any]] = [
                [key] * len(found),
                [run.number for run in found],
                [created] * len(found),
                [int(run.ended * 1e6) for run in found],
                [run.message for run in found],
                self._inputs_shown(call, [run.item for run in found]),
            ]
            batch.add_columns("found_runs", columns)
        for run in found:
            run.item = None

    def add_begun(self, batch: Batch, runs: list[Run]) -> None:
        """Runs that have begun; those that have ended since are, or will be, among the ended."""
        for run in runs:
            if not run.done and run.run_count:
                call = run.call
                batch.task_runs.append(self._full_row(self.key_of(call.series), micros(call.created), run))

    def row_of_end(self, run: Run) -> tuple[bool, Row]:
        """The row of a run that has ended, and whether it is a short one. From any thread."""
        call = run.call
        key, created = self._named(call.series), int(call.created * 1e6)
        if not _is_short(run):
            return False, self._full_row(key, created, run)
        inputs = _shown_inputs(call, run.item) if run.inline else self._inputs_of(call)(run.item)
        return True, (key, run.number, created, int(run.started * 1e6), int(run.ended * 1e6), inputs)

    def add_ends(self, batch: Batch, ends: list[tuple[Series, Row, bytes, bytes | None]]) -> None:
        """Runs whose rows were made by `row_of_end`, and their results."""
        series, rows, records, durable_keys = map(list, zip(*ends, strict=True))
        columns = list(map(list, zip(*rows, strict=True)))
        columns[0] = list(map(self.key_of, series))
        batch.add_columns("completed_runs", columns)
        batch.add_columns("results", [columns[0], columns[1], records, durable_keys])

    def _short_row(self, key: int, created: int, run: Run) -> Row:
        """The row of a run with nothing special about it."""
        inputs = self._inputs_of(run.call)(run.item)
        return key, run.number, created, int(run.started * 1e6), int(run.ended * 1e6), inputs

    def _full_rows(self, key: int, created: int, runs: Iterable[Run]) -> Iterator[Row]:
        """The rows of runs that have ended, and that let their arguments go."""
        for run in runs:
            yield self._full_row(key, created, run)
            run.item = None

    def _full_row(self, key: int, created: int, run: Run) -> Row:
        call, done = run.call, run.done
        inputs = self._inputs_of(call)(run.item)
        tags = call.tags if call.tags is not call.definition.options.tags else None
        parent = call.parent_id or (call.parent.task_run_id if call.parent is not None else None)
        started = micros(run.started) if run.started else None
        ended = micros(run.ended) if done else None
        return (
            key, run.number, created, started, ended, run.status, run.state_name, run.message, run.run_count,
            run.own_name, str(parent) if parent else None, _tags(tags) if tags else None, inputs,
        )  # fmt: skip  # one line a row

    def _inputs_of(self, call: Call) -> Any:
        """How the inputs of this call's runs are shown: a function of a run and of its item, as it was."""
        around = _around_the_only(call)
        if around is None:
            return partial(_shown_inputs, call)
        before, after = around

        def one(item: Any) -> str:
            return f"{before}{shown(item)}{after}"

        return one

    def add_moves(self, batch: Batch, moves: Iterable[tuple[Run, State]]) -> None:
        """States that a run's own times do not tell."""
        for run, state in moves:
            batch.task_run_states.append(
                (
                    self.key_of(run.call.series),
                    run.number,
                    micros(state.timestamp.timestamp()),
                    state.type.value,
                    _name(state),
                    state.message,
                )
            )

    # --- what is stored -----------------------------------------------------------------------------------

    def add_kept(self, batch: Batch, kept: list[tuple[Run, bytes, bytes | None, Any]]) -> None:
        """Results; the files of large ones are written before the rows that speak of them."""
        for *_, file in kept:
            if file is not None:
                self._write_file(file)
        columns: list[list[Any]] = [
            [],
            [one[0].number for one in kept],
            [one[1] for one in kept],
            [one[2] for one in kept],
        ]
        for call, group in itertools.groupby([one[0] for one in kept], _call_of_many):
            if call is None:
                columns[0] += [self.key_of(run.call.series) for run in group]
            else:
                columns[0] += [self.key_of(call.series)] * sum(1 for _ in group)
        batch.add_columns("results", columns)

    def add_calls(self, batch: Batch, calls: Iterable[tuple[str, bytes, Series, int, int]]) -> None:
        """The large maps of durable flow runs."""
        for flow_run_id, digest, series, first, runs in calls:
            batch.durable_calls.append((flow_run_id, digest, self.key_of(series), first, runs))

    def add_rolled_back(self, batch: Batch, runs: Iterable[Run]) -> None:
        """Runs that had completed, and whose transaction was rolled back."""
        for run in {(id(run.call.series), run.number): run for run in runs}.values():
            key, created = self.key_of(run.call.series), micros(run.call.created)
            row = (key, run.number, created, run.status, run.state_name, run.message, run.run_count)
            batch.rolled_back_runs.append(row)

    # --- what fed what ----------------------------------------------------------------------------------

    def add_edges(self, batch: Batch, fed: Iterable[tuple[Run, Any, Any]]) -> None:
        """Which runs these waited for, and for which argument."""
        for run, item, wait_for in fed:
            key = self.key_of(run.call.series)
            for argument, upstream in _upstream_of(run, item, wait_for):
                batch.edges.append((key, run.number, self.key_of(upstream.call.series), upstream.number, argument))

    # --- flow runs --------------------------------------------------------------------------------------

    def add_flow_moves(self, batch: Batch, moves: list[tuple[FlowRun, State]]) -> None:
        """The states that flow runs have entered, and the flow runs as they were then."""
        batch.flow_run_states += [
            (
                str(run.id),
                micros(state.timestamp.timestamp()),
                state.type.value,
                _name(state),
                state.message,
            )
            for run, state in moves
        ]
        latest = {run.id: (run, state) for run, state in moves}
        batch.flow_runs += [self._flow_run_row(run, state) for run, state in latest.values()]

    def _flow_run_row(self, run: FlowRun, state: State) -> Row:
        """The row of a run as it was in this state: it may have gone on, and then what it did since is not here yet."""
        if run.result_file is not None:
            file, run.result_file = run.result_file, None
            self._write_file(file)
        began = next((other.timestamp for other in run.states if other.type is RUNNING), None)
        final = state.is_final()
        parameters = msgspec.json.encode(shown_parameters(run.parameters)).decode() if run.parameters else None
        return (
            str(run.id), run.flow_name, run.name, run.flow_version, state.type.value, _name(state), state.message,
            micros(run.created), micros(began.timestamp()) if began else None,
            micros(state.timestamp.timestamp()) if final else None,
            micros(state.scheduled_time.timestamp()) if state.scheduled_time else None,
            run.run_count, _tags(run.tags), parameters,
            str(run.parent_flow_run_id) if run.parent_flow_run_id else None,
            str(run.parent_task_run_id) if run.parent_task_run_id else None,
            str(run.root_flow_run_id), self._process_id,
            run.wish.idempotency_key, int(bool(run.durable)), run.source_hash, run.entrypoint, run.arguments,
            run.result_record,
        )  # fmt: skip  # one line a few columns


def _around_the_only(call: Call) -> tuple[str, str] | None:
    """What stands around the only argument in which a call's runs differ; None if there are more, or it is secret."""
    names = call.definition.parameters.names
    if not call.unary or not names or is_secret(names[0]):
        return None
    constants = _constants(call)
    return f"{names[0]}=", f", {constants}" if constants else ""


def _constants(call: Call) -> str:
    """The arguments that all runs of a call have; before it lets them go, it says what they were."""
    kwargs = call.kwargs
    return shown_arguments(kwargs, kwargs.values()) if kwargs else call.constants


def _is_full(call: Call) -> bool:
    """Whether there is more to be told of a call's runs than the shortest rows do."""
    return bool(call.record_fully or call.parent_id is not None or call.parent is not None)


def _is_short(run: Run) -> bool:
    """Whether a run has nothing special about it."""
    return run.run_count == 1 and run.status == _COMPLETED and run.own_name is None and not _is_full(run.call)


def _call_of_many(run: Run) -> Call | None:
    """The call that a run shares with others; None if it was called directly."""
    return None if run.inline else run.call


def _shown_inputs(call: Call, item: Any) -> str | None:
    """The inputs of a run that has more than one, or named ones."""
    values: tuple[Any, ...] = (item,) if call.unary else item or ()
    parameters = call.definition.parameters
    if len(values) == 1 and parameters.positional_names and not (call.row_names or call.kwargs or call.constants):
        name = parameters.positional_names[0]
        return f"{name}={HIDDEN if is_secret(name) else shown(values[0])}"
    labels = _labels(parameters.positional_names, parameters.gathered_name, len(values), call.row_names)
    constants = _constants(call)
    if not constants:
        return shown_arguments(labels, values) or None
    return ", ".join(filter(None, (shown_arguments(labels, values), constants))) or None


@lru_cache(KEPT_LABELS)
def _labels(names: tuple[str, ...], gathered: str, values: int, row_names: tuple[str, ...]) -> list[str]:
    """What so many values are called: those at the end by the names they were given, others by the parameters'.

    gathered: the parameter that takes all positional values beyond those with names of their own.
    """
    positional = values - len(row_names)
    more = (f"{gathered}[{place}]" for place in range(positional - len(names)))
    return [*names[:positional], *more, *row_names]


def _upstream_of(run: Run, item: Any, wait_for: Any) -> Iterator[tuple[str | None, Run]]:
    names = run.call.definition.parameters.names
    if type(item) is RunFuture:
        yield names[0] if names else None, item
    else:
        values: tuple[Any, ...] = (item,) if run.call.unary else item or ()
        positional = len(values) - len(run.call.row_names)
        labels = [*(names[n] if n < len(names) else None for n in range(positional)), *run.call.row_names]
        for label, value in zip(labels, values, strict=True):
            for found in _runs_in(value):
                yield label, found
    if wait_for is not None:
        for found in _runs_in(wait_for):
            yield None, found


def _runs_in(value: Any) -> Iterator[Run]:
    for dependency in FINDER.find(value):
        if isinstance(dependency.future, RunFuture):
            yield dependency.future


def _name(state: State) -> str | None:
    """The name of a state where it says more than its type."""
    return state.name if state.name and state.name.upper() != state.type.value else None


def _tags(tags: Iterable[str]) -> str | None:
    ordered = sorted(tags)
    return msgspec.json.encode(ordered).decode() if ordered else None
