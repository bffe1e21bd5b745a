"""`upwell worker`: who carries runs out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from upwell.cli.asking import control
from upwell.cli.group import group
from upwell.cli.output import show

if TYPE_CHECKING:
    from cyclopts import Parameter

    from upwell.cli.options import Output

app = group(
    "worker",
    "upwell worker start --pool default",
    "upwell worker start --pool default --work-queue urgent --limit 4",
    "upwell worker ls",
    more="SIGTERM and Ctrl-C have a worker claim no more, and end when what it carries out has ended.",
)


@app.command
def start(
    *,
    pool: Annotated[str, Parameter(name=("--pool", "-p"))],
    name: str | None = None,
    work_queue: Annotated[tuple[str, ...], Parameter(name=("--work-queue", "-q"))] = (),
    limit: int | None = None,
    root: tuple[Path, ...] = (),
) -> None:
    """Start a worker, until Ctrl-C.

    Args:
        pool: The work pool whose runs it carries out.
        name: What it is called; made of the machine's name unless said.
        work_queue: Only runs of this queue; may be given often.
        limit: How many runs it carries out at once.
        root: Flows are found in this folder, and nowhere else; this one unless said. May be given often.
    """
    from upwell.serving.worker import Worker

    Worker(pool, name=name, queues=work_queue, limit=limit, roots=list(root) or None).run()


@app.command(reads=True)
async def ls(*, pool: Annotated[str | None, Parameter(name=("--pool", "-p"))] = None, output: Output = "table") -> None:
    """List the workers of the last day.

    Args:
        pool: Those of this work pool.
    """
    async with control() as asked:
        workers = await asked.workers(pool)
    show(
        workers,
        [
            ("name", lambda it: it.name),
            ("pool", lambda it: it.pool),
            ("online", lambda it: "online" if it.online else ""),
            ("host", lambda it: it.host),
            ("pid", lambda it: it.pid),
            ("started", lambda it: it.started),
            ("last seen", lambda it: it.last_seen),
        ],
        output,
        none="There was no worker within a day. `upwell worker start --pool default` starts one.",
    )
