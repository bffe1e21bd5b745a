"""What a request is answered with when it cannot be served: a problem as RFC 9457 has it, that says what to do."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final, cast

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import ResponseSpec

from upwell.core.errors import (
    AccessError,
    ConfigurationError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    NotResumableError,
)
from upwell.engine.loggers import ENGINE
from upwell.journal.database import StoreUnavailable
from upwell.journal.limit_store import NotAlive
from upwell.journal.remote_client import TYPES
from upwell.journal.store import ProcessLost

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 2

_GONE: Final = "client disconnected prematurely"
"""As Litestar says it, which takes it for a fault of the server's."""


class Problem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What went wrong. errors: what is wrong where in what was sent."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] = []  # msgspec copies it


def problem(status: int, detail: str, errors: list[dict[str, str]] | None = None) -> Problem:
    """A problem with the usual title of its status."""
    return Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, errors=errors or [])


def encoded(what: Problem) -> bytes:
    """As it is sent."""
    return msgspec.json.encode(what)


def headers_of(status: int) -> dict[str, str]:
    """What else has to be said beside a problem."""
    if status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": 'Bearer realm="upwell"'}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return {}


def _response(what: Problem, headers: dict[str, str] | None = None) -> Response[bytes]:
    return Response(
        encoded(what),
        status_code=what.status,
        media_type=MEDIA_TYPE,
        headers={**headers_of(what.status), **(headers or {})},
    )


STATUS_OF: Final[dict[type[Exception], int]] = {
    NotFoundError: HTTPStatus.NOT_FOUND,
    ConflictError: HTTPStatus.CONFLICT,
    NotResumableError: HTTPStatus.CONFLICT,
    InvalidRequestError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ConfigurationError: HTTPStatus.UNPROCESSABLE_ENTITY,
    AccessError: HTTPStatus.FORBIDDEN,
    StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    ProcessLost: HTTPStatus.CONFLICT,
    NotAlive: HTTPStatus.CONFLICT,
}


def _of_ours(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    status = next(status for kind, status in STATUS_OF.items() if isinstance(error, kind))
    what = problem(status, str(error))
    what.type = f"{TYPES}{type(error).__name__}"
    return _response(what)


def _of_http(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    if error.detail == _GONE:
        return _response(problem(HTTPStatus.BAD_REQUEST, "Not all that was announced has been sent."))
    if error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _unexpected(error)
    errors = [_fault(item) for item in error.extra] if isinstance(error.extra, list) else []
    headers = {name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"}
    return _response(problem(error.status_code, _detail_of(error), errors), headers)


def _detail_of(error: HTTPException) -> str:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return "There is nothing at this address."
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return "This is larger than what is taken here: 1 MiB, but for the journal of processes elsewhere."
    return error.detail or HTTPStatus(error.status_code).phrase


def _fault(item: Any) -> dict[str, str]:
    """What is wrong with one value, as Litestar says it."""
    if not isinstance(item, dict):
        return {"message": str(item)}
    said = cast(dict[str, Any], item)
    found = {name: str(getattr(said[name], "value", said[name])) for name in _SAID if said.get(name)}
    if found.get("message") == repr(found.get("key")):
        found["message"] = "is missing"
    if found.get("source") == "body" and found.get("key") == "data":
        del found["key"]  # the whole of it, as handlers call it
    return found


_SAID: Final = ("key", "source", "message")


def _too_deep(_: Request[Any, Any, Any], __: RecursionError) -> Response[bytes]:
    return _response(problem(HTTPStatus.BAD_REQUEST, "What was sent is nested too deeply."))


def _no_text(_: Request[Any, Any, Any], error: UnicodeDecodeError) -> Response[bytes]:
    return _response(problem(HTTPStatus.BAD_REQUEST, f"What was sent is no UTF-8: {error.reason}."))


def _out_of_range(_: Request[Any, Any, Any], __: OverflowError) -> Response[bytes]:
    """As a time near the ends of the calendar is, once it is that of UTC, or a day earlier."""
    return _response(problem(HTTPStatus.UNPROCESSABLE_ENTITY, "A time or a number in what was sent is out of range."))


def _of_any(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    return _unexpected(error)


def _unexpected(error: Exception) -> Response[bytes]:
    """A fault of ours: said in the server's log, not to whoever asks."""
    ENGINE.error("A request could not be served", exc_info=error)
    detail = "The server has met a fault of its own, which its log tells more about."
    return _response(problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail))


_ANY: Final = (400, 401, 403, 404, 421, 422, 503)
_CHANGES: Final = (409, 413)


def problems_of(route: HTTPRouteHandler) -> dict[int, ResponseSpec]:
    """What a route may answer with instead, for the OpenAPI schema."""
    statuses = _ANY if route.http_methods <= {"GET", "HEAD"} else (*_ANY, *_CHANGES)
    return {
        status: ResponseSpec(
            Problem, generate_examples=False, description=HTTPStatus(status).phrase, media_type=MEDIA_TYPE
        )
        for status in statuses
    } | dict(route.responses or {})


HANDLERS: Final[dict[Any, Any]] = {
    **dict.fromkeys(STATUS_OF, _of_ours),
    HTTPException: _of_http,
    RecursionError: _too_deep,
    UnicodeDecodeError: _no_text,
    OverflowError: _out_of_range,
    Exception: _of_any,
}
