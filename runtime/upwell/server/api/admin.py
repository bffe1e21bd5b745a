"""Whether the server is there, of which version it is, and who changed what."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from litestar import Response, get
from litestar.types import ControllerRouterHandler
from msgspec import Struct

from upwell.core.deployments import AuditRecord
from upwell.core.model import Page
from upwell.journal.database import StoreError
from upwell.server import auth
from upwell.server.api.asked import PAGE_ITEMS, After, Limit, Request
from upwell.server.parts import parts_of


class Health(Struct, frozen=True):
    """Whether it is well."""

    status: str


class Version(Struct, frozen=True):
    """Of which version the server is."""

    version: str


@get("/api/health", opt=auth.PUBLIC, security=[])
async def health() -> Health:
    """The server answers."""
    return Health("ok")


@get("/api/ready", opt=auth.PUBLIC, security=[])
async def ready(request: Request) -> Response[Health]:
    """The server can use its store."""
    try:
        await parts_of(request).session.fetch("any_key")
    except StoreError:
        return Response(Health("the store cannot be used"), status_code=503)
    return Response(Health("ok"))


@get("/api/version", opt=auth.READ)
async def server_version() -> Version:
    """The version of the server."""
    return Version(version_of_upwell())


def version_of_upwell() -> str:
    """The version that is installed."""
    try:
        return version("upwell")
    except PackageNotFoundError:
        return "0"


@get("/api/audit", opt=auth.ADMIN)
async def audit(request: Request, limit: Limit = PAGE_ITEMS, after: After = None) -> Page[AuditRecord]:
    """Who changed what, newest first."""
    return await parts_of(request).control.audit_records(limit=limit, after=after)


def admin_routes() -> list[ControllerRouterHandler]:
    """The routes of this file."""
    return [health, ready, server_version, audit]
