"""How many processes there is room for: those that are made ready before they are needed must not crowd others out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

PROCESS_BYTES: Final = 8 << 20
"""What a process that waits for its job has to itself: 6 MB were seen, and something for the user's code."""

SHARE: Final = 4
"""One part in so many of the memory that is free may be taken for them."""

GROUP: Final = Path("/sys/fs/cgroup")
"""Where the system says what this group of processes may take, as in a container."""


def room_for_processes() -> int:
    """How many may be made ready now."""
    return min(_free_in_machine(), _free_in_group()) // SHARE // PROCESS_BYTES


def _free_in_machine() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # as on macOS, where children are not forked either
        return 0


def _free_in_group() -> int:
    """What the group may still take; a great number where nothing is said."""
    try:
        most, now = ((GROUP / name).read_text("ascii") for name in ("memory.max", "memory.current"))
        return max(int(most) - int(now), 0)
    except (OSError, ValueError):  # there is no such group, or it may take what it wants
        return 1 << 62
