"""A server as its clients see it: requests with the key, and its problems as our own errors.

What cannot be reached, or is too busy, is StoreUnavailable: worth another try. What a server refuses is the error that
it names. Nothing is sent on to another address: the key is meant for this one.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from upwell.core.errors import (
    AccessError,
    ConfigurationError,
    ConflictError,
    InternalError,
    InvalidRequestError,
    MissingExtraError,
    NotFoundError,
    NotResumableError,
    UnknownRunError,
    UpwellError,
    WrongAddressError,
)
from upwell.journal.database import StoreUnavailable
from upwell.journal.limit_store import NotAlive
from upwell.journal.store import ProcessLost

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

TIMEOUT_SECONDS: Final = 20.0
"""How long an answer may take."""

CONNECT_SECONDS: Final = 5.0

PATIENCE_SECONDS: Final = 10.0
"""How long that is, unless said; see ApiClient."""

FIRST_PAUSE_SECONDS: Final = 0.1
LAST_PAUSE_SECONDS: Final = 1.0

TYPES: Final = "urn:upwell:"
"""What the type of a problem begins with that is one of these errors; its name follows, for programs to go by."""

_ERRORS: Final[dict[str, type[UpwellError]]] = {
    error.__name__: error
    for error in (
        AccessError, ConfigurationError, ConflictError, InvalidRequestError, NotAlive, NotFoundError,
        NotResumableError, ProcessLost, StoreUnavailable, UnknownRunError,
    )
}  # fmt: skip  # a list of names

_BY_STATUS: Final[dict[int, type[UpwellError]]] = {
    400: InvalidRequestError,
    401: AccessError,
    403: AccessError,
    404: NotFoundError,
    409: ConflictError,
    413: InvalidRequestError,
    415: InvalidRequestError,
    421: AccessError,
    422: InvalidRequestError,
}


class _Problem(msgspec.Struct):
    """What is read of a problem."""

    type: str = "about:blank"
    detail: str = ""
    errors: list[dict[str, Any]] = []


class ApiClient:
    """A server's API, over connections that are kept; for one event loop. Opened by its first request.

    url: of the API, such as `http://127.0.0.1:4200/api`. transport: what carries requests, if not the network.
    patience_seconds: how long a request that may be sent twice is tried again while the server cannot be reached.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        transport: httpx.AsyncBaseTransport | None = None,
        patience_seconds: float | None = None,
    ) -> None:
        self._fault = _fault_of(url)
        self.place = url.rpartition("@")[2] if self._fault else _shown(url)
        if key and not self._fault:
            url = _without_user(url)  # or the user would be sent instead of the key
        self._url = url.rstrip("/")
        self._key = key
        self._timeout_seconds = timeout_seconds
        self._transport = transport
        self._patience_seconds = PATIENCE_SECONDS if patience_seconds is None else patience_seconds
        self._client: httpx.AsyncClient | None = None

    def with_key(self, key: str) -> ApiClient:
        """The same server for somebody else."""
        return ApiClient(self._url, key, self._timeout_seconds, self._transport, self._patience_seconds)

    async def close(self) -> None:
        """Let go of the connections; may be called twice. It may be used again."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        """What the server answers.

        Raises:
            StoreUnavailable: it cannot be reached, or cannot answer now. AccessError: it does not know the key, or the
                key may not do this. Any other of our errors, as the server names it.
        """
        import httpx  # here: loads much, and only who works through a server needs it

        if self._fault is not None:
            raise WrongAddressError(f"UPWELL_API_URL is {self.place!r}, and cannot be used: {self._fault}")
        if self._key and not (self._key.isascii() and self._key.isprintable()):  # httpx would show all of it
            raise AccessError("UPWELL_API_KEY holds a character that no API key has, such as the end of a line.")
        client = self._opened()
        headers = {"Content-Type": content_type} if content is not None else {}
        given = httpx.QueryParams([(name, item) for name, value in (query or {}).items() for item in _texts(value)])
        try:
            answer = await client.request(method, f"{self._url}{path}", params=given, content=content, headers=headers)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise WrongAddressError(f"UPWELL_API_URL is {self.place!r}, and cannot be used: {error}") from error
        except (httpx.HTTPError, OSError, RuntimeError) as error:
            raise StoreUnavailable(
                f"The server {self.place} cannot be reached: {str(error) or type(error).__name__}. Is it running "
                "(`upwell server start`), and is this its address (UPWELL_API_URL)?"
            ) from None  # where in which library it happened says no more
        if answer.is_success:
            return answer.content
        raise self._error(answer)

    async def ask(self, method: str, path: str, **given: Any) -> bytes:
        """The same for what may be sent twice: while the server cannot be reached it is, for some seconds."""
        now = asyncio.get_running_loop().time
        until, pause = now() + self._patience_seconds, FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self.request(method, path, **given)
            except StoreUnavailable:
                if now() + pause > until:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE_SECONDS)

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            try:
                import httpx
            except ImportError as error:
                raise MissingExtraError("To work through a server needs `pip install 'upwell[server]'`.") from error
            headers = {"User-Agent": "upwell"}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            self._client = httpx.AsyncClient(
                headers=headers,
                timeout=httpx.Timeout(self._timeout_seconds, connect=min(CONNECT_SECONDS, self._timeout_seconds)),
                transport=self._transport,
                follow_redirects=False,
                trust_env=not _is_here(self._url),
            )
        return self._client

    def _error(self, answer: httpx.Response) -> UpwellError:
        try:
            problem = msgspec.json.decode(answer.content, type=_Problem)
        except (msgspec.MsgspecError, RecursionError):
            problem = _Problem()
        status = answer.status_code
        detail = problem.detail or f"The server {self.place} answered {status} {answer.reason_phrase}."
        if problem.errors:
            detail = f"{detail.rstrip('.')}: {'; '.join(map(_fault, problem.errors))}"
        name = problem.type.removeprefix(TYPES)
        if name != problem.type and name in _ERRORS:
            return _ERRORS[name](detail)
        if status in (429, 502, 503, 504):
            return StoreUnavailable(detail)
        if 300 <= status < 400:
            where = _shown(answer.headers.get("location", "elsewhere"))
            return WrongAddressError(f"The server {self.place} sends on to {where}: set UPWELL_API_URL to its address.")
        if status in (404, 405):  # what a server of ours does not find it names
            return WrongAddressError(
                f"There is no API of upwell at {self.place} that knows what was asked; should its address "
                "(UPWELL_API_URL) end in /api, or is it of another version?"
            )
        return _BY_STATUS.get(status, InternalError)(detail)


def read(data: bytes, kind: type[T]) -> T:
    """What a server answered, as JSON.

    Raises:
        StoreUnavailable: it is not what this version of upwell knows.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise StoreUnavailable(
            f"What the server answered is not understood; is it of another version? {error}"
        ) from error


def _fault(item: dict[str, Any]) -> str:
    return " ".join(str(item[name]) for name in ("key", "message") if item.get(name))


def _texts(value: Any) -> list[str]:
    """What stands in the query for a value: nothing, once, or several times."""
    if value is None:
        return []
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, list | tuple | set | frozenset):
        return [str(item) for item in value]  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    return [value.isoformat() if hasattr(value, "isoformat") else str(value)]


def _is_here(url: str) -> bool:
    """Whether it is on this machine: then no proxy can be meant."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _fault_of(url: str) -> str | None:
    """Why this is no address; None if it is one."""
    try:
        _ = urlsplit(url).port
    except ValueError as error:
        return str(error)
    return None


def _shown(url: str) -> str:
    """The address without what somebody may have put into it that is nobody's business."""
    return urlsplit(_without_user(url))._replace(query="", fragment="").geturl()


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
