"""What is answered before cyclopts is loaded, which takes longer than all else: the front page, the versions."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from upwell.cli.commands import ABOUT, COMMANDS, EPILOGUE, HELP, OPTIONS
from upwell.cli.help_pages import help_page


def is_answered(words: Sequence[str]) -> bool:
    """Whether it was one of the few questions in which there is nothing to be parsed; then it is answered."""
    match list(words):
        case []:
            sys.stdout.write(front_page())
        case [word] if word in HELP:
            sys.stdout.write(front_page())
        case ["--version"]:
            from upwell import __version__

            sys.stdout.write(f"{__version__}\n")
        case ["version"]:
            from upwell.cli.versions import show_versions

            show_versions("table")
        case _:
            return False
    return True


def front_page() -> str:
    """What `upwell --help` says."""
    return help_page("upwell", ABOUT, {**COMMANDS, "Options": OPTIONS}, EPILOGUE)
