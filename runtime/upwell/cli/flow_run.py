"""`upwell flow-run`: what has run, what runs, and what is to become of it."""

from __future__ import annotations

from dataclasses import fields, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from upwell.cli import listing
from upwell.cli.asking import control, each, recorded
from upwell.cli.group import examples, group
from upwell.cli.listing import first_items, first_of
from upwell.cli.lookup import find_flow_run
from upwell.cli.options import ANY, Entrypoint, Follow, KeepChanged, Level, Limit, Order, Output, Tail, Which, Yes
from upwell.cli.output import UsageError, confirm, say, say_json, show, show_fields, span_text
from upwell.cli.times import ago_or_at, now

if TYPE_CHECKING:
    from upwell.core.model import FlowRunRecord
    from upwell.history import History

app = group(
    "flow-run",
    "upwell flow-run ls --state FAILED --since 1d",
    "upwell flow-run logs cheery-hippo --follow",
    'upwell flow-run cancel cheery-hippo --reason "wrong day"',
    "upwell flow-run retry --state CRASHED --since 2h",
    more="RUN is a flow run's id, or its name: then the newest of that name is meant.",
)

Runs = Annotated[tuple[str, ...], Parameter(help="Flow runs, by id or name.")]


@app.command(
    help_epilogue=examples(
        "upwell flow-run ls --state FAILED --since 1d", "upwell flow-run ls --deployment etl/nightly -o json"
    )
)
async def ls(
    *,
    which: Which = ANY,
    ahead: bool = False,
    order: Order = "newest",
    limit: Limit = 20,
    output: Output = "table",
) -> None:
    """List flow runs.

    Args:
        ahead: Those that are due only later instead, the soonest first.
    """
    async with recorded() as history:
        if ahead:
            runs = await _coming(history, which, limit)
        else:
            runs = await _listed(history, which, order, limit, ahead=which.state is not None)
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
    async with recorded() as history:
        found = await find_flow_run(history, run)
        states = await history.states(found.id)
        tree = await history.tree(found.id, runs_per_task=0)
    if output == "json":
        tasks = {group.task_name: group.states for group in tree.tasks}
        say_json({"flow_run": found, "states": states, "task_runs": tasks})
        return
    show_fields(found, fields_of(found), output)
    say("")
    listing.show_states(states, output)
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
    follow: Follow = False,
    level: Level = "DEBUG",
    tail: Tail = None,
    output: Output = "table",
) -> None:
    """Show the log of a flow run, its task runs included.

    Args:
        run: Its id or name.
    """
    least = listing.level_number(level)
    async with recorded(watching=follow) as history:
        found = await find_flow_run(history, run)
        await listing.show_logs(history, found.id, least, follow=follow, tail=tail, output=output)


@app.command
async def watch(run: str, /) -> int:
    """Wait until a flow run has ended, and say what becomes of it. Exits with 0 if it completed, else with 1.

    Args:
        run: Its id or name.
    """
    from upwell.cli.watching import watch_flow_run

    async with recorded(watching=True) as history:
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
    run: Runs = (),
    /,
    *,
    reason: str | None = None,
    grace: float | None = None,
    which: Which = ANY,
    yes: Yes = False,
) -> int:
    """Cancel flow runs: one that has not begun is Cancelled at once, another as soon as what it started has ended.

    Args:
        reason: Why; it stands in the run's history.
        grace: Seconds until the process of a run that does not end is killed.
    """
    runs = await _meant(run, which, "Cancel", yes, open_only=True)
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
    run: Runs = (),
    /,
    *,
    which: Which = ANY,
    yes: Yes = False,
) -> int:
    """Run flow runs of deployments again: a new run of the deployment, with the same parameters."""
    runs = await _meant(run, which, "Retry", yes)
    async with control() as asked:
        return await each(
            runs,
            lambda it: asked.retry_flow_run(it.id),
            lambda it, new: f"{it.name}: runs again as {new.name} ({new.id})",
        )


