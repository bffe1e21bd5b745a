"""What has ended in a child and is not yet reported: packed so that one bad value harms its own run only."""

from __future__ import annotations

import array
from typing import Any, Final

from upwell.core.lifecycle import OutcomeKind
from upwell.engine.attempt import outcome_of
from upwell_runners.processes.calls import Callee
from upwell_runners.processes.faults import CarriedException, stand_in, traceback_text, unsendable_result
from upwell_runners.processes.parcels import Packer
from upwell_runners.processes.wire import KINDS, Outcomes, Parcel

_RAISED: Final = KINDS.index(OutcomeKind.RAISED)


class Failure:
    """How a row ended that did not return."""

    __slots__ = ("error", "kind", "message", "text")

    def __init__(self, error: BaseException) -> None:
        outcome = outcome_of(error)
        self.kind = KINDS.index(outcome.kind)
        self.message = outcome.message
        self.error: BaseException | None = outcome.value
        self.text = traceback_text(error)
        error.__traceback__ = None  # its frames refer to the arguments

    def pack(self, packer: Packer) -> Parcel:
        if self.error is None:
            return packer.pack(None)
        try:
            return packer.pack(CarriedException(self.error, self.text), check=True)
        except Exception as why:
            return packer.pack(CarriedException(stand_in(self.error, self.text, why), self.text))


class Report:
    """Outcomes of consecutive rows of one batch.

    values: what the rows returned, or their Failures. times: when the first began, then when each ended.

    The main thread appends to both while another may pack: only `pack`, under a lock, ever removes, and only what
    it saw. A time is appended before its value.
    """

    __slots__ = ("_callee", "_first", "times", "values")

    def __init__(self, first: int, callee: Callee | None) -> None:
        self._first = first
        self._callee = callee
        self.values: list[Any] = []
        self.times: list[float] = []

    def pack(self, packer: Packer) -> Outcomes | None:
        """Take out all that is there; None if nothing is."""
        values = self.values[:]
        count = len(values)
        if not count or self._callee is None:
            return None
        del self.values[:count]
        times = array.array("d", self.times[: count + 1]).tobytes()
        del self.times[:count]
        first, self._first = self._first, self._first + count
        if count > 1 and not self._callee.packs_each:
            together = packer.pack_together(values)
            if together is not None:
                return Outcomes(first, count, times, b"", [], [together])
            self._callee.packs_each = not any(isinstance(value, Failure) for value in values)
        kinds = bytearray(count)
        messages = [""] * count
        parcels: list[Parcel] = []
        for position, value in enumerate(values):
            if isinstance(value, Failure):
                kinds[position], messages[position] = value.kind, value.message
                parcels.append(value.pack(packer))
                continue
            try:
                parcels.append(packer.pack(value))
            except Exception as why:
                kinds[position] = _RAISED
                parcels.append(packer.pack(CarriedException(unsendable_result(value, why), "")))
        return Outcomes(first, count, times, bytes(kinds), messages, parcels)
