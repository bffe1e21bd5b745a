"""`upwell deployment`: flows that can be started by name."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING
from uuid import UUID

from upwell.cli.asking import control, each, recorded
from upwell.cli.group import Elsewhere, examples, group
from upwell.cli.listing import first_items
from upwell.cli.lookup import ref
from upwell.cli.output import UsageError, confirm, moment_text, note, say, say_json, show, show_fields
from upwell.cli.times import at, now, span
from upwell.cli.values import parameters_of

if TYPE_CHECKING:
    from upwell.cli.options import Deployments, Limit, Output, Param, Params, Tag, Text, Yes
    from upwell.core.deployments import Deployment, DeploymentSpec, Schedule

app = group(
    "deployment",
    "upwell deployment ls",
    "upwell deployment run etl/nightly --param day=2026-01-31 --watch",
    "upwell deployment run etl/nightly --params '{\"limit\": 5}' --start-in 10m",
    'upwell deployment schedule create etl/nightly --cron "0 3 * * *" --timezone Europe/Berlin',
    "upwell deployment pause etl/nightly",
    more="A deployment goes by flow/name, or by its id.",
)
app.add("schedule", Elsewhere("deployment_schedule.app", "Schedules: list, create, pause, backfill."))


@app.command(reads=True)
async def ls(
    *,
    flow: str | None = None,
    text: Text = None,
    tag: Tag = (),
    work_pool: str | None = None,
    limit: Limit = 50,
    output: Output = "table",
) -> None:
    """List deployments.

    Args:
        flow: Those of this flow.
        work_pool: Those of this work pool.
    """
    async with control() as asked:
        found = await first_items(
            lambda n, after: asked.deployments(
                flow=flow, text=text, tags=tag or None, work_pool=work_pool, limit=n, after=after
            ),
            limit,
        )
    show(
        found,
        [
            ("name", lambda it: it.full_name),
            ("work pool", lambda it: it.work_pool),
            ("schedules", schedules_text),
            ("next", _next_text),
            ("paused", lambda it: "paused" if it.paused else ""),
            ("tags", lambda it: it.tags),
        ],
        output,
        none="There is no such deployment. `upwell deploy` makes those of upwell.yaml, and `my_flow.serve()` one.",
    )


@app.command(reads=True)
async def inspect(deployment: str, /, *, output: Output = "table") -> None:
    """Show one deployment.

    Args:
        deployment: flow/name, or its id.
    """
    async with control() as asked:
        found = await asked.deployment(ref(deployment))
    show_fields(
        found,
        {
            "id": found.id,
            "name": found.full_name,
            "description": found.description,
            "entrypoint": found.entrypoint,
            "version": found.version,
            "paused": found.paused,
            "tags": found.tags,
            "parameters": found.parameters,
            "work pool": found.work_pool,
            "work queue": found.work_queue,
            "job variables": found.job_variables,
            "concurrency limit": found.concurrency_limit,
            "when full": found.when_full if found.concurrency_limit is not None else None,
            "created": found.created,
            "updated": found.updated,
        },
        output,
    )
    if output == "table" and found.schedules:
        say("")
        show_schedules(found, output)


@app.command(
    epilogue=examples(
        "upwell deployment run etl/nightly --param day=2026-01-31 --watch",
        "upwell deployment run etl/nightly --params @parameters.json --start-at 2026-02-01T08:00",
    )
)
async def run(
    deployment: str,
    /,
    *,
    param: Param = (),
    params: Params = None,
    start_in: str | None = None,
    start_at: str | None = None,
    name: str | None = None,
    tag: Tag = (),
    priority: int = 0,
    work_queue: str | None = None,
    job_variable: tuple[str, ...] = (),
    idempotency_key: str | None = None,
    watch: bool = False,
    output: Output = "table",
) -> int:
    """Start a run of a deployment, now or later; whoever serves it, or a worker of its pool, carries it out.

    Args:
        deployment: flow/name, or its id.
        start_in: So long from now: 90s, 10m, 2h.
        start_at: At this time: 2026-01-31T08:00.
        name: The name of the run.
        priority: Of two runs that are due, the one with the lower number begins first.
        work_queue: A queue of its work pool, in place of its own.
        job_variable: NAME=VALUE for its worker; may be given often.
        idempotency_key: If there is a run with this key already, that is the one.
        watch: Wait until it has ended. Exits with 1 if it did not complete.
    """
    from upwell.core.deployments import RunSpec

    due = _due(start_in, start_at)
    async with control() as asked:
        found = await asked.deployment(ref(deployment))
        wanted = RunSpec(
            parameters=parameters_of(param, params, found.parameter_schema),
            due=due,
            name=name,
            tags=tuple(tag),
            idempotency_key=idempotency_key,
            priority=priority,
            work_queue=work_queue,
            job_variables=parameters_of(job_variable, None, {}),
        )
        made = await asked.run_deployment(found.id, wanted)
    if output == "json":
        say_json(made)
    else:
        say(f"The run {made.name} ({made.id}) is to begin {f'at {moment_text(due)}' if due else 'now'}.")
    if found.paused:
        note(f"{found.full_name} is paused: `upwell deployment resume {found.full_name}` lets its runs begin.")
    return await _watched(made.id) if watch else 0


def _due(start_in: str | None, start_at: str | None) -> dt.datetime | None:
    if start_in is not None and start_at is not None:
        raise UsageError("Say --start-in or --start-at, not both.")
    if start_at is not None:
        return at(start_at)
    try:
        return None if start_in is None else now() + span(start_in)
    except OverflowError:
        raise UsageError(f"--start-in {start_in} is too long.") from None


async def _watched(run_id: UUID) -> int:
    from upwell.cli.watching import watch_flow_run  # here: only who watches waits

    async with recorded(watching=True) as history:
        return await watch_flow_run(history, run_id)


@app.command
async def pause(deployment: Deployments, /) -> int:
    """Pause deployments: nothing of them begins, and their schedules make no runs."""
    async with control() as asked:
        return await each(
            deployment, lambda it: asked.pause_deployment(ref(it), True), lambda _, it: f"{it.full_name} is paused."
        )


@app.command
async def resume(deployment: Deployments, /) -> int:
    """Have paused deployments go on."""
    async with control() as asked:
        return await each(
            deployment, lambda it: asked.pause_deployment(ref(it), False), lambda _, it: f"{it.full_name} goes on."
        )


@app.command
async def delete(deployment: Deployments, /, *, yes: Yes = False) -> int:
    """Delete deployments, with their schedules and the runs that have not begun."""
    confirm(f"Delete {', '.join(deployment)}?", yes)
    async with control() as asked:
        return await each(
            deployment, lambda it: asked.delete_deployment(ref(it)), lambda name, _: f"{name} is deleted."
        )


@app.command
async def set_limit(deployment: str, limit: int | None = None, /, *, when_full: str | None = None) -> None:
    """Have at most so many runs of a deployment go on at once; without a limit, any number.

    Args:
        deployment: flow/name, or its id.
        limit: How many.
        when_full: What becomes of a run that is due then: queue, cancel_new or cancel_running.
    """
    from typing import cast, get_args

    from msgspec.structs import replace

    from upwell.core.deployments import WhenFull

    if when_full is not None and when_full not in get_args(WhenFull):
        raise UsageError(f"--when-full is {when_full!r}, and must be {', '.join(get_args(WhenFull))}.")
    async with control() as asked:
        wanted = _spec_of(await asked.deployment(ref(deployment)))
        found = await asked.apply_deployment(
            replace(wanted, concurrency_limit=limit, when_full=cast("WhenFull", when_full or wanted.when_full))
        )
    shown = "any number" if found.concurrency_limit is None else str(found.concurrency_limit)
    say(f"{found.full_name}: {shown} of its runs at once.")


def _spec_of(found: Deployment) -> DeploymentSpec:
    from upwell.core.deployments import DeploymentSpec

    names = (name for name in DeploymentSpec.__struct_fields__ if name != "schedules")
    return DeploymentSpec(**{name: getattr(found, name) for name in names})


def schedules_text(deployment: Deployment) -> str:
    """Its schedules in few words."""
    return "; ".join(schedule_text(it) + ("" if it.active else " (paused)") for it in deployment.schedules)


def schedule_text(schedule: Schedule) -> str:
    if schedule.kind == "interval":
        from upwell.cli.output import span_text

        return f"every {span_text(float(schedule.expression))}"
    zone = "" if schedule.timezone == "UTC" else f" {schedule.timezone}"
    return f"{schedule.expression}{zone}"


def _next_text(deployment: Deployment) -> str:
    runs = [run for it in deployment.schedules if (run := next_run(it)) is not None]
    return moment_text(min(runs)) if runs and not deployment.paused else ""


def next_run(schedule: Schedule) -> dt.datetime | None:
    """When it makes the next run begin, as far as it is active."""
    from upwell.core.ticks import next_tick  # here: few commands show schedules

    return next_tick(schedule, now()) if schedule.active else None


def show_schedules(deployment: Deployment, output: Output) -> None:
    """All schedules of a deployment."""
    show(
        deployment.schedules,
        [
            ("slug", lambda it: it.slug),
            ("schedule", schedule_text),
            ("active", lambda it: it.active),
            ("catch-up", lambda it: it.catchup),
            ("next", next_run),
            ("parameters", lambda it: it.parameters or None),
        ],
        output,
        none=f"{deployment.full_name} has no schedules.",
    )