@app.command(
    help_epilogue=examples("upwell flow-run resume cheery-hippo", "upwell flow-run resume --flow etl --since 1d")
)
def resume(
    run: Runs = (),
    /,
    *,
    which: Which = ANY,
    entrypoint: Entrypoint = None,
    keep_changed: KeepChanged = False,
    yes: Yes = False,
) -> int:
    """Go on with durable flow runs whose process died: what they finished is not run again.

    Those of deployments wait for a worker again; others go on here and now. Exits with 1 if one did not complete.
    """
    import asyncio

    from upwell.cli.here import resume_here

    async def let_wait() -> tuple[list[FlowRunRecord], int]:
        runs = await _meant(run, which, "Resume", yes)
        deployed = [it for it in runs if it.deployment_id is not None]
        here = [it for it in runs if it.deployment_id is None]
        if here and not deployed:
            return here, 0
        async with control() as asked:
            return here, await each(
                deployed,
                lambda it: asked.resume_flow_run(it.id),
                lambda it, changed: f"{it.name}: {changed.state.name}, until a worker takes it",
            )

    here, code = asyncio.run(let_wait())
    return max([code, *(resume_here(it, entrypoint, keep_changed) for it in here)])


@app.command(
    help_epilogue=examples(
        "upwell flow-run delete cheery-hippo --yes", "upwell flow-run delete --state FAILED --until 30d --yes"
    )
)
async def delete(
    run: Runs = (),
    /,
    *,
    which: Which = ANY,
    yes: Yes = False,
) -> int:
    """Delete flow runs that have ended, or have not begun, with all that belongs to them."""
    runs = await _meant(run, which, "Delete", yes, always=True)
    async with control() as asked:
        return await each(runs, lambda it: asked.delete_flow_run(it.id), lambda it, _: f"{it.name}: deleted")


@app.command(
    help_epilogue=examples(
        "upwell flow-run fork cheery-hippo", "upwell flow-run fork cheery-hippo --before parse-3 --keep-changed"
    )
)
def fork(
    run: str, /, *, before: str | None = None, entrypoint: Entrypoint = None, keep_changed: KeepChanged = False
) -> int:
    """Run a durable flow run again, here and now, as another one that takes over what the first one finished.

    Args:
        run: Its id or name.
        before: A task run of it, by id or name: that one and all later ones are run anew.
    """
    from upwell.cli.here import fork_here

    return fork_here(run, before, entrypoint, keep_changed)


# --- which ones ---------------------------------------------------------------------------------------------


async def _listed(history: History, which: Which, order: Order, limit: int, *, ahead: bool) -> list[FlowRunRecord]:
    """The first so many. ahead: those that are due only later, too."""
    since, until = ago_or_at(which.since), ago_or_at(which.until)
    try:
        return await first_items(
            lambda n, after: history.flow_runs(
                flow=which.flow,
                deployment=which.deployment,
                state=which.state,
                tags=which.tag,
                since=since,
                until=until,
                text=which.text,
                ahead=ahead,
                order=order,
                limit=n,
                after=after,
            ),
            limit,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


async def _coming(history: History, which: Which, limit: int) -> list[FlowRunRecord]:
    """Those that are due only later, the soonest first: schedules make few ahead, so that all can be looked at."""
    scheduled = await _listed(history, replace(which, state=which.state or "SCHEDULED"), "oldest", 0, ahead=True)
    moment = now()
    coming = [(run.due, run) for run in scheduled if run.due is not None and run.due > moment]
    return first_of([run for _, run in sorted(coming, key=itemgetter(0))], limit)


async def _meant(
    names: tuple[str, ...], which: Which, action: str, yes: bool, *, always: bool = False, open_only: bool = False
) -> list[FlowRunRecord]:
    """The runs that are named, or those that a filter lets through, once somebody has said yes to these.

    always: those that are named are asked about, too. open_only: the filter lets only those through that go on.

    Raises:
        UsageError: neither or both; or nobody said yes.
    """
    if bool(names) == (which != ANY):
        options = ", ".join(f"--{field.name}" for field in fields(which))
        raise UsageError(f"{action} which runs? Name them, or say which by {options}; not both.")
    async with recorded() as history:
        if names:
            runs = [await find_flow_run(history, name) for name in names]
        else:
            runs = await _listed(history, which, "oldest", 0, ahead=True)
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
    if run.start_time is None:
        return None
    return max(0.0, ((run.end_time or now()) - run.start_time).total_seconds())
