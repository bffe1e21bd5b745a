"""`upwell version`: the versions of what is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upwell.cli.group import group
from upwell.cli.versions import show_versions

if TYPE_CHECKING:
    from upwell.cli.options import Output

app = group("version", "upwell version", "upwell version -o json")


@app.default
def version(*, output: Output = "table") -> None:
    """The versions of what is installed."""
    show_versions(output)
