"""What becomes of ticks that passed while nobody asked for their runs: none, the latest or all are run, by `catchup`.

Whoever asks for jobs leaves a note of it in the store. Who asks first after a minute without any sees to what has
passed meanwhile: makes the runs that are missing, and skips those that are not to be run. A worker that is busy asks
all the same, so what waits for its turn is never skipped.
"""

from __future__ import annotations

from typing import Any, Final

from upwell.core.states import CANCELLED
from upwell.journal.control_part import end_run, firsts, now_micros
from upwell.journal.database import Database, Session
from upwell.journal.upkeep import refill_schedule

ABSENT_MICROS: Final = 60_000_000
"""Nobody has asked for so long: nobody was there."""

NOTE_MICROS: Final = 10_000_000
"""How often it is noted that somebody asks."""

MOST_KNOWN: Final = 1_000


class Absence:
    """Notes who asks, and sees to what passed while nobody did."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: dict[str, int] = {}

    async def is_to_be_seen_to(self, scope: dict[str, Any]) -> bool:
        """Whether it is time for a note. scope: the `pool` and the `deployments` that are asked for."""
        key, now = repr(scope), now_micros()
        if 0 <= now - self._noted.get(key, -NOTE_MICROS) < NOTE_MICROS:
            return False
        if len(self._noted) >= MOST_KNOWN:
            self._noted.clear()
        self._noted[key] = now
        return True

    async def see_to(self, session: Session, scope: dict[str, Any]) -> None:
        """Leave the note; and see to what has passed, if there was none for long."""
        now = now_micros()
        if scope["pool"] is not None:
            await session.fetch("lock_pool", name=scope["pool"])
        await session.fetch("lock_deployments_asked_for", **scope)
        missed = await session.fetch("schedules_not_asked_for", before=now - ABSENT_MICROS, **scope)
        for schedule_id, deployment_id, _, _ in missed:
            await refill_schedule(session, schedule_id, deployment_id, now)
        for _, deployment_id, slug, catchup in missed:
            if catchup != "all":
                await _skip(session, deployment_id, slug, catchup, now)
        await session.fetch("asked_for_pool", name=scope["pool"], now=now)
        await session.fetch("asked_for_deployments", ids=scope["deployments"], now=now)


async def _skip(session: Session, deployment_id: str, slug: str, catchup: str, now: int) -> None:
    waiting = firsts(await session.fetch("ticks_waiting", deployment_id=deployment_id, slug=slug, now=now))
    for one in waiting[1:] if catchup == "latest" else waiting:
        message = f"Its time passed while nobody was there to run it, and its schedule's catchup is {catchup!r}."
        await end_run(session, one, now, CANCELLED.value, message, "Skipped")
