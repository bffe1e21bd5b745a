"""Worlds in which a scenario runs: on each loop, as an asyncio Task of its own and as upwell's run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import pytest
import uvloop

from upwell import task
from upwell.core.errors import CancelledRun

LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
PATIENCE_SECONDS: Final = 60.0
"""What has not ended by then never will."""


class World:
    """A loop, and a way to start a coroutine function on it."""

    def __init__(self, loop: str, manner: str) -> None:
        self._new_loop = LOOPS[loop]
        self.manner = manner

    def run(self, main: Callable[[], Coroutine[Any, Any, Any]], *, debug: bool = False) -> Any:
        """Run `main` to its end on a loop of its own; nothing may reach the loop's exception handler."""
        complaints: list[dict[str, Any]] = []

        async def watched() -> Any:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            if self.manner == "in a used place":
                await task(_suspend).map(range(3))
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await main()

        with asyncio.Runner(debug=debug, loop_factory=self._new_loop) as runner:
            answer = runner.run(watched())
        assert not complaints
        return answer

    def start(self, fn: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
        """Start it: as an asyncio Task of its own, or as a run."""
        if self.manner == "plainly":
            return asyncio.ensure_future(fn(*args))
        return task(fn).submit(*args)

    async def turns(self, count: int = 5) -> None:
        """Let the loop turn."""
        for _ in range(count):
            await asyncio.sleep(0)

    async def was_cancelled(self, future: Awaitable[Any]) -> bool:
        """Whether it ends cancelled, whatever kind of future it is."""
        try:
            await future
        except (asyncio.CancelledError, CancelledRun):
            return True
        return False


async def _suspend(_: int) -> None:
    await asyncio.sleep(0)


@pytest.fixture(params=list(LOOPS))
def loop_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["plainly", "in a fresh place", "in a used place"])
def world(request: pytest.FixtureRequest, loop_name: str) -> World:
    """What holds in an asyncio Task of its own (plainly) holds in a run, the first on its loop or a later one."""
    return World(loop_name, str(request.param))


@pytest.fixture
def runs_only(loop_name: str) -> World:
    """For what an asyncio Task has no counterpart of."""
    return World(loop_name, "in a fresh place")
