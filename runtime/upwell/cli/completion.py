"""`upwell completion`: what a shell needs to complete commands and options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from upwell.cli.group import group
from upwell.cli.output import UsageError, say

app = group(
    "completion",
    "upwell completion --install",
    "upwell completion zsh > ~/.zfunc/_upwell",
)

Shell = Literal["bash", "zsh", "fish"]
_SHELLS: dict[str, Shell] = {"bash": "bash", "zsh": "zsh", "fish": "fish"}


@app.default
def print_completion(shell: Shell | None = None, /, *, install: bool = False) -> None:
    """Print the completion script for a shell.

    Args:
        shell: The shell; the one that you use unless said.
        install: Put it where the shell finds it, instead of printing it.
    """
    from upwell.cli.app import make_app

    wanted = shell or _SHELLS.get(Path(os.environ.get("SHELL", "")).name)
    if wanted is None:
        raise UsageError("Which shell? bash, zsh or fish: `upwell completion bash`.")
    if install:
        path = make_app().install_completion(shell=wanted)
        say(f"Completion for {wanted} is in {path}. It works in shells that you open from now on.")
    else:
        say(make_app().generate_completion(shell=wanted))
