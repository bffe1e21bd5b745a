"""Work pools: their queues, who works there, what waits; made, paused, changed, deleted."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from litestar import get, post
from litestar.response import Redirect, Response

from upwell.core.deployments import WorkPoolSpec, WorkQueue
from upwell.core.errors import ConflictError, InvalidRequestError, NotFoundError
from upwell.server import auth
from upwell.server.api.asked import PathName, note
from upwell.server.pages.rendering import PageRequest, page, parts, redirect

KINDS = ("process", "docker")


@get("/work-pools", include_in_schema=False, opt=auth.READ)
async def work_pools(request: PageRequest) -> Response[str]:
    """All work pools, and all who work, the scripts that serve their own deployments too."""
    return await _list_page(request)


async def _list_page(request: PageRequest, filled: dict[str, str] | None = None, error: str = "") -> Response[str]:
    control = parts(request).control
    workers = await control.workers()
    return page(
        request,
        "work_pools.html",
        section="pools",
        status=422 if error else 200,
        address="/work-pools" if error else "",
        pools=await control.work_pools(),
        workers=sorted(workers, key=lambda worker: (not worker.online, -worker.last_seen.timestamp())),
        kinds=KINDS,
        filled=filled or {},
        error=error,
    )


@get("/work-pools/{name:str}", include_in_schema=False, opt=auth.READ)
async def work_pool(request: PageRequest, name: PathName) -> Response[str]:
    """One work pool."""
    return await _pool_page(request, name)


async def _pool_page(request: PageRequest, name: str, error: str = "") -> Response[str]:
    control = parts(request).control
    return page(
        request,
        "work_pool.html",
        section="pools",
        status=422 if error else 200,
        address=f"/work-pools/{quote(name)}" if error else "",
        pool=await control.work_pool(name),
        workers=await control.workers(name),
        deployments=(await control.deployments(work_pool=name, limit=100)).items,
        error=error,
    )


@post("/work-pools/new", include_in_schema=False, opt=auth.ADMIN)
async def new_pool(request: PageRequest) -> Response[str] | Redirect:
    """Make a work pool."""
    form = {key: str(value).strip() for key, value in (await request.form()).items()}
    try:
        wanted = WorkPoolSpec(
            kind=form.get("kind", "process"),
            description=form.get("description") or None,
            concurrency_limit=_limit(form.get("limit", "")),
            exist_ok=False,
        )
        made = await parts(request).control.put_work_pool(form.get("name", ""), wanted)
    except (InvalidRequestError, ConflictError) as error:
        return await _list_page(request, form, str(error))
    await note(request, "put work pool", made.name)
    return redirect(f"/work-pools/{quote(made.name)}", "The work pool was made.")


@post("/work-pools/{name:str}/{action:str}", include_in_schema=False, opt=auth.ADMIN)
async def change_pool(request: PageRequest, name: PathName, action: PathName) -> Response[str] | Redirect:
    """Pause, resume, change or delete a work pool; put or remove one of its queues."""
    control = parts(request).control
    form = {key: str(value).strip() for key, value in (await request.form()).items()}
    await control.work_pool(name)  # there is to be one
    try:
        if action in ("pause", "resume"):
            await control.put_work_pool(name, WorkPoolSpec(paused=action == "pause"))
        elif action == "change":
            template: dict[str, Any] | None = json.loads(form["template"]) if form.get("template") else None
            description = form.get("description", "")
            limit = _limit(form.get("limit", "")) or 0  # 0 takes it away
            wanted = WorkPoolSpec(description=description, concurrency_limit=limit, base_job_template=template)
            await control.put_work_pool(name, wanted)
        elif action == "queue":
            await control.put_work_queue(name, _queue(form))
        elif action == "remove-queue":
            await control.delete_work_queue(name, form.get("queue", ""))
        elif action == "delete":
            await control.delete_work_pool(name)
            await note(request, "delete work pool", name)
            return redirect("/work-pools", f"{name} was deleted.")
        else:
            raise NotFoundError(f"There is no such thing as to {action} a work pool.")
    except (InvalidRequestError, ConflictError, ValueError) as error:
        return await _pool_page(request, name, str(error))
    await note(request, f"{action} work pool", name, form.get("queue"))
    return redirect(f"/work-pools/{quote(name)}", "Done.")


def _queue(form: dict[str, str]) -> WorkQueue:
    priority = form.get("priority") or "1"
    if not priority.isdigit():
        raise InvalidRequestError(f"The priority is {priority[:20]!r}, and must be a whole number, 0 or more.")
    return WorkQueue(
        name=form.get("queue", ""),
        priority=int(priority),
        paused=form.get("paused") == "true",
        concurrency_limit=_limit(form.get("limit", "")),
    )


def _limit(text: str) -> int | None:
    """How many at once; None is any number."""
    if not text:
        return None
    if not text.isdigit() or int(text) < 1:
        raise InvalidRequestError(f"The limit is {text[:20]!r}, and must be a whole number, 1 or more, or empty.")
    return int(text)


__all__ = ["change_pool", "new_pool", "work_pool", "work_pools"]
