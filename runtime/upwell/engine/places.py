"""Where the code of a function is found again by another process: its module's name, or its file's path."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Final

LOADED_FROM_FILE: Final = "upwell_file_"
"""What the names of modules begin with that were loaded from a file to which no import leads."""


def place_of(fn: Callable[..., Any]) -> str:
    """`package.module`; `/path/to/script.py` where no import leads to it; `__main__` where there is no file."""
    name = getattr(fn, "__module__", None) or ""
    module = sys.modules.get(name)
    file: str | None = getattr(module, "__file__", None)
    spec = getattr(module, "__spec__", None)
    if name == "__main__" and spec is not None:  # `python -m package.module`
        return str(spec.name)
    if file is not None and (name == "__main__" or name.startswith(LOADED_FROM_FILE)):
        return os.path.abspath(file)
    return name
