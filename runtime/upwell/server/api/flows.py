"""Flows by name: those that have run, and those that have deployments."""

from __future__ import annotations

from litestar import get
from litestar.types import ControllerRouterHandler

from upwell.core.model import Page
from upwell.journal import measures
from upwell.server import auth
from upwell.server.api.asked import PAGE_ITEMS, After, Limit, Request, Text
from upwell.server.parts import parts_of


@get("/api/flows", opt=auth.READ)
async def flows(
    request: Request, text: Text = None, limit: Limit = PAGE_ITEMS, after: After = None
) -> Page[measures.FlowSummary]:
    """Flows, a page at a time, by name; with their last run."""
    return await measures.flows(parts_of(request).session, text=text, limit=limit, after=after)


def flow_routes() -> list[ControllerRouterHandler]:
    """The routes of this file."""
    return [flows]
