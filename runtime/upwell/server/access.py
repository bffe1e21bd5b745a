"""Who asks, and what they may do: an API key, a login session, or a program on this machine.

Without a key is let in only who comes from this machine, to a server that answers on a loopback address alone, by a
name of this machine, through no proxy, and where no key was ever made (setting `server_require_key`). Everybody else
needs a key; a key that is wrong is never taken for none.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from upwell.core.deployments import ApiKey, Scope
from upwell.core.errors import AccessError, ConfigurationError
from upwell.engine.clock import clock
from upwell.journal.control import Control
from upwell.journal.login_sessions import LoginSessions
from upwell.settings import Settings

COOKIE: Final = "upwell_session"
SCOPES: Final[tuple[Scope, ...]] = ("read", "run", "admin")
REMEMBERED_SECONDS: Final = 1.0
"""For so long a key that was found is not looked up again: by then, one that was revoked elsewhere is refused."""
MOST_REMEMBERED: Final = 1024
LONGEST_KEY: Final = 512

FORWARDED: Final = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
"""What proxies add: who comes through one is not known to be on this machine."""


class Actor(Struct, frozen=True, kw_only=True):
    """Who asks. name: for the record of changes. csrf_token: what a form of the pages has to bring along."""

    name: str
    scope: Scope
    csrf_token: str
    via: Literal["key", "session", "loopback"]
    key_id: UUID | None = None

    def may(self, scope: Scope) -> bool:
        """Whether what needs this scope is allowed."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


class Access:
    """Decides who is let in to one server."""

    def __init__(self, control: Control, sessions: LoginSessions, settings: Settings) -> None:
        self._control = control
        self._sessions = sessions
        self._settings = settings
        self._local_token = secrets.token_urlsafe(32)
        self._remembered: dict[bytes, tuple[float, ApiKey]] = {}
        self._is_any_key: tuple[float, bool] = (0.0, False)
        self.bound_to = settings.server_host

    async def check_address(self, host: str) -> None:
        """Note the address that the server answers on.

        Raises:
            ConfigurationError: others can reach it there, and there is no key by which to know them.
        """
        self.bound_to = host
        if is_loopback(host):
            return
        if self._settings.server_require_key is False:
            raise ConfigurationError(
                f"UPWELL_SERVER_REQUIRE_KEY is false, and {host} can be reached from elsewhere: without keys a server "
                "answers on a loopback address only, such as 127.0.0.1."
            )
        if not await self._sessions.is_admin_key():
            raise ConfigurationError(
                f"{host} can be reached from elsewhere, and there is no API key to know people by. Make one with "
                "`upwell api-key create NAME --scope admin`, or answer on 127.0.0.1."
            )

    # --- who it is ------------------------------------------------------------------------------------------

    async def actor(
        self, headers: Mapping[str, str], cookie: str | None, client: str | None, host: str
    ) -> Actor | None:
        """Who makes this request; None if nobody says so, and nobody is let in like that.

        Raises:
            AccessError: the key is not known, or may not be used any more.
        """
        authorization = headers.get("authorization")
        if authorization is not None:
            return await self._of_key(authorization)
        if cookie is not None and (actor := await self._of_session(cookie)) is not None:
            return actor
        if await self._is_local(headers, client, host):
            return Actor(name="loopback", scope="admin", csrf_token=self._local_token, via="loopback")
        return None

    async def _of_key(self, authorization: str) -> Actor:
        kind, _, secret = authorization.partition(" ")
        if kind.lower() != "bearer" or not secret or len(secret) > LONGEST_KEY:
            raise AccessError("The Authorization header must be `Bearer` and an API key.")
        key = await self._key(secret)
        if key is None:
            raise AccessError("This API key is not known, was revoked, or has expired.")
        return Actor(name=key.name, scope=key.scope, csrf_token="", via="key", key_id=key.id)

    async def _key(self, secret: str) -> ApiKey | None:
        digest, now = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest(), clock().time()
        until, key = self._remembered.get(digest, (0.0, None))
        if key is not None and now < until and (key.expires is None or key.expires.timestamp() > now):
            return key
        self._remembered.pop(digest, None)
        key = await self._control.find_key(secret)
        if key is not None:
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[digest] = now + REMEMBERED_SECONDS, key
        return key

    async def _of_session(self, token: str) -> Actor | None:
        found = await self._sessions.find(token)
        if found is None:
            return None
        return Actor(name=found.key_name, scope=found.scope, csrf_token=found.csrf, via="session", key_id=found.key_id)

    async def _is_local(self, headers: Mapping[str, str], client: str | None, host: str) -> bool:
        if not (is_loopback(self.bound_to) and client is not None and is_loopback(client) and is_loopback(host)):
            return False
        return not any(name in headers for name in FORWARDED) and not await self._is_key_required()

    async def _is_key_required(self) -> bool:
        if self._settings.server_require_key is not None:
            return self._settings.server_require_key
        until, found = self._is_any_key
        if not found and clock().time() >= until:
            found = await self._sessions.is_any_key()
            self._is_any_key = clock().time() + REMEMBERED_SECONDS, found
        return found

    def forget(self) -> None:
        """Keys have changed: look all of them up again."""
        self._remembered.clear()
        self._is_any_key = (0.0, False)

    # --- logging in -----------------------------------------------------------------------------------------

    async def log_in(self, secret: str) -> str:
        """A new session for whoever has this key: the value of its cookie.

        Raises:
            AccessError: the key is not known, or may not be used any more.
        """
        key = await self._control.find_key(secret) if len(secret) <= LONGEST_KEY else None
        if key is None:
            raise AccessError("This API key is not known, was revoked, or has expired.")
        token, _ = await self._sessions.open(key.id)
        return token

    async def log_out(self, token: str) -> None:
        """End the session of this cookie."""
        await self._sessions.close(token)

    # --- names ----------------------------------------------------------------------------------------------

    def is_our_name(self, host: str) -> bool:
        """Whether a request may name this as its host: no page of a foreign name can then read from us by it.

        An address is no name that somebody could have pointed here.
        """
        if is_loopback(host) or host in self._settings.server_hosts or host == self.bound_to:
            return True
        return not is_loopback(self.bound_to) and _is_address(host)


def host_of(header: str) -> str | None:
    """The name in a Host header, without the port; None if it is none."""
    name, port = header.strip().lower(), ""
    if name.startswith("["):
        name, bracket, port = name[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return None
        port = port[1:]
    elif ":" in name:
        name, _, port = name.partition(":")
    if not name or (port and not (port.isascii() and port.isdigit())):
        return None
    return name


@lru_cache(MOST_REMEMBERED)
def is_loopback(host: str) -> bool:
    """Whether it is a name or address of this machine that cannot be reached from elsewhere."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
