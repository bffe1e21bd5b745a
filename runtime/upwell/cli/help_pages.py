"""The pages of help that list commands, drawn as cyclopts would, but without rich: to load that takes as long again."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from itertools import chain, repeat
from textwrap import wrap


def help_page(command: str, about: str, boxes: Mapping[str, Mapping[str, str]], end: str) -> str:
    """A page, as wide as the terminal.

    Args:
        about: what stands first.
        boxes: by their title: names, and what each does.
        end: what stands last.
    """
    width = shutil.get_terminal_size().columns
    lines = [
        f"Usage: {command} COMMAND",
        "",
        *wrap(about, width),
        "",
        *chain.from_iterable(_box(title, rows, width) for title, rows in boxes.items()),
        "",
        *chain.from_iterable([line] if line[:1] in ("", " ") else wrap(line, width) for line in end.split("\n")),
        "",
    ]
    return "\n".join(lines)


def _box(title: str, rows: Mapping[str, str], width: int) -> Iterator[str]:
    names = max(map(len, rows))
    room = max(width - names - 6, 10)
    cyan, plain = ("\x1b[36m", "\x1b[0m") if _in_colors() else ("", "")
    yield f"╭─ {title} ".ljust(width - 1, "─") + "╮"
    for name, summary in rows.items():
        for first, text in zip(chain([name], repeat("")), wrap(summary, room, break_on_hyphens=False), strict=False):
            yield f"│ {cyan}{first:<{names}}{plain}  {text:<{room}} │"
    yield "╰".ljust(width - 1, "─") + "╯"


def _in_colors() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
