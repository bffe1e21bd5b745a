"""What holds for every test: it leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from upwell.engine.current import close_portal
from upwell.testing import no_leaks


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]  # by pytest
    with no_leaks():
        yield


@pytest.fixture(scope="session", autouse=True)
def _closes_the_portal() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]  # by pytest
    yield
    close_portal()
