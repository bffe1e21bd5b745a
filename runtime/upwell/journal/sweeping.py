"""Removes the files of large results that nothing names any more. Equal results share a file, so it is looked who does.

A file goes if it has not been written for a week, and no record in the store named it at two looks, an hour apart: who
stores a result writes its file anew and its record after that, and who takes a result over from another run has its
record within seconds. Files with a name of the user's own are left alone, and so is a folder that other stores use,
too: they may name what this one does not.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from upwell.core.storage_keys import BESIDE, name_aside
from upwell.engine.clock import clock
from upwell.engine.loggers import ENGINE
from upwell.journal.database import Session

GRACE_SECONDS: Final = 7 * 86_400.0
"""So long after it was last written a file stays in any case."""

PAUSE_SECONDS: Final = 3_600.0
"""Between two looks."""

STORES: Final = ".stores"
"""The folder in a folder of results in which each store that uses it has a file of its name."""

_FILE: Final = re.compile(rb"[0-9a-f]{2}/[0-9a-f]{38}")
"""A name made of a checksum."""

_QUERIES: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("records_of_task_runs_after", {"series": -1, "number": -1}),
    ("records_of_flow_runs_after", {"id": ""}),
    ("records_in_cache_after", {"key": ""}),
)
"""All that may name a file, each with the key that it begins after."""

InStep = Callable[[Callable[[Session, int], Awaitable[Any]]], Awaitable[Any]]
OnIt = Callable[..., Awaitable[Any]]
"""Carries out a short piece of work, which is given how many rows it may take."""


def mark_folder(folder: Path, store: str) -> None:
    """Say that this store has results in a folder."""
    marks = folder / STORES
    for made in (folder, marks):
        with suppress(FileExistsError):
            made.mkdir(0o700, parents=True)
    (marks / store).touch(0o600)


class Sweeper:
    """What one process knows of the files of one store's results.

    folders: where they are, and what the store is known by there. waiting: where rows wait to be brought in.
    """

    def __init__(self, folders: Mapping[Path, str], waiting: Path | None = None) -> None:
        self._folders = folders
        self._waiting = waiting
        self._unnamed: dict[Path, float] = {}
        self._looked = -PAUSE_SECONDS

    async def look(self, in_step: InStep) -> int:
        """Look, unless that was done a short while ago; how many files were removed."""
        if time.monotonic() < self._looked + PAUSE_SECONDS:
            return 0
        self._looked = time.monotonic()
        with _one_thread() as on_it:
            return await self._sweep(in_step, on_it)

    async def _sweep(self, in_step: InStep, on_it: OnIt) -> int:
        if self._waiting is not None and await on_it(_holds_files, self._waiting):
            return 0
        before = clock().time() - GRACE_SECONDS
        files = await on_it(self._old_files, before)
        named = await _named(in_step) if files else frozenset[bytes]()
        unnamed = {path: written for path, written in files.items() if _name_of(path) not in named}
        again = [path for path, written in unnamed.items() if self._unnamed.get(path) == written]
        removed: int = await on_it(_remove, again, before)
        self._unnamed = {path: written for path, written in unnamed.items() if path not in again}
        return removed

    def _old_files(self, before: float) -> dict[Path, float]:
        """Files that are named by their checksum, and when they were written; what was left half-written goes."""
        found: dict[Path, float] = {}
        for folder, store in self._folders.items():
            if _stores_of(folder) != {store}:
                continue
            for entry in _entries(folder):
                for file in _entries(Path(entry.path)) if entry.is_dir(follow_symlinks=False) else ():
                    written = _written(file)
                    if written is None or written >= before:
                        continue
                    path = Path(file.path)
                    if file.name.startswith(BESIDE):
                        path.unlink(missing_ok=True)
                    elif _FILE.fullmatch(_name_of(path)):
                        found[path] = written
        return found


@contextmanager
def _one_thread() -> Generator[OnIt]:
    """Calls functions on a thread beside the running loop: one of its own, which ends, as it is needed once an hour."""
    from concurrent.futures import ThreadPoolExecutor  # here: few processes live that long

    helper = ThreadPoolExecutor(1, "upwell-sweeper")
    try:
        yield partial(asyncio.get_running_loop().run_in_executor, helper)
    finally:
        helper.shutdown(wait=False)


async def _named(in_step: InStep) -> frozenset[bytes]:
    """All names that stand in records, and what looks like one."""
    names: set[bytes] = set()
    for query, first in _QUERIES:
        after = dict(first)

        async def some(session: Session, most: int, query: str = query, after: dict[str, Any] = after) -> bool:
            rows = await session.fetch(query, most=most, **after)
            for row in rows:
                if row[-1] is not None:
                    names.update(_FILE.findall(row[-1]))
            if rows:
                after.update(zip(after, rows[-1][:-1], strict=True))
            return len(rows) == most

        while await in_step(some):
            pass
    return frozenset(names)


def _remove(paths: Sequence[Path], before: float) -> int:
    """Remove those that were not written meanwhile. Each is put aside first: a writer may be faster than any look.

    A reader finds it there, and what was written meanwhile goes back by one step: at each moment it has a name.
    """
    removed = 0
    for path in paths:
        aside = path.with_name(name_aside(path.name))
        try:
            if path.lstat().st_mtime >= before:
                continue
            path.rename(aside)
            if aside.lstat().st_mtime >= before:
                aside.replace(path)  # whatever was written there since has the same content
            else:
                aside.unlink()
                removed += 1
        except FileNotFoundError:
            continue
        except OSError as error:
            ENGINE.debug("A result that nothing names could not be removed: %s", error)
    return removed


def _name_of(path: Path) -> bytes:
    return f"{path.parent.name}/{path.name}".encode()


def _stores_of(folder: Path) -> set[str]:
    return {entry.name for entry in _entries(folder / STORES)}


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # it is not there, or not ours to read
        return []


def _written(entry: os.DirEntry[str]) -> float | None:
    try:
        return entry.stat(follow_symlinks=False).st_mtime if entry.is_file(follow_symlinks=False) else None
    except OSError:
        return None


def _holds_files(folder: Path) -> bool:
    return any(entry.is_file(follow_symlinks=False) for entry in _entries(folder))


__all__ = ["Sweeper", "mark_folder"]
