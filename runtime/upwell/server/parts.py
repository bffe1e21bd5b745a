"""What a server is made of: the store to read and to change, its limits, live changes, and who may ask."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from upwell.journal.control import Control
from upwell.journal.database import Database
from upwell.journal.limit_store import LimitStore, SqlLimits
from upwell.journal.login_sessions import LoginSessions
from upwell.journal.read_pool import ReadPool
from upwell.journal.reader import Reader
from upwell.server.access import Access
from upwell.server.hub import Hub
from upwell.settings import Settings

if TYPE_CHECKING:
    from litestar.connection import ASGIConnection


class MakeDatabase(Protocol):
    """Makes the store's database, not opened yet. One to be changed keeps no event loop waiting either."""

    def __call__(self, *, read_only: bool) -> Database: ...


class Parts(Struct, frozen=True, kw_only=True):
    """The parts, all of one event loop.

    control: to change what is configured and to be done. database: the connection that it writes with.
    reader: to read runs, over connections of its own. session: those connections, for other questions.
    hub: what changes, as it happens, whoever has done it.
    """

    control: Control
    database: Database
    session: ReadPool
    reader: Reader
    limits: LimitStore
    hub: Hub
    access: Access
    settings: Settings


@asynccontextmanager
async def open_parts(make_database: MakeDatabase, settings: Settings) -> AsyncGenerator[Parts]:
    """The parts of a server over this store, which is made, or brought up to date, if need be."""
    from upwell.journal.migrations import migrate
    from upwell.journal.sql_control import SqlControl

    database = make_database(read_only=False)
    await database.open()
    session = ReadPool(lambda: make_database(read_only=True))
    hub = Hub(lambda: make_database(read_only=True), session)
    try:
        await migrate(database)
        control = SqlControl(database, session)
        yield Parts(
            control=control,
            database=database,
            session=session,
            reader=Reader(session, "the store of this server"),
            limits=SqlLimits(database, session),
            hub=hub,
            access=Access(control, LoginSessions(database, session), settings),
            settings=settings,
        )
    finally:
        await hub.close()
        await session.close()
        await database.close()


def parts_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Parts:
    """The parts of the server that serves this request."""
    parts: Parts = connection.app.state.parts
    return parts
