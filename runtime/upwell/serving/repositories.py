"""Code of git repositories: asked for anew whenever a run is to begin, kept by commit.

Of each repository there is a mirror, which holds what was fetched, and beside it a folder for each commit, which runs
of it share. A mirror that git cannot go on with, because somebody was killed while writing to it, is replaced.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final, NamedTuple

from upwell.core.errors import SourceError
from upwell.pull_steps import GitClone
from upwell.serving.git import Access, GitFailed, access_to, git
from upwell.serving.source_cache import LASTING, SourceCache, digest, is_there, put_in_place, remove, touch

MOST_TRIES: Final = 3
"""How often a server is asked that cannot be reached."""

PAUSE_SECONDS: Final = 1.0
"""Before the second time; then ever longer."""

_PASSING: Final = ("Could not resolve host", "Connection refused", "Connection reset", "Connection timed out",
                   "Failed to connect", "early EOF", "unexpected disconnect", "The requested URL returned error: 5",
                   "Operation timed out", "Temporary failure", "RPC failed")  # fmt: skip
_WANTS_TO_KNOW: Final = ("could not read Username", "could not read Password", "Authentication failed",
                         "terminal prompts disabled", "Permission denied (", "Host key verification failed",
                         "The requested URL returned error: 403", "Invalid username or")  # fmt: skip
_NO_REF: Final = ("couldn't find remote ref", "not our ref", "unadvertised object", "Remote branch")
_NO_REPOSITORY: Final = (
    "does not appear to be a git repository",
    "not found",
    "not exist",
    "Could not read from remote",
)


class Fetched(NamedTuple):
    """The code of a commit. began: when it was asked which one that is."""

    folder: Path
    commit: str
    began: float


class Repositories:
    """Those that this process has fetched code of."""

    def __init__(self, cache: SourceCache) -> None:
        self._cache = cache
        self._last: dict[GitClone, Fetched] = {}

    async def fetch(self, step: GitClone) -> Fetched:
        """The code as it is now, and no earlier than this call; those who ask at once are answered together.

        Raises:
            SourceError: it cannot be had.
        """
        asked = time.monotonic()
        access = access_to(step)
        source = self._cache.source("git", step.repository, step.access_token_variable or "", step.username)
        if step.commit is not None and is_there(place := _place_of(source, step, step.commit)):
            touch(place)
            return Fetched(place, step.commit, asked)
        async with self._cache.alone(str(source)):
            last = self._last.get(step)
            if last is not None and last.began >= asked and is_there(last.folder):
                return last
            began = time.monotonic()
            try:
                fetched = await self._fetched(step, access, source, began)
            except GitFailed as error:
                raise SourceError(await _explained(step, access, str(error), self._cache.root)) from None
        self._last[step] = fetched
        return fetched

    async def _fetched(self, step: GitClone, access: Access, source: Path, began: float) -> Fetched:
        commit = await self._mirrored(step, access, source / LASTING)
        place = _place_of(source, step, commit)

        async def check_out(folder: Path) -> None:
            await _check_out(step, access, source / LASTING, commit, folder)

        await self._cache.made(place, check_out)
        return Fetched(place, commit, began)

    async def _mirrored(self, step: GitClone, access: Access, mirror: Path) -> str:
        """The commit that is meant; the mirror has it then."""
        if is_there(mirror):
            try:
                return await _fetch_into(mirror, step, access)
            except GitFailed:
                pass  # because of the repository, and then a new mirror fails as well; or because of this one
        new = self._cache.beside(mirror)
        try:
            await git("init", "--quiet", "--bare", "--", str(new), folder=new, access=access, timeout_seconds=60)
            commit = await _fetch_into(new, step, access)
            await asyncio.to_thread(remove, mirror)
            put_in_place(new, mirror)
        finally:
            await asyncio.to_thread(remove, new)
        return commit


def _place_of(source: Path, step: GitClone, commit: str) -> Path:
    return source / f"{commit}{'-with-submodules' if step.include_submodules else ''}"


def _wanted(step: GitClone) -> str:
    """What is asked of the repository."""
    if step.branch is not None:
        return f"refs/heads/{step.branch}"
    return f"refs/tags/{step.tag}" if step.tag is not None else step.commit or "HEAD"


async def _fetch_into(mirror: Path, step: GitClone, access: Access) -> str:
    ours = f"refs/upwell/{digest(_wanted(step))}"

    async def fetch(*what: str) -> None:
        await _patiently(
            "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--force",
            *what, folder=mirror, access=access, timeout_seconds=step.timeout_seconds,
        )  # fmt: skip  # a command

    try:
        await fetch("--depth=1", "--", step.repository, f"+{_wanted(step)}:{ours}")
    except GitFailed as error:
        if step.commit is None or not _says(error, _NO_REF):
            raise
        await fetch("--", step.repository, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        ours = step.commit  # the server gives no commit by its name: one of all that it gives
    commit = f"{ours}^{{commit}}"
    try:
        return await git("rev-parse", "--verify", "--quiet", commit, folder=mirror, access=access, timeout_seconds=60)
    except GitFailed:
        raise GitFailed(f"not our ref {_wanted(step)}") from None


async def _patiently(*arguments: str, folder: Path, access: Access, timeout_seconds: float) -> None:
    """The same again where the way to the server failed, not the server."""
    for tries in range(1, MOST_TRIES + 1):
        try:
            await git(*arguments, folder=folder, access=access, timeout_seconds=timeout_seconds)
        except GitFailed as error:
            if tries == MOST_TRIES or not _says(error, _PASSING):
                raise
            await asyncio.sleep(PAUSE_SECONDS * 2 ** (tries - 1))
        else:
            return


async def _check_out(step: GitClone, access: Access, mirror: Path, commit: str, folder: Path) -> None:
    """Fill an empty folder with a commit of a mirror; it is a repository of its own then."""
    near = access._replace(protocols=f"{access.protocols}:file")

    async def run(*arguments: str, access: Access = near) -> None:
        await git(*arguments, folder=folder, access=access, timeout_seconds=step.timeout_seconds)

    await run("init", "--quiet")
    await run("remote", "add", "--", "origin", step.repository)
    await run("fetch", "--quiet", "--depth=1", "--no-tags", "--", str(mirror), commit)
    await run("checkout", "--quiet", "--detach", commit, "--")
    if step.include_submodules:
        await run("submodule", "--quiet", "update", "--init", "--recursive", "--depth=1", access=access)


# --- what went wrong ----------------------------------------------------------------------------------------


def _says(error: GitFailed | str, any_of: tuple[str, ...]) -> bool:
    return any(it in str(error) for it in any_of)


async def _explained(step: GitClone, access: Access, said: str, here: Path) -> str:
    """What git says, for people: what to do about it comes first."""
    if _says(said, _WANTS_TO_KNOW):
        if access.token:
            what = f"The repository {step.repository} does not take the token in {step.access_token_variable}"
        else:
            what = f"The repository {step.repository} asks who it is. Give workers a token in a variable of their "
            what += "environment and say access_token_variable='ITS_NAME', or a key for ssh"
        return f"{what}. Git says: {said}"
    if _says(said, _NO_REF):
        kind = "commit" if step.commit else "tag" if step.tag else "branch"
        names = await _names(step, access, here)
        meant = step.branch or step.tag or step.commit
        return f"The repository {step.repository} has no {kind}{f' {meant!r}' if meant else ' at all'}.{names}"
    if _says(said, _NO_REPOSITORY):
        return f"There is no repository at {step.repository}, or not for this worker. Git says: {said}"
    return f"The repository {step.repository} could not be fetched. Git says: {said}"


async def _names(step: GitClone, access: Access, here: Path) -> str:
    """Which branches, or tags, there are."""
    if step.commit is not None:
        return ""
    kind = "--tags" if step.tag is not None else "--heads"
    try:
        said = await git(
            "ls-remote", "--refs", kind, "--", step.repository, folder=here, access=access, timeout_seconds=60
        )
    except (GitFailed, SourceError):
        return ""
    names = [line.partition("\t")[2].split("/", 2)[-1] for line in said.splitlines()]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f" It has: {', '.join(names[:10]) or 'none'}{more}."
