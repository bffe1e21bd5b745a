"""Where the code of a deployment is kept: a git repository, a URL of fsspec, a folder. For `Flow.from_source`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, TypeAlias

from upwell.core.errors import ConfigurationError
from upwell.pull_steps import GitClone, PullFromRemoteStorage, SetWorkingDirectory, Step

_SCP: Final = re.compile(r"[\w.-]+@[\w.-]+:")


class GitRepository:
    """A repository. Workers fetch it whenever a run is to begin, and the run has the code of that moment.

    Args:
        url: `https://host/path.git`, `git@host:path.git`, `ssh://git@host/path.git`, `file:///path.git`, or a path.
        branch, tag, commit: which code; one of them at most. The repository's own branch unless said. `commit_sha` is
            the same as `commit`.
        include_submodules: its submodules, too.
        access_token_variable: the name of the environment variable of workers that holds the token for an https
            repository that asks for one. The token itself is never stored.
        username: what is sent with the token; GitHub and GitLab take any, Bitbucket wants `x-token-auth`.
        credentials: none are taken; the error says what to do instead.
    """

    def __init__(
        self,
        url: str,
        *,
        branch: str | None = None,
        tag: str | None = None,
        commit: str | None = None,
        commit_sha: str | None = None,
        include_submodules: bool = False,
        access_token_variable: str | None = None,
        username: str = "x-access-token",
        credentials: object = None,
    ) -> None:
        if credentials is not None:
            raise ConfigurationError(
                "Credentials are not stored with deployments: say access_token_variable='GIT_TOKEN', and set GIT_TOKEN "
                "here and where workers run."
            )
        if commit is not None and commit_sha is not None:
            raise ConfigurationError("commit and commit_sha are the same: say one of them.")
        is_path = "://" not in url and not url.startswith("-") and _folder(url).is_dir()
        self.step = GitClone(
            repository=str(_folder(url)) if is_path else url,
            branch=branch,
            tag=tag,
            commit=commit or commit_sha,
            include_submodules=include_submodules,
            access_token_variable=access_token_variable,
            username=username,
        )

    def __repr__(self) -> str:
        return f"GitRepository({self.step.repository!r})"


class RemoteStorage:
    """The files below a URL of fsspec, such as `s3://bucket/flows`; its settings are those of the environment."""

    def __init__(self, url: str) -> None:
        self.step = PullFromRemoteStorage(url=url)

    def __repr__(self) -> str:
        return f"RemoteStorage({self.step.url!r})"


class LocalStorage:
    """A folder of the machine that workers run on, as it is when a run begins."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        folder = _folder(path)
        if not folder.is_dir():
            raise ConfigurationError(f"There is no folder {folder} to have flows from.")
        self.step = SetWorkingDirectory(directory=str(folder))

    def __repr__(self) -> str:
        return f"LocalStorage({self.step.directory!r})"


Storage: TypeAlias = GitRepository | RemoteStorage | LocalStorage


def storage_of(source: str | os.PathLike[str] | Storage) -> Storage:
    """What is meant by a path or an address.

    A bare repository, and whatever is reached by https, http, ssh or `file://`, is a git repository; other URLs are
    fsspec's; other paths are folders.

    Raises:
        ConfigurationError: it is nothing of these, or holds a secret.
    """
    if isinstance(source, GitRepository | RemoteStorage | LocalStorage):
        return source
    text = os.fspath(source)
    if "::" in text or text.startswith("-") or _SCP.match(text):
        return GitRepository(text)
    protocol, separator, _ = text.partition("://")
    if separator:
        return GitRepository(text) if protocol in ("https", "http", "ssh", "file", "git") else RemoteStorage(text)
    if _is_bare(_folder(text)):
        return GitRepository(text)
    return LocalStorage(text)


def _folder(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(Path(path).expanduser()))


def _is_bare(folder: Path) -> bool:
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()


def step_of(source: str | os.PathLike[str] | Storage) -> Step:
    """The pull step by which workers have the code from there."""
    return storage_of(source).step


__all__ = ["GitRepository", "LocalStorage", "RemoteStorage", "Storage"]
