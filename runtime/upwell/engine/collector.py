"""The garbage collector, while very many objects are made at once that all stay: it would walk them again and again."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def nothing_collected() -> Generator[None]:
    """No collection inside; for a moment in which no code of the user's runs, and no garbage is made."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
