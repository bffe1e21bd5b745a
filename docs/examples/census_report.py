"""What the census prints: tables and a bar chart, in colour where rich is installed, else as plain text."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from census import Census

WIDTH = min(shutil.get_terminal_size((110, 24)).columns, 110)
BAR = max(WIDTH - 76, 8)  # characters of the longest bar
EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
MOST = 12  # lines of a list

Rows = Iterable[Sequence[str]]


def show(census: Census) -> None:
    """Print all of it."""
    print()
    modules = census.modules.values()
    functions = sum(module.functions for module in modules)
    totals = {
        "files": len(modules),
        "lines": sum(module.lines for module in modules),
        "functions": functions,
        "coroutines": sum(module.coroutines for module in modules),
        "classes": sum(module.classes for module in modules),
        "decorators": sum(module.decorators for module in modules),
    }
    hinted = f"{sum(module.hinted for module in modules) / max(functions, 1):.1%}"
    version = ".".join(map(str, sys.version_info[:3]))
    table(
        f"The standard library of Python {version}",
        [*totals, "functions with type hints"],
        [[*(f"{count:,}" for count in totals.values()), hinted]],
    )
    table("Its biggest packages", ["package", "", "lines", "files", "to import"], packages(census))
    imports = Counter(name for module in modules for name in module.imports)
    table("Imported by most files", ["module", "", "files"], bars(imports.most_common(8)))
    longest = sorted(((*module.longest, name) for name, module in census.modules.items()), reverse=True)[:5]
    table("Longest functions", ["function", "in", "lines"], [[f, name, f"{n:,}"] for n, f, name in longest])
    if census.slowest:
        table("Slowest tasks", ["task run", "seconds"], [[name, f"{s:.2f}"] for s, name in census.slowest])
    if census.failed:
        title = f"{len(census.failed)} files failed, each with its own error"
        table(title, ["file", "line", "why"], failed(census))
    print(f"{census.task_runs:,} task runs in {census.seconds:.1f} seconds, {census.cached:,} found in the cache.")


def packages(census: Census) -> Rows:
    lines, files = Counter[str](), Counter[str]()
    for name, module in census.modules.items():
        package = name.partition("/")[0]
        lines[package] += module.lines
        files[package] += 1
    for row in bars((name, lines[name]) for name in census.import_seconds):
        cost = census.import_seconds[row[0]]
        shown = f"{cost * 1000:.0f} ms" if isinstance(cost, float) else shorten(str(cost).rpartition(": ")[2])
        yield *row, f"{files[row[0]]:,}", shown


def bars(counts: Iterable[tuple[str, int]]) -> Rows:
    counts = list(counts)
    most = max((count for _, count in counts), default=1)
    for name, count in counts:
        whole, part = divmod(max(round(count / most * BAR * 8), 1), 8)
        yield name, "█" * whole + EIGHTHS[part], f"{count:,}"


def failed(census: Census) -> Rows:
    for name, error in sorted(census.failed.items(), key=lambda item: item[0])[:MOST]:
        text = getattr(error, "msg", None) or str(error)
        line = getattr(error, "lineno", None)
        why = f"{type(error).__name__}: {text.partition(' for ')[0].partition('. ')[0]}"
        yield shorten(name, 40), str(line or ""), shorten(why, WIDTH - 54)
    if len(census.failed) > MOST:
        yield f"and {len(census.failed) - MOST} more", "", ""


def shorten(text: str, width: int = 28) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def table(title: str, columns: Sequence[str], rows: Rows) -> None:
    """One table; columns whose cells are all numbers stand to the right."""
    rows = [list(row) for row in rows]
    to_the_right = [all(row[i][:1].isdigit() or not row[i] for row in rows) for i in range(len(columns))]
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
        print(f"\n{title}")
        for row in [columns, *rows]:
            cells = zip(row, widths, to_the_right, strict=True)
            print("  " + "  ".join(c.rjust(w) if right else c.ljust(w) for c, w, right in cells).rstrip())
        return
    drawn = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for i, column in enumerate(columns):
        style = "cyan" if column == "" else "red" if column == "why" else None
        drawn.add_column(column, justify="right" if to_the_right[i] else "left", style=style, no_wrap=True)
    for row in rows:
        drawn.add_row(*row)
    Console(width=WIDTH, highlight=False, markup=False).print(drawn)
