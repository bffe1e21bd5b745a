"""Every route is closed unless it says otherwise: walked with no key, wrong keys, too small ones, and by tricks."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from litestar.routes import HTTPRoute
from tests.runtime.server.serving import Asked, asking

from upwell.journal import api_keys
from upwell.journal.control_part import now_micros
from upwell.server.access import SCOPES
from upwell.server.app import Server
from upwell.server.perimeter import PUBLIC

ID = "01a2002d-6a01-7143-816b-ca90af17019f"
TRICKS = (
    "/api/health/../api-keys",
    "/api/api-keys/health",
    "/api/api-keys/login",
    "/api/api-keys;/api/health",
    "/api/api-keys/",
    "//api/api-keys",
    "/api//api-keys",
    "/API/API-KEYS",
    "/api/api-keys%2f",
    "/api/api-keys%00/api/health",
    "/api/api-keys?next=/login",
    "/login/../api/api-keys",
    "/login/api-keys",
    "/login/",
    "/loginx",
    "/api/health/x",
    "/api/healthz",
    "/static/../api/api-keys",
    "/static/%2e%2e/%2e%2e/settings.py",
    "/static/..%2f..%2fsettings.py",
    "/api/%61pi-keys",
    "/api/openapi.json",
    "/api",
    "/metrics",
    "/api/stream",
)


def routes(app: Server) -> Iterator[tuple[str, str, Any]]:
    """Method, address and handler of every route."""
    for route in app.routes:
        assert isinstance(route, HTTPRoute), f"{route.path} is not walked"
        path = re.sub(r"\{\w+:uuid\}", ID, route.path)
        path = re.sub(r"\{\w+:\w+\}", "x", path)
        for handler in route.route_handlers:
            for method in handler.http_methods:
                if method != "OPTIONS":
                    yield str(method), path, handler


async def answers(asked: Asked, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
    """The status, without waiting for streams to end."""
    request = asked.http.build_request(method, path, headers=headers)
    async with asyncio.timeout(10):
        answer = await asked.http.send(request)
    return answer.status_code, answer.headers.get("location", "")


def is_closed(answer: tuple[int, str]) -> bool:
    status, location = answer
    return status == 401 or (status == 303 and location.startswith("/login?next="))


def public(app: Server) -> set[str]:
    return set(PUBLIC) | set(app.state.public_files)


async def keys(asked: Asked) -> list[dict[str, str]]:
    """Headers with which nobody is let in."""
    control = asked.parts.control
    revoked, secret = await control.create_key("revoked", "admin")
    await control.revoke_key(revoked.id)
    with pytest.MonkeyPatch.context() as an_hour_ago:
        an_hour_ago.setattr(api_keys, "now_micros", lambda: now_micros() - 3_600_000_000)
        _, expired = await control.create_key("expired", "admin", dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1))
    _, good = await control.create_key("good", "admin")
    wrong = ("x", secret, expired, good + "x", good[:-1], good.upper(), "", " " + good, good + "\x00")
    return [
        {},
        *({"Authorization": f"Bearer {one}"} for one in wrong),
        {"Authorization": good},
        {"Authorization": f"Basic {good}"},
        {"Authorization": f"Bearer {good}, Bearer {good}"},
        {"Cookie": f"upwell_session={good}"},
        {"Cookie": 'upwell_session="; upwell_session=x'},
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Api-Key": good},
    ]


def test_nobody_gets_in_without_a_key_that_is_right(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as asked:
            wrong = await keys(asked)
            open_to_all = public(asked.app)
            walked = list(routes(asked.app))
            assert len(walked) > 50
            for method, path, _ in walked:
                if path in open_to_all:
                    continue
                for headers in wrong[:3]:
                    assert is_closed(await answers(asked, method, path, headers)), (method, path, headers)
            for headers in wrong:
                answer = await answers(asked, "GET", "/api/api-keys", headers)
                assert is_closed(answer), (headers, answer)
                answer = await answers(asked, "GET", "/flow-runs", {"Accept": "text/html", **headers})
                assert is_closed(answer), (headers, answer)

    asyncio.run(main())


def test_no_trick_with_addresses_opens_anything(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as asked:
            await asked.key("admin")
            for trick in TRICKS:
                for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get"):
                    assert is_closed(await raw(asked, method, trick)), (method, trick)

    asyncio.run(main())


async def raw(asked: Asked, method: str, target: str) -> tuple[int, str]:
    """What a request is answered whose address is sent as it is."""
    import urllib.parse

    path, _, query = target.partition("?")
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": urllib.parse.unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1:4200")],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 4200),
    }
    await asked.app(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers.get("location", "")


def test_a_key_may_do_what_its_scope_says_and_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as asked:
            have = {scope: await asked.key(scope) for scope in SCOPES}
            for method, path, handler in routes(asked.app):
                needs = handler.opt.get("needs", "admin")
                if needs == "public" or path == "/api/stream":
                    continue
                for scope in SCOPES:
                    status, _ = await answers(asked, method, path, have[scope])
                    enough = SCOPES.index(scope) >= SCOPES.index(needs)
                    assert (status != 403) == enough or (enough and scope != "admin"), (method, path, scope, status)
                    assert status != 401
                    assert enough or status == 403

    asyncio.run(main())


def test_what_changes_something_needs_more_than_to_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as asked:
            harmless = {"/api/cancel-requests/query", "/login", "/logout"}
            for method, path, handler in routes(asked.app):
                if method not in ("GET", "HEAD") and path not in harmless:
                    assert handler.opt.get("needs", "admin") in ("run", "admin"), (method, path)

    asyncio.run(main())


def test_there_are_no_web_sockets(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as asked:
            sent: list[Any] = []

            async def receive() -> Any:
                return {"type": "websocket.connect"}

            async def send(message: Any) -> None:
                sent.append(message)

            scope: Any = {"type": "websocket", "path": "/api/stream", "headers": [], "query_string": b""}
            await asked.app(scope, receive, send)
            assert [message["type"] for message in sent] == ["websocket.close"]

    asyncio.run(main())
