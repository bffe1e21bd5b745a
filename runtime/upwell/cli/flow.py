"""`upwell flow`: flows that have run, or can be started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upwell.cli.asking import recorded
from upwell.cli.group import group
from upwell.cli.listing import first_items
from upwell.cli.output import show

if TYPE_CHECKING:
    from upwell.cli.options import Limit, Output, Text

app = group(
    "flow",
    "upwell flow ls",
    "upwell flow ls --text etl -o json",
)


@app.command(reads=True)
async def ls(*, text: Text = None, limit: Limit = 50, output: Output = "table") -> None:
    """List flows: those that have run, and those that have deployments; with their newest run."""
    async with recorded() as history:
        flows = await first_items(lambda n, after: history.flows(text=text, limit=n, after=after), limit)
    show(
        flows,
        [
            ("name", lambda it: it.name),
            ("deployments", lambda it: it.deployments or ""),
            ("newest run", lambda it: it.last_run_name),
            ("state", lambda it: it.last_state_name),
            ("created", lambda it: it.last_run_created),
        ],
        output,
        none="No flow has run here.",
    )
