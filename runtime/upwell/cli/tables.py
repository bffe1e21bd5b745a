"""Draws tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Cell = tuple[str, str]
"""Its text, which is never markup, and its style."""

_WHOLE = {"id", "state", "created", "took", "next", "since", "when"}
"""Columns that are never broken; others go on in the next line where there is no room."""


def draw(titles: Sequence[str] | None, rows: Sequence[Sequence[Cell]]) -> None:
    """A table; without titles, a line for each row, of which the first cell says what it is about."""
    if titles is None:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
        for title in titles:
            table.add_column(title, overflow="fold", no_wrap=title in _WHOLE)
    for row in rows:
        table.add_row(*(Text(text, style=style) for text, style in row))
    Console(highlight=False).print(table)
