"""Schedules in the store: checked, changed, and the runs of their ticks, made ahead of their time.

A schedule knows up to which tick runs were made, so each tick is made once by whoever comes first; a tick's idempotency
key is the second lock. Ticks that passed before a run was made for them are made or left out as `catchup` says.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple
from uuid import UUID

from upwell.core.deployments import Deployment, Schedule, ScheduleSpec
from upwell.core.errors import InvalidRequestError
from upwell.core.ticks import Rhythm, check_rhythm, latest_tick, next_tick, ticks_after, ticks_between, zone_of
from upwell.journal.control_part import firsts, ids_json, json_of, new_id
from upwell.journal.database import Session
from upwell.journal.deployed_runs import NewRun, put_runs, take_back
from upwell.journal.reader_pages import micros_of
from upwell.journal.reader_records import moment

AHEAD_MICROS: Final = 3_600_000_000
"""How long before its time a run is made."""

LEAST_AHEAD: Final = 3
MOST_AHEAD: Final = 50
"""So many runs of one schedule are made ahead, whatever their time; and no more than so many at once."""

MOST_BACKFILL: Final = 1_000
"""Ticks of one request."""

NEVER: Final = 2**62
"""When a schedule is looked at that has no tick any more."""

_KINDS: Final = ("cron", "interval", "rrule")
_CATCHUPS: Final = ("none", "latest", "all")
_SLUG: Final = re.compile(r"[\w.-]{1,100}")
_SAID: Final = {"*": "x", "/": "by", ",": "and"}


# --- what is wanted -----------------------------------------------------------------------------------------


def checked_schedules(wanted: Sequence[ScheduleSpec]) -> dict[str, ScheduleSpec]:
    """The schedules by slug.

    Raises:
        InvalidRequestError: one cannot be read, or two have the same slug.
    """
    found: dict[str, ScheduleSpec] = {}
    for schedule in wanted:
        if schedule.kind not in _KINDS:
            raise InvalidRequestError(f"The kind of a schedule is {schedule.kind!r}, and must be {', '.join(_KINDS)}.")
        if schedule.catchup not in _CATCHUPS:
            raise InvalidRequestError(f"catchup is {schedule.catchup!r}, and must be {', '.join(_CATCHUPS)}.")
        if schedule.max_late_seconds is not None and not 0 < schedule.max_late_seconds < NEVER / 1e6:
            raise InvalidRequestError(f"max_late_seconds is {schedule.max_late_seconds}, and must be more than 0.")
        check_rhythm(schedule)
        slug = slug_of(schedule)
        if slug in found:
            raise InvalidRequestError(f"Two schedules are called {slug!r}: give them different slugs.")
        found[slug] = schedule
    return found


def slug_of(schedule: ScheduleSpec) -> str:
    """What it is known by.

    Raises:
        InvalidRequestError: a slug with other characters than letters, digits, `.`, `_` and `-`.
    """
    if schedule.slug is not None:
        if not _SLUG.fullmatch(schedule.slug):
            raise InvalidRequestError(
                f"The slug {schedule.slug!r} of a schedule must be 1 to 100 letters, digits, '.', '_' or '-'."
            )
        return schedule.slug
    text = "".join(_SAID.get(character, character) for character in schedule.expression.lower())
    zone = "" if schedule.timezone == "UTC" else f" {schedule.timezone.lower()}"
    return re.sub(r"[^a-z0-9]+", "-", f"{schedule.kind} {text}{zone}").strip("-")[:100]


def same_schedule(schedule: Schedule, wanted: ScheduleSpec) -> bool:
    """Whether nothing has to be changed."""
    names = ("kind", "expression", "timezone", "parameters", "active", "catchup", "max_late_seconds")
    return all(getattr(schedule, name) == getattr(wanted, name) for name in names) and (
        schedule.anchor == _anchor(wanted)
    )


def _anchor(wanted: ScheduleSpec) -> dt.datetime | None:
    """Its anchor as a moment: one without a time zone is of the schedule's."""
    anchor = wanted.anchor
    return anchor.replace(tzinfo=zone_of(wanted.timezone)) if anchor is not None and anchor.tzinfo is None else anchor


async def put_schedule(session: Session, deployment: Deployment, slug: str, wanted: ScheduleSpec, now: int) -> None:
    """Make a schedule, or make it like this; what it had made ahead is taken back. The deployment is locked."""
    anchor = _anchor(wanted)
    following = next_tick(wanted, moment(now))
    await session.fetch(
        "put_schedule",
        id=new_id(),
        deployment_id=str(deployment.id),
        slug=slug,
        kind=wanted.kind,
        expression=wanted.expression,
        timezone=wanted.timezone,
        anchor=None if anchor is None else micros_of(anchor, "anchor"),
        parameters=json_of(wanted.parameters),
        active=int(wanted.active),
        catchup=wanted.catchup,
        max_late=None if wanted.max_late_seconds is None else int(wanted.max_late_seconds * 1e6),
        now=now,
        next_tick=_micros(following),
    )
    after = now if wanted.active else 0  # of one that is switched off nothing begins any more
    ahead = await session.fetch("made_ahead", deployment_id=str(deployment.id), slug=slug, after=after)
    await take_back(session, firsts(ahead))


