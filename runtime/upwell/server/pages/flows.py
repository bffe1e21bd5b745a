"""Flows: each with its last runs, and one with all of them, how long they take, and how it is deployed."""

from __future__ import annotations

from collections import Counter
from typing import Final

from litestar import get
from litestar.params import FromQuery
from litestar.response import Response

from upwell.core.errors import NotFoundError
from upwell.journal.views import Views
from upwell.server import auth
from upwell.server.api.asked import PathName
from upwell.server.pages.asked import LIST_QUERY, PAGE_ITEMS, Asked
from upwell.server.pages.dashboard import flow_strips
from upwell.server.pages.rendering import PageRequest, now, page, parts
from upwell.server.pages.runs import STATES, deployment_names
from upwell.server.pages.shown import seconds_between

MOST_FLOWS: Final = 500
SHOWN: Final = 100
"""Of more flows, those are found that the filter names."""


@get("/flows", include_in_schema=False, opt=auth.READ)
async def flows(request: PageRequest, q: FromQuery[str] = "") -> Response[str]:
    """All flows that have runs or deployments."""
    here = parts(request)
    deployed = Counter(item.flow_name for item in (await here.control.deployments(limit=MOST_FLOWS)).items)
    names = sorted({*await Views(here.session).flow_names(), *deployed})
    wanted = [name for name in names if q.lower() in name.lower()]
    return page(
        request,
        "flows.html",
        section="flows",
        q=q,
        flows=await flow_strips(here, wanted[:SHOWN], now()),
        left_out=max(len(wanted) - SHOWN, 0),
        deployed=deployed,
        any=bool(names),
    )


@get("/flows/{name:str}", include_in_schema=False, opt={**auth.READ, "query": LIST_QUERY})
async def flow(request: PageRequest, name: PathName) -> Response[str]:
    """One flow."""
    here = parts(request)
    asked = Asked.of({**request.query_params, "flow": name})
    found = await here.reader.flow_runs(asked.flow_runs(), "newest", PAGE_ITEMS, asked.after or None)
    deployments = (await here.control.deployments(flow=name, limit=MOST_FLOWS)).items
    strip = (await flow_strips(here, [name], now()))[0]
    if not found.items and not deployments and strip.last is None:
        raise NotFoundError(f"No flow {name!r} has run here or is deployed.")
    lengths = sorted(
        seconds
        for run in found.items
        if run.end_time and (seconds := seconds_between(run.start_time, run.end_time)) is not None
    )
    return page(
        request,
        "flow.html",
        section="flows",
        name=name,
        asked=asked,
        states=STATES,
        strip_bars=strip.strip,
        runs=found.items,
        next=found.next,
        median=lengths[len(lengths) // 2] if lengths else None,
        longest=lengths[-1] if lengths else None,
        deployments=deployments,
        names=await deployment_names(here, found.items),
        progress=await Views(here.session).progress(run.id for run in found.items),
    )


__all__ = ["flow", "flows"]
