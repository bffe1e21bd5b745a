"""The application: the perimeter, the API, and the pages where they are installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

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
            state = self.state
            self.perimeter = Perimeter(super().__call__, state.parts.access, state.public_files, state.ended_page)
        await self.perimeter(scope, receive, self.state.metrics.timed(scope, send))

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        """Those that look after what is here: records of msgspec. Else all of pydantic is loaded where it is installed:
        a server begins later, and is bigger."""
        return [*plugins, MsgspecDIPlugin()]


def create_app(parts: Parts) -> Server:
    """The application over these parts."""
    pages = _pages()
    state = {"public_files": pages.public_files, "ended_page": pages.ended_page, "metrics": ServerMetrics()}
    return Server(
        route_handlers=[*api_routes(), *pages.routes],
        guards=[auth.check],
        exception_handlers={**HANDLERS, **pages.faults},
        state=State({"parts": parts, **state}),
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


class _Pages(NamedTuple):
    """What the pages bring along.

    public_files: addresses of what somebody who is not known may see. faults: what is shown of faults.
    ended_page: makes the page for a form whose sender's session has ended.
    """

    routes: Sequence[ControllerRouterHandler] = ()
    public_files: frozenset[str] = frozenset()
    faults: Mapping[Any, Any] = MappingProxyType({})
    ended_page: Callable[[], bytes] | None = None


def _pages() -> _Pages:
    """The pages, where they are installed."""
    try:
        pages: Any = importlib.import_module(PAGES)
    except ModuleNotFoundError as error:
        if error.name != PAGES:
            raise
        return _Pages()
    if not hasattr(pages, "routes"):
        return _Pages()
    return _Pages(pages.routes(), frozenset(pages.PUBLIC_FILES), pages.FAULTS, pages.session_ended)
