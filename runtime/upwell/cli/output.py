"""What commands print: tables for people, JSON for programs, complaints."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

if TYPE_CHECKING:
    from upwell.cli.options import Format

T = TypeVar("T")

Column: TypeAlias = tuple[str, Callable[[T], object]]
"""Its title, and what stands in it."""

_COLORS: Final = {
    "COMPLETED": "green",
    "RUNNING": "blue",
    "FAILED": "red",
    "CRASHED": "dark_orange3",
    "CANCELLED": "bright_black",
    "CANCELLING": "bright_black",
    "SCHEDULED": "yellow",
    "PENDING": "bright_black",
    "PAUSED": "magenta",
}


class UsageError(Exception):
    """The arguments of a command do not go together; exit code 2."""


def say(text: str) -> None:
    """A line for whoever asked."""
    sys.stdout.write(f"{printable(text)}\n")


def hand_over() -> None:
    """Let be read what was said until now.

    Raises:
        BrokenPipeError: nobody reads any more; also where nothing was said since, which only a pipe itself can tell.
    """
    import select  # here: only who follows a run says more later

    sys.stdout.flush()
    if hasattr(select, "poll"):
        pipe = select.poll()
        with suppress(OSError):  # it has no number: a test reads it
            pipe.register(sys.stdout.fileno(), 0)
        if any(seen & select.POLLERR for _, seen in pipe.poll(0)):
            raise BrokenPipeError


def note(text: str) -> None:
    """A line beside what was asked for, where no program reads it."""
    sys.stderr.write(f"{printable(text)}\n")


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
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:  # Ctrl-D
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise UsageError("Nothing was done.")


# --- JSON ---------------------------------------------------------------------------------------------------


def say_json(value: object) -> None:
    """As indented JSON; what JSON has no word for is a text."""
    import msgspec  # here: most commands have loaded it, and help needs none

    encoded = msgspec.json.encode(value, enc_hook=_as_text, order="deterministic")
    text = msgspec.json.format(encoded, indent=2).decode()
    if not text.isascii() and (sys.stdout.encoding or "utf-8").lower() != "utf-8":  # which may lack what is in it
        import json  # here: few need it

        text = json.dumps(json.loads(text), indent=2)
    say(text)


def _as_text(value: object) -> object:
    return sorted(value) if isinstance(value, frozenset) else repr(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # any set


# --- tables -------------------------------------------------------------------------------------------------


def show(records: Iterable[T], columns: Sequence[Column[T]], output: Format, *, none: str = "") -> None:
    """Many of a kind. none: what to say, beside an empty answer, if there are none."""
    records = list(records)
    if output == "json":
        say_json(records)
    elif not records:
        note(none or "There is none.")
    else:
        _say_table([title for title, _ in columns], [[of(record) for _, of in columns] for record in records])


def show_fields(record: object, fields: Mapping[str, object], output: Format) -> None:
    """One thing: its fields, a line each; those that are not set are left out. As JSON: the record."""
    if output == "json":
        say_json(record)
        return
    said = {name: value for name, value in fields.items() if value not in (None, "", (), [], {}, frozenset())}
    _say_table(None, [[name, value] for name, value in said.items()])


def _say_table(titles: list[str] | None, rows: list[list[object]]) -> None:
    """On a terminal as rich draws it, else in columns that programs can read: nothing is cut off or broken there."""
    if sys.stdout.isatty():
        from upwell.cli.tables import draw  # here: rich takes a third of the time of a short command

        draw(titles, [[(_short(value) if titles else cell(value), _style(value)) for value in row] for row in rows])
        return
    texts = [[" ".join(cell(value).split("\n")) for value in row] for row in rows]
    texts = [[title.upper().replace(" ", "-") for title in titles], *texts] if titles else texts
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        say("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def cell(value: object) -> str:
    """What stands in a table."""
    if isinstance(value, str):
        return printable(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dt.datetime):
        return moment_text(value)
    if isinstance(value, tuple | list | frozenset):
        return ", ".join(sorted(map(str, value)))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # of anything
    if isinstance(value, dict):
        return compact_json(value)  # pyright: ignore[reportUnknownArgumentType]  # of anything
    from upwell.core.states import State  # here, as below: `upwell version` needs none

    return value.name if isinstance(value, State) else printable(str(value))


def _short(value: object) -> str:
    """The same where there is little room: of a moment of today the time, of others day and minute."""
    if not isinstance(value, dt.datetime):
        return cell(value)
    from upwell.engine.clock import clock, moment

    here = value.astimezone()
    return here.strftime("%H:%M:%S" if here.date() == moment(clock().time()).astimezone().date() else "%b %d %H:%M")


def _style(value: object) -> str:
    from upwell.core.states import State

    return _COLORS.get(value.type.value, "") if isinstance(value, State) else ""


def compact_json(value: object) -> str:
    """On one line."""
    import msgspec

    return msgspec.json.encode(value, enc_hook=_as_text).decode()


def printable(text: str) -> str:
    """Without what would steer a terminal: names and messages may be anybody's."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def moment_text(when: dt.datetime | None) -> str:
    """In the time zone of the machine, to the second."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S") if when else ""


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
