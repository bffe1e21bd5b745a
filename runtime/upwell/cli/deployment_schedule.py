"""`upwell deployment schedule`: when deployments run by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upwell.cli.asking import control
from upwell.cli.deployment import next_run, schedule_text, show_schedules
from upwell.cli.group import group
from upwell.cli.lookup import ref
from upwell.cli.output import UsageError, confirm, moment_text, say, say_json
from upwell.cli.times import ago_or_at, at, now, span
from upwell.cli.values import parameters_of
from upwell.core.deployments import Catchup, ScheduleSpec
from upwell.core.errors import InvalidRequestError

if TYPE_CHECKING:
    from upwell.cli.options import Output, Param, Params, Yes
    from upwell.core.deployments import Deployment, Schedule

app = group(
    "schedule",
    'upwell deployment schedule create etl/nightly --cron "0 3 * * *" --timezone Europe/Berlin',
    "upwell deployment schedule create etl/nightly --interval 10m --slug often --param limit=5",
    "upwell deployment schedule pause etl/nightly often",
    "upwell deployment schedule backfill etl/nightly --since 2026-01-01 --until 2026-01-31 --dry-run",
    more="A schedule goes by its slug in its deployment; one that is the only one need not be named.",
)


@app.command(reads=True)
async def ls(deployment: str, /, *, output: Output = "table") -> None:
    """List the schedules of a deployment.

    Args:
        deployment: flow/name, or its id.
    """
    async with control() as asked:
        show_schedules(await asked.deployment(ref(deployment)), output)


@app.command
async def create(
    deployment: str,
    /,
    *,
    cron: str | None = None,
    interval: str | None = None,
    rrule: str | None = None,
    timezone: str | None = None,
    anchor: str | None = None,
    slug: str | None = None,
    param: Param = (),
    params: Params = None,
    catchup: Catchup = "latest",
    max_late: str | None = None,
    paused: bool = False,
    replace: bool = False,
) -> None:
    """Add a schedule to a deployment.

    Args:
        deployment: flow/name, or its id.
        cron: Five or six fields of cron: "0 3 * * *".
        interval: So long between two runs: 90s, 10m, 1d.
        rrule: A rule of iCalendar: "FREQ=WEEKLY;BYDAY=MO,WE;BYHOUR=9".
        timezone: An IANA name, whose clock it goes by; UTC unless said.
        anchor: From when an interval or a rule counts.
        slug: What it is known by; made of the expression unless said.
        catchup: What becomes of the times that passed while nobody was there: none, latest or all.
        max_late: A run that has not begun so long after its time is skipped: 30m.
        paused: It makes no runs yet.
        replace: Put it in place of all schedules that there are.
    """
    from upwell.schedules import Schedule

    if sum(it is not None for it in (cron, interval, rrule)) != 1:
        raise UsageError("Say one of --cron, --interval and --rrule.")
    async with control() as asked:
        found = await asked.deployment(ref(deployment))
        wanted = Schedule(
            cron=cron,
            interval=None if interval is None else span(interval),
            rrule=rrule,
            timezone=timezone,
            anchor_date=None if anchor is None else at(anchor),
            slug=slug,
            parameters=parameters_of(param, params, found.parameter_schema),
            catchup=catchup,
            max_late_seconds=None if max_late is None else span(max_late).total_seconds(),
            active=not paused,
        )
        _refuse_to_replace(found, wanted.spec, replace)
        before = {it.slug for it in found.schedules}
        after = await asked.put_schedule(found.id, wanted.spec)
        [made] = [it for it in after.schedules if it.slug == slug or (slug is None and _is_like(it, wanted.spec))][:1]
        for slug in before - {made.slug} if replace else ():
            await asked.delete_schedule(found.id, slug)
    first = next_run(made)
    then = f"; next at {moment_text(first)}" if first else ""
    say(f"{found.full_name}: {made.slug} is scheduled: {schedule_text(made)}{then}.")


@app.command
async def pause(deployment: str, slug: str | None = None, /) -> None:
    """Have a schedule make no runs.

    Args:
        deployment: flow/name, or its id.
        slug: Which schedule, if there are several.
    """
    await _set_active(deployment, slug, False)


@app.command
async def resume(deployment: str, slug: str | None = None, /) -> None:
    """Have a paused schedule make runs again.

    Args:
        deployment: flow/name, or its id.
        slug: Which schedule, if there are several.
    """
    await _set_active(deployment, slug, True)


@app.command
async def delete(deployment: str, slug: str | None = None, /, *, yes: Yes = False) -> None:
    """Delete a schedule, with its runs that have not begun.

    Args:
        deployment: flow/name, or its id.
        slug: Which schedule, if there are several.
    """
    async with control() as asked:
        found = await asked.deployment(ref(deployment))
        chosen = _chosen(found, slug)
        confirm(f"Delete the schedule {chosen.slug} of {found.full_name}?", yes)
        await asked.delete_schedule(found.id, chosen.slug)
    say(f"{found.full_name}: the schedule {chosen.slug} is deleted.")


@app.command
async def clear(deployment: str, /, *, yes: Yes = False) -> None:
    """Delete all schedules of a deployment.

    Args:
        deployment: flow/name, or its id.
    """
    async with control() as asked:
        found = await asked.deployment(ref(deployment))
        confirm(f"Delete {len(found.schedules)} schedules of {found.full_name}?", yes)
        for schedule in found.schedules:
            await asked.delete_schedule(found.id, schedule.slug)
    say(f"{found.full_name} has no schedules.")


@app.command
async def backfill(
    deployment: str,
    slug: str | None = None,
    /,
    *,
    since: str,
    until: str | None = None,
    dry_run: bool = False,
    output: Output = "table",
) -> None:
    """Make the runs that a schedule would have made in a past time, where there is none yet.

    Args:
        deployment: flow/name, or its id.
        slug: Which schedule, if there are several.
        since: From this time on: 2026-01-01, or so long ago: 7d.
        until: Until this time; now unless said.
        dry_run: Only say which.
    """
    async with control() as asked:
        found = await asked.deployment(ref(deployment))
        chosen = _chosen(found, slug)
        begin, end = ago_or_at(since), ago_or_at(until) or now()
        assert begin is not None
        ticks = await asked.backfill(found.id, chosen.slug, begin, end, dry_run=dry_run)
    if output == "json":
        say_json(ticks)
        return
    for tick in ticks:
        say(moment_text(tick))
    say(f"{len(ticks)} runs {'would be' if dry_run else 'are'} made.")


def _refuse_to_replace(deployment: Deployment, wanted: ScheduleSpec, all_may_go: bool) -> None:
    """One that is there stays as it is, unless it is the same in all.

    Raises:
        InvalidRequestError: another one is known by that slug.
    """
    from upwell.journal.schedules import slug_of  # here: help does without

    slug = slug_of(wanted)
    known = None if all_may_go else next((it for it in deployment.schedules if it.slug == slug), None)
    if known is not None and any(
        getattr(known, name) != getattr(wanted, name) for name in ScheduleSpec.__struct_fields__ if name != "slug"
    ):
        raise InvalidRequestError(
            f"{deployment.full_name} has a schedule {slug} already: give this one a --slug of its own, or delete that "
            f"one first (`upwell deployment schedule delete {deployment.full_name} {slug}`)."
        )


def _is_like(schedule: Schedule, wanted: ScheduleSpec) -> bool:
    names = ("kind", "expression", "timezone")
    return all(getattr(schedule, name) == getattr(wanted, name) for name in names)


async def _set_active(deployment: str, slug: str | None, active: bool) -> None:
    async with control() as asked:
        found = await asked.deployment(ref(deployment))
        chosen = _chosen(found, slug)
        await asked.set_schedule_active(found.id, chosen.slug, active)
    say(f"{found.full_name}: the schedule {chosen.slug} {'is active' if active else 'is paused'}.")


def _chosen(deployment: Deployment, slug: str | None) -> Schedule:
    for schedule in deployment.schedules:
        if schedule.slug == slug or (slug is None and len(deployment.schedules) == 1):
            return schedule
    known = ", ".join(it.slug for it in deployment.schedules) or "none"
    if slug is None:
        raise UsageError(f"Which schedule of {deployment.full_name}? It has: {known}.")
    from upwell.core.errors import NotFoundError

    raise NotFoundError(f"{deployment.full_name} has no schedule {slug!r}; it has: {known}.")
