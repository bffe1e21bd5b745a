"""What commands print: tables for people, JSON for programs, complaints."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias, TypeVar

from cyclopts import Parameter

from upwell.core.states import State, StateType

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

Format: TypeAlias = Literal["table", "json"]
Output: TypeAlias = Annotated[Format, Parameter(name=("--output", "-o"), help="table or json.", show_choices=False)]
Yes: TypeAlias = Annotated[bool, Parameter(name=("--yes", "-y"), negative=(), help="Do not ask.")]
Column: TypeAlias = tuple[str, Callable[[T], object]]
"""Its title, and what stands in it."""

WIDE: Final = 10_000
"""Columns of what is no terminal: nothing is cut off that a program may read."""

_COLORS: Final = {
    StateType.COMPLETED: "green",
    StateType.RUNNING: "blue",
    StateType.FAILED: "red",
    StateType.CRASHED: "dark_orange3",
    StateType.CANCELLED: "bright_black",
    StateType.CANCELLING: "bright_black",
    StateType.SCHEDULED: "yellow",
    StateType.PENDING: "bright_black",
    StateType.PAUSED: "magenta",
}


class UsageError(Exception):
    """The arguments of a command do not go together; exit code 2."""


def console(*, stderr: bool = False) -> Console:
    """Where to print; what is no terminal is as wide as a line is long."""
    from rich.console import Console

    file = sys.stderr if stderr else sys.stdout
    return Console(file=file, width=None if file.isatty() else WIDE, highlight=False, soft_wrap=False)


def _print(renderable: object) -> None:
    screen = console()
    if screen.is_terminal:
        screen.print(renderable)
        return
    with screen.capture() as captured:
        screen.print(renderable)
    for line in captured.get().splitlines():
        say(line.rstrip())


def say(text: str) -> None:
    """A line for whoever asked."""
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """A line beside what was asked for, where no program reads it."""
    sys.stderr.write(f"{text}\n")


def complain(text: str) -> None:
    """Why it was not done."""
    note(f"Error: {text}")


def confirm(question: str, yes: bool) -> None:
    """Ask, unless it is said already.

    Raises:
        UsageError: nobody can be asked, or the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody is there to be asked: say --yes.")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise UsageError("Nothing was done.")


# --- JSON ---------------------------------------------------------------------------------------------------


def say_json(value: object) -> None:
    """As indented JSON; what JSON has no word for is a text."""
    import msgspec  # here: most commands have loaded it, and help needs none

    encoded = msgspec.json.encode(value, enc_hook=_as_text, order="deterministic")
    say(msgspec.json.format(encoded, indent=2).decode())


def _as_text(value: object) -> object:
    return sorted(value) if isinstance(value, frozenset) else repr(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # any set


# --- tables -------------------------------------------------------------------------------------------------


def show(records: Iterable[T], columns: Sequence[Column[T]], output: Format, *, none: str = "") -> None:
    """Many of a kind. none: what to say, beside an empty answer, if there are none."""
    records = list(records)
    if output == "json":
        say_json(records)
        return
    if not records:
        note(none or "There is none.")
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title, _ in columns:
        table.add_column(title, overflow="fold", no_wrap=title == "id")
    for record in records:
        table.add_row(*(cell(of(record)) for _, of in columns))
    _print(table)


def show_fields(record: object, fields: Mapping[str, object], output: Format) -> None:
    """One thing: its fields, a line each; those that are not set are left out. As JSON: the record."""
    if output == "json":
        say_json(record)
        return
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        if value not in (None, "", (), [], {}, frozenset()):
            table.add_row(name, cell(value))
    _print(table)


def cell(value: object) -> Any:
    """What stands in a table: text of others is never markup."""
    from rich.text import Text

    if isinstance(value, State):
        return Text(value.name, style=_COLORS.get(value.type, ""))
    if isinstance(value, dt.datetime):
        return Text(moment_text(value))
    if value is None:
        return Text("")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, tuple | list | frozenset):
        return Text(", ".join(sorted(map(str, value))))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # of anything
    if isinstance(value, dict):
        return Text(compact_json(value))  # pyright: ignore[reportUnknownArgumentType]  # of anything
    return Text(_printable(str(value)))


def compact_json(value: object) -> str:
    """On one line."""
    import msgspec

    return msgspec.json.encode(value, enc_hook=_as_text).decode()


def _printable(text: str) -> str:
    """Without what would steer a terminal: names and messages may be anybody's."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def moment_text(moment: dt.datetime | None) -> str:
    """In the time zone of the machine, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else ""


def span_text(seconds: float | None) -> str:
    """A span of time in one or two units."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, name, part, smaller in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            rest = whole % unit // part
            return f"{whole // unit} {name}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def size_text(size: float) -> str:
    """Bytes, in the unit that fits."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"
