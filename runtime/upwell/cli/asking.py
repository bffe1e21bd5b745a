"""How commands ask the store, or the server in its place, for something; and say how it went for each of several."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from upwell.cli.exits import FAILED
from upwell.cli.output import complain, note, say
from upwell.core.errors import UpwellError

if TYPE_CHECKING:
    from upwell.history import History
    from upwell.journal.control import Control

T = TypeVar("T")
R = TypeVar("R")


@asynccontextmanager
async def recorded(*, watching: bool = False) -> AsyncGenerator[History]:
    """What has run, by the store that the settings name: `async with recorded() as history`.

    watching: that goes on for long, so that meanwhile processes may die.
    """
    from upwell.cli.living import seen_who_died  # here, as below: help does without
    from upwell.history import History

    async with seen_who_died(watching), History() as history:
        yield history


def control() -> AbstractAsyncContextManager[Control]:
    """What people ask of the store that the settings name: `async with control() as asked`."""
    from upwell.composition import open_control

    return open_control()


async def each(
    many: Iterable[T], do: Callable[[T], Awaitable[R]], told: Callable[[T, R], str], *, none: str = "There is none."
) -> int:
    """Do it for each, and say so; what is refused does not keep the others from being done. The exit code."""
    refused, done = 0, 0
    for one in many:
        try:
            say(told(one, await do(one)))
            done += 1
        except UpwellError as error:
            complain(str(error))
            refused += 1
    if not done and not refused:
        note(none)
    return FAILED if refused else 0
