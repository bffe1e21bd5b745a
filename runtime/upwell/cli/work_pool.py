"""`upwell work-pool`: where workers take runs from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from upwell.cli.asking import control
from upwell.cli.group import group
from upwell.cli.output import confirm, say, show, show_fields
from upwell.cli.values import json_object

if TYPE_CHECKING:
    from cyclopts import Parameter

    from upwell.cli.options import Output, PoolName, QueueName, Yes
    from upwell.core.deployments import WorkPool, WorkPoolSpec

app = group(
    "work-pool",
    "upwell work-pool create default",
    "upwell work-pool create containers --type docker --limit 4",
    "upwell work-pool queue create default urgent --priority 0",
    "upwell work-pool pause default",
)
queue = group(
    "queue",
    "upwell work-pool queue create default urgent --priority 0",
    "upwell work-pool queue ls default",
    help="Queues of a work pool, served by their priority.",
)
app.add("queue", queue)

Kind = Literal["process", "docker"]


@app.command(reads=True)
async def ls(*, output: Output = "table") -> None:
    """List work pools."""
    async with control() as asked:
        pools = await asked.work_pools()
        online = {pool.name: sum(it.online for it in await asked.workers(pool.name)) for pool in pools}
    show(
        pools,
        [
            ("name", lambda it: it.name),
            ("type", lambda it: it.kind),
            ("workers", lambda it: online[it.name]),
            ("limit", lambda it: it.concurrency_limit),
            ("queues", lambda it: ", ".join(queue.name for queue in it.queues)),
            ("paused", lambda it: "paused" if it.paused else ""),
        ],
        output,
        none="There is no work pool. `upwell work-pool create default` makes one.",
    )


@app.command(reads=True)
async def inspect(name: PoolName, /, *, output: Output = "table") -> None:
    """Show one work pool."""
    async with control() as asked:
        found = await asked.work_pool(name)
    show_fields(
        found,
        {
            "name": found.name,
            "type": found.kind,
            "description": found.description,
            "paused": found.paused,
            "limit": found.concurrency_limit,
            "base job template": found.base_job_template,
            "created": found.created,
        },
        output,
    )
    if output == "table":
        say("")
        _show_queues(found, output)


@app.command
async def create(
    name: PoolName,
    /,
    *,
    kind: Annotated[Kind, Parameter(name="--type")] = "process",
    description: str | None = None,
    limit: int | None = None,
    base_job_template: str | None = None,
    paused: bool = False,
    exist_ok: Annotated[bool, Parameter(name="--exist-ok")] = False,
) -> None:
    """Make a work pool.

    Args:
        kind: process: runs in processes of the worker's machine. docker: in containers.
        description: For people.
        limit: How many of its runs go on at once.
        base_job_template: JSON, or @FILE that holds it.
        paused: Nothing of it begins yet.
        exist_ok: If there is one of that name, make it like this.
    """
    from upwell.core.deployments import WorkPoolSpec

    wanted = WorkPoolSpec(
        kind=kind,
        description=description,
        concurrency_limit=limit,
        base_job_template=_template(base_job_template),
        paused=paused,
        exist_ok=exist_ok,
    )
    async with control() as asked:
        await asked.put_work_pool(name, wanted)
    say(f"The work pool {name} is made. `upwell worker start --pool {name}` starts a worker.")


@app.command
async def update(
    name: PoolName,
    /,
    *,
    description: str | None = None,
    limit: int | None = None,
    no_limit: bool = False,
    base_job_template: str | None = None,
) -> None:
    """Change a work pool; what is not said stays.

    Args:
        description: For people.
        limit: How many of its runs go on at once.
        no_limit: Any number of its runs go on at once.
        base_job_template: JSON, or @FILE that holds it.
    """
    from upwell.core.deployments import WorkPoolSpec

    most, template = 0 if no_limit else limit, _template(base_job_template)
    await _change(name, WorkPoolSpec(description=description, concurrency_limit=most, base_job_template=template))
    say(f"The work pool {name} is changed.")


@app.command
async def pause(name: PoolName, /) -> None:
    """Pause a work pool: nothing of it begins."""
    await _set_paused(name, True)


@app.command
async def resume(name: PoolName, /) -> None:
    """Have a paused work pool go on."""
    await _set_paused(name, False)


@app.command
async def delete(name: PoolName, /, *, yes: Yes = False) -> None:
    """Delete a work pool, with its queues."""
    confirm(f"Delete the work pool {name}?", yes)
    async with control() as asked:
        await asked.delete_work_pool(name)
    say(f"The work pool {name} is deleted.")


@queue.command(name="ls", reads=True)
async def list_queues(pool: PoolName, /, *, output: Output = "table") -> None:
    """List the queues of a work pool."""
    async with control() as asked:
        _show_queues(await asked.work_pool(pool), output)


@queue.command(name="create")
async def create_queue(
    pool: PoolName, name: QueueName, /, *, priority: int | None = None, limit: int | None = None
) -> None:
    """Add a queue to a work pool, or change the one of that name.

    Args:
        priority: Of two queues, the one with the lower number is served first; 1 unless said, as `default` has.
        limit: How many of its runs go on at once.
    """
    from upwell.core.deployments import WorkQueue

    async with control() as asked:
        before = {it.name: it for it in (await asked.work_pool(pool)).queues}.get(name)
        wanted = WorkQueue(
            name=name,
            priority=priority if priority is not None else before.priority if before else 1,
            paused=before.paused if before else False,
            concurrency_limit=limit if limit is not None else before.concurrency_limit if before else None,
        )
        await asked.put_work_queue(pool, wanted)
    say(f"The work pool {pool} has the queue {name}.")


@queue.command(name="pause")
async def pause_queue(pool: PoolName, name: QueueName, /) -> None:
    """Pause a queue: nothing of it begins."""
    await _set_queue_paused(pool, name, True)


@queue.command(name="resume")
async def resume_queue(pool: PoolName, name: QueueName, /) -> None:
    """Have a paused queue go on."""
    await _set_queue_paused(pool, name, False)


@queue.command(name="delete")
async def delete_queue(pool: PoolName, name: QueueName, /, *, yes: Yes = False) -> None:
    """Delete a queue of a work pool."""
    confirm(f"Delete the queue {name} of {pool}?", yes)
    async with control() as asked:
        await asked.delete_work_queue(pool, name)
    say(f"The queue {name} of {pool} is deleted.")


async def _change(name: str, wanted: WorkPoolSpec) -> None:
    async with control() as asked:
        await asked.work_pool(name)  # there is to be one
        await asked.put_work_pool(name, wanted)


def _template(text: str | None) -> dict[str, Any] | None:
    return None if text is None else json_object(text, "--base-job-template")


async def _set_paused(name: str, paused: bool) -> None:
    from upwell.core.deployments import WorkPoolSpec

    await _change(name, WorkPoolSpec(paused=paused))
    say(f"The work pool {name} {'is paused' if paused else 'goes on'}.")


async def _set_queue_paused(pool: str, name: str, paused: bool) -> None:
    from msgspec.structs import replace

    from upwell.core.errors import NotFoundError

    async with control() as asked:
        for found in (await asked.work_pool(pool)).queues:
            if found.name == name:
                await asked.put_work_queue(pool, replace(found, paused=paused))
                say(f"The queue {name} of {pool} {'is paused' if paused else 'goes on'}.")
                return
    raise NotFoundError(f"The work pool {pool!r} has no queue {name!r}.")


def _show_queues(pool: WorkPool, output: Output) -> None:
    show(
        pool.queues,
        [
            ("queue", lambda it: it.name),
            ("priority", lambda it: it.priority),
            ("limit", lambda it: it.concurrency_limit),
            ("paused", lambda it: "paused" if it.paused else ""),
        ],
        output,
    )
