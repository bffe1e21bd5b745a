"""What every request passes before anything else looks at it: its host, where it comes from, and who makes it.

1. It names this server as its host, by a name that is known: a foreign page whose name was pointed here reads nothing.
2. If it changes something, no foreign page has sent it.
3. Somebody makes it who may ask; but for the addresses in `PUBLIC`, each said in full.

Every answer goes out with headers that have a browser load, run and frame nothing that is not ours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import quote, urlsplit

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from upwell.core.errors import AccessError
from upwell.journal.database import StoreUnavailable
from upwell.server.access import COOKIE, Access, Actor, host_of
from upwell.server.auth import CHANGING
from upwell.server.conditional import with_tags
from upwell.server.problems import MEDIA_TYPE, Problem, encoded, headers_of, problem

PUBLIC: Final = frozenset({"/api/health", "/api/ready", "/login"})
"""All that is shown to who is not known; beside the files that the login page needs."""

LOGIN: Final = "/login"

_POLICY: Final = (
    b"default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    b"frame-ancestors 'none'"
)
HEADERS: Final = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
_CACHE: Final = (b"cache-control", b"no-cache, private")
_HTML: Final = {"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store"}


class Refused(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class Perimeter:
    """Stands before an application.

    public: addresses beside `PUBLIC` that anybody may see, each in full.
    ended_page: makes the page for whoever sends a form, and whose session has ended; None: there are no pages.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        public: Collection[str] = (),
        ended_page: Callable[[], bytes] | None = None,
    ) -> None:
        self._app = app
        self._access = access
        self._ended_page = ended_page
        self._public = PUBLIC | frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.WEBSOCKET:  # there is none here
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "not here"})
            return
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        send = _with_headers(send)
        try:
            actor = await self._check(scope)
        except Refused as refused:
            await _say(send, problem(refused.status, refused.detail))
        except StoreUnavailable:  # which one it is concerns nobody who is not known
            await _say(send, problem(HTTPStatus.SERVICE_UNAVAILABLE, "The store cannot be used now; try again."))
        else:
            if actor is None and scope["path"] not in self._public:
                await self._ask_who(scope, send)
                return
            told: Any = scope
            told["user"] = actor
            told["ask_again"] = lambda: self._check(scope)  # of an answer that lasts
            method = _method_of(scope)
            if method == "HEAD":
                method, scope, send = "GET", _as_get(scope), _without_body(send)
            await self._app(scope, receive, with_tags(send, method, _headers_of(scope).get("if-none-match")))

    async def _check(self, scope: Any) -> Actor | None:
        headers = _headers_of(scope)
        host = host_of(headers.get("host", ""))
        if host is None or not self._access.is_our_name(host):
            raise Refused(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"This server does not know itself by the name {(host or '')[:100]!r}. If it is one of its names, set "
                "UPWELL_SERVER_HOSTS.",
            )
        if _method_of(scope) in CHANGING:
            _check_origin(headers)
        client = scope.get("client")
        try:
            return await self._access.actor(headers, _cookie_of(headers), client[0] if client else None, host)
        except AccessError as error:
            raise Refused(HTTPStatus.UNAUTHORIZED, str(error)) from None

    async def _ask_who(self, scope: Any, send: Send) -> None:
        path = scope["path"]
        is_page = "text/html" in _headers_of(scope).get("accept", "") and not path.startswith("/api/")
        if is_page and _method_of(scope) == "POST" and self._ended_page is not None:
            await _answer(send, HTTPStatus.UNAUTHORIZED, self._ended_page(), _HTML)
            return
        if is_page and _method_of(scope) in ("GET", "HEAD"):
            query = scope.get("query_string", b"").decode("latin-1")
            following = path + (f"?{query}" if query else "")
            await _answer(send, HTTPStatus.SEE_OTHER, b"", {"Location": f"{LOGIN}?next={quote(following, safe='')}"})
            return
        detail = "This needs an API key: `Authorization: Bearer KEY`. `upwell api-key create NAME` makes one."
        await _say(send, problem(HTTPStatus.UNAUTHORIZED, detail))


def _method_of(scope: Any) -> str:
    return str(scope.get("method", ""))


def _as_get(scope: Any) -> Any:
    """A HEAD as the GET that it stands for; the server that has received it still knows it as what it is."""
    return {**scope, "method": "GET"}


def _without_body(send: Send) -> Send:
    """The answer to a GET, cut off after its headers; a stream as well."""

    async def send_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_headers


def _check_origin(headers: dict[str, str]) -> None:
    """A browser says where a page comes from that sends something; programs say nothing."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and _netloc_of(origin) != headers.get("host", "").strip().lower():
        raise Refused(HTTPStatus.FORBIDDEN, "This was sent by a page of another origin, and was not done.")
    if site is not None and site not in ("same-origin", "none"):
        raise Refused(HTTPStatus.FORBIDDEN, "This was sent by a page of another site, and was not done.")


def _netloc_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # such as a bracket that is not closed
        return None


def _headers_of(scope: Any) -> dict[str, str]:
    """By name in small letters. What comes twice is kept as both: it then means nothing, and is refused."""
    found: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in found:
            value = f"{found[name]}{'; ' if name == 'cookie' else ', '}{value}"
        found[name] = value
    return found


def _cookie_of(headers: dict[str, str]) -> str | None:
    if COOKIE not in headers.get("cookie", ""):
        return None
    try:
        morsel = SimpleCookie(headers["cookie"]).get(COOKIE)
    except CookieError:
        return None
    return None if morsel is None else morsel.value


def _with_headers(send: Send) -> Send:
    """An answer with what a browser has to know; what the answer says itself goes before."""

    async def send_with(message: Message) -> None:
        if message["type"] == "http.response.start":
            said = {name.lower() for name, _ in message["headers"]}
            more = [header for header in (*HEADERS, _CACHE) if header[0] not in said]
            message["headers"] = [*message["headers"], *more]
        await send(message)

    return send_with


async def _say(send: Send, what: Problem) -> None:
    """Why a request goes no further."""
    await _answer(send, what.status, encoded(what), {"Content-Type": MEDIA_TYPE})


async def _answer(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    said = {"Content-Length": str(len(body)), **headers_of(status), **headers}
    start: Any = {
        "type": "http.response.start",
        "status": int(status),
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in said.items()],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})
