"""The versions of what is installed, found without loading any of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from upwell import __version__
from upwell.cli.output import show_fields

if TYPE_CHECKING:
    from upwell.cli.options import Format

_WITH = ("msgspec", "litestar", "uvicorn", "asyncpg", "docker")


def show_versions(output: Format) -> None:
    """Print them."""
    import platform
    import sqlite3

    installed = dict(_distributions())
    machine = platform.uname()  # `platform.platform` starts a process
    fields = {
        "upwell": __version__,
        "python": platform.python_version(),
        "platform": f"{machine.system} {machine.release} {machine.machine}",
        "sqlite": sqlite3.sqlite_version,
        **{name: installed.get(name, "not installed") for name in _WITH},
    }
    show_fields(fields, fields, output)


def _distributions() -> Iterator[tuple[str, str]]:
    """The name and version of each, as the name of its folder says: to import `importlib.metadata` takes as long as
    all else here."""
    for place in reversed(sys.path):  # what comes first there counts
        for folder in Path(place).glob("*.dist-info"):
            name, _, version = folder.stem.partition("-")
            yield name, version
