"""`upwell flow-run`: what has run, what runs, and what is to become of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from upwell.cli import listing
from upwell.cli.asking import control, each
from upwell.cli.listing import Level, Limit, Order, Since, State, Text, Until, first_items
from upwell.cli.lookup import find_flow_run
from upwell.cli.output import Output, UsageError, Yes, confirm, examples, say, say_json, show, show_fields, span_text
from upwell.cli.times import ago_or_at
from upwell.cli.values import Tag
from upwell.history import History

if TYPE_CHECKING:
    from upwell.core.model import FlowRunRecord

app = App(
    name="flow-run",
    help_epilogue=examples(
        "upwell flow-run ls --state FAILED --since 1d",
        "upwell flow-run logs cheery-hippo --follow",
        'upwell flow-run cancel cheery-hippo --reason "wrong day"',
        "upwell flow-run retry --state CRASHED --since 2h",
        more="RUN is a flow run's id, or its name: then the newest of that name is meant.",
    ),
)

Runs = Annotated[list[str], Parameter(help="Flow runs, by id or name.")]


@app.command(
    help_epilogue=examples(
        "upwell flow-run ls --state FAILED --since 1d", "upwell flow-run ls --deployment etl/nightly -o json"
    )
)
async def ls(
    *,
    flow: str | None = None,
    deployment: str | None = None,
    state: State = None,
    tag: Tag = [],  # noqa: B006  # cyclopts reads the default
    since: Since = None,
    until: Until = None,
    text: Text = None,
    ahead: bool = False,
    order: Order = "newest",
    limit: Limit = 20,
    output: Output = "table",
) -> None:
    """List flow runs.

    Args:
        flow: The name of their flow.
        deployment: Their deployment, flow/name.
        ahead: Those that are due only later, too; `--state SCHEDULED` lists them as well.
    """
    wanted = Filter(flow, deployment, state, tuple(tag), since, until, text, ahead=ahead or state is not None)
    async with History() as history:
        runs = await wanted.runs(history, order, limit)
    show(
        runs,
        [
            ("id", lambda run: run.id),
            ("flow", lambda run: run.flow_name),
            ("name", lambda run: run.name),
            ("state", lambda run: run.state),
            ("when", lambda run: run.start_time or run.due or run.created),
            ("took", lambda run: span_text(seconds_of(run))),
        ],
        output,
        none="No flow run fits; or none is recorded here yet.",
    )


@app.command
async def inspect(run: str, /, *, output: Output = "table") -> None:
    """Show one flow run: its parameters, its states with their reasons, its task runs by state.

    Args:
        run: Its id or name.
    """
    async with History() as history:
        found = await find_flow_run(history, run)
        states = await history.states(found.id)
        tree = await history.tree(found.id, runs_per_task=0)
    if output == "json":
        tasks = {group.task_name: group.states for group in tree.tasks}
        say_json({"flow_run": found, "states": states, "task_runs": tasks})
        return
    show_fields(found, fields_of(found), output)
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
    if tree.tasks:
        say("")
        show(
            tree.tasks,
            [
                ("task", lambda group: group.task_name),
                ("runs", lambda group: group.total),
                ("states", lambda group: ", ".join(f"{n} {kind.value}" for kind, n in group.states.items())),
            ],
            output,
        )


@app.command(
    help_epilogue=examples(
        "upwell flow-run logs cheery-hippo --follow", "upwell flow-run logs cheery-hippo --level WARNING --tail 20"
    )
)
async def logs(
    run: str,
    /,
    *,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"))] = False,
    level: Level = "DEBUG",
    tail: int | None = None,
    output: Output = "table",
) -> None:
    """Show the log of a flow run, its task runs included.

    Args:
        run: Its id or name.
        follow: Go on until the run has ended.
        tail: Only the last so many lines.
    """
    if tail is not None and tail < 0:
        raise UsageError(f"--tail is {tail}, and must be 0 or more.")
    least = listing.level_number(level)
    async with History() as history:
        found = await find_flow_run(history, run)
        await listing.show_logs(history, found.id, least, follow=follow, tail=tail, output=output)


@app.command
async def watch(run: str, /) -> int:
    """Wait until a flow run has ended, and say what becomes of it. Exits with 0 if it completed, else with 1.

    Args:
        run: Its id or name.
    """
    from upwell.cli.watching import watch_flow_run

    async with History() as history:
        found = await find_flow_run(history, run)
        return await watch_flow_run(history, found.id)


# --- changing -----------------------------------------------------------------------------------------------


@app.command(
    help_epilogue=examples(
        'upwell flow-run cancel cheery-hippo --reason "wrong day"',
        "upwell flow-run cancel --deployment etl/nightly --state RUNNING --yes",
    )
)
async def cancel(
    run: Runs = [],  # noqa: B006  # cyclopts reads the default
    /,
    *,
    reason: str | None = None,
    grace: float | None = None,
    flow: str | None = None,
    deployment: str | None = None,
    state: State = None,
    since: Since = None,
    yes: Yes = False,
) -> int:
    """Cancel flow runs: one that has not begun is Cancelled at once, another as soon as what it started has ended.

    Args:
        reason: Why; it stands in the run's history.
        grace: Seconds until the process of a run that does not end is killed.
        flow: All runs of this flow that have not ended.
        deployment: All runs of this deployment that have not ended.
    """
    wanted = Filter(flow, deployment, state, (), since, None, None)
    runs = await _meant(run, wanted, "Cancel", yes, open_only=True)
    by = _who()
    async with control() as asked:
        return await each(
            runs,
            lambda it: asked.request_cancel(it.id, by=by, reason=reason, grace_seconds=grace),
            lambda it, changed: f"{it.name}: {changed.state.name if changed.state.is_final() else 'asked to end'}",
        )


@app.command(
    help_epilogue=examples(
        "upwell flow-run retry cheery-hippo", "upwell flow-run retry --deployment etl/nightly --state FAILED --since 1d"
    )
)
async def retry(
    run: Runs = [],  # noqa: B006  # cyclopts reads the default
    /,
    *,
    flow: str | None = None,
    deployment: str | None = None,
    state: State = None,
    since: Since = None,
    yes: Yes = False,
) -> int:
    """Run flow runs of deployments again: a new run of the deployment, with the same parameters."""
    runs = await _meant(run, Filter(flow, deployment, state, (), since, None, None), "Retry", yes)
    async with control() as asked:
        return await each(
            runs,
            lambda it: asked.retry_flow_run(it.id),
            lambda it, new: f"{it.name}: runs again as {new.name} ({new.id})",
        )


@app.command
async def resume(
    run: Runs = [],  # noqa: B006  # cyclopts reads the default
    /,
    *,
    flow: str | None = None,
    deployment: str | None = None,
    state: State = None,
    since: Since = None,
    yes: Yes = False,
) -> int:
    """Have durable flow runs of deployments gone on with that crashed: what they finished is not run again."""
    runs = await _meant(run, Filter(flow, deployment, state, (), since, None, None), "Resume", yes)
    async with control() as asked:
        return await each(
            runs, lambda it: asked.resume_flow_run(it.id), lambda it, changed: f"{it.name}: {changed.state.name}"
        )


@app.command(
    help_epilogue=examples(
        "upwell flow-run delete cheery-hippo --yes", "upwell flow-run delete --state FAILED --until 30d --yes"
    )
)
async def delete(
    run: Runs = [],  # noqa: B006  # cyclopts reads the default
    /,
    *,
    flow: str | None = None,
    deployment: str | None = None,
    state: State = None,
    since: Since = None,
    until: Until = None,
    yes: Yes = False,
) -> int:
    """Delete flow runs that have ended, or have not begun, with all that belongs to them."""
    wanted = Filter(flow, deployment, state, (), since, until, None)
    runs = await _meant(run, wanted, "Delete", yes, always=True)
    async with control() as asked:
        return await each(runs, lambda it: asked.delete_flow_run(it.id), lambda it, _: f"{it.name}: deleted")


@app.command
def fork(
    run: str,
    /,
    *,
    before: str | None = None,
    keep_changed: bool = False,
) -> int:
    """Run a durable flow run again, here and now, as another one that takes over what the first one finished.

    Args:
        run: Its id or name.
        before: A task run of it, by id: that one and all later ones are run anew.
        keep_changed: What is finished counts although the code of its task has changed.
    """
    from upwell.cli.forking import fork_here

    return fork_here(run, before, keep_changed)


# --- which ones ---------------------------------------------------------------------------------------------


class Filter:
    """Which flow runs are meant where they are not named one by one."""

    def __init__(
        self,
        flow: str | None,
        deployment: str | None,
        state: str | None,
        tags: tuple[str, ...],
        since: str | None,
        until: str | None,
        text: str | None,
        *,
        ahead: bool = True,
    ) -> None:
        self.flow = flow
        self.ahead = ahead
        self.deployment = deployment
        self.state = state
        self.tags = tags
        self.since = ago_or_at(since)
        self.until = ago_or_at(until)
        self.text = text

    def is_empty(self) -> bool:
        return not (self.flow or self.deployment or self.state or self.tags or self.since or self.until or self.text)

    async def runs(self, history: History, order: Order, limit: int) -> list[FlowRunRecord]:
        """The first so many."""
        try:
            return await first_items(
                lambda n, after: history.flow_runs(
                    flow=self.flow,
                    deployment=self.deployment,
                    state=self.state,
                    tags=self.tags,
                    since=self.since,
                    until=self.until,
                    text=self.text,
                    ahead=self.ahead,
                    order=order,
                    limit=n,
                    after=after,
                ),
                limit,
            )
        except ValueError as error:
            raise UsageError(str(error)) from error


async def _meant(
    names: list[str], wanted: Filter, action: str, yes: bool, *, always: bool = False, open_only: bool = False
) -> list[FlowRunRecord]:
    """The runs that are named, or those that a filter lets through, once somebody has said yes to these.

    always: those that are named are asked about, too. open_only: the filter lets only those through that go on.

    Raises:
        UsageError: neither or both; or nobody said yes.
    """
    if bool(names) != wanted.is_empty():
        raise UsageError(f"{action} which runs? Name them, or say which by --flow, --deployment, --state or --since.")
    async with History() as history:
        if names:
            runs = [await find_flow_run(history, name) for name in names]
        else:
            runs = await wanted.runs(history, "oldest", 0)
            runs = [run for run in runs if not (open_only and run.state.is_final())]
    if not names or always:
        confirm(f"{action} {len(runs)} flow runs?" if len(runs) != 1 else f"{action} {runs[0].name}?", yes)
    return runs


def _who() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "the command line"


def fields_of(run: FlowRunRecord) -> dict[str, object]:
    """What people want to know of a flow run."""
    return {
        "id": run.id,
        "name": run.name,
        "flow": run.flow_name,
        "version": run.flow_version,
        "state": run.state,
        "why": run.state.message,
        "parameters": run.parameters,
        "tags": run.tags,
        "created": run.created,
        "due": run.due,
        "started": run.start_time,
        "ended": run.end_time,
        "took": span_text(seconds_of(run)),
        "attempts": run.run_count,
        "durable": run.durable or None,
        "crashes": run.crashes or None,
        "deployment id": run.deployment_id,
        "parent flow run": run.parent_flow_run_id,
        "idempotency key": run.idempotency_key,
    }


def seconds_of(run: FlowRunRecord) -> float | None:
    """How long it ran, or has been running."""
    from upwell.cli.times import now

    if run.start_time is None:
        return None
    return max(0.0, ((run.end_time or now()) - run.start_time).total_seconds())
