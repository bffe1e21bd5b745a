"""Code below a URL of fsspec: looked at anew whenever a run is to begin, kept by what the listing says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, Final

from upwell.core.errors import MissingExtraError, SourceError
from upwell.pull_steps import PullFromRemoteStorage, without_user
from upwell.serving.source_cache import SourceCache, digest

MOST_FILES: Final = 100_000


async def fetch_files(step: PullFromRemoteStorage, cache: SourceCache) -> Path:
    """A folder with the files as they are now.

    Raises:
        SourceError: they cannot be had. MissingExtraError: fsspec, or its package for the protocol, is not installed.
    """
    given_up = threading.Event()
    try:
        async with asyncio.timeout(step.timeout_seconds):
            system, base, found = await asyncio.to_thread(_listed, step.url)

            async def download(folder: Path) -> None:
                await asyncio.to_thread(_download, system, base, found, folder, given_up)

            version = digest(*(f"{name}\0{found[name]}" for name in sorted(found)))
            place = cache.source("files", step.url) / version
            async with cache.alone(str(place)):
                return await cache.made(place, download)
    except TimeoutError:
        raise SourceError(
            f"The files of {without_user(step.url)} were not here after {step.timeout_seconds:g} seconds."
        ) from None
    finally:
        given_up.set()


def _listed(url: str) -> tuple[Any, str, dict[str, str]]:
    """The file system, the folder in it, and what tells each file's content from another one's."""
    try:
        core = import_module("fsspec.core")
    except ImportError:
        raise MissingExtraError(
            "To have code from a URL, install fsspec and the package for its protocol where workers run: "
            "`pip install fsspec s3fs` for s3://, `gcsfs` for gs://, `adlfs` for abfs://."
        ) from None
    try:
        system, base = core.url_to_fs(url)
        system.invalidate_cache()
        facts: Mapping[str, Mapping[str, Any]] = system.find(base, detail=True)
        found = {str(name): repr(sorted(fact.items(), key=str)) for name, fact in facts.items()}
    except ImportError as error:
        raise MissingExtraError(f"{without_user(url)} needs a package of fsspec's: {error}") from None
    except Exception as error:  # of any file system
        raise SourceError(f"The files of {without_user(url)} cannot be listed: {_told(error)}") from error
    if not found:
        raise SourceError(f"There are no files below {without_user(url)}.")
    if len(found) > MOST_FILES:
        raise SourceError(f"There are more than {MOST_FILES:,} files below {without_user(url)}.")
    return system, base, found


def _download(system: Any, base: str, found: Mapping[str, str], folder: Path, given_up: threading.Event) -> None:
    for name in found:
        if given_up.is_set():
            return
        inside = PurePosixPath(name.removeprefix(base).lstrip("/") or PurePosixPath(name).name)
        if ".." in inside.parts or inside.is_absolute():
            raise SourceError(f"The name {name!r} of a file leads out of its folder.")
        target = folder / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            system.get_file(name, str(target))
        except Exception as error:
            raise SourceError(f"The file {name} cannot be had: {_told(error)}") from error


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {without_user(str(error))}"
