"""How much of the processors' time somebody else had: a hypervisor that gives it to other machines says so."""

from __future__ import annotations

from pathlib import Path
from typing import Final

WORTH_SAYING: Final = 0.02
"""From this share on the times of a benchmark are in doubt; ratios hold longer, since both sides are robbed."""

_STAT: Final = Path("/proc/stat")
_STOLEN: Final = 7  # the place of what was stolen, among the times of all processors together


class Stolen:
    """Counts from when it was made."""

    def __init__(self) -> None:
        self._before = _times()

    def share(self) -> float:
        """What part of the time since was stolen; 0 where nobody says."""
        spent = [now - before for now, before in zip(_times(), self._before, strict=True)]
        return spent[_STOLEN] / sum(spent) if sum(spent) else 0.0


def said(share: float) -> str:
    """In words; nothing where it is not worth them."""
    if share < WORTH_SAYING:
        return ""
    return f"The hypervisor gave {share:.0%} of the processors' time to other machines meanwhile."


def _times() -> list[int]:
    """What all processors together have spent on each of eight kinds of work, in ticks."""
    try:
        return [int(ticks) for ticks in _STAT.read_text("ascii").split("\n", 1)[0].split()[1:9]]
    except OSError:  # another system
        return [0] * 8
