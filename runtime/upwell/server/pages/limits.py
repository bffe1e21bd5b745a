"""Limits that hold for all processes of the store: how full they are, who waits; made, changed, deleted."""

from __future__ import annotations

from litestar import get, post
from litestar.response import Redirect, Response

from upwell.core.errors import ConfigurationError, InvalidRequestError, NotFoundError
from upwell.journal.limit_store import LimitChange, checked_limit
from upwell.server import auth
from upwell.server.api.asked import note
from upwell.server.pages.rendering import PageRequest, page, parts, redirect


@get("/limits", include_in_schema=False, opt=auth.READ)
async def limits(request: PageRequest) -> Response[str]:
    """All limits."""
    return await _list_page(request)


async def _list_page(request: PageRequest, filled: dict[str, str] | None = None, error: str = "") -> Response[str]:
    return page(
        request,
        "limits.html",
        section="limits",
        status=422 if error else 200,
        address="/limits" if error else "",
        limits=sorted(await parts(request).limits.in_use(), key=lambda limit: limit.name),
        filled=filled or {},
        error=error,
    )


@post("/limits/put", include_in_schema=False, opt=auth.ADMIN)
async def put_limit(request: PageRequest) -> Response[str] | Redirect:
    """Make a limit, or change the one of this name."""
    form = {key: str(value).strip() for key, value in (await request.form()).items()}
    try:
        row = checked_limit(
            form.get("name", ""),
            int(form.get("slots") or 1),
            float(form.get("decay") or 0),
            form.get("active", "true") == "true",
        )
        if not await parts(request).limits.create(row):
            await parts(request).limits.update(LimitChange(*row))
    except (ConfigurationError, InvalidRequestError, ValueError) as error:
        return await _list_page(request, form, str(error))
    await note(request, "put limit", row.name, str(row.slots))
    return redirect("/limits", f"The limit {row.name} is {row.slots}.")


@post("/limits/delete", include_in_schema=False, opt=auth.ADMIN)
async def delete_limit(request: PageRequest) -> Redirect:
    """Remove a limit: nobody waits for it any more."""
    name = str((await request.form()).get("name", ""))
    if not await parts(request).limits.delete(name):
        raise NotFoundError(f"There is no limit {name!r}.")
    await note(request, "delete limit", name)
    return redirect("/limits", f"The limit {name} was removed.")


__all__ = ["delete_limit", "limits", "put_limit"]
