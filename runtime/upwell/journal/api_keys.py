"""Keys to the API in the store: made, found, revoked; and the record of who changed what.

A key is 256 random bits, shown once. What is stored is its digest: a plain hash is enough, for nobody can guess a key.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import secrets
from typing import Any, Final
from uuid import UUID

from upwell.core.deployments import ApiKey, AuditRecord, Scope
from upwell.core.errors import ConflictError, InvalidRequestError, NotFoundError
from upwell.core.model import Page
from upwell.journal.control_part import Part, checked_name, new_id, now_micros
from upwell.journal.database import Row, Session
from upwell.journal.reader_pages import checked_limit, cursor, key_of, micros_of
from upwell.journal.reader_records import moment, moment_or_none

SCOPES: Final[tuple[Scope, ...]] = ("read", "run", "admin")
SECRET_BYTES: Final = 32
PREFIX: Final = "upw_"
SHOWN_CHARACTERS: Final = 10
"""Of a key, for people to know it by."""

MOST_CHARACTERS: Final = 200
USED_MICROS: Final = 60_000_000
"""How exactly it is noted when a key was used last."""

MOST_DETAIL: Final = 2_000
_END: Final = 2**62


class SqlKeys(Part):
    """Keys and the audit; see `control.Keys`."""

    async def create_key(self, name: str, scope: Scope, expires: dt.datetime | None = None) -> tuple[ApiKey, str]:
        checked_name(name, "key")
        if scope not in SCOPES:
            raise InvalidRequestError(f"scope is {scope!r}, and must be one of {', '.join(SCOPES)}.")
        until = None if expires is None else _future(expires)
        secret, identity = PREFIX + secrets.token_urlsafe(SECRET_BYTES), new_id()

        async def create(session: Session) -> ApiKey:
            now = now_micros()
            if await session.fetch("lock_keys_of_name", name=name, now=now):
                raise ConflictError(f"There is a key {name!r}: revoke it first, or choose another name.")
            described: dict[str, Any] = {"id": identity, "name": name, "scope": scope, "expires": until, "now": now}
            await session.fetch("put_key", prefix=secret[:SHOWN_CHARACTERS], digest=_digest(secret), **described)
            return await _key(session, identity)

        return await self._transact(create), secret

    async def keys(self) -> list[ApiKey]:
        return [_record(row) for row in await self._reading.fetch("keys")]

    async def revoke_key(self, key_id: UUID) -> ApiKey:
        async def revoke(session: Session) -> ApiKey:
            await session.fetch("revoke_key", id=str(key_id), now=now_micros())
            return await _key(session, str(key_id))

        return await self._transact(revoke)

    async def find_key(self, secret: str) -> ApiKey | None:
        if not secret.startswith(PREFIX) or len(secret) > MOST_CHARACTERS or not secret.isascii():
            return None
        digest = _digest(secret)
        rows = await self._reading.fetch("key_of_digest", digest=digest)
        if not rows or not hmac.compare_digest(bytes(rows[0][8]), digest):
            return None
        key, now = _record(rows[0]), now_micros()
        expires, revoked, used = rows[0][5:8]
        if revoked is not None or (expires is not None and expires <= now):
            return None
        if used is None or now - used > USED_MICROS:
            await self._transact(lambda session: session.fetch("key_was_used", id=str(key.id), now=now))
        return key

    # --- who changed what -----------------------------------------------------------------------------------

    async def audit(self, actor: str, action: str, target: str, detail: str | None = None) -> None:
        said = {"actor": actor, "action": action, "target": target}
        cut = None if detail is None else detail[:MOST_DETAIL]
        await self._transact(lambda session: session.fetch("put_audit_record", at=now_micros(), detail=cut, **said))

    async def audit_records(self, *, limit: int = 50, after: str | None = None) -> Page[AuditRecord]:
        limit = checked_limit(limit)
        found = key_of(after, audit=(int,))
        rows = await self._reading.fetch("audit_records", before=found[1][0] if found else _END, n=limit + 1)
        items = tuple(
            AuditRecord(at=moment(at), actor=actor, action=action, target=target, detail=detail)
            for _, at, actor, action, target, detail in rows[:limit]
        )
        return Page(items=items, next=cursor("audit", rows[limit - 1][0]) if len(rows) > limit else None)


async def _key(session: Session, identity: str) -> ApiKey:
    rows = await session.fetch("key", id=identity)
    if not rows:
        raise NotFoundError(f"There is no key {identity}.")
    return _record(rows[0])


def _record(row: Row) -> ApiKey:
    identity, name, scope, prefix, created, expires, revoked, used = row[:8]
    return ApiKey(
        id=UUID(identity),
        name=name,
        scope=scope,
        prefix=prefix,
        created=moment(created),
        expires=moment_or_none(expires),
        revoked=moment_or_none(revoked),
        last_used=moment_or_none(used),
    )


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _future(expires: dt.datetime) -> int:
    try:
        until = micros_of(expires, "expires")
    except ValueError as error:
        raise InvalidRequestError(str(error)) from None
    if until <= now_micros():
        raise InvalidRequestError(f"expires is {expires}, and that has passed.")
    return until
