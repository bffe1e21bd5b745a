"""Commands that only read: where the store is a file here they need no event loop, which takes long to be loaded.

Such a command is begun without one. Where it turns out to need one after all, as for a server, or because somebody who
has died is to be declared so, it is begun anew on a loop: it asks before it has said anything.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from upwell.journal.sqlite import SqliteDatabase
    from upwell.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")

_HAS_NO_LOOP: ContextVar[bool] = ContextVar("has_no_loop", default=False)


class LoopWantedError(Exception):
    """What is being carried out needs an event loop."""


def has_no_loop() -> bool:
    return _HAS_NO_LOOP.get()


def reading(command: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """A command that only reads, as a function that is called without an event loop."""

    @wraps(command)
    def read(*args: P.args, **kwargs: P.kwargs) -> R:
        token = _HAS_NO_LOOP.set(True)
        try:
            return _stepped(command(*args, **kwargs))
        except LoopWantedError:
            pass
        finally:
            _HAS_NO_LOOP.reset(token)
        import asyncio

        return asyncio.run(command(*args, **kwargs))

    return read


def _stepped(work: Coroutine[Any, Any, R]) -> R:
    """What comes of it, if nothing in it is suspended.

    Raises:
        LoopWantedError: something was.
    """
    try:
        work.send(None)
    except StopIteration as end:
        found: R = end.value
        return found
    work.close()
    raise LoopWantedError


def store_here(settings: Settings) -> SqliteDatabase | None:
    """The store, to be read without an event loop, if it is a file here; there may be none yet."""
    from upwell.composition import is_remote, journal_kept, make_database
    from upwell.journal.sqlite import SqliteDatabase

    if is_remote(settings) or settings.journal == "memory" or journal_kept() is not None:
        return None
    database = make_database(settings, read_only=True, on_a_thread=False)
    return database if isinstance(database, SqliteDatabase) else None


@asynccontextmanager
async def opened(database: SqliteDatabase) -> AsyncGenerator[SqliteDatabase]:
    """It is open while this lasts.

    Raises:
        LoopWantedError: it is of another schema.
    """
    from upwell.journal.migrations import version_of
    from upwell.journal.sql import newest_schema

    try:
        await database.open()
        if await version_of(database, database) != newest_schema():
            raise LoopWantedError
        yield database
    finally:
        await database.close()
