"""From a template and its values to a page: escaped, with what every page has."""

from __future__ import annotations

import datetime as dt
import json
from functools import cache
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote, unquote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import MediaType
from litestar.connection import Request
from litestar.response import Redirect, Response

from upwell.core.states import StateType
from upwell.engine.clock import clock, moment
from upwell.server.access import Actor
from upwell.server.pages import pieces, shown
from upwell.server.pages.assets import asset, modules
from upwell.server.parts import Parts, parts_of

PageRequest = Request[Actor, Any, Any]

_FOLDER: Final = Path(__file__).parent / "templates"

_NOTICE: Final = "upwell_notice"
"""A cookie: no address can put words into a page's mouth."""
_LONGEST_NOTICE: Final = 500

SECTIONS: Final = (
    ("dashboard", "Dashboard", "/"),
    ("runs", "Runs", "/runs"),
    ("flows", "Flows", "/flows"),
    ("deployments", "Deployments", "/deployments"),
    ("pools", "Work pools", "/work-pools"),
    ("limits", "Limits", "/limits"),
    ("settings", "Settings", "/settings"),
)
"""What the navigation leads to: its picture, its name, its address."""


@cache
def environment() -> Environment:
    """The templates. What they are given is text and stays text: all of it is escaped."""
    made = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    names: dict[str, Any] = made.globals
    names |= {
        "asset": asset,
        "modules": modules,
        "sections": SECTIONS,
        "ago": shown.ago,
        "exact": shown.exact,
        "several": shown.several,
        "seconds_between": shown.seconds_between,
        "StateType": StateType,
        "state_order": shown.STATE_ORDER,
        "url": pieces.url,
        "icon": pieces.icon,
        "state": pieces.state,
        "when": pieces.when,
        "exact_time": pieces.exact_time,
        "duration": pieces.duration,
        "tags": pieces.tags,
        "named": pieces.named,
        "counted": pieces.counted,
        "bar": pieces.bar,
        "strip": pieces.strip,
    }
    made.filters |= {
        "took": shown.took,
        "number": shown.number,
        "short_number": shown.short_number,
        "size": shown.size,
        "brief": shown.brief,
        "kind": shown.kind_of,
        "level_kind": shown.level_kind,
        "as_json": as_json,
    }
    return made


def as_json(value: Any) -> str:
    """For people."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def now() -> dt.datetime:
    """The time that pages go by."""
    return moment(clock().time())


def page(
    request: PageRequest, template: str, *, section: str = "", status: int = 200, address: str = "", **values: Any
) -> Response[str]:
    """A page.

    section: which entry of the navigation it belongs to.
    address: where it is found again, if that is not where it was asked for: a form that was refused is shown again.
    """
    scope: dict[str, Any] = cast(Any, request.scope)
    actor: Actor | None = scope.get("user")
    is_looked_at = request.headers.get("sec-fetch-dest", "document") == "document"  # else it is only refreshed
    notice = request.cookies.get(_NOTICE, "") if is_looked_at else ""
    theme = request.cookies.get("upwell_theme", "")
    text = (
        environment()
        .get_template(template)
        .render(
            actor=actor,
            csrf_token=actor.csrf_token if actor is not None else "",
            may_run=actor is not None and actor.may("run"),
            may_admin=actor is not None and actor.may("admin"),
            section=section,
            theme=theme if theme in ("light", "dark") else "",
            now=now(),
            here=request.url.path,
            address=address,
            notice=unquote(notice),
            **values,
        )
    )
    answer = Response(text, media_type=MediaType.HTML, status_code=status, headers={"Cache-Control": "no-store"})
    if notice:
        answer.delete_cookie(_NOTICE, path="/")
    return answer


def session_ended() -> bytes:
    """The page for a form that came from somebody whose session had ended."""
    return environment().get_template("ended.html").render().encode()


def redirect(address: str, notice: str) -> Redirect:
    """Another page, which says this once: what was done."""
    answer = Redirect(address, status_code=303)
    if notice:
        answer.set_cookie(
            key=_NOTICE, value=quote(notice[:_LONGEST_NOTICE]), max_age=30, path="/", httponly=True, samesite="strict"
        )
    return answer


def parts(request: PageRequest) -> Parts:
    """The parts of the server."""
    return parts_of(request)


__all__ = ["PageRequest", "as_json", "environment", "now", "page", "parts", "redirect", "session_ended"]
