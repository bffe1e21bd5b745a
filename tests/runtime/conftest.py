"""What tests share: the loops that asynchronous promises are tested on, and a call that is known to end."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextvars import copy_context
from typing import Any, Final

import pytest

try:
    import uvloop
except ImportError:  # not on this platform
    uvloop = None  # type: ignore[assignment]  # said by `is None`

PATIENCE_SECONDS: Final = 60.0
"""What has not ended by then never will."""


def _ends(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call this in a thread beside the test, and fail instead of hanging if it never ends."""
    answer: list[Any] = []
    context = copy_context()

    def call() -> None:
        try:
            answer.append((True, context.run(fn, *args, **kwargs)))
        except BaseException as error:
            answer.append((False, error))

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert answer, f"{fn} has not ended within {PATIENCE_SECONDS} seconds"
    well, value = answer[0]
    if not well:
        raise value
    return value


@pytest.fixture
def ends() -> Callable[..., Any]:
    """Calls a function, and fails if it never ends."""
    return _ends


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """`asyncio.run`, on the default loop and on uvloop."""
    if request.param == "asyncio":
        return asyncio.run
    if uvloop is None:
        pytest.skip("uvloop is not installed")

    def run_on_uvloop(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # pyright: ignore[reportOptionalMemberAccess]  # skipped above if there is none
            return runner.run(main)

    return run_on_uvloop


@pytest.fixture
def reads_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream starts runs for as many inputs as it has room for, however long it takes to read them."""
    monkeypatch.setattr("upwell.streams.READING_SECONDS", 60.0)


@pytest.fixture
def own_modules() -> Iterator[None]:
    """What the test imports is not there afterwards, and imports look where they did before."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if not name.startswith("upwell"):
            del sys.modules[name]
