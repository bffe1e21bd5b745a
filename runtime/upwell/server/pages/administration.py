"""Settings as they are in force, keys to the API, and the record of who changed what."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any, Final, cast, get_args

from litestar import get, post
from litestar.params import FromQuery
from litestar.response import Redirect, Response
from msgspec.structs import asdict, fields

from upwell.core.deployments import Scope
from upwell.core.errors import InvalidRequestError
from upwell.core.shown import is_secret
from upwell.server import auth
from upwell.server.api.admin import version_of_upwell
from upwell.server.api.asked import PathId, note
from upwell.server.pages.login import open_session
from upwell.server.pages.rendering import PageRequest, now, page, parts, redirect
from upwell.settings import Settings

LIFETIMES: Final = (("Never", ""), ("In 30 days", "30"), ("In 90 days", "90"), ("In a year", "365"))
PAGE_ITEMS: Final = 100


@get("/settings", include_in_schema=False, opt=auth.READ)
async def settings_page(request: PageRequest) -> Response[str]:
    """What is set, and what is not."""
    here = parts(request)
    values = asdict(here.settings)
    defaults = {item.name: item.default for item in fields(Settings)}
    shown = [
        (f"UPWELL_{name.upper()}", _said(name, value), value != defaults.get(name)) for name, value in values.items()
    ]
    return page(
        request,
        "settings.html",
        section="settings",
        shown=shown,
        version=version_of_upwell(),
        place=here.database.place,
        via=auth.actor_of(request).via,
    )


def _said(name: str, value: Any) -> str:
    """A value for people; addresses of databases without their passwords."""
    if value is None:
        return ""
    if is_secret(name) and not isinstance(value, bool):
        return "••••••••"
    if isinstance(value, str) and "@" in value and "://" in value:
        scheme, _, rest = value.partition("://")
        return f"{scheme}://…@{rest.rpartition('@')[2]}"
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(map(str, cast(Iterable[Any], value))) if isinstance(value, tuple) else str(value)


@get("/keys", include_in_schema=False, opt=auth.ADMIN)
async def keys(request: PageRequest) -> Response[str]:
    """Keys to the API, without the keys themselves."""
    return await _keys_page(request)


async def _keys_page(request: PageRequest, secret: str = "", error: str = "") -> Response[str]:
    """secret: a key that was just made, and is shown this once."""
    found = sorted(await parts(request).control.keys(), key=lambda key: key.created, reverse=True)
    return page(
        request,
        "keys.html",
        section="settings",
        status=422 if error else 200,
        address="/keys" if error or secret else "",
        keys=found,
        scopes=get_args(Scope),
        lifetimes=LIFETIMES,
        secret=secret,
        error=error,
    )


@post("/keys/new", include_in_schema=False, opt=auth.ADMIN, status_code=200)
async def new_key(request: PageRequest) -> Response[str]:
    """Make a key; it is shown on the page that answers, and never again."""
    form = {key: str(value).strip() for key, value in (await request.form()).items()}
    scope, days = form.get("scope", "read"), form.get("days", "")
    if scope not in get_args(Scope) or (days and not days.isdigit()):
        return await _keys_page(request, error="Say what the key may do, and for how long.")
    expires = now() + dt.timedelta(days=int(days)) if days else None
    try:
        key, secret = await parts(request).control.create_key(form.get("name", ""), cast(Scope, scope), expires)
    except InvalidRequestError as error:
        return await _keys_page(request, error=str(error))
    access = parts(request).access
    access.forget()
    await note(request, "create key", key.name, key.scope)
    answer = await _keys_page(request, secret)
    if auth.actor_of(request).via == "loopback":  # from now on everybody needs a key, and this is the maker's
        open_session(request, answer, await access.log_in(secret))
    return answer


@post("/keys/{key_id:uuid}/revoke", include_in_schema=False, opt=auth.ADMIN)
async def revoke_key(request: PageRequest, key_id: PathId) -> Redirect:
    """A key that is revoked opens nothing any more."""
    key = await parts(request).control.revoke_key(key_id)
    parts(request).access.forget()
    await note(request, "revoke key", key.name)
    return redirect("/keys", f"{key.name} opens nothing any more.")


@get("/audit", include_in_schema=False, opt=auth.ADMIN)
async def audit(request: PageRequest, after: FromQuery[str] = "") -> Response[str]:
    """Who changed what, the newest first."""
    found = await parts(request).control.audit_records(limit=PAGE_ITEMS, after=after or None)
    return page(request, "audit.html", section="settings", records=found.items, next=found.next, first=not after)


__all__ = ["audit", "keys", "new_key", "revoke_key", "settings_page"]
