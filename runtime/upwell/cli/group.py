"""What each group of commands, and each command that is none of a group, is made of.

Kept here as plain records, so that a page that lists commands needs no cyclopts; `app.py` hands them over to it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, overload

F = TypeVar("F", bound=Callable[..., Any])

MOST_COLUMNS: Final = 76
"""That an example has, behind four blanks."""


class Command(NamedTuple):
    """A command. epilogue: the end of its help. reads: it only does that; see `reading.py`."""

    function: Callable[..., Any]
    epilogue: str = ""
    reads: bool = False

    @property
    def summary(self) -> str:
        """The first paragraph of what is said of it."""
        return " ".join((self.function.__doc__ or "").partition("\n\n")[0].split())


class Elsewhere(NamedTuple):
    """A group in a module of its own, loaded when one of its commands is asked for. home: see `load`."""

    home: str
    summary: str


class Group:
    """A group without commands yet, or what is to be one command. epilogue: the end of its help."""

    def __init__(self, name: str, summary: str, epilogue: str) -> None:
        self.name = name
        self.summary = summary
        self.epilogue = epilogue
        self.commands: dict[str, Member] = {}
        self.only: Command | None = None
        """What it is, where it is one command."""

    @overload
    def command(self, function: F, /) -> F: ...
    @overload
    def command(self, /, *, name: str | None = None, epilogue: str = "", reads: bool = False) -> Callable[[F], F]: ...
    def command(
        self, function: F | None = None, /, *, name: str | None = None, epilogue: str = "", reads: bool = False
    ) -> F | Callable[[F], F]:
        """Make a function one of its commands, of this name or its own."""

        def add(function: F) -> F:
            self.commands[name or function.__name__.replace("_", "-")] = Command(function, epilogue, reads)
            return function

        return add if function is None else add(function)

    def default(self, function: F, /) -> F:
        """Make a function what it is."""
        self.only = Command(function)
        return function

    def add(self, name: str, member: Group | Elsewhere) -> None:
        """Make a group a part of it."""
        self.commands[name] = member


Member: TypeAlias = Command | Group | Elsewhere


def group(name: str, *commands: str, more: str = "", help: str = "") -> Group:  # noqa: A002  # as cyclopts calls it
    """A group without commands yet, or what is to be one command.

    Args:
        commands: examples, at the end of its help.
        more: what stands below them.
        help: what it is, unless `commands.py` or a docstring says it.
    """
    return Group(name, help, examples(*commands, more=more))


def examples(*commands: str, more: str = "") -> str:
    """What stands at the end of a command's help."""
    lines = "\n".join(f"    {_in_lines(command)}" for command in commands)
    return f"Examples:\n\n{lines}" + (f"\n\n{more}" if more else "")


def _in_lines(command: str) -> str:
    """So that it can be copied from a terminal of 80 columns."""
    if len(command) <= MOST_COLUMNS:
        return command
    cut = command.rindex(" --", 0, MOST_COLUMNS - 2)
    return f"{command[:cut]} \\\n        {command[cut + 1 :]}"


def load(home: str) -> Group:
    """A group. home: a module of this package, and the name of the group in it: `flow_run.app`."""
    module, _, name = home.partition(".")
    found: Group = getattr(import_module(f"upwell.cli.{module}"), name)
    return found
