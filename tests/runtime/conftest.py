"""The event loops that asynchronous promises are tested on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

try:
    import uvloop
except ImportError:  # not on this platform
    uvloop = None  # type: ignore[assignment]  # said by `is None`


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """`asyncio.run`, on the default loop and on uvloop."""
    if request.param == "asyncio":
        return asyncio.run
    if uvloop is None:
        pytest.skip("uvloop is not installed")

    def run_on_uvloop(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main)

    return run_on_uvloop
