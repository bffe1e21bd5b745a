"""`upwell version`: the versions of what is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from cyclopts import App

from upwell import __version__
from upwell.cli.output import Output, examples, show_fields

app = App(name="version", help_epilogue=examples("upwell version", "upwell version -o json"))

_WITH = ("msgspec", "litestar", "uvicorn", "asyncpg", "docker")


@app.default
def show_versions(*, output: Output = "table") -> None:
    """The versions of what is installed."""
    import platform
    import sqlite3

    fields = {
        "upwell": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "sqlite": sqlite3.sqlite_version,
        **{name: _version_of(name) for name in _WITH},
    }
    show_fields(fields, fields, output)


def _version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
