"""What is answered without cyclopts, which takes longer to load than all else: pages of commands, the versions."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from upwell.cli.commands import ABOUT, COMMANDS, EPILOGUE, HELP, OPTIONS, home_of


def is_answered(words: Sequence[str]) -> bool:
    """Whether it was one of the few questions in which there is nothing to be parsed; then it is answered."""
    match list(words):
        case ["--version"]:
            from upwell import __version__

            sys.stdout.write(f"{__version__}\n")
        case ["version"]:
            from upwell.cli.versions import show_versions

            show_versions("table")
        case _:
            page = _page([word for word in words if word not in HELP])
            if page is None:
                return False
            from upwell.cli.help_pages import help_page  # here, as below: a command does without

            sys.stdout.write(help_page(*page))
    return True


class _Page(NamedTuple):
    """What is said on it; see `help_page`."""

    command: str
    about: str
    boxes: Mapping[str, Mapping[str, str]]
    end: str


def _page(names: Sequence[str]) -> _Page | None:
    """The page of all commands, or of a group; None where these are the names of none."""
    if not names:
        return _Page("upwell", ABOUT, {**COMMANDS, "Options": OPTIONS}, EPILOGUE)
    summaries = {name: summary for commands in COMMANDS.values() for name, summary in commands.items()}
    if names[0] not in summaries:
        return None
    from upwell.cli.group import Elsewhere, Group, load

    found, summary = load(home_of(names[0])), summaries[names[0]]
    for name in names[1:]:
        member = found.commands.get(name)
        if isinstance(member, Elsewhere):
            found, summary = load(member.home), member.summary
        elif isinstance(member, Group):
            found, summary = member, member.summary
        else:
            return None
    if found.only is not None:
        return None
    commands = {name: member.summary for name, member in sorted(found.commands.items())}
    return _Page(" ".join(["upwell", *names]), summary, {"Commands": commands}, found.epilogue)
