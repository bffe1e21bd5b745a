"""Runs services side by side: each step after step, with a pause; one that fails is tried again, later each time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from msgspec import Struct

from upwell.engine.loggers import ENGINE
from upwell.journal.database import StoreError

FIRST_BACKOFF_SECONDS: Final = 1.0
LONGEST_BACKOFF_SECONDS: Final = 60.0


class Service(Struct, frozen=True):
    """Something to be done again and again. step: does it once; pause_seconds: between two steps."""

    name: str
    step: Callable[[], Awaitable[object]]
    pause_seconds: float


class Services:
    """Several services, until they are cancelled: `await Services([...]).run()`."""

    def __init__(self, services: Sequence[Service]) -> None:
        self._services = services
        self._hurry = {service.name: asyncio.Event() for service in services}

    async def run(self) -> None:
        """Run all, for ever."""
        async with asyncio.TaskGroup() as group:
            for service in self._services:
                group.create_task(self._repeat(service), name=f"upwell service {service.name}")

    def hurry(self, name: str) -> None:
        """There is something to do for this one now; nothing happens if there is no such service."""
        if name in self._hurry:
            self._hurry[name].set()

    async def _repeat(self, service: Service) -> None:
        failures = 0
        while True:
            try:
                await service.step()
            except Exception as error:
                failures += 1
                _say(service, failures, error)
            else:
                if failures:
                    ENGINE.info("The service %r works again", service.name)
                failures = 0
            await self._wait(service, _backoff(failures) if failures else service.pause_seconds)

    async def _wait(self, service: Service, seconds: float) -> None:
        hurry = self._hurry[service.name]
        try:
            async with asyncio.timeout(seconds):
                await hurry.wait()
        except TimeoutError:
            pass
        hurry.clear()


def _backoff(failures: int) -> float:
    return float(min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(failures - 1, 10)))


def _say(service: Service, failures: int, error: Exception) -> None:
    """The first time, and then now and then; a store that is away is no fault of the code's."""
    if failures & (failures - 1) == 0:
        known = isinstance(error, StoreError)
        ENGINE.warning(
            "The service %r has failed %d time(s) in a row, and is tried again: %s",
            service.name,
            failures,
            error,
            exc_info=None if known else error,
        )
