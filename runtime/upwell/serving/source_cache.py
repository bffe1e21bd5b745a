"""A folder of code that was fetched: each thing in it is whole or not there, shared by many processes, swept when old.

What is made is made under another name beside its place, and gets its own in one step. So whoever is killed meanwhile
leaves nothing that somebody else would take for whole; what is left of it is swept with what nobody has used for long.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

KEPT_SECONDS: Final = 7 * 86_400.0
"""How long something is kept that nobody uses."""

UNFINISHED_SECONDS: Final = 6 * 3_600.0
"""After so long something is swept that was begun and never finished: whoever made it has died."""

SWEEP_SECONDS: Final = 600.0
"""How often is swept, at most."""

_UNFINISHED: Final = ".making-"
_FIRST_LOOK_SECONDS: Final = 0.005
_LOOK_SECONDS: Final = 0.1


def digest(*parts: str) -> str:
    """A name for what these texts say together."""
    return blake2b("\0".join(parts).encode(errors="surrogateescape"), digest_size=12).hexdigest()


LASTING: Final = "mirror"
"""What is kept as long as any of its neighbours is used."""


class SourceCache:
    """What is kept below one folder: `<kind>/<source>/<version>`, each a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._swept = float("-inf")

    def source(self, kind: str, *what: str) -> Path:
        """The folder for versions of what these texts name; it need not be there."""
        return self.root / kind / digest(*what)

    async def made(self, place: Path, make: Callable[[Path], Awaitable[None]]) -> Path:
        """This version; if it is not there `make` fills a new folder, which then gets its name."""
        if not is_there(place):
            beside = self.beside(place)
            try:
                await make(beside)
                put_in_place(beside, place)
            finally:
                await asyncio.to_thread(remove, beside)
        touch(place)
        return place

    def beside(self, place: Path) -> Path:
        """A new folder, to be filled and then put in place."""
        _make_private(place.parent)
        beside = place.parent / f"{_UNFINISHED}{secrets.token_hex(8)}"
        beside.mkdir(mode=0o700)
        return beside

    @asynccontextmanager
    async def alone(self, *what: str) -> AsyncGenerator[None]:
        """Nobody else is at this meanwhile, in this process or another. Free again when the process dies."""
        folder = self.root / "locks"
        _make_private(folder)
        with (folder / digest(*what)).open("ab") as file:
            pause = _FIRST_LOOK_SECONDS
            while not _locked(file.fileno()):
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LOOK_SECONDS)
            yield  # closing the file lets go

    def sweep(self) -> None:
        """Remove what nobody has used for long, unless that was done a while ago."""
        now = time.monotonic()
        if now - self._swept < SWEEP_SECONDS:
            return
        self._swept = now
        for folder in list(_to_be_swept(self.root, time.time())):
            remove(folder)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_there(place: Path) -> bool:
    """Whether it is, and then it is whole."""
    return place.is_dir()


def put_in_place(made: Path, place: Path) -> None:
    """Give what was made its own name; what somebody else has put there meanwhile is as good."""
    try:
        made.rename(place)
    except OSError:
        if not place.is_dir():
            raise


def touch(place: Path) -> None:
    """Note that a version is used."""
    for folder in (place, place.parent):
        with suppress(OSError):
            os.utime(folder)


def remove(folder: Path) -> None:
    """Away with it, in one step for those who look; it may be gone already."""
    if folder.is_dir():
        gone = (
            folder if folder.name.startswith(_UNFINISHED) else folder.with_name(f"{_UNFINISHED}{secrets.token_hex(8)}")
        )
        with suppress(OSError):
            if gone is not folder:
                folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


def _make_private(folder: Path) -> None:
    for one in reversed([folder, *folder.parents]):
        if not one.is_dir():
            one.mkdir(mode=0o700, exist_ok=True)


def _to_be_swept(root: Path, now: float) -> Iterator[Path]:
    for kind in _folders(root):
        for source in _folders(kind):
            if _is_old(source, now):
                yield source
            else:
                yield from (it for it in _folders(source) if it.name != LASTING and _is_old(it, now))


def _is_old(folder: Path, now: float) -> bool:
    kept = UNFINISHED_SECONDS if folder.name.startswith(_UNFINISHED) else KEPT_SECONDS
    with suppress(OSError):
        return now - folder.stat().st_mtime > kept
    return False


def _folders(folder: Path) -> list[Path]:
    with suppress(OSError):
        return [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    return []
