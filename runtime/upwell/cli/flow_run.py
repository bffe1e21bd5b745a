"""`upwell flow-run`: what has run, what runs, and what is to become of it."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING

from upwell.cli import listing
from upwell.cli.asking import recorded
from upwell.cli.filters import flow_run_filter
from upwell.cli.group import examples, group
from upwell.cli.listing import first_items, first_of
from upwell.cli.lookup import find_flow_run
from upwell.cli.many import ask_about, change, changed, meant_by, specs, told, wanted_of
from upwell.cli.output import UsageError, note, say, say_json, show, show_fields, span_text
from upwell.cli.times import now

if TYPE_CHECKING:
    from upwell.cli.filters import FlowRunFilter
    from upwell.cli.options import (
        DryRun,
        Entrypoint,
        Format,
        KeepChanged,
        Limit,
        LogLines,
        Order,
        Output,
        Runs,
        WhichFlowRuns,
        Yes,
    )
    from upwell.core.bulk import BulkItem
    from upwell.core.model import FlowRunRecord
    from upwell.history import History

app = group(
    "flow-run",
    "upwell flow-run ls --state FAILED --since 1d",
    "upwell flow-run logs cheery-hippo --follow",
    'upwell flow-run cancel cheery-hippo --reason "wrong day"',
    "upwell flow-run retry --state CRASHED --since 2h",
    more="RUN is a flow run's id or its beginning; or its name: then the newest of that name is meant.",
)


@app.command(
    epilogue=examples(
        "upwell flow-run ls --state FAILED --since 1d", "upwell flow-run ls --deployment etl/nightly -o json"
    ),
    reads=True,
)
async def ls(
    *,
    which: WhichFlowRuns | None = None,
    ahead: bool = False,
    order: Order = "newest",
    limit: Limit = 20,
    output: Output = "table",
) -> None:
    """List flow runs.

    Args:
        ahead: Those that are due only later instead, the soonest first.
    """
    wanted = flow_run_filter(which)
    async with recorded() as history:
        if ahead:
            runs = await _coming(history, wanted, limit)
        else:
            runs = await _listed(history, wanted, order, limit, ahead=bool(wanted.get("state")))
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


@app.command(reads=True)
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
    epilogue=examples(
        "upwell flow-run logs cheery-hippo --follow", "upwell flow-run logs cheery-hippo --level WARNING --tail 20"
    ),
    reads=True,
)
async def logs(run: str, /, *, lines: LogLines | None = None) -> None:
    """Show the log of a flow run, its task runs included.

    Args:
        run: Its id or name.
    """
    await listing.show_logs(find_flow_run, run, lines)


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
    epilogue=examples(
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
    which: WhichFlowRuns | None = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    output: Output = "table",
) -> int:
    """Cancel flow runs: one that has not begun is Cancelled at once, another as soon as what it started has ended.

    Args:
        reason: Why; it stands in the run's history.
        grace: Seconds until the process of a run that does not end is killed.
    """
    wanted = await wanted_of("cancel", run, which, dry_run=dry_run, reason=reason, grace_seconds=grace)
    return await change(wanted, yes=yes, output=output)


@app.command(
    epilogue=examples(
        "upwell flow-run retry cheery-hippo", "upwell flow-run retry --deployment etl/nightly --state FAILED --since 1d"
    )
)
async def retry(
    run: Runs = (),
    /,
    *,
    which: WhichFlowRuns | None = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    output: Output = "table",
) -> int:
    """Run flow runs of deployments again: a new run of the deployment, with the same parameters."""
    return await change(await wanted_of("retry", run, which, dry_run=dry_run), yes=yes, output=output)


@app.command(epilogue=examples("upwell flow-run resume cheery-hippo", "upwell flow-run resume --flow etl --since 1d"))
def resume(
    run: Runs = (),
    /,
    *,
    which: WhichFlowRuns | None = None,
    entrypoint: Entrypoint = None,
    keep_changed: KeepChanged = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    output: Output = "table",
) -> int:
    """Go on with durable flow runs whose process died: what they finished is not run again.

    Those of deployments wait for a worker again; others go on here and now. Exits with 1 if one did not complete.
    """
    import asyncio

    from upwell.cli.here import resume_here

    here, items = asyncio.run(_resumed_by_workers(run, which, dry_run=dry_run, yes=yes, output=output))
    tell = say if output == "table" else note
    codes = [resume_here(it, entrypoint, keep_changed, tell) for it in here]
    if here and output == "json":
        items += asyncio.run(_as_they_are(here))
    return max([told(items, output, dry_run=dry_run) if items or not here else 0, *codes])


async def _resumed_by_workers(
    names: tuple[str, ...], which: WhichFlowRuns | None, *, dry_run: bool, yes: bool, output: Format
) -> tuple[list[FlowRunRecord], list[BulkItem]]:
    """Have those resumed that are of deployments, and say what became of them; the others come first."""
    wanted = await wanted_of("resume", names, which, dry_run=dry_run)
    if dry_run:
        return [], await changed(wanted, yes=True, output=output)
    meant = await meant_by(wanted)
    if not (names or yes):
        ask_about([it.name for it in meant], "resume")
    here = [it.run for it in meant if it.run is not None and it.run.deployment_id is None]
    others = [it.id for it in meant if it.run is None or it.run.deployment_id is not None]
    return here, await changed(specs("resume", others), yes=True, output=output) if others else []


async def _as_they_are(resumed: list[FlowRunRecord]) -> list[BulkItem]:
    """What became of runs that have gone on here."""
    from upwell.cli.here import why_not_resumed
    from upwell.core.bulk import BulkItem

    async with recorded() as history:
        return [
            BulkItem(id=it.id, name=it.name, refused=why_not_resumed(it), run=await history.flow_run(it.id))
            for it in resumed
        ]


@app.command(
    epilogue=examples(
        "upwell flow-run delete cheery-hippo --yes", "upwell flow-run delete --state FAILED --until 30d --yes"
    )
)
async def delete(
    run: Runs = (),
    /,
    *,
    which: WhichFlowRuns | None = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    output: Output = "table",
) -> int:
    """Delete flow runs that have ended, or have not begun, with all that belongs to them."""
    wanted = await wanted_of("delete", run, which, dry_run=dry_run)
    return await change(wanted, yes=yes, output=output, asks_always=True)


@app.command(
    epilogue=examples(
        "upwell flow-run fork cheery-hippo",
        "upwell flow-run fork cheery-hippo --before parse-3 --keep-changed",
        "upwell flow-run fork cheery-hippo --by-worker",
    )
)
def fork(
    run: str,
    /,
    *,
    before: str | None = None,
    by_worker: bool = False,
    entrypoint: Entrypoint = None,
    keep_changed: KeepChanged = False,
) -> int:
    """Run a durable flow run again as another one, which takes over what the first one finished.

    Args:
        run: Its id or name.
        before: A task run of it, by id or name: that one and all later ones are run anew.
        by_worker: A worker carries it out, as a run of the same deployment; unless said, it runs here and now.
    """
    import asyncio  # here: help needs none

    from upwell.cli.here import fork_by_worker, fork_here

    if not by_worker:
        return fork_here(run, before, entrypoint, keep_changed)
    if entrypoint is not None or keep_changed:
        raise UsageError("--entrypoint and --keep-changed are for runs here: a worker takes the deployment's flow.")
    asyncio.run(fork_by_worker(run, before))
    return 0


# --- which ones ---------------------------------------------------------------------------------------------


async def _listed(
    history: History, wanted: FlowRunFilter, order: Order, limit: int, *, ahead: bool
) -> list[FlowRunRecord]:
    """The first so many. ahead: those that are due only later, too."""
    return await first_items(
        lambda n, after: history.flow_runs(**wanted, ahead=ahead, order=order, limit=n, after=after), limit
    )


async def _coming(history: History, wanted: FlowRunFilter, limit: int) -> list[FlowRunRecord]:
    """Those that are due only later, the soonest first: schedules make few ahead, so that all can be looked at."""
    state = wanted.get("state") or "SCHEDULED"
    scheduled = await _listed(history, {**wanted, "state": state}, "oldest", 0, ahead=True)
    moment = now()
    coming = [(run.due, run) for run in scheduled if run.due is not None and run.due > moment]
    return first_of([run for _, run in sorted(coming, key=itemgetter(0))], limit)


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
