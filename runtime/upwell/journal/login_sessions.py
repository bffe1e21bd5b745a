"""Who has logged in to the pages: a session is a random token of which only a digest is kept, opened with an API key.

It ends with its time, or with the key.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final, NamedTuple, cast
from uuid import UUID

from upwell.core.deployments import Scope
from upwell.engine.clock import clock
from upwell.journal.database import Database, Session

SESSION_SECONDS: Final = 12 * 3600
TOKEN_BYTES: Final = 32


class LoginSession(NamedTuple):
    """A session that may be used. csrf: what a form of its pages has to bring along."""

    csrf: str
    key_id: UUID
    key_name: str
    scope: Scope


class LoginSessions:
    """Those of one store. reading: another way to it, that waits for no change which is being made."""

    def __init__(self, database: Database, reading: Session | None = None) -> None:
        self._database = database
        self._reading = reading or database

    async def open(self, key_id: UUID) -> tuple[str, str]:
        """A new one for whoever has this key: its token, which is not kept, and its word for forms."""
        token, csrf, now = secrets.token_urlsafe(TOKEN_BYTES), secrets.token_urlsafe(TOKEN_BYTES), _now()
        async with self._database.transaction() as session:
            await session.fetch("remove_expired_sessions", now=now)
            await session.fetch(
                "put_session",
                digest=_digest(token),
                key_id=str(key_id),
                csrf=csrf,
                created=now,
                expires=now + SESSION_SECONDS * 1_000_000,
            )
        return token, csrf

    async def find(self, token: str) -> LoginSession | None:
        """The session of this token, if it may be used now."""
        rows = await self._reading.fetch("find_session", digest=_digest(token), now=_now())
        if not rows:
            return None
        csrf, key_id, name, scope = rows[0]
        return LoginSession(csrf, UUID(key_id), name, cast(Scope, scope))

    async def close(self, token: str) -> None:
        """Nobody may use it any more."""
        async with self._database.transaction() as session:
            await session.fetch("remove_session", digest=_digest(token))

    async def is_any_key(self) -> bool:
        """Whether a key was ever made."""
        return bool(await self._reading.fetch("any_key"))

    async def is_admin_key(self) -> bool:
        """Whether there is a key that may do everything now."""
        return bool(await self._reading.fetch("usable_admin_key", now=_now()))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _now() -> int:
    return int(clock().time() * 1e6)
