"""The final state of a flow run: decided from what it raised, what it returned and what became of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from upwell.core.lifecycle import Finish
from upwell.core.states import CANCELLED, COMPLETED, FAILED, PAUSED, State


class EndedSubmission(NamedTuple):
    """What a submitted flow run returns to the run that stands for it: the state in which it has ended."""

    state: State

    def finish(self) -> Finish:
        """The same end, for that run."""
        state = self.state
        if not state.is_final():
            return Finish(FAILED, None, state.message)
        is_usual = state.name.upper() == state.type.value
        return Finish(state.type, None if is_usual else state.name, state.message)


def state_from_states(states: Sequence[State]) -> Finish:
    """The final state of a flow run that returned futures or states: they decide."""
    total = len(states)
    if all(state.is_completed() for state in states):
        return Finish(COMPLETED, None, "All states completed.")
    cancelled = sum(state.is_cancelled() for state in states)
    if cancelled:
        return Finish(CANCELLED, None, f"{cancelled}/{total} states cancelled.")
    if any(state.is_paused() for state in states):
        return Finish(PAUSED, None, "A returned state is paused.")
    failed = sum(state.is_failed() or state.is_crashed() for state in states)
    if failed:
        return Finish(FAILED, None, f"{failed}/{total} states failed.")
    unfinished = sum(not state.is_completed() for state in states)
    return Finish(FAILED, None, f"{unfinished}/{total} states are not final.")


def state_from_unseen(names: str, failed: int, total: int) -> Finish:
    """The final state of a flow run that returned normally while task runs failed that nobody looked at."""
    runs = "task run" if total == 1 else "task runs"
    verb = "was" if failed == 1 else "were"
    return Finish(FAILED, None, f"{failed} of {total} {runs} failed and {verb} never looked at: {names}")
