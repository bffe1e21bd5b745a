"""The first page: what runs, what failed and why, what is late, what comes, and how much happened over time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

from litestar import get
from litestar.params import FromQuery
from litestar.response import Response
from msgspec import Struct

from upwell.core.model import FlowRunRecord, StateCounts
from upwell.core.states import CANCELLED, COMPLETED, CRASHED, FAILED, RUNNING, SCHEDULED, StateType
from upwell.journal.views import LastRun, Views
from upwell.server import auth
from upwell.server.pages import charts
from upwell.server.pages.asked import flow_run_filter
from upwell.server.pages.pieces import url
from upwell.server.pages.rendering import PageRequest, now, page, parts
from upwell.server.parts import Parts

RANGES: Final = (("1 h", 1), ("6 h", 6), ("24 h", 24), ("7 d", 168), ("30 d", 720))
"""What times can be looked at: their names, and hours."""
_WORDS: Final = {1: "in the last hour", 6: "in 6 hours", 24: "in 24 hours", 168: "in 7 days", 720: "in 30 days"}
_SPAN_SECONDS: Final = {1: 60, 6: 300, 24: 900, 168: 7_200, 720: 28_800}

LISTED: Final = 8
FLOWS_LISTED: Final = 8
RECENT: Final = 200
"""Of so many runs, the newest, the flows are shown."""


class Tiles(Struct, frozen=True, kw_only=True):
    """The numbers at the top. rate: how many of a hundred that ended completed."""

    running: int
    late: int
    scheduled: int
    failed: int
    crashed: int
    completed: int
    rate: int | None


class FlowStrip(Struct, frozen=True, kw_only=True):
    """A flow and its last runs."""

    name: str
    last: LastRun | None
    strip: list[charts.Bar]


@get("/", include_in_schema=False, opt=auth.READ)
async def dashboard(
    request: PageRequest, hours: FromQuery[int] = 24, of: FromQuery[str] = "flow_runs"
) -> Response[str]:
    """What is going on."""
    of = of if of == "task_runs" else "flow_runs"
    hours = hours if hours in _SPAN_SECONDS else 24
    here = parts(request)
    views, moment = Views(here.session), now()
    since, until = _bounds(moment, hours)
    spans = charts.happened(await here.reader.counts("flow_runs", _SPAN_SECONDS[hours], since, until))
    drawn = spans if of == "flow_runs" else await here.reader.counts(of, _SPAN_SECONDS[hours], since, until)
    running = (await here.reader.flow_runs(flow_run_filter(state=RUNNING), "newest", LISTED, None)).items
    recent = await views.recent_flows(moment, RECENT)
    coming = await views.due_runs(LISTED)
    target = "/runs" if of == "flow_runs" else "/task-runs"
    return page(
        request,
        "dashboard.html",
        section="dashboard",
        ranges=RANGES,
        chosen=hours,
        of=of,
        range_words=_WORDS[hours],
        since_text=f"{hours}h",
        tiles=_tiles(spans, await views.open_runs()),
        chart=charts.activity(drawn, lambda start, end: url(target, since=start.isoformat(), until=end.isoformat())),
        totals=charts.sums(drawn),
        trouble=await _trouble(here, views, since),
        running=running,
        progress=await views.progress(run.id for run in running),
        coming=coming,
        flows=await flow_strips(here, recent[:FLOWS_LISTED], moment),
        nothing=not recent and not coming,
        place=here.database.place,
    )


def _bounds(moment: dt.datetime, hours: int) -> tuple[dt.datetime, dt.datetime]:
    """The time that is looked at: whole spans, the last of which is not over."""
    span = _SPAN_SECONDS[hours]
    until = dt.datetime.fromtimestamp((int(moment.timestamp()) // span + 1) * span, dt.UTC)
    return until - dt.timedelta(hours=hours), until


def _tiles(spans: list[StateCounts], open_runs: dict[tuple[StateType, str], int]) -> Tiles:
    totals = charts.sums(spans)
    ended = totals[FAILED] + totals[CRASHED] + totals[COMPLETED] + totals[CANCELLED]
    late = sum(number for (_, name), number in open_runs.items() if name == "Late")
    scheduled = sum(number for (kind, name), number in open_runs.items() if kind is SCHEDULED and name != "Late")
    return Tiles(
        running=sum(number for (kind, _), number in open_runs.items() if kind is RUNNING),
        late=late,
        scheduled=scheduled,
        failed=totals[FAILED],
        crashed=totals[CRASHED],
        completed=totals[COMPLETED],
        rate=totals[COMPLETED] * 100 // ended if ended else None,  # 100 only if all did
    )


async def _trouble(here: Parts, views: Views, since: dt.datetime) -> list[FlowRunRecord]:
    """What is late, then what failed or crashed, the newest first; a subflow only if its parent did not fail too."""
    ended = [
        run
        for state in (FAILED, CRASHED)
        for run in (
            await here.reader.flow_runs(flow_run_filter(state=state, since=since), "newest", LISTED * 2, None)
        ).items
    ]
    parents = {run.id for run in ended}
    ended = [run for run in ended if run.parent_flow_run_id not in parents]
    ended.sort(key=lambda run: run.end_time or run.created, reverse=True)
    return [*await views.due_runs(LISTED // 2, overdue=True), *ended][:LISTED]


async def flow_strips(here: Parts, names: Sequence[str], moment: dt.datetime) -> list[FlowStrip]:
    """Flows and their last runs; the one that ran last first."""
    last_runs = await Views(here.session).last_runs_of_flows(names, moment, charts.STRIP_RUNS)
    found: list[FlowStrip] = []
    for name in names:
        runs = last_runs.get(name, [])
        begun = next((run for run in runs if run.start_time is not None), runs[0] if runs else None)
        found.append(FlowStrip(name=name, last=begun, strip=charts.strip(runs, moment)))
    found.sort(key=lambda flow: flow.last.created.timestamp() if flow.last else 0.0, reverse=True)
    return found


__all__ = ["FlowStrip", "dashboard", "flow_strips"]
