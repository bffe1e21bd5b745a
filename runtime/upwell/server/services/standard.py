"""The services of a store: schedules' runs, late ones, what the dead have left, and what is too old."""

from __future__ import annotations

from typing import Final

from upwell.journal.control import Control
from upwell.journal.database import Database
from upwell.journal.liveness import LOOKS_PER_LEASE, Observer
from upwell.journal.retention import Limits, tidy
from upwell.journal.sweeping import Sweeper
from upwell.server.services.group import Service, Services
from upwell.settings import Settings

SCHEDULER: Final = "scheduler"
SCHEDULER_SECONDS: Final = 5.0
"""Runs are made ahead of their time, so that this is soon enough."""

LATE_SECONDS: Final = 5.0
REAPER_SECONDS: Final = 5.0
RETENTION_SECONDS: Final = 600.0


def upkeep_services(control: Control, settings: Settings) -> list[Service]:
    """What is done through the seam to the store."""

    async def mark_late() -> None:
        await control.mark_late(settings.late_seconds)

    return [
        Service(SCHEDULER, control.make_ticks, SCHEDULER_SECONDS),
        Service("late", mark_late, LATE_SECONDS),
        Service("jobs", control.reap_jobs, REAPER_SECONDS),
    ]


def store_services(
    database: Database,
    settings: Settings,
    process_id: str,
    sweeper: Sweeper | None = None,
    patience_seconds: float = 0.0,
) -> list[Service]:
    """What whoever has the store itself does beside.

    process_id: of whoever does it, for what only one does at a time. sweeper: for the folders of results, if they can
    be reached. patience_seconds: see `Observer`.
    """
    observer = Observer(database, process_id, settings.durable_max_crashes, patience_seconds)
    limits = Limits.of(settings)

    async def keep_tidy() -> None:
        await tidy(database, process_id, limits, sweeper)

    return [
        Service("reaper", observer.look, min(REAPER_SECONDS, settings.lease_seconds / LOOKS_PER_LEASE)),
        Service("retention", keep_tidy, RETENTION_SECONDS),
    ]


async def run_services(
    control: Control,
    settings: Settings,
    database: Database | None = None,
    process_id: str = "",
    sweeper: Sweeper | None = None,
    patience_seconds: float = 0.0,
) -> None:
    """All that is to be done, until cancelled. database: the store itself, for whoever has it."""
    services = upkeep_services(control, settings)
    if database is not None:
        services += store_services(database, settings, process_id, sweeper, patience_seconds)
    await Services(services).run()
