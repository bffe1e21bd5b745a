"""The series of a durable flow run: those of earlier processes, and which of them new runs are numbered in."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count, islice

from upwell.core.definition import Definition
from upwell.core.ids import uuid7
from upwell.engine.durable_keys import source_of
from upwell.engine.durable_records import FinishedRow, OldSeries
from upwell.engine.scope import Scope, Series


class OldAndNew:
    """The series of one flow run. One thread at a time.

    keep_changed: results of tasks whose code has changed count, too. inherited: the old ones are of another flow run.
    """

    def __init__(self, old: Iterable[OldSeries], scope: Scope, *, keep_changed: bool, inherited: bool) -> None:
        self.old = {series.key: series for series in old}
        self._scope = scope
        self._flow_run_id = scope.flow_run_id()
        self._keep_changed = keep_changed
        self._inherited = inherited
        self._restored: dict[tuple[int, Definition], Series] = {}
        self._numbered_by: dict[int, Definition] = {}  # which of its copies goes on with an old series
        self._changed: set[str] = set()

    def of(self, definition: Definition) -> Series:
        """The series that numbers this task's new runs: that of the process before, if its code is the same."""
        found = self._scope.series.get(definition)
        if found is None:
            source = source_of(definition)
            for old in () if self._inherited else self.old.values():
                same = old.task == definition.name and old.source == source
                if same and self.goes_on_with(old.key, definition):
                    found = self.restore(old, definition)
                    break
            found = self._scope.series[definition] = found or self._scope.series_of(definition)
            found.source = source
        return found

    def of_row(self, row: FinishedRow, definition: Definition) -> Series:
        """The series that a finished run belongs to."""
        return row[0] if isinstance(row[0], Series) else self.restore(self.old[row[0]], definition)

    def is_own(self, series: Series) -> bool:
        """Whether new runs of its task may be numbered in this series."""
        key = series.journal_key
        return key not in self.old or self._numbered_by.get(key) is series.definition

    def goes_on_with(self, old: int, definition: Definition) -> bool:
        """Whether new runs of this task may be numbered in an old series: of all that look alike, one's may."""
        return self._numbered_by.setdefault(old, definition) is definition

    def is_unchanged(self, definition: Definition, old: OldSeries) -> bool:
        """Whether the task's code is as it was; else its runs are to be run again, unless told otherwise."""
        if self._keep_changed or old.source is None or old.source == source_of(definition):
            return True
        if definition.name not in self._changed:
            self._changed.add(definition.name)
            self._scope.flow_run.log.warning(
                "The code of task %r has changed: its finished runs are run again. To take their results as they are: "
                "upwell.resume('%s', keep_changed=True)", definition.name, self._flow_run_id,
            )  # fmt: skip
        return False

    def restore(self, old: OldSeries, definition: Definition) -> Series:
        """An old series, to go on with."""
        found = self._restored.get((old.key, definition))
        if found is None:
            found = self._restored[old.key, definition] = Series(
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

    def id_of(self, row: FinishedRow) -> str:
        """The id of a task run that was finished."""
        home = row[0]
        base = home.id_base if isinstance(home, Series) else self.old[home].base
        return str(uuid7((row[6] + 0.5) / 1e6, base + row[1]))


def new_numbers(series: Series, runs: int) -> list[int]:
    """Numbers for so many new runs, in a row."""
    numbers = list(islice(series.numbers, runs))
    series.submitted = numbers[-1] + 1
    return numbers


def new_number(series: Series) -> int:
    """The number of a new run."""
    number = next(series.numbers)
    series.submitted = number + 1
    return number
