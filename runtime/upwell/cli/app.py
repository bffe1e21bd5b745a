"""The commands, as cyclopts has them: each is loaded when it is asked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, get_type_hints

from cyclopts import App, CycloptsError, Parameter
from cyclopts import Group as Box

from upwell import __version__
from upwell.cli import options
from upwell.cli.commands import ABOUT, COMMANDS, EPILOGUE, HELP, home_of
from upwell.cli.exits import MISUSED
from upwell.cli.group import Command, Elsewhere, Group, load
from upwell.cli.output import note
from upwell.cli.reading import reading

LEAST_COLUMNS: Final = 20
"""In which help is written: in a terminal of one or two, cyclopts would look for room for ever."""


@cache
def make_app() -> App:
    """The command line, with no group of it loaded."""
    app = App(
        name="upwell",
        help=ABOUT,
        help_epilogue=EPILOGUE,
        help_format="plaintext",
        version=__version__,
        default_parameter=Parameter(negative=(), show_default=_default_text),
        result_action="return_value",
        exit_on_error=False,
        suppress_keyboard_interrupt=False,
    )
    for order, (title, commands) in enumerate(COMMANDS.items()):
        box = Box(title, sort_key=order)
        for place, (name, summary) in enumerate(commands.items()):
            app.command(_path(home_of(name)), name=name, help=summary, group=box, sort_key=place)
    return app


def _path(home: str) -> str:
    """Where cyclopts finds a group when it wants it: here, by the attribute below."""
    return f"{__name__}:{home}"


def __getattr__(home: str) -> App:
    if "." not in home:
        raise AttributeError(home)
    return _as_cyclopts_has(load(home))


def _as_cyclopts_has(group: Group) -> App:
    app = App(name=group.name, help=group.summary or None, help_epilogue=group.epilogue, version_flags=())
    if group.only is not None:
        app.default(_function_of(group.only))
    for name, member in group.commands.items():
        if isinstance(member, Group):
            app.command(_as_cyclopts_has(member))
        elif isinstance(member, Elsewhere):
            app.command(_path(member.home), name=name, help=member.summary)
        else:
            more = {"help_epilogue": member.epilogue} if member.epilogue else {}
            app.command(_function_of(member), name=name, **more)
    return app


def _function_of(command: Command) -> Callable[..., Any]:
    """The function with its annotations looked up, those of `options.py` among them; its module does not load that."""
    function = command.function
    known = {**vars(options), **getattr(function, "__globals__", {})}
    function.__annotations__ = get_type_hints(function, known, include_extras=True)
    return reading(function) if command.reads else function


def _default_text(default: object) -> str | None:
    """How help shows a default: not at all where it is nothing."""
    return None if str(default) in ("()", "False", "None") else str(default)


def call(words: Sequence[str]) -> object:
    """Carry out the command that these words say; what it returns."""
    try:
        return make_app()(words, **_wide_enough())
    except CycloptsError as error:  # it has said what it did not understand
        note(f"`{' '.join(['upwell', *(error.command_chain or ()), HELP[0]])}` says more.")
        return MISUSED


def _wide_enough() -> dict[str, Any]:
    """What cyclopts is to write to, where it would be too narrow for it."""
    told = os.environ.get("COLUMNS", "")
    columns = int(told) if told.isdecimal() else shutil.get_terminal_size().columns
    if columns >= LEAST_COLUMNS:
        return {}
    from rich.console import Console

    return {"console": Console(width=LEAST_COLUMNS), "error_console": Console(width=LEAST_COLUMNS, stderr=True)}
