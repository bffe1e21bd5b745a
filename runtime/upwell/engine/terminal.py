"""The terminal that everybody writes to: what stands at its bottom (a progress bar), and text above it."""

from __future__ import annotations

import os
import threading
from typing import Protocol, TextIO

LOCK = threading.RLock()
"""Held while anything is written. Nobody calls code of others, nor logs, while holding it."""


class Foot(Protocol):
    """Lines that stay at the bottom of the terminal."""

    def erase(self) -> None:
        """Take the lines away; the cursor is then where they began."""

    def draw(self) -> None:
        """Write the lines again."""


_foot: Foot | None = None


def set_foot(foot: Foot | None) -> None:
    """From now on this stands at the bottom of the terminal; nothing, if None."""
    global _foot
    _foot = foot


def has_foot() -> bool:
    """Whether something stands at the bottom of the terminal."""
    return _foot is not None


def print_above(stream: TextIO, text: str) -> None:
    """Write whole lines to a stream; above what stands at the bottom, if the stream is the terminal."""
    with LOCK:
        foot = _foot if _foot is not None and is_terminal(stream) else None
        if foot is not None:
            foot.erase()
        try:
            stream.write(text)
            stream.flush()
        finally:
            if foot is not None:
                foot.draw()


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream shows at once what is written, to a person."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def is_capable(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal that understands cursor moves and colours."""
    return is_terminal(stream) and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def _forget() -> None:
    """A forked child has none of the threads that may have held the lock."""
    global LOCK, _foot
    LOCK = threading.RLock()  # pyright: ignore[reportConstantRedefinition]  # once, in a process of its own
    _foot = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
