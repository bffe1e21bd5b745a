"""Carries pull steps out: they lead from a folder to another one, in which the code of a run is then found."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from upwell.composition import home
from upwell.core.errors import MissingExtraError, SourceError
from upwell.pull_steps import (
    GitClone,
    PipInstallRequirements,
    PullFromRemoteStorage,
    RunShellScript,
    SetWorkingDirectory,
    Step,
    name_of,
)
from upwell.serving.logs import LOGGER
from upwell.serving.programs import run_program
from upwell.serving.remote_files import fetch_files
from upwell.serving.repositories import Repositories
from upwell.serving.requirements import read_requirements
from upwell.serving.source_cache import SourceCache, touch
from upwell.settings import current as settings

MOST_TOLD: Final = 600
"""Characters of what a command said that failed, at its end."""


class Pulled(NamedTuple):
    """Where the code of a run is.

    folder: where it works, and from where its entry point counts. path: where imports look, too. kept: the folders of
    the cache that are used. commit, repository: which the code is of, where it is of one.
    """

    folder: Path
    path: tuple[Path, ...] = ()
    kept: tuple[Path, ...] = ()
    commit: str | None = None
    repository: str | None = None

    @property
    def roots(self) -> tuple[str, ...]:
        """The folders outside of which nothing of the run's code may stand, the one that it works in first."""
        return tuple(dict.fromkeys(map(str, (self.folder, *self.kept, *self.path))))

    def __str__(self) -> str:
        return f"{self.repository} at the commit {self.commit}" if self.commit else str(self.folder)


class Puller:
    """Carries out the pull steps of many runs; what they fetch is kept in `sources`, in `UPWELL_HOME`."""

    def __init__(self, cache: SourceCache | None = None) -> None:
        self._cache = cache or SourceCache(home() / "sources")
        self._repositories = Repositories(self._cache)

    async def pull(self, steps: Sequence[Step], folder: Path, env: Mapping[str, str] | None = None) -> Pulled:
        """What steps lead to from this folder. env: variables that commands have besides those of this process.

        Raises:
            SourceError: one of them failed; says which, and what to do about it.
        """
        pulled = Pulled(folder)
        for number, step in enumerate(steps, 1):
            try:
                pulled = await self._after(step, pulled, env or {})
            except (SourceError, MissingExtraError) as error:
                raise SourceError(f"Pull step {number} ({name_of(step)}) failed. {error}") from error
            except OSError as error:
                raise SourceError(f"Pull step {number} ({name_of(step)}) failed: {error}") from error
        return pulled

    def tidy(self, in_use: Sequence[Pulled]) -> None:
        """Remove what nobody has used for long."""
        for pulled in in_use:
            for folder in pulled.kept:
                touch(folder)
        self._cache.sweep()

    async def _after(self, step: Step, pulled: Pulled, env: Mapping[str, str]) -> Pulled:
        match step:
            case GitClone():
                fetched = await self._repositories.fetch(step)
                return pulled._replace(
                    folder=fetched.folder,
                    kept=(*pulled.kept, fetched.folder),
                    commit=fetched.commit,
                    repository=step.repository,
                )
            case PullFromRemoteStorage():
                folder = await fetch_files(step, self._cache)
                return pulled._replace(folder=folder, kept=(*pulled.kept, folder))
            case SetWorkingDirectory():
                return pulled._replace(folder=_folder(pulled, step.directory))
            case RunShellScript():
                await self._run(step, pulled, env)
                return pulled
            case PipInstallRequirements():
                folder = await self._install(step, pulled, env)
                return pulled._replace(path=(*pulled.path, folder), kept=(*pulled.kept, folder))

    async def _run(self, step: RunShellScript, pulled: Pulled, env: Mapping[str, str]) -> None:
        folder = _folder(pulled, step.directory)
        async with self._cache.alone("script", str(folder)):  # it may be the folder of other runs, too
            for arguments in step.commands():
                await _command(arguments, folder, {**env, **step.env}, step.timeout_seconds)

    async def _install(self, step: PipInstallRequirements, pulled: Pulled, env: Mapping[str, str]) -> Path:
        """The folder of these packages: one for each content of a requirements file, whatever folder it stands in."""
        folder = _folder(pulled, step.directory)
        wanted = read_requirements(folder / step.requirements_file)
        where = ""
        if wanted.names_folders:
            if not any(folder.is_relative_to(kept) for kept in pulled.kept):
                raise SourceError(
                    f"{step.requirements_file} asks for a package that stands in a folder, and nobody knows when that "
                    "changes: let a step before this one fetch the folder, or install the package where workers run."
                )
            where = str(folder)
        place = self._cache.source("packages", sys.executable, sys.version, where) / wanted.digest

        async def install(target: Path) -> None:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
            arguments = [*pip, "--target", str(target), f"--requirement={step.requirements_file}"]
            await _command(arguments, folder, env, step.timeout_seconds)

        async with self._cache.alone(str(place)):
            return await self._cache.made(place, install)


def _folder(pulled: Pulled, directory: str | None) -> Path:
    folder = pulled.folder / Path(directory or "").expanduser()
    if not folder.is_dir():
        raise SourceError(f"There is no folder {folder} here.")
    return Path(os.path.normpath(folder))


async def _command(arguments: Sequence[str], folder: Path, env: Mapping[str, str], timeout_seconds: float) -> None:
    ended = await run_program(arguments, folder=folder, env={**os.environ, **env}, timeout_seconds=timeout_seconds)
    said = "\n".join(filter(None, (ended.out.strip(), ended.err.strip())))
    if ended.status:
        how = f"ended with the code {ended.status}" if ended.status > 0 else f"was killed by the signal {-ended.status}"
        raise SourceError(f"{' '.join(arguments)[:200]} {how}: {said[-MOST_TOLD:] or 'it said nothing'}")
    if said:
        LOGGER.info("%s\n%s", " ".join(arguments)[:200], said)


def check_that_steps_may_run() -> None:
    """Whether this process may fetch and run what deployments say.

    Raises:
        SourceError: it may not.
    """
    if not settings().worker_pull:
        raise SourceError(
            "Its deployment has pull steps, and this worker carries none out: UPWELL_WORKER_PULL is false there."
        )


def tokens_of(steps: Sequence[Step]) -> dict[str, str]:
    """The variables of this process's environment that these steps name, for whoever carries them out elsewhere."""
    names = {step.access_token_variable for step in steps if isinstance(step, GitClone) and step.access_token_variable}
    return {name: os.environ[name] for name in sorted(names) if name in os.environ}


def pull_here(steps: Sequence[Step], tokens: Mapping[str, str]) -> Pulled:
    """Carry steps out in a process that has nothing else to do yet, and go to the folder that they lead to.

    tokens: variables of the environment that are there meanwhile only.
    """
    before = dict(os.environ)
    os.environ.update(tokens)
    try:
        pulled = asyncio.run(Puller().pull(steps, Path.cwd()))
    finally:
        for name in tokens:
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]
    os.chdir(pulled.folder)
    sys.path[:0] = [str(folder) for folder in (*pulled.path, pulled.folder)]
    return pulled
