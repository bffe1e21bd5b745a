"""Services are done again and again; one that fails is tried later each time, and the others go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from upwell.journal.database import StoreUnavailable
from upwell.server.services import group
from upwell.server.services.group import Service, Services


def until(condition: Callable[[], bool], *services: Service) -> None:
    """Run these until it is so."""

    async def main() -> None:
        running = asyncio.ensure_future(Services(services).run())
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())


class Step:
    """Counts, and fails as often as it is told."""

    def __init__(self, failures: int = 0, error: Exception | None = None) -> None:
        self.done = 0
        self.tried = 0
        self._failures = failures
        self._error = error or ValueError("no")

    async def __call__(self) -> None:
        self.tried += 1
        if self.tried <= self._failures:
            raise self._error
        self.done += 1


def test_each_is_done_again_and_again() -> None:
    one, other = Step(), Step()
    until(lambda: one.done > 5 and other.done > 5, Service("one", one, 0.001), Service("other", other, 0.001))


def test_one_that_fails_is_tried_again_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(group, "FIRST_BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(group, "LONGEST_BACKOFF_SECONDS", 0.004)
    failing, other = Step(failures=9), Step()
    with caplog.at_level(logging.INFO, "upwell"):
        until(lambda: failing.done > 1, Service("failing", failing, 0.001), Service("other", other, 0.001))
    assert other.done > 9
    said = [record.getMessage() for record in caplog.records]
    assert sum("'failing' has failed" in line for line in said) == 4, "after 1, 2, 4 and 8"
    assert said[-1] == "The service 'failing' works again"


def test_a_store_that_is_away_is_said_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(group, "FIRST_BACKOFF_SECONDS", 0.001)
    step = Step(failures=1, error=StoreUnavailable("away"))
    with caplog.at_level(logging.WARNING, "upwell"):
        until(lambda: step.done > 0, Service("one", step, 0.001))
    assert [record.exc_info for record in caplog.records if "failed" in record.getMessage()] == [None]


def test_backoff_grows_and_ends() -> None:
    backoff: Any = group._backoff  # pyright: ignore[reportPrivateUsage]
    assert [backoff(n) for n in (1, 2, 3, 7, 1000)] == [1, 2, 4, 60, 60]


def test_one_can_be_hurried() -> None:
    async def main() -> None:
        step = Step()
        services = Services([Service("one", step, 3600)])
        running = asyncio.ensure_future(services.run())
        async with asyncio.timeout(30):
            for number in range(1, 4):
                while step.done < number:
                    await asyncio.sleep(0)
                services.hurry("one")
                services.hurry("nobody")
        running.cancel()
        await asyncio.wait((running,))

    asyncio.run(main())
