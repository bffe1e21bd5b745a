"""What is answered without cyclopts, which takes longer to load than all else: where there is nothing to be parsed.

So it is with pages of commands, and with a command that is named without any argument, such as `upwell flow-run ls`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from upwell.cli.commands import ABOUT, COMMANDS, EPILOGUE, HELP, OPTIONS, home_of
from upwell.cli.group import Command, Elsewhere, Group, load


def answer_to(words: Sequence[str]) -> Callable[[], object] | None:
    """What answers these words, if there is nothing in them to be parsed."""
    if list(words) == ["--version"]:
        return _say_version
    if list(words) == ["--profile"]:
        return _ask_for_a_profile
    names = [word for word in words if word not in HELP]
    if not names:
        page = _Page("upwell", ABOUT, {**COMMANDS, "Options": OPTIONS}, EPILOGUE)
        return page.say
    named = _named(names)
    if named is None:
        return None
    found, summary = named
    if isinstance(found, Command):
        return _alone(found) if len(names) == len(words) else None
    commands = {name: member.summary for name, member in sorted(found.commands.items())}
    return _Page(" ".join(["upwell", *names]), summary, {"Commands": commands}, found.epilogue).say


def _say_version() -> None:
    from upwell import __version__

    sys.stdout.write(f"{__version__}\n")


def _ask_for_a_profile() -> None:
    from upwell.cli.output import UsageError

    raise UsageError("--profile wants a name: `upwell profile ls` shows those that there are.")


class _Page(NamedTuple):
    """What is said on it; see `help_page`."""

    command: str
    about: str
    boxes: Mapping[str, Mapping[str, str]]
    end: str

    def say(self) -> None:
        from upwell.cli.help_pages import help_page  # here: a command does without

        sys.stdout.write(help_page(*self))


def _named(names: Sequence[str]) -> tuple[Group | Command, str] | None:
    """What has this name, and what that is for; None where nothing has it."""
    summaries = {name: summary for commands in COMMANDS.values() for name, summary in commands.items()}
    if names[0] not in summaries:
        return None
    found: Group | Command = load(home_of(names[0]))
    summary = summaries[names[0]]
    for name in names[1:]:
        member = found.commands.get(name) if isinstance(found, Group) else None
        if member is None:
            return None
        found, summary = load(member.home) if isinstance(member, Elsewhere) else member, member.summary
    if isinstance(found, Group) and found.only is not None:
        found = found.only
    return found, summary


def _alone(command: Command) -> Callable[[], object] | None:
    """The command, to be called with its defaults; None where it wants more than them."""
    function = command.function
    parameters = function.__code__.co_argcount + function.__code__.co_kwonlyargcount
    if parameters > len(function.__defaults__ or ()) + len(function.__kwdefaults__ or ()):
        return None
    if command.reads:
        from upwell.cli.reading import reading

        return reading(function)
    from inspect import iscoroutinefunction  # here, as it takes a while to load

    return (lambda: _on_a_loop(function)) if iscoroutinefunction(function) else function


def _on_a_loop(function: Callable[[], Any]) -> object:
    import asyncio

    return asyncio.run(function())
