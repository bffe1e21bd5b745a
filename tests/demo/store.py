"""A store with a day in it: flows of `flows.py`, really run, on a clock that jumps from hour to hour."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import random
import sys
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.demo import flows

from upwell import composition
from upwell.composition import open_control
from upwell.core.deployments import DeploymentSpec, RunSpec, WorkPoolSpec, WorkQueue
from upwell.journal.limit_store import SqlLimits, checked_limit
from upwell.journal.sql_control import SqlControl
from upwell.schedules import Cron
from upwell.settings import temporary_settings
from upwell.testing import virtual_clock

DAY_SECONDS: Final = 86_400
Start = Callable[[], Coroutine[Any, Any, Any]]


def a_day(until: float) -> list[tuple[float, Start]]:
    """What begins when, in seconds after the day's begin."""
    plan: list[tuple[float, Start]] = []
    yesterday = dt.datetime.fromtimestamp(until - DAY_SECONDS, dt.UTC).date().isoformat()
    for hour in range(24):
        plan.append((hour * 3600 + 300, flows.hourly_weather))
        if hour % 3 == 0:
            plan.append((hour * 3600 + 1260, flows.sync_customers))
        if hour % 6 == 2:
            broken = hour == 20
            plan.append((hour * 3600 + 2400, lambda broken=broken: flows.daily_sales(yesterday, broken=broken)))  # type: ignore[misc]
        if hour % 12 == 4:
            plan.append((hour * 3600 + 600, flows.train_forecast))
        if hour % 8 == 7:
            plan.append((hour * 3600 + 1800, flows.crawl_catalogue))
    plan.append((DAY_SECONDS - 900, flows.hourly_weather))
    return sorted(plan, key=lambda entry: entry[0])


def live_a_day(until: float) -> None:
    """Run all of it, now."""
    with virtual_clock(start=until - DAY_SECONDS) as clock, _lines_at_its_time(clock.time):

        async def begin(after: float, start: Start) -> None:
            await asyncio.sleep(after)
            try:
                await start()
            except Exception:
                pass  # it is told by the run's state

        async def all_of_it() -> None:
            await asyncio.gather(*(begin(after, start) for after, start in a_day(until)))

        clock.run(all_of_it())
        composition.flush_journal()


@contextmanager
def _lines_at_its_time(time_of_day: Callable[[], float]) -> Generator[None]:
    """Log lines say the time of the clock that jumps."""
    make = logging.getLogRecordFactory()

    def made(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.created = time_of_day()
        return record

    logging.setLogRecordFactory(made)
    try:
        yield
    finally:
        logging.setLogRecordFactory(make)


async def furnish() -> None:
    """What people configure around flows: deployments with schedules, work pools, limits; and runs ahead."""
    async with open_control() as control:
        await control.put_work_pool(
            "warehouse", WorkPoolSpec(description="Two machines beside the database", concurrency_limit=8)
        )
        await control.put_work_queue(
            "warehouse", WorkQueue(name="urgent", priority=1, paused=False, concurrency_limit=2)
        )
        await control.put_work_pool("containers", WorkPoolSpec(kind="docker", description="Builds and models"))
        for wanted in deployments():
            await control.apply_deployment(wanted)
        await control.make_ticks()


def leave_one_waiting() -> None:
    """Four minutes ago somebody wanted a run, and nobody has taken it since."""

    async def wait() -> None:
        database = composition.make_database(read_only=False)
        await database.open()
        try:
            control = SqlControl(database)
            await control.run_deployment("daily-sales/every-morning", RunSpec())
            await asyncio.sleep(240)
            await control.mark_late(15)
        finally:
            await database.close()

    with virtual_clock(start=time.time() - 240) as clock:
        clock.run(wait())


async def set_limits() -> None:
    """Limits of the store; and the runs of the day are what their deployments have run."""
    database = composition.make_database(read_only=False)
    await database.open()
    try:
        for name, slots, taken in (("api", 10, 0.0), ("crawler", 24, 0.0), ("warehouse", 4, 0.0)):
            await SqlLimits(database).create(checked_limit(name, slots, taken, True))
        await database.fetch_text(
            "UPDATE flow_runs SET deployment_id = (SELECT id FROM deployments d WHERE d.flow = flow_runs.flow) "
            "WHERE deployment_id IS NULL AND parent_flow_run_id IS NULL"
        )
    finally:
        await database.close()


def deployments() -> list[DeploymentSpec]:
    """As they are wanted."""
    made = [
        flows.daily_sales.to_deployment(
            "every-morning",
            schedules=[
                Cron("0 6 * * MON-FRI", timezone="Europe/Berlin"),
                Cron("0 9 * * SAT", timezone="Europe/Berlin"),
            ],
            parameters={"currency": "EUR"},
            tags=["finance"],
            work_pool_name="warehouse",
            description="Orders of **all regions**, in the warehouse before anybody is at work. "
            "If it is late, see the [runbook](https://wiki.example/sales).",
        ),
        flows.hourly_weather.to_deployment("hourly", cron="5 * * * *"),
        flows.sync_customers.to_deployment("three-hourly", interval=10_800, tags=["crm"], work_pool_name="warehouse"),
        flows.train_forecast.to_deployment("twice-a-day", cron="0 4,16 * * *", concurrency_limit=1, tags=["models"]),
        flows.crawl_catalogue.to_deployment("catalogue", rrule="FREQ=DAILY;BYHOUR=7,15,23;BYMINUTE=30", paused=True),
    ]
    return [one.spec for one in made]


def fill(home: Path, *, runs: int = 0) -> None:
    """A home folder with a day in it. runs: task runs of one very large flow run, beside."""
    random.seed(7)
    with temporary_settings(home=str(home), journal="on", database_url=None):
        live_a_day(time.time())
        asyncio.run(furnish())
        leave_one_waiting()
        asyncio.run(set_limits())
        if runs:
            flows.score_everything(runs)
        composition.close_journal()


if __name__ == "__main__":
    fill(Path(sys.argv[1]), runs=int(sys.argv[2]) if len(sys.argv) > 2 else 0)
