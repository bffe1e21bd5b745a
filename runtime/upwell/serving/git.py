"""The program git, as it is called here: it asks nobody, reaches what it may, and gives no secret away."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from upwell.core.errors import SourceError
from upwell.pull_steps import GitClone, protocol_of, without_user
from upwell.serving.programs import Ended, run_program

_OF_ANOTHER_REPOSITORY: Final = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX", "GIT_CEILING_DIRECTORIES",
)  # fmt: skip  # where the worker itself was started by git

_SETTINGS: Final = (("gc.autoDetach", "false"), ("core.hooksPath", os.devnull), ("advice.detachedHead", "false"))

_TOKEN: Final = "UPWELL_GIT_TOKEN"
_USERNAME: Final = "UPWELL_GIT_USERNAME"
_HELPER: Final = f'!f() {{ test "$1" = get && echo "username=${_USERNAME}" && echo "password=${_TOKEN}"; }}; f'
"""Tells git the token, which it finds in its environment: in no argument, and in no file."""

_SLOW_BYTES_A_SECOND: Final = "1000"
_SLOW_SECONDS: Final = "60"
"""A server that sends less for so long is given up."""


class Access(NamedTuple):
    """How a repository is reached: with which protocols, and whose token."""

    protocols: str
    origin: str = ""
    username: str = ""
    token: str = ""

    def settings(self) -> tuple[tuple[str, str], ...]:
        """Those by which git finds the token, for the server that it is for and no other; nobody else keeps it."""
        name = f"credential.{self.origin}.helper"
        return ((name, ""), (name, _HELPER)) if self.token else ()


def access_to(step: GitClone) -> Access:
    """How the repository of a step is reached from here.

    Raises:
        SourceError: the variable that is to hold its token is not set.
    """
    protocol = protocol_of(step.repository)
    protocols = "https:ssh" if protocol in ("https", "ssh") else f"https:ssh:{protocol}"
    if step.access_token_variable is None:
        return Access(protocols)
    token = os.environ.get(step.access_token_variable, "").strip()
    if not token:
        raise SourceError(
            f"The token of {step.repository} is to be in the environment variable {step.access_token_variable}, which "
            "is not set where this worker runs."
        )
    parts = urlsplit(step.repository)
    return Access(protocols, f"{parts.scheme}://{parts.netloc}", step.username, token)


async def git(*arguments: str, folder: Path, access: Access, timeout_seconds: float) -> str:
    """What git says to this.

    Raises:
        GitFailed: it says no. SourceError: it is not installed, or did not end in time.
    """
    ended = await _ended(arguments, folder, access, timeout_seconds)
    if ended.status:
        raise GitFailed(_shown(ended.err, access))
    return ended.out.strip()


class GitFailed(Exception):
    """Git says no; the message is what it says, without secrets."""


async def _ended(arguments: tuple[str, ...], folder: Path, access: Access, timeout_seconds: float) -> Ended:
    env = _environment(access)
    try:
        return await run_program(["git", *arguments], folder=folder, env=env, timeout_seconds=timeout_seconds)
    except SourceError as error:
        if str(error).startswith("There is no git "):
            raise SourceError("Git is not installed here: install it where workers run, or in their image.") from None
        raise


def _environment(access: Access) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name not in _OF_ANOTHER_REPOSITORY}
    env |= {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "GCM_INTERACTIVE": "never",
        "GIT_ALLOW_PROTOCOL": access.protocols,
        "GIT_HTTP_LOW_SPEED_LIMIT": _SLOW_BYTES_A_SECOND,
        "GIT_HTTP_LOW_SPEED_TIME": _SLOW_SECONDS,
        "LC_ALL": "C",
    }
    if "GIT_SSH" not in env:
        env.setdefault("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=30")
    if access.token:
        env |= {_USERNAME: access.username, _TOKEN: access.token}
    return _with_settings(env, (*_SETTINGS, *access.settings()))


def _with_settings(env: dict[str, str], settings: Sequence[tuple[str, str]]) -> dict[str, str]:
    """As `git -c` does it, but seen by nobody who looks at the list of processes."""
    first = int(env.get("GIT_CONFIG_COUNT") or 0)
    for number, (name, value) in enumerate(settings, first):
        env |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    env["GIT_CONFIG_COUNT"] = str(first + len(settings))
    return env


_NOISE: Final = re.compile(r"^(?:fatal|error|remote): *", re.MULTILINE)


def _shown(said: str, access: Access) -> str:
    """What git says, for people."""
    text = without_user(_NOISE.sub("", said)).strip()
    if access.token:
        text = text.replace(access.token, "***")
    return "; ".join(line.strip() for line in text.splitlines() if line.strip()) or "git says nothing about it"
