"""Interrupts reach the code that they are meant for, wherever they find it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from upwell import flow
from upwell.core.errors import FlowRunTimeoutError

LONG = 60
"""Seconds that nothing lasts which is interrupted, however busy the machine is."""


def _spin() -> None:
    end = time.monotonic() + 0.1  # past the timeout
    while time.monotonic() < end:
        pass


def _in_a_callback() -> None:
    """Asyncio logs what a callback raises."""

    async def main() -> None:
        asyncio.get_running_loop().call_soon(_spin)
        await asyncio.sleep(LONG)

    asyncio.run(main())


class _Slow:
    def __del__(self) -> None:
        _spin()


def _in_a_finalizer() -> None:
    """Python prints what a finalizer raises."""
    _Slow()
    time.sleep(LONG)


@pytest.mark.timeout(0)  # pytest-timeout would take the alarm
@pytest.mark.parametrize("code", [_in_a_callback, _in_a_finalizer])
def test_an_interrupt_that_would_only_be_logged_comes_a_moment_later(code: Callable[[], None]) -> None:
    with pytest.raises(FlowRunTimeoutError):
        flow(timeout_seconds=0.03)(code)()
