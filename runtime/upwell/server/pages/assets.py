"""What pages load: style sheets, scripts, pictures. A fixed set of files, read once, known by a digest of all."""

from __future__ import annotations

import gzip
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple

from litestar import get
from litestar.connection import Request
from litestar.exceptions import NotFoundException
from litestar.response import Response

from upwell.server import auth
from upwell.server.api.asked import PathName

_FOLDER: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_A_YEAR: Final = 31_536_000


class Asset(NamedTuple):
    """One file as it is sent."""

    media_type: str
    plain: bytes
    compressed: bytes


class Assets(NamedTuple):
    """All of them. version: what changes with any; it is part of their addresses, so each may be kept for ever."""

    version: str
    files: dict[str, Asset]


@cache
def assets() -> Assets:
    """The files, as they were when the server began."""
    digest = blake2b(digest_size=6)
    files: dict[str, Asset] = {}
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            digest.update(path.name.encode() + content)
            files[path.name] = Asset(_TYPES[path.suffix], content, gzip.compress(content, mtime=0))
    return Assets(digest.hexdigest(), files)


def asset(name: str) -> str:
    """The address of one."""
    return f"/static/{assets().version}/{name}"


def modules() -> list[str]:
    """The addresses of the modules that each page imports: fetched side by side, not one import after the other."""
    return [asset(name) for name in assets().files if name.endswith(".js") and name not in ("app.js", "early.js")]


@get("/static/{version:str}/{name:str}", include_in_schema=False, sync_to_thread=False, opt=auth.PUBLIC)
def static_file(request: Request[Any, Any, Any], version: PathName, name: PathName) -> Response[bytes]:
    """One file. It is looked up by its exact name, so no other can be reached."""
    known = assets()
    found = known.files.get(name)
    if found is None:
        raise NotFoundException(f"There is no file {name!r}.")
    compressed = "gzip" in request.headers.get("accept-encoding", "")
    headers = {
        "Cache-Control": f"public, max-age={_A_YEAR}, immutable" if version == known.version else "no-cache",
        "Vary": "Accept-Encoding",
    }
    if compressed:
        headers["Content-Encoding"] = "gzip"
    return Response(found.compressed if compressed else found.plain, media_type=found.media_type, headers=headers)


__all__ = ["asset", "assets", "modules", "static_file"]
