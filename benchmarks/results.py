"""Results kept as JSON, with the versions and the kind of machine they hold for; and their table."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.harness import Result, Spread

FOLDER: Final = Path(__file__).parent / "results"
LOCAL: Final = FOLDER / "local"
"""Results of quick and of partial runs: to look at, not to keep."""

_COLUMNS: Final = (
    ("row", 19, "<"),
    ("loop", 8, "<"),
    ("size", 10, ">"),
    ("unit", 8, "<"),
    ("upwell", 9, ">"),
    ("beside", 38, "<"),
    ("its", 9, ">"),
    ("ratio", 7, ">"),
    ("quartiles", 19, "<"),
    ("peak MiB", 12, ">"),
    ("target", 8, ">"),
    ("met", 4, "<"),
)


class Machine(msgspec.Struct, frozen=True):
    """What the figures depend on; nothing that tells whose machine it is."""

    python: str
    system: str
    processor: str
    cores: int
    versions: dict[str, str]


class Report(msgspec.Struct, frozen=True):
    """One use of the command: what was asked for, when, on what, and what came out.

    stolen: see `stolen.Stolen`.
    """

    date: str
    command: str
    machine: Machine
    results: list[Result]
    stolen: float = 0.0


def machine() -> Machine:
    """This one."""
    return Machine(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        cores=os.cpu_count() or 1,
        versions={name: version(name) for name in ("upwell", "uvloop", "msgspec", "numpy")},
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def report(
    arguments: Sequence[str],
    results: list[Result],
    stolen: float = 0.0,
    module: str = "benchmarks",
    packages: Sequence[str] = (),
) -> Report:
    """What is kept of these results; `packages` are rivals as pip names them (`dask==1.0`)."""
    command = " ".join(["python", "-m", module, *arguments])
    here = machine()
    for package in packages:
        name, _, number = package.partition("==")
        here.versions[name] = number
    return Report(datetime.now(UTC).date().isoformat(), command, here, results, stolen)


def save(found: Report, folder: Path) -> Path:
    """Write it to a file named by day and kind of machine; the latest of a day stays."""
    folder.mkdir(parents=True, exist_ok=True)
    python = found.machine.python.lower().replace(" ", "")
    path = folder / f"{found.date}-{python}-{found.machine.cores}cores.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    return path


def load(path: Path) -> Report:
    return msgspec.json.decode(path.read_bytes(), type=Report)


def newest(folder: Path = FOLDER) -> Path:
    """The latest results.

    Raises:
        FileNotFoundError: there are none yet.
    """
    found = sorted(folder.glob("*.json"), key=lambda path: path.name[:10])
    if not found:
        raise FileNotFoundError(f"no results in {folder.name}/ yet: run `python -m benchmarks`")
    return found[-1]


def table(results: Iterable[Result]) -> str:
    """A table in Markdown, aligned for the terminal too."""
    return "\n".join([*header(), *(line(result) for result in results)])


def header() -> list[str]:
    rule = "|".join("-" * (width + 1) + (":" if side == ">" else "-") for _, width, side in _COLUMNS)
    return [_joined([name for name, _, _ in _COLUMNS]), f"|{rule}|"]


def line(result: Result) -> str:
    """One result as a line of the table."""
    ratio = result.ratio
    peaks = [peak for peak in (result.ours_peak, result.theirs_peak) if peak is not None]
    reached = {True: "yes", False: "NO", None: ""}[result.met]
    return _joined(
        [
            result.row,
            result.loop,
            f"{result.size:,}",
            result.unit,
            _number(result.ours.median),
            result.rival or "",
            _number(result.theirs.median) if result.theirs else "",
            _number(ratio.median) if ratio else "",
            _between(ratio or result.ours) if result.rounds > 1 else "",
            " / ".join(f"{peak:.0f}" for peak in peaks),
            "" if result.most is None else f"<= {_number(result.most)}",
            reached,
        ]
    )


def _joined(cells: Sequence[str]) -> str:
    padded = (f"{cell:{side}{width}}" for cell, (_, width, side) in zip(cells, _COLUMNS, strict=True))
    return "| " + " | ".join(padded) + " |"


def _number(number: float) -> str:
    """Three digits that matter; of what is very small, one or two."""
    if 0 < abs(number) < 0.001:
        return f"{number:.6f}"
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _between(spread: Spread) -> str:
    return f"{_number(spread.low)}-{_number(spread.high)}"
