"""What a route needs: each says it, and one that does not say it needs everything. Forms bring a word along.

Who asks has been found out before, at the perimeter; here it is compared with what the route's `opt` says.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any, Final

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.exceptions import PermissionDeniedException, ValidationException
from litestar.handlers.base import BaseRouteHandler

from upwell.core.deployments import Scope
from upwell.core.errors import AccessError
from upwell.server.access import Actor

PUBLIC: Final[dict[str, Any]] = {"needs": "public"}
READ: Final[dict[str, Any]] = {"needs": "read"}
RUN: Final[dict[str, Any]] = {"needs": "run"}
ADMIN: Final[dict[str, Any]] = {"needs": "admin"}

CHANGING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
CSRF_HEADER: Final = "x-csrf-token"
CSRF_FIELD: Final = "csrf_token"
_FORMS: Final = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")

Connection = ASGIConnection[Any, Any, Any, Any]


def actor_of(connection: Connection) -> Actor:
    """Who makes this request."""
    actor = _who(connection)
    if actor is None:  # a public route
        raise PermissionDeniedException("This needs an API key.")
    return actor


def _who(connection: Connection) -> Actor | None:
    scope: Any = connection.scope  # which is one of many kinds of dict
    actor: Actor | None = scope.get("user")
    return actor


async def check(connection: Connection, handler: BaseRouteHandler) -> None:
    """Whether a route may be asked like that, and by whoever asks.

    One guard, and not a plain function: Litestar copies the route for each, and has a thread call those (measured:
    0.3 ms a request, and a wait for the interpreter's lock where the loop is busy).
    """
    _check_scope(connection, handler)
    await _check_form(connection)
    _check_query(connection, handler)


def _check_scope(connection: Connection, handler: BaseRouteHandler) -> None:
    """Whether whoever asks may do what this route does."""
    needs = handler.opt.get("needs", "admin")
    if needs != "public":
        require(connection, needs)


def require(connection: Connection, scope: Scope) -> None:
    """Whether whoever asks has this scope.

    Raises:
        AccessError: not so.
    """
    actor = actor_of(connection)
    if not actor.may(scope):
        raise AccessError(f"This needs a key of the scope {scope!r}; {actor.name!r} has the scope {actor.scope!r}.")


async def _check_form(connection: Connection) -> None:
    """Whether what comes from a browser comes from our own pages: a form or a script of theirs knows the word."""
    actor = _who(connection)
    if actor is None or actor.via == "key" or not isinstance(connection, Request) or connection.method not in CHANGING:
        return
    kind = connection.headers.get("content-type", "").partition(";")[0].strip().lower()
    if actor.via == "loopback" and kind not in _FORMS:
        return  # a program of this machine; a foreign page cannot send such without asking first, and is refused then
    given = connection.headers.get(CSRF_HEADER)
    if given is None and kind in _FORMS[:2]:
        given = (await connection.form()).get(CSRF_FIELD)
    if given is None and actor.via == "loopback" and connection.scope["path"].startswith("/api/"):
        raise AccessError(
            f"The API takes nothing of the type {kind}, which any page in a browser could send: say "
            "`Content-Type: application/json`."
        )
    if not isinstance(given, str) or not secrets.compare_digest(given.encode(), actor.csrf_token.encode()):
        raise AccessError("This page is out of date, or was not made by this server: load it again.")


def _check_query(connection: Connection, handler: BaseRouteHandler) -> None:
    """Whether the query names only what the route knows: a filter that is misspelt would show too much."""
    allowed = handler.opt.get("query")
    if allowed is None:
        allowed = handler.opt["query"] = frozenset(_query_names(handler))
    unknown = [name for name in connection.query_params if name not in allowed]
    if unknown:
        raise ValidationException(
            "The query names what is not known here.",
            extra=[{"key": name, "source": "query", "message": "is not known here"} for name in unknown],
        )


def _query_names(handler: BaseRouteHandler) -> Iterator[str]:
    for name, field in handler.parsed_fn_signature.parameters.items():
        yield getattr(field.kwarg_definition, "name", None) or name
