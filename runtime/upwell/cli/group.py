"""What each group of commands, and each command that is none of a group, is made of."""

from __future__ import annotations

from cyclopts import App


def group(name: str, *commands: str, more: str = "", help: str = "") -> App:  # noqa: A002  # as cyclopts calls it
    """A group without commands yet, or what is to be one command.

    Args:
        commands: examples, at the end of its help.
        more: what stands below them.
        help: what it is, unless `app.py` or a docstring says it.
    """
    return App(name=name, help=help or None, help_epilogue=examples(*commands, more=more), version_flags=())


def examples(*commands: str, more: str = "") -> str:
    """What stands at the end of a command's help."""
    lines = "\n".join(f"    {command}" for command in commands)
    return f"Examples:\n\n{lines}" + (f"\n\n{more}" if more else "")
