"""`upwell task-run`: the task runs that there were, and are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upwell.cli import listing
from upwell.cli.asking import recorded
from upwell.cli.filters import run_filter
from upwell.cli.group import examples, group
from upwell.cli.listing import first_items
from upwell.cli.lookup import find_task_run, flow_run_id
from upwell.cli.output import say, say_json, show, show_fields, span_text
from upwell.cli.times import now

if TYPE_CHECKING:
    from upwell.cli.options import Limit, LogLines, Order, Output, WhichRuns
    from upwell.core.model import TaskRun

app = group(
    "task-run",
    "upwell task-run ls --flow-run cheery-hippo --state FAILED",
    "upwell task-run inspect fetch-3",
    "upwell task-run logs fetch-3",
    more="TASK-RUN is a task run's id or its beginning; or its name: then the newest of that name is meant.",
)


@app.command(
    epilogue=examples(
        "upwell task-run ls --flow-run cheery-hippo --state FAILED",
        "upwell task-run ls --task fetch --since 1h -o json",
    ),
    reads=True,
)
async def ls(
    *,
    flow_run: str | None = None,
    task: str | None = None,
    which: WhichRuns | None = None,
    order: Order = "newest",
    limit: Limit = 20,
    output: Output = "table",
) -> None:
    """List task runs.

    Args:
        flow_run: Those of this flow run, by id or name.
        task: The name of their task.
    """
    wanted = run_filter(which)
    async with recorded() as history:
        run_id = None if flow_run is None else await flow_run_id(history, flow_run)
        runs = await first_items(
            lambda n, after: history.task_runs(
                flow_run_id=run_id, task=task, **wanted, order=order, limit=n, after=after
            ),
            limit,
        )
    show(
        runs,
        [
            ("id", lambda run: run.id),
            ("name", lambda run: run.name),
            ("flow run", lambda run: run.flow_run_name),
            ("state", lambda run: run.state),
            ("created", lambda run: run.created),
            ("took", _took),
        ],
        output,
        none="No task run fits; or none is recorded here yet.",
    )


@app.command(reads=True)
async def inspect(task_run: str, /, *, output: Output = "table") -> None:
    """Show one task run: what it was given, its states with their reasons, what it waited for.

    Args:
        task_run: Its id or name.
    """
    async with recorded() as history:
        run = await find_task_run(history, task_run)
        states = await history.states(run.id)
    if output == "json":
        say_json({"task_run": run, "states": states})
        return
    show_fields(
        run,
        {
            "id": run.id,
            "name": run.name,
            "task": run.task_name,
            "state": run.state,
            "why": run.state.message,
            "inputs": run.inputs,
            "tags": run.tags,
            "created": run.created,
            "started": run.start_time,
            "ended": run.end_time,
            "took": _took(run),
            "attempts": run.run_count,
            "flow run": run.flow_run_name,
            "flow run id": run.flow_run_id,
            "parent task run": run.parent_task_run_id,
        },
        output,
    )
    say("")
    listing.show_states(states, output)


@app.command(reads=True)
async def logs(task_run: str, /, *, lines: LogLines | None = None) -> None:
    """Show the log of a task run.

    Args:
        task_run: Its id or name.
    """
    await listing.show_logs(find_task_run, task_run, lines)


def _took(run: TaskRun) -> str:
    if run.start_time is None:
        return ""
    return span_text(max(0.0, ((run.end_time or now()) - run.start_time).total_seconds()))