async def start_anew(session: Session, schedule: Schedule, now: int, *, skip: bool) -> None:
    """Have its ticks made again, now that those made ahead were taken back. skip: and not what was missed."""
    last = now if skip or schedule.last_tick is None else min(now, micros_of(schedule.last_tick, "last_tick"))
    following = _micros(next_tick(schedule, moment(last)))
    await session.fetch("move_schedule", id=str(schedule.id), last_tick=last, next_tick=following, look=0)


# --- ticks --------------------------------------------------------------------------------------------------


def tick_key(deployment_id: UUID, slug: str, tick: int) -> str:
    """The idempotency key of the run of a tick."""
    return f"schedule:{deployment_id}:{slug}:{tick}"


class Due(NamedTuple):
    """Which ticks are to be made now. last: up to which all are done. look: when to come again."""

    ticks: list[int]
    last: int
    following: int | None
    look: int


async def refill(session: Session, deployment: Deployment, schedule: Schedule, now: int) -> int:
    """Make the runs of a schedule that are to be there by now; both are locked. How many."""
    due = ticks_to_make(schedule, now)
    keys = {tick_key(schedule.deployment_id, schedule.slug, tick): tick for tick in due.ticks}
    for key in firsts(await session.fetch("flow_runs_of_keys", flow=deployment.flow_name, keys=ids_json(keys))):
        del keys[key]
    parameters = {**deployment.parameters, **schedule.parameters}
    late = None if schedule.max_late_seconds is None else int(schedule.max_late_seconds * 1e6)
    runs = [
        NewRun(tick, parameters, None if late is None else tick + late, schedule.slug, idempotency_key=key)
        for key, tick in keys.items()
    ]
    made = await put_runs(session, deployment, runs, now)
    await session.fetch(
        "move_schedule", id=str(schedule.id), last_tick=due.last, next_tick=due.following, look=due.look
    )
    return len(made)


def ticks_to_make(schedule: Schedule, now: int) -> Due:
    """Those missed, as `catchup` says, and those of the coming hour: at least 3 and at most 50."""
    last = now if schedule.last_tick is None else micros_of(schedule.last_tick, "last_tick")
    missed = _missed(schedule, last, now)
    if len(missed) == MOST_AHEAD:
        return Due(missed, missed[-1], _following(schedule, missed[-1]), 0)
    ahead: list[int] = []
    following: int | None = None
    for tick in _after(schedule, now):
        if len(ahead) == MOST_AHEAD or (tick > now + AHEAD_MICROS and len(ahead) >= LEAST_AHEAD):
            following = tick
            break
        ahead.append(tick)
    new = [*missed, *(tick for tick in ahead if tick > last)]
    made = [tick for tick in new if not _is_too_late(schedule, tick, now)]
    return Due(made, max([last, *new]), following, _look(ahead, following))


def _missed(schedule: Schedule, last: int, now: int) -> list[int]:
    """The ticks that passed without a run being made, as far as they are to be run."""
    if schedule.catchup == "none" or last >= now:
        return []
    if schedule.catchup == "latest":
        latest = latest_tick(schedule, moment(last), moment(now))
        return [] if latest is None else [micros_of(latest, "tick")]
    since = last if schedule.max_late_seconds is None else max(last, now - int(schedule.max_late_seconds * 1e6))
    return [tick for tick in islice(_after(schedule, since), MOST_AHEAD) if tick <= now]


def _is_too_late(schedule: Schedule, tick: int, now: int) -> bool:
    return schedule.max_late_seconds is not None and tick + schedule.max_late_seconds * 1e6 < now


def _look(ahead: Sequence[int], following: int | None) -> int:
    """When there will be fewer runs ahead than there ought to be."""
    if following is None:
        return NEVER
    if len(ahead) >= MOST_AHEAD:
        return ahead[MOST_AHEAD // 2]
    return min(following - AHEAD_MICROS, ahead[len(ahead) - LEAST_AHEAD])


def backfill_ticks(schedule: Schedule, since: int, until: int) -> list[int]:
    """The ticks of a past time.

    Raises:
        InvalidRequestError: they are too many.
    """
    ticks = [
        micros_of(tick, "tick")
        for tick in islice(ticks_between(schedule, moment(since), moment(until)), MOST_BACKFILL + 1)
    ]
    if len(ticks) > MOST_BACKFILL:
        raise InvalidRequestError(
            f"There are more than {MOST_BACKFILL:,} ticks in this time: ask for a part of it at a time."
        )
    return ticks


def _following(schedule: Schedule, tick: int) -> int | None:
    return _micros(next_tick(schedule, moment(tick)))


def _after(rhythm: Rhythm, after: int) -> Iterator[int]:
    return (micros_of(tick, "tick") for tick in ticks_after(rhythm, moment(after)))


def _micros(tick: dt.datetime | None) -> int | None:
    return None if tick is None else micros_of(tick, "tick")
