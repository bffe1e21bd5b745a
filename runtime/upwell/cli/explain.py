"""`upwell explain`: why a run does not go on, why it ran again, why it did not run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from upwell.cli.asking import recorded
from upwell.cli.group import group
from upwell.cli.lookup import find_run
from upwell.cli.output import moment_text, say, say_json
from upwell.core.errors import UnknownRunError

if TYPE_CHECKING:
    from upwell.cli.options import Output
    from upwell.core.states import State
    from upwell.history import History

app = group(
    "explain",
    "upwell explain cheery-hippo",
    "upwell explain fetch-3",
    "upwell explain 01a200d6-3c1c-7ede-aaf4-748f97175773 -o json",
)


class Explanation(Struct, frozen=True, kw_only=True):
    """What is known of why a run is as it is."""

    run: str
    state: str
    reasons: tuple[str, ...]


@app.default
async def explain(run: str, /, *, output: Output = "table") -> None:
    """Say why a flow run or task run does not go on, ran again, or did not run.

    Args:
        run: Its id or name.
    """
    async with recorded() as history:
        explanation = await _explanation(history, run)
    if output == "json":
        say_json(explanation)
        return
    say(f"{explanation.run} is {explanation.state}.")
    for reason in explanation.reasons:
        say(f"  - {reason}")


async def _explanation(history: History, wanted: str) -> Explanation:
    from upwell.cli.reasons import of_flow_run, of_not_begun, of_task_run  # here: help needs none
    from upwell.core.model import FlowRunRecord

    try:
        run = await find_run(history, wanted)
    except UnknownRunError:
        reasons = [reason async for reason in of_not_begun(history, wanted)]
        if not reasons:
            raise
        return Explanation(run=wanted, state="Pending", reasons=tuple(reasons))
    states = await history.states(run.id)
    of_kind = of_flow_run(history, run) if isinstance(run, FlowRunRecord) else of_task_run(history, run)
    reasons = [*_told_by(states), *[reason async for reason in of_kind]]
    return Explanation(run=run.name, state=run.state.name, reasons=tuple(reasons))


def _told_by(states: Sequence[State]) -> list[str]:
    """What a run's own states say: each that has a reason but the first, and how often it began."""
    told = [
        f"{moment_text(it.timestamp)} {it.name}: {it.message}"
        for it in states
        if it.message and not (it is states[0] and it.name == "Pending")
    ]
    began = sum(it.is_running() for it in states)
    if began > 1:
        told.append(f"It began {began} times, for the reasons above.")
    return told
