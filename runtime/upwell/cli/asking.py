"""How commands ask the store, or the server in its place, for something; and say how it went for each of several."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from upwell.cli.exits import FAILED
from upwell.cli.output import complain, note, say
from upwell.cli.reading import LoopWantedError, has_no_loop, opened, store_here
from upwell.core.errors import ConfigurationError, UpwellError

if TYPE_CHECKING:
    from upwell.history import History
    from upwell.journal.control import Control
    from upwell.journal.limit_store import LimitStore
    from upwell.journal.sqlite import SqliteDatabase

T = TypeVar("T")
R = TypeVar("R")

NOTHING_KEPT: Final = "UPWELL_JOURNAL=memory keeps nothing that outlives a command: unset it."

ACTOR: Final = "the command line"
"""Who has made a change, in the record of a store that is used directly."""

PATIENCE_SECONDS: Final = 3.0
"""How long a server that cannot be reached is tried again: it may be starting, and somebody waits."""


@asynccontextmanager
async def recorded(*, watching: bool = False) -> AsyncGenerator[History]:
    """What has run, by the store that the settings name: `async with recorded() as history`.

    watching: that goes on for long, so that meanwhile processes may die.
    """
    from upwell.history import History  # here, as below: help does without

    if has_no_loop():
        await _needs_no_loop(watching)
        async with History(alone=True, sees_dead=False) as history:
            yield history
        return
    from upwell.cli.living import seen_who_died

    patience = await _patience_of_who_follows() if watching else PATIENCE_SECONDS
    opened_to_read = History(alone=True, patience_seconds=patience, sees_dead=False)
    async with seen_who_died(watching), opened_to_read as history:
        yield history


async def _patience_of_who_follows() -> float:
    """Raises StoreUnavailable soon where the server is away from the beginning."""
    from upwell.composition import api_client, is_remote
    from upwell.deployment_runs import RESTART_SECONDS
    from upwell.settings import current

    if is_remote(wanted := current()):
        client = api_client(wanted, patience_seconds=PATIENCE_SECONDS)
        try:
            await client.ask("GET", "/version")
        finally:
            await client.close()
    return RESTART_SECONDS


async def _needs_no_loop(watching: bool) -> None:
    """Raises LoopWantedError where what has run cannot be read as it is, without an event loop."""
    from upwell.journal.processes import has_dead
    from upwell.settings import current

    database = None if watching else store_here(current())
    if database is None:
        raise LoopWantedError
    if database.path.exists():
        async with opened(database):
            if await has_dead(database):
                raise LoopWantedError


@asynccontextmanager
async def control() -> AsyncGenerator[Control]:
    """What people ask of the store that the settings name: `async with control() as asked`.

    Raises:
        ConfigurationError: nothing of it would outlive this command.
    """
    from upwell.composition import open_control
    from upwell.settings import current

    if current().journal == "memory":
        raise ConfigurationError(NOTHING_KEPT)
    if not has_no_loop():
        async with open_control(PATIENCE_SECONDS, actor=ACTOR) as asked:
            yield asked
        return
    async with _read_here() as database:
        from upwell.journal.sql_control import SqlControl

        yield SqlControl(database)


@asynccontextmanager
async def limits() -> AsyncGenerator[LimitStore]:
    """The limits of that store: `async with limits() as asked`.

    Raises:
        ConfigurationError: there is none.
    """
    from upwell.settings import current

    if current().journal == "memory":
        raise ConfigurationError(NOTHING_KEPT)
    if current().journal == "off":
        raise ConfigurationError(
            "These limits are kept in the store, and UPWELL_JOURNAL=off goes without one: unset it."
        )
    if not has_no_loop():
        from upwell.cli.living import seen_who_died
        from upwell.composition import open_limits

        async with seen_who_died(False), open_limits(PATIENCE_SECONDS, actor=ACTOR) as asked:
            yield asked
        return
    await _needs_no_loop(watching=False)
    async with _read_here() as database:
        from upwell.journal.limit_store import SqlLimits

        yield SqlLimits(database)


@asynccontextmanager
async def _read_here() -> AsyncGenerator[SqliteDatabase]:
    from upwell.settings import current

    database = store_here(current())
    if database is None or not database.path.exists():
        raise LoopWantedError
    async with opened(database):
        yield database


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
