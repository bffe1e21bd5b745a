"""Logging in to the pages with an API key, and out."""

from __future__ import annotations

from typing import Any

from litestar import get, post
from litestar.response import Redirect, Response

from upwell.core.errors import AccessError
from upwell.server import auth
from upwell.server.access import COOKIE
from upwell.server.pages.rendering import PageRequest, page, parts

NEXT = frozenset({"next"})


def _own_address(text: str) -> str:
    """An address of ours that this text says, else the first page: nobody is led elsewhere by logging in."""
    safe = text.startswith("/") and not text.startswith("//") and "\\" not in text and text.isprintable()
    return text if safe else "/"


@get("/login", include_in_schema=False, opt={**auth.PUBLIC, "query": NEXT})
async def login_page(request: PageRequest) -> Response[str]:
    """Asks for a key."""
    return page(request, "login.html", following=_own_address(request.query_params.get("next", "/")), error="")


@post("/login", include_in_schema=False, opt=auth.PUBLIC)
async def log_in(request: PageRequest) -> Response[str] | Redirect:
    """Opens a session for whoever has the key."""
    form = await request.form()
    following = _own_address(str(form.get("next", "/")))
    try:
        token = await parts(request).access.log_in(str(form.get("key", "")).strip())
    except AccessError as error:
        return page(request, "login.html", status=403, following=following, error=str(error))
    answer = Redirect(following, status_code=303)
    open_session(request, answer, token)
    return answer


def open_session(request: PageRequest, answer: Response[Any], token: str) -> None:
    """Have the browser keep a session that was opened."""
    secure = request.headers.get("origin", "").startswith("https:")
    answer.set_cookie(key=COOKIE, value=token, httponly=True, samesite="strict", path="/", secure=secure)


@post("/logout", include_in_schema=False, opt=auth.READ, status_code=303)
async def log_out(request: PageRequest) -> Redirect:
    """Ends the session."""
    token = request.cookies.get(COOKIE)
    if token:
        await parts(request).access.log_out(token)
    answer = Redirect("/login", status_code=303)
    answer.delete_cookie(COOKIE, path="/")
    return answer


__all__ = ["log_in", "log_out", "login_page", "open_session"]
