"""`upwell task-run`: the task runs that there were, and are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from upwell.cli import listing
from upwell.cli.listing import Level, Limit, Order, Since, State, Text, Until, first_items
from upwell.cli.lookup import find_flow_run, find_task_run
from upwell.cli.output import Output, UsageError, examples, say, say_json, show, show_fields, span_text
from upwell.cli.times import ago_or_at, now
from upwell.cli.values import Tag
from upwell.history import History

if TYPE_CHECKING:
    from upwell.core.model import TaskRun

app = App(
    name="task-run",
    help_epilogue=examples(
        "upwell task-run ls --flow-run cheery-hippo --state FAILED",
        "upwell task-run inspect fetch-3",
        "upwell task-run logs fetch-3",
        more="TASK-RUN is a task run's id, or its name: then the newest of that name is meant.",
    ),
)


@app.command(
    help_epilogue=examples(
        "upwell task-run ls --flow-run cheery-hippo --state FAILED",
        "upwell task-run ls --task fetch --since 1h -o json",
    )
)
async def ls(
    *,
    flow_run: str | None = None,
    task: str | None = None,
    flow: str | None = None,
    state: State = None,
    tag: Tag = [],  # noqa: B006  # cyclopts reads the default
    since: Since = None,
    until: Until = None,
    text: Text = None,
    order: Order = "newest",
    limit: Limit = 20,
    output: Output = "table",
) -> None:
    """List task runs.

    Args:
        flow_run: Those of this flow run, by id or name.
        task: The name of their task.
        flow: The name of the flow in whose runs they ran.
    """
    created_since, created_until = ago_or_at(since), ago_or_at(until)
    async with History() as history:
        run_id = None if flow_run is None else (await find_flow_run(history, flow_run)).id
        try:
            runs = await first_items(
                lambda n, after: history.task_runs(
                    flow_run_id=run_id,
                    task=task,
                    flow=flow,
                    state=state,
                    tags=tag,
                    since=created_since,
                    until=created_until,
                    text=text,
                    order=order,
                    limit=n,
                    after=after,
                ),
                limit,
            )
        except ValueError as error:
            raise UsageError(str(error)) from error
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


@app.command
async def inspect(task_run: str, /, *, output: Output = "table") -> None:
    """Show one task run: what it was given, its states with their reasons, what it waited for.

    Args:
        task_run: Its id or name.
    """
    async with History() as history:
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
    show(
        states,
        [
            ("state", lambda state: state),
            ("since", lambda state: state.timestamp),
            ("why", lambda state: state.message),
        ],
        output,
    )


@app.command
async def logs(
    task_run: str,
    /,
    *,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"))] = False,
    level: Level = "DEBUG",
    tail: int | None = None,
    output: Output = "table",
) -> None:
    """Show the log of a task run.

    Args:
        task_run: Its id or name.
        follow: Go on until the run has ended.
        tail: Only the last so many lines.
    """
    least = listing.level_number(level)
    async with History() as history:
        run = await find_task_run(history, task_run)
        await listing.show_logs(history, run.id, least, follow=follow, tail=tail, output=output)


def _took(run: TaskRun) -> str:
    if run.start_time is None:
        return ""
    return span_text(max(0.0, ((run.end_time or now()) - run.start_time).total_seconds()))
