"""Draws tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Cell = tuple[str, str]
"""Its text, which is never markup, and its style."""

_WHOLE: Final = {"id", "state", "created", "took", "next", "since", "when"}
"""Columns that are never broken; others go on in the next line where there is no room."""

_LEFT_OUT: Final = ("id", "took", "decay a second", "since", "created")
"""Columns that are left out, the first one first, where there is no room for all."""

_FOLDED: Final = 24
"""So much room is enough for a column that goes on in the next line."""

_GAP: Final = 2


def draw(titles: Sequence[str] | None, rows: Sequence[Sequence[Cell]]) -> None:
    """A table; without titles, a line for each row, of which the first cell says what it is about."""
    console = Console(highlight=False)
    if titles is None:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        shown: Sequence[int] = range(2)
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
        shown = _with_room(titles, rows, console.width)
        for title in (titles[place] for place in shown):
            whole = title in _WHOLE
            word = max(map(len, title.split()), default=0)
            table.add_column(title, overflow="ellipsis" if whole else "fold", no_wrap=whole, min_width=word)
    for row in rows:
        table.add_row(*(Text(*row[place]) for place in shown))
    console.print(table)


def _with_room(titles: Sequence[str], rows: Sequence[Sequence[Cell]], room: int) -> Sequence[int]:
    """The columns for which a line has room, as far as others can be left out for that."""
    widths: list[int] = []
    for place, title in enumerate(titles):
        longest = max(len(line) for row in rows for line in row[place][0].split("\n"))
        widths.append(max(len(title), longest if title in _WHOLE else min(longest, _FOLDED)))
    shown = list(range(len(titles)))
    for title in _LEFT_OUT:
        if sum(widths[place] + _GAP for place in shown) - _GAP > room and title in titles:
            shown.remove(titles.index(title))
    return shown
