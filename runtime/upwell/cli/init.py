"""`upwell init`: an upwell.yaml for a folder."""

from __future__ import annotations

from pathlib import Path

from upwell.cli.group import group
from upwell.cli.output import say

app = group(
    "init",
    "upwell init",
    "upwell init flows --name weather",
)


@app.default
def write_project(folder: Path | None = None, /, *, name: str | None = None) -> None:
    """Write an upwell.yaml, with a deployment for each flow that stands in a file of the folder.

    Args:
        folder: The folder; this one unless said.
        name: The name of the project; the folder's unless said.
    """
    from upwell.project import init_project

    file = init_project(folder, name)
    say(f"{file} is written. `upwell deploy` makes its deployments.")
