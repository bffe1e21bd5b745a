"""Follows a flow run until it has ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

from upwell.cli.exits import FAILED
from upwell.cli.listing import LOOK_SECONDS
from upwell.cli.output import hand_over, moment_text, say

if TYPE_CHECKING:
    from upwell.core.states import State
    from upwell.history import History


async def watch_flow_run(history: History, run_id: UUID) -> int:
    """Say each state that a flow run enters, until its last one; the exit code: 0 if it completed.

    Raises:
        BrokenPipeError: nobody reads it any more.
    """
    told = 0
    while True:
        states = await history.states(run_id)
        for state in states[told:]:
            say(f"{moment_text(state.timestamp)}  {state.name}" + (f": {state.message}" if state.message else ""))
        told = len(states)
        if states and states[-1].is_final():
            return exit_code(states[-1])
        hand_over()
        await asyncio.sleep(LOOK_SECONDS)


def exit_code(state: State) -> int:
    return 0 if state.is_completed() else FAILED
