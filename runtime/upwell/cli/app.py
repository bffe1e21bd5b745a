"""The commands, as cyclopts has them: each is loaded when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from inspect import cleandoc
from typing import Any

from cyclopts import App, CycloptsError, Group, Parameter

from upwell import __version__
from upwell.cli.commands import ABOUT, ALIASES, COMMANDS, EPILOGUE, HELP, MODULES
from upwell.cli.exits import FAILED, MISUSED
from upwell.cli.front import front_page
from upwell.cli.help_pages import help_page
from upwell.cli.output import UsageError, complain, note
from upwell.core.errors import UpwellError


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
        group = Group(title, sort_key=order)
        for place, (name, summary) in enumerate(commands.items()):
            home = MODULES.get(name, f"{name.replace('-', '_')}:app")
            app.command(f"upwell.cli.{home}", name=name, help=summary, group=group, sort_key=place)
    return app


def _default_text(default: object) -> str | None:
    """How help shows a default: not at all where it is nothing."""
    return None if str(default) in ("()", "False", "None") else str(default)


def run_command(tokens: Sequence[str]) -> int:
    """Run one command; returns its exit code."""
    words = [*(ALIASES.get(name, name) for name in tokens[:1]), *tokens[1:]]
    try:
        if (page := _page_of_group(words)) is not None:
            sys.stdout.write(page)
            return 0
        code: Any = make_app()(words)
    except CycloptsError as error:  # it has said what it did not understand
        note(f"`{' '.join(['upwell', *(error.command_chain or ()), HELP[0]])}` says more.")
        return MISUSED
    except UsageError as error:
        complain(str(error))
        return MISUSED
    except UpwellError as error:
        complain(str(error))
        return FAILED
    return code if isinstance(code, int) else 0


def _page_of_group(words: Sequence[str]) -> str | None:
    """The page of a group that stands there alone, or with --help; None where it is something else that is asked."""
    names = [word for word in words if word not in HELP]
    app = make_app()
    for name in names:
        if name.startswith("-") or name not in app:
            return None
        app = app[name]
    if app.default_command is not None:
        return None
    if not names:
        return front_page()
    commands = {name: _summary(app[name]) for name in sorted(app) if not name.startswith("-")}
    return help_page(" ".join(["upwell", *names]), app.help, {"Commands": commands}, str(app.help_epilogue))


def _summary(command: App) -> str:
    """The first paragraph of what is said of a command."""
    return cleandoc(command.help).partition("\n\n")[0]
