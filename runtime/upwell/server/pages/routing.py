"""All handlers of the pages, and what is shown where a page cannot be."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from litestar import Router
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.response import Response

from upwell.core.errors import UnknownRunError
from upwell.engine.loggers import ENGINE
from upwell.server.pages.administration import audit, keys, new_key, revoke_key, settings_page
from upwell.server.pages.assets import static_file
from upwell.server.pages.dashboard import dashboard
from upwell.server.pages.deployments import change_deployment, custom_run, custom_run_form, deployment, deployments
from upwell.server.pages.flows import flow, flows
from upwell.server.pages.limits import delete_limit, limits, put_limit
from upwell.server.pages.login import log_in, log_out, login_page
from upwell.server.pages.rendering import PageRequest, page
from upwell.server.pages.run import change_run, run
from upwell.server.pages.runs import bulk, runs
from upwell.server.pages.schedules import add_schedule, change_schedule
from upwell.server.pages.search import search
from upwell.server.pages.task_runs import task_run, task_runs
from upwell.server.pages.work_pools import change_pool, new_pool, work_pool, work_pools
from upwell.server.problems import HANDLERS, STATUS_OF, headers_of

_TITLES: Final = {
    HTTPStatus.NOT_FOUND: "There is nothing here",
    HTTPStatus.FORBIDDEN: "This is not allowed",
    HTTPStatus.CONFLICT: "That cannot be done now",
    HTTPStatus.UNPROCESSABLE_ENTITY: "That cannot be used",
    HTTPStatus.SERVICE_UNAVAILABLE: "The store cannot be reached just now",
}


def _error_page(request: PageRequest, status: int, detail: str) -> Response[str]:
    title = _TITLES.get(HTTPStatus(status), HTTPStatus(status).phrase)
    made = page(request, "error.html", status=status, title=title, detail=detail, code=int(status))
    made.headers |= headers_of(status)
    return made


def _of_ours(request: PageRequest, error: Exception) -> Response[str]:
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), HTTPStatus.BAD_REQUEST)
    return _error_page(request, status, str(error))


def _of_http(request: PageRequest, error: HTTPException) -> Response[str]:
    return _error_page(request, error.status_code, error.detail)


def _of_any(request: PageRequest, error: Exception) -> Response[str]:
    ENGINE.error("A page could not be made", exc_info=error)
    return _error_page(request, 500, "The server has met a fault of its own, which its log tells more about.")


_STATUS: Final[dict[type[Exception], int]] = {UnknownRunError: HTTPStatus.NOT_FOUND, **STATUS_OF}
_HANDLERS: Final[dict[Any, Any]] = {
    **dict.fromkeys(_STATUS, _of_ours),
    HTTPException: _of_http,
    Exception: _of_any,
}


def _nowhere(request: PageRequest, error: HTTPException) -> Response[Any]:
    """An address that nothing has: a page for people, a problem for programs."""
    if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
        answer: Response[Any] = HANDLERS[HTTPException](request, error)
        return answer
    return _error_page(request, error.status_code, "No page has this address.")


FAULTS: Final[dict[Any, Any]] = {NotFoundException: _nowhere, MethodNotAllowedException: _nowhere}
"""What the whole server shows of a fault that no route has met."""


def pages_router() -> Router:
    """All of them."""
    handlers: list[Any] = [
        static_file,
        dashboard,
        runs,
        bulk,
        run,
        change_run,
        task_runs,
        task_run,
        flows,
        flow,
        deployments,
        deployment,
        custom_run_form,
        custom_run,
        change_deployment,
        add_schedule,
        change_schedule,
        work_pools,
        work_pool,
        new_pool,
        change_pool,
        limits,
        put_limit,
        delete_limit,
        settings_page,
        keys,
        new_key,
        revoke_key,
        audit,
        search,
        login_page,
        log_in,
        log_out,
    ]
    return Router(path="/", route_handlers=handlers, exception_handlers=_HANDLERS)


__all__ = ["FAULTS", "pages_router"]
