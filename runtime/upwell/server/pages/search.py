"""Search over pages, flows, deployments and runs; as a page, or as the part of one that the palette shows."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote
from uuid import UUID

from litestar import get
from litestar.params import FromQuery
from litestar.response import Response
from msgspec import Struct

from upwell.core.deployments import Deployment
from upwell.core.errors import UnknownRunError
from upwell.core.model import FlowRunRecord
from upwell.journal.views import Views
from upwell.server import auth
from upwell.server.pages.asked import flow_run_filter
from upwell.server.pages.rendering import SECTIONS, PageRequest, page, parts
from upwell.server.pages.shown import kind_of
from upwell.server.parts import Parts

LISTED: Final = 6
LEAST_LETTERS: Final = 2
_BEGINNING: Final = re.compile(r"[0-9a-f]{8}[0-9a-f-]{0,27}")
"""Of an id, as people copy it: at least the part before the first dash."""


class Hit(Struct, frozen=True, kw_only=True):
    """Something that was found."""

    name: str
    href: str
    picture: str
    aside: str = ""


Hits = list[tuple[str, list[Hit]]]


@get("/search", include_in_schema=False, opt=auth.READ)
async def search(request: PageRequest, q: FromQuery[str] = "", part: FromQuery[str] = "") -> Response[str]:
    """What has this text in its name, or this id."""
    found = await _find(parts(request), q.strip()[:100])
    template = "_found.html" if part == "found" else "search.html"
    return page(request, template, q=q, found=[(kind, hits) for kind, hits in found if hits])


async def _find(here: Parts, text: str) -> Hits:
    if (by_id := await _by_id(here, text)) is not None:
        return [("By id", [by_id])]
    low = text.lower()
    pages = [
        Hit(name=name, href=href, picture=picture)
        for picture, name, href in (
            *SECTIONS,
            ("key", "API keys", "/keys"),
            ("runs", "Task runs", "/task-runs"),
            ("settings", "Audit record", "/audit"),
        )
        if low in name.lower()
    ]
    flows = [
        Hit(name=name, href=f"/flows/{quote(name)}", picture="flows", aside="flow")
        for name in await Views(here.session).flow_names()
        if low in name.lower()
    ]
    runs = (await here.reader.flow_runs(flow_run_filter(text=text or None, ahead=False), "newest", LISTED, None)).items
    deployments = (await here.control.deployments(text=text or None, limit=LISTED)).items
    begun = await here.reader.flow_runs_by_id(low, LISTED) if _BEGINNING.fullmatch(low) else []
    return [
        ("By id", [_of_run(run, "flow run") for run in begun]),
        ("Flows", flows[:LISTED] if text else []),
        ("Deployments", [_of_deployment(item) for item in (deployments if text else deployments[:3])]),
        ("Runs", [_of_run(run, run.state.name) for run in (runs if len(text) >= LEAST_LETTERS else runs[:3])]),
        ("Go to", pages),
    ]


def _of_run(run: FlowRunRecord, aside: str) -> Hit:
    name = f"{run.flow_name} / {run.name}"
    return Hit(name=name, href=f"/runs/{run.id}", picture=kind_of(run.state), aside=aside)


def _of_deployment(item: Deployment) -> Hit:
    aside = "paused" if item.paused else ""
    return Hit(name=item.full_name, href=f"/deployments/{item.id}", picture="deployments", aside=aside)


async def _by_id(here: Parts, text: str) -> Hit | None:
    """The run of this id, if it is one."""
    try:
        wanted = UUID(text)
    except ValueError:
        return None
    try:
        run = await here.reader.flow_run(wanted)
        return _of_run(run, "flow run")
    except UnknownRunError:
        pass
    try:
        task = await here.reader.task_run(wanted)
        return Hit(name=task.name, href=f"/task-runs/{task.id}", picture=kind_of(task.state), aside="task run")
    except UnknownRunError:
        return None


__all__ = ["search"]
