"""The application: the perimeter, the API, and the pages where they are installed."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Final

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.types import ControllerRouterHandler, Receive, Scope, Send

from upwell.server import auth
from upwell.server.api.admin import admin_routes, version_of_upwell
from upwell.server.api.deployments import deployment_routes
from upwell.server.api.flow_runs import flow_run_routes
from upwell.server.api.flows import flow_routes
from upwell.server.api.jobs import job_routes
from upwell.server.api.journal import journal_routes
from upwell.server.api.keys import key_routes
from upwell.server.api.limits import limit_routes
from upwell.server.api.stream import stream_routes
from upwell.server.api.task_runs import task_run_routes
from upwell.server.api.work_pools import work_pool_routes
from upwell.server.metrics import ServerMetrics, metrics_routes
from upwell.server.parts import Parts
from upwell.server.perimeter import Perimeter
from upwell.server.problems import HANDLERS, problems_of

MOST_BODY_BYTES: Final = 1024 * 1024
"""Of one request, unless its route says otherwise."""

PAGES: Final = "upwell.server.pages"

SCHEMA: Final = "/api/openapi.json"
"""Where the OpenAPI schema is."""


class Server(Litestar):
    """Litestar with the perimeter around it: nothing of it is reached by another way."""

    perimeter: Perimeter | None = None

    async def __call__(self, scope: Scope | Any, receive: Receive | Any, send: Send | Any) -> None:
        if self.perimeter is None:
            self.perimeter = Perimeter(super().__call__, self.state.parts.access, self.state.public_files)
        await self.perimeter(scope, receive, self.state.metrics.timed(scope, send))

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        """Those that look after what is here: records of msgspec. Else all of pydantic is loaded where it is installed:
        a server begins later, and is bigger."""
        return [*plugins, MsgspecDIPlugin()]


def create_app(parts: Parts) -> Server:
    """The application over these parts."""
    pages, public_files, faults = _pages()
    return Server(
        route_handlers=[*api_routes(), *pages],
        guards=[auth.check],
        exception_handlers={**HANDLERS, **faults},
        state=State({"parts": parts, "public_files": public_files, "metrics": ServerMetrics()}),
        openapi_config=_openapi(),
        request_max_body_size=MOST_BODY_BYTES,
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
    )


def api_routes() -> list[ControllerRouterHandler]:
    """Everything under `/api`, and `/metrics`."""
    routes = [
        *admin_routes(),
        *flow_routes(),
        *flow_run_routes(),
        *task_run_routes(),
        *deployment_routes(),
        *job_routes(),
        *journal_routes(),
        *work_pool_routes(),
        *limit_routes(),
        *key_routes(),
        *stream_routes(),
        *metrics_routes(),
    ]
    for route in routes:
        if isinstance(route, HTTPRouteHandler):
            route.responses = problems_of(route)
    return routes


def _openapi() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="upwell",
        version=version_of_upwell(),
        description="Flow runs, task runs, deployments, schedules, work pools and keys of one store.",
        render_plugins=[JsonRenderPlugin()],
        openapi_router=Router(path=SCHEMA, route_handlers=[], include_in_schema=False, opt=dict(auth.READ)),
        components=Components(security_schemes={"key": SecurityScheme(type="http", scheme="bearer")}),
        security=[{"key": []}],
        use_handler_docstrings=True,
    )


def _pages() -> tuple[Sequence[ControllerRouterHandler], frozenset[str], dict[Any, Any]]:
    """The pages, the addresses of those files that somebody who is not known may see, and what is shown of faults."""
    try:
        pages: Any = importlib.import_module(PAGES)
    except ModuleNotFoundError as error:
        if error.name != PAGES:
            raise
        return (), frozenset(), {}
    if not hasattr(pages, "routes"):
        return (), frozenset(), {}
    return pages.routes(), frozenset(pages.PUBLIC_FILES), pages.FAULTS
