"""`upwell flow-run fork`: a durable run again, here and now, by its flow's own code."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from upwell.cli.lookup import find_flow_run
from upwell.cli.output import say
from upwell.durability import fork
from upwell.history import History


def fork_here(run: str, before: str | None, keep_changed: bool) -> int:
    """Run it; the exit code.

    Raises:
        UpwellError: there is no such run, or its flow is not found; and whatever the flow raises.
    """

    async def found() -> str:
        async with History() as history:
            return str((await find_flow_run(history, run)).id)

    answer: Any = fork(asyncio.run(found()), before, keep_changed=keep_changed)
    if inspect.isawaitable(answer):

        async def awaited() -> Any:
            return await answer

        asyncio.run(awaited())
    say(f"{run}: forked, and completed")
    return 0
